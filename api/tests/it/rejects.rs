//! What was set aside, for a person to look at.

use forebay_store::SetAside;
use serde_json::json;

use crate::door::Door;

fn reject(number: u8, body: &[u8]) -> SetAside {
    SetAside {
        rejected_at: "2026-03-01T11:00:00Z".parse().unwrap(),
        subject: format!("ready.default.{number}"),
        reason: "field id: must have 16 bytes".to_owned(),
        bytes: body.len() as u64,
        excerpt: body.to_vec().into(),
    }
}

#[tokio::test]
async fn they_are_shown_newest_first_as_text_or_base64() {
    let door = Door::new();
    assert_eq!(
        door.get("/v1/rejects").await.json(),
        json!({"count": 0, "rejects": []})
    );
    door.fake.lock().rejects = vec![
        reject(1, b"{\"kind\": 1}"),
        reject(2, b"\xff\x00"),
        reject(3, &[b'x'; 5_000]),
    ];
    let shown = door.get("/v1/rejects").await.json();
    assert_eq!(
        shown["rejects"][1],
        json!({
            "subject": "ready.default.2",
            "reason": "field id: must have 16 bytes",
            "rejected_at": "2026-03-01T11:00:00Z",
            "bytes": 2,
            "excerpt": "/wA=",
            "encoding": "base64",
        })
    );
    assert_eq!(shown["count"], 3);
    assert_eq!(shown["rejects"][2]["excerpt"], "{\"kind\": 1}");
    assert_eq!(shown["rejects"][2]["encoding"], "text");
    let long = &shown["rejects"][0];
    assert_eq!(
        (long["bytes"].as_u64(), long["excerpt"].as_str().unwrap().len()),
        (Some(5_000), 1_024)
    );
    let one = door.get("/v1/rejects?limit=1").await.json();
    assert_eq!(
        (one["count"].as_u64(), one["rejects"].as_array().unwrap().len()),
        (Some(3), 1)
    );
}

#[tokio::test]
async fn the_limit_has_limits() {
    let door = Door::new();
    for wrong in ["0", "101", "x", "-1"] {
        let answer = door.get(&format!("/v1/rejects?limit={wrong}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "invalid_parameter"),
            "{wrong}"
        );
    }
    assert_eq!(door.get("/v1/rejects?page=1").await.status, 400);
}
