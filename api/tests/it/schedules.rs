//! Schedules over HTTP: what only this door has. What both have is in `doors`.

use axum::body::Body;
use forebay_core::{TaskId, TimeZone};
use serde_json::{Value, json};

use crate::door::{Answer, Door, request};

const NIGHTLY: &str = "/v1/schedules/nightly";

async fn put(door: &Door, path: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    door.call(request("PUT", path, &headers, body.to_owned())).await
}

async fn delete(door: &Door, path: &str) -> Answer {
    door.call(request("DELETE", path, &[], Body::empty())).await
}

#[tokio::test]
async fn what_nobody_said_is_filled_in() {
    let door = Door::new();
    let body = r#"{"cron":"0 3 * * *","task":{"kind":"report"}}"#;
    let made = put(&door, NIGHTLY, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let shown = json!({
        "name": "nightly", "cron": "0 3 * * *", "time_zone": "UTC",
        "task": {"kind": "report", "queue": "default", "project": "default", "priority": "default", "payload": null,
            "tags": [], "max_attempts": null, "timeout_seconds": null, "heartbeat_timeout_seconds": null, "retry": null,
            "limit_key": null, "notify": []},
        "overlap": "skip", "catch_up_seconds": 60.0, "jitter_seconds": 0.0, "paused": false,
        "next": ["2026-03-02T03:00:00Z", "2026-03-03T03:00:00Z", "2026-03-04T03:00:00Z", "2026-03-05T03:00:00Z",
            "2026-03-06T03:00:00Z"],
        "last_tick": null, "last_task_id": null,
        "created_at": "2026-03-01T12:00:00Z", "updated_at": "2026-03-01T12:00:00Z",
    });
    assert_eq!(made.json(), shown);
    assert_eq!(door.get(NIGHTLY).await.json(), shown);
    let listed = door.get("/v1/schedules").await.json();
    assert_eq!(listed, json!({"schedules": [shown], "next_page_token": null}));
}

#[tokio::test]
async fn one_of_an_unknown_zone_is_not_resumed() {
    let door = Door::new();
    let body = r#"{"cron":"0 3 * * *","paused":true,"task":{"kind":"report"}}"#;
    put(&door, NIGHTLY, body).await;
    let name = "nightly".parse().unwrap();
    let strange = TimeZone::kept("Mars/Olympus_Mons");
    door.fake.lock().schedules.get_mut(&name).unwrap().time_zone = strange;
    let refused = door.post(&format!("{NIGHTLY}/resume")).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text.contains("Mars/Olympus_Mons"), "{refused:?}");
    assert_eq!(door.get(NIGHTLY).await.json()["paused"], json!(true));
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_a_change_keeps_what_has_been() {
    let door = Door::new();
    let body = r#"{"cron":"0 3 * * *","time_zone":"Europe/Berlin","task":{"kind":"report","payload":{"b":1,"a":2}}}"#;
    let made = put(&door, NIGHTLY, body).await;
    let tick = "2026-03-01T02:00:00Z".parse().unwrap();
    let task = TaskId::new(tick, &[7; 10]);
    let name = "nightly".parse().unwrap();
    door.fake.lock().schedules.get_mut(&name).unwrap().last_tick = Some((tick, task));

    door.clock.set("2026-03-01T13:00:00Z");
    let again = put(&door, NIGHTLY, body).await;
    assert_eq!(again.status, 200, "{again:?}");
    let mut expected = made.json();
    expected["last_tick"] = json!("2026-03-01T02:00:00Z");
    expected["last_task_id"] = json!(task.to_string());
    assert_eq!(again.json(), expected);
    assert!(
        again.text.contains(r#""payload":{"b":1,"a":2}"#),
        "{}",
        again.text
    );

    let paused = body.replacen('{', r#"{"paused":true,"#, 1);
    let changed = put(&door, NIGHTLY, &paused).await;
    assert_eq!(changed.status, 200);
    expected["paused"] = json!(true);
    expected["next"] = json!([]);
    expected["updated_at"] = json!("2026-03-01T13:00:00Z");
    assert_eq!(changed.json(), expected);

    let deleted = delete(&door, NIGHTLY).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    assert_eq!(put(&door, NIGHTLY, body).await.status, 201);
    assert_eq!(door.get(NIGHTLY).await.json()["last_tick"], Value::Null);
}

#[tokio::test]
async fn it_rests_until_it_is_resumed_and_nothing_else_changes() {
    let door = Door::new();
    let body = r#"{"cron":"0 3 * * *","jitter_seconds":5,"task":{"kind":"report","payload":{"b":1,"a":2}}}"#;
    let made = put(&door, NIGHTLY, body).await.json();
    let post = async |verb: &str| {
        let path = format!("{NIGHTLY}/{verb}");
        door.call(request("POST", &path, &[], Body::empty())).await
    };
    let paused = post("pause").await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let mut expected = made.clone();
    expected["paused"] = json!(true);
    expected["next"] = json!([]);
    assert_eq!(paused.json(), expected);
    assert_eq!(post("pause").await.json(), expected, "twice is as once");
    assert_eq!(door.get(NIGHTLY).await.json(), expected);
    assert_eq!(post("resume").await.json(), made);
    let unknown = door.call(request("POST", "/v1/schedules/none/pause", &[], Body::empty()));
    assert_eq!(unknown.await.code(), "schedule_not_found");
}

#[tokio::test]
async fn a_page_of_large_ones_is_short_and_leads_to_the_rest() {
    let door = Door::new();
    let payload = "x".repeat(250 * 1024);
    for number in 10..30 {
        let body = format!(r#"{{"cron":"* * * * *","task":{{"kind":"echo","payload":"{payload}"}}}}"#);
        let made = put(&door, &format!("/v1/schedules/{number}"), &body).await;
        assert_eq!(made.status, 201);
    }
    let first = door.get("/v1/schedules").await;
    assert!(first.text.len() < 4 * 1024 * 1024, "{}", first.text.len());
    let token = first.json()["next_page_token"].as_str().unwrap().to_owned();
    let rest = door
        .get(&format!("/v1/schedules?page_token={token}"))
        .await
        .json();
    let shown = |page: &Value| page["schedules"].as_array().unwrap().len();
    assert_eq!((shown(&first.json()), shown(&rest)), (13, 7));
    assert_eq!(rest["next_page_token"], Value::Null);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_where() {
    let door = Door::new();
    for (body, code, pointer) in [
        ("", "malformed_json", None),
        (r#"{"cron":"#, "malformed_json", None),
        ("[]", "invalid_body", Some("")),
        (r#"["0 3 * * *"]"#, "invalid_body", Some("")),
        (r#"{"cron":5}"#, "invalid_body", Some("/cron")),
        (r#"{"crom":"0 3 * * *"}"#, "invalid_body", Some("/crom")),
        (
            r#"{"cron":"0 3 * * *","task":["report"]}"#,
            "invalid_body",
            Some("/task"),
        ),
        (
            r#"{"cron":"0 3 * * *","task":{"kind":5}}"#,
            "invalid_body",
            Some("/task/kind"),
        ),
        (
            r#"{"cron":"0 3 * * *","task":{"kynd":"report"}}"#,
            "invalid_body",
            Some("/task/kynd"),
        ),
        (
            r#"{"cron":"0 3 * * *","paused":"yes"}"#,
            "invalid_body",
            Some("/paused"),
        ),
        (
            r#"{"cron":"0 3 * * *","jitter_seconds":"5s"}"#,
            "invalid_body",
            Some("/jitter_seconds"),
        ),
        // What is shown and can't be said.
        (r#"{"cron":"0 3 * * *","next":[]}"#, "invalid_body", Some("/next")),
    ] {
        let refused = put(&door, NIGHTLY, body).await;
        assert_eq!(refused.code(), code, "{body}");
        let found = refused.json();
        assert_eq!(found["errors"][0]["pointer"].as_str(), pointer, "{body}: {found}");
    }
    let told = put(&door, NIGHTLY, "[]").await.json();
    assert!(
        told["detail"]
            .as_str()
            .unwrap()
            .starts_with("a schedule must be a JSON object")
    );
    let plain = request("PUT", NIGHTLY, &[("content-type", "text/plain")], "{}");
    assert_eq!(door.call(plain).await.code(), "unsupported_media_type");
    assert!(door.fake.lock().schedules.is_empty());
}

#[tokio::test]
async fn a_page_leads_to_the_next() {
    let door = Door::new();
    for name in ["c", "a", "b"] {
        let path = format!("/v1/schedules/{name}");
        let made = put(&door, &path, r#"{"cron":"* * * * *","task":{"kind":"echo"}}"#).await;
        assert_eq!(made.status, 201);
    }
    let (mut path, mut names) = ("/v1/schedules?page_size=2".to_owned(), Vec::new());
    loop {
        let page = door.get(&path).await;
        let body = page.json();
        let shown = body["schedules"].as_array().unwrap();
        names.extend(shown.iter().map(|schedule| schedule["name"].clone()));
        let link = page.header("link");
        if body["next_page_token"].is_null() {
            assert_eq!(link, "");
            break;
        }
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        assert!(path.contains("page_size=2"), "{link}");
    }
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn parameters_that_are_not_known_are_refused() {
    let door = Door::new();
    put(&door, NIGHTLY, r#"{"cron":"* * * * *","task":{"kind":"echo"}}"#).await;
    for path in [
        "/v1/schedules?upcoming=3",
        "/v1/schedules?page_size=many",
        "/v1/schedules/nightly?next=3",
        "/v1/schedules/nightly?upcoming=-1",
        "/v1/schedules/nightly?upcoming=some",
        "/v1/schedules/nightly?upcoming=1&upcoming=2",
        "/v1/schedules/Nightly",
    ] {
        assert_eq!(door.get(path).await.code(), "invalid_parameter", "{path}");
    }
    assert_eq!(
        delete(&door, "/v1/schedules/nightly?force=1").await.code(),
        "invalid_parameter"
    );
    let wrong = put(&door, "/v1/schedules/nightly?dry=1", "{}").await;
    assert_eq!(wrong.code(), "invalid_parameter");
    assert_eq!(door.fake.lock().schedules.len(), 1);
}

#[tokio::test]
async fn its_webhooks_must_exist() {
    let door = Door::new();
    let body = r#"{"cron":"0 3 * * *","task":{"kind":"report","notify":["billing"]}}"#;
    let refused = put(&door, NIGHTLY, body).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(refused.json()["errors"][0]["pointer"], "/task/notify/0");
    put(
        &door,
        "/v1/webhooks/billing",
        r#"{"url":"https://example.com/hook"}"#,
    )
    .await;
    assert_eq!(put(&door, NIGHTLY, body).await.status, 201);
}
