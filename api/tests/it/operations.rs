//! Operations over HTTP.

use forebay_core::State;
use serde_json::json;

use crate::{
    door::{Answer, Door},
    fake::Mood,
};

const PATH: &str = "/v1/operations";

async fn begin(door: &Door, body: &str) -> Answer {
    door.post_json(PATH, body.to_owned()).await
}

/// A door with three failed tasks, and one that waits.
async fn with_failures() -> Door {
    let door = Door::new();
    for _ in 0..3 {
        let id = door.submit().await.id();
        door.fake.change(id, State::Failed, "2026-03-01T12:00:00Z");
    }
    door.submit().await;
    door
}

#[tokio::test]
async fn a_dry_run_counts_and_begins_nothing() {
    let door = with_failures().await;
    let answer = begin(
        &door,
        r#"{"action":"retry","filter":{"state":"failed"},"dry_run":true}"#,
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let counted = answer.json();
    assert_eq!(
        json!([counted["dry_run"], counted["count"], counted["count_is_exact"]]),
        json!([true, 3, true])
    );
    assert_eq!(counted["sample"].as_array().unwrap().len(), 3);
    assert!(door.fake.lock().operations.is_empty());
}

#[tokio::test]
async fn an_operation_is_begun_shown_and_aborted() {
    let door = with_failures().await;
    let body = r#"{"action":"retry","filter":{"queue":"default","error_contains":"no luck",
        "created_before":"2026-03-02T00:00:00+01:00"},"rate_per_second":5.0,"max":2}"#;
    let begun = begin(&door, body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let shown = begun.json();
    let id = shown["id"].as_str().unwrap().to_owned();
    assert_eq!(begun.header("location"), format!("{PATH}/{id}"));
    let filter = json!({"state": null, "project": null, "queue": "default", "kind": null, "tag": null, "batch": null,
        "created_after": null, "created_before": "2026-03-01T23:00:00Z", "error_contains": "no luck"});
    assert_eq!(
        shown,
        json!({"id": id, "action": "retry", "filter": filter, "state": "running", "rate_per_second": 5, "max": 2,
            "expected": 3, "expected_is_exact": true, "progress": {"matched": 0, "done": 0, "skipped": 0, "failed": 0},
            "created_at": "2026-03-01T12:00:00Z", "updated_at": "2026-03-01T12:00:00Z", "finished_at": null})
    );
    assert_eq!(door.get(&format!("{PATH}/{id}")).await.json(), shown);
    for _ in 0..2 {
        let aborted = door.post(&format!("{PATH}/{id}/abort")).await;
        assert_eq!(
            (aborted.status.as_u16(), &aborted.json()["state"]),
            (200, &json!("aborted"))
        );
    }
    door.fake
        .lock()
        .operations
        .get_mut(&id.parse().unwrap())
        .unwrap()
        .state = forebay_core::OperationState::Completed;
    let late = door.post(&format!("{PATH}/{id}/abort")).await;
    assert_eq!(late.code(), "state_conflict");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place() {
    let door = Door::new();
    for (body, code, pointers) in [
        ("", "malformed_json", vec![]),
        ("[]", "invalid_body", vec![""]),
        (r#"{"acton":"retry"}"#, "invalid_body", vec!["/acton"]),
        (
            r#"{"action":"retry","filter":{"stat":"failed"}}"#,
            "invalid_body",
            vec!["/filter/stat"],
        ),
        (
            r#"{"action":"retry","filter":["failed"]}"#,
            "invalid_body",
            vec!["/filter"],
        ),
        (
            r#"{"action":"retry","filter":{"state":"failed"},"max":1.5}"#,
            "invalid_body",
            vec!["/max"],
        ),
        (r#"{"action":"retry"}"#, "invalid_request", vec!["/filter"]),
        (
            r#"{"action":"retry","filter":{}}"#,
            "invalid_request",
            vec!["/filter"],
        ),
        (
            r#"{"filter":{"state":"failed"}}"#,
            "invalid_request",
            vec!["/action"],
        ),
        (
            r#"{"action":"cancel","filter":{"state":"failed"},"rate_per_second":2000,"max":0}"#,
            "invalid_request",
            vec!["/filter/state", "/rate_per_second", "/max"],
        ),
        (
            r#"{"action":"delete","filter":{"created_before":"yesterday","batch":"1"}}"#,
            "invalid_request",
            vec!["/filter/created_before", "/filter/batch"],
        ),
    ] {
        let refused = begin(&door, body).await;
        assert_eq!(refused.code(), code, "{body}");
        let problem = refused.json();
        let found: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(found, pointers, "{body}");
    }
    let plain = door.post_with(PATH, &[], "{}").await;
    assert_eq!(plain.code(), "invalid_request");
    assert_eq!(door.post(PATH).await.code(), "unsupported_media_type");
    assert!(door.fake.lock().operations.is_empty());
}

#[tokio::test]
async fn an_unknown_operation_is_not_found() {
    let door = Door::new();
    let unknown = format!("{PATH}/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d");
    assert_eq!(door.get(&unknown).await.code(), "operation_not_found");
    assert_eq!(
        door.post(&format!("{unknown}/abort")).await.code(),
        "operation_not_found"
    );
    assert_eq!(door.get(&format!("{PATH}/one")).await.code(), "invalid_parameter");
    door.fake.lock().store = Mood::Down;
    assert_eq!(door.get(&unknown).await.code(), "store_unavailable");
    let down = begin(&door, r#"{"action":"retry","filter":{"state":"failed"}}"#).await;
    assert_eq!(down.code(), "store_unavailable");
}

#[tokio::test]
async fn they_are_listed_the_latest_first_and_are_no_more_than_there_is_room_for() {
    let door = Door::new();
    let body = r#"{"action":"retry","filter":{"state":"failed"}}"#;
    for _ in 0..forebay_store::OPERATIONS_MAX {
        assert_eq!(begin(&door, body).await.status, 202);
    }
    let refused = begin(&door, body).await;
    assert_eq!(refused.code(), "overloaded");
    let (mut path, mut ids) = (format!("{PATH}?page_size=70"), Vec::new());
    loop {
        let page = door.get(&path).await;
        let body = page.json();
        let shown = body["operations"].as_array().unwrap();
        ids.extend(shown.iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        if body["next_page_token"].is_null() {
            break;
        }
        let link = page.header("link");
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        assert!(path.contains("page_size=70"), "{link}");
    }
    assert_eq!(ids.len(), forebay_store::OPERATIONS_MAX as usize);
    assert!(ids.is_sorted_by(|a, b| a > b));
    assert_eq!(
        door.get(&format!("{PATH}?page_token=AAAA")).await.code(),
        "invalid_page_token"
    );
}
