//! Webhooks over HTTP, which is the only door that has them.

use std::time::Duration;

use axum::body::Body;
use forebay_core::State;
use forebay_store::Webhooks;
use serde_json::{Value, json};

use crate::{
    door::{Answer, Door, request},
    fake::Mood,
};

const BILLING: &str = "/v1/webhooks/billing";
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDsV0a2gFxjPk=";

async fn call(door: &Door, method: &str, path: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    door.call(request(method, path, &headers, body.to_owned())).await
}

async fn put(door: &Door, body: &str) -> Answer {
    call(door, "PUT", BILLING, body).await
}

#[tokio::test]
async fn a_secret_that_was_made_is_shown_once() {
    let door = Door::new();
    let made = put(&door, r#"{"url":"https://example.com/hook"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut shown = made.json();
    let secret = shown.as_object_mut().unwrap().remove("secret").unwrap();
    assert!(secret.as_str().unwrap().starts_with("whsec_"), "{secret}");
    assert_eq!(
        shown,
        json!({
            "name": "billing", "url": "https://example.com/hook",
            "states": ["succeeded", "failed", "cancelled", "expired"], "include_result": false, "disabled": false,
            "disabled_reason": null, "failing_since": null, "previous_secret_until": null,
            "created_at": "2026-03-01T12:00:00Z", "updated_at": "2026-03-01T12:00:00Z",
        })
    );
    assert_eq!(door.get(BILLING).await.json(), shown);
    let again = put(&door, r#"{"url":"https://example.com/hook"}"#).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, shown.clone()));
    let listed = door.get("/v1/webhooks").await.json();
    assert_eq!(listed, json!({"webhooks": [shown], "next_page_token": null}));
    let name = "billing".parse().unwrap();
    assert_eq!(door.fake.lock().webhooks[&name].secret.expose(), secret);
}

#[tokio::test]
async fn a_secret_that_was_given_is_never_shown() {
    let door = Door::new();
    let body = json!({"url": "https://example.com/hook", "secret": SECRET, "states": ["failed"], "include_result": true});
    let made = put(&door, &body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.text.contains("whsec_"), "{}", made.text);
    assert_eq!(
        (&made.json()["states"], &made.json()["include_result"]),
        (&json!(["failed"]), &json!(true))
    );
    let other = json!({"url": "https://example.com/hook", "secret": SECRET.replace('C', "D")});
    let rotated = put(&door, &other.to_string()).await;
    assert!(!rotated.text.contains("whsec_"), "{}", rotated.text);
    assert_eq!(rotated.json()["previous_secret_until"], "2026-03-02T12:00:00Z");
}

#[tokio::test]
async fn what_is_wrong_is_told_where() {
    let door = Door::new();
    for (body, code, pointer) in [
        ("{", "malformed_json", None),
        ("[]", "invalid_body", Some("")),
        (r#"{"uri":"https://example.com"}"#, "invalid_body", Some("/uri")),
        (r#"{"url":5}"#, "invalid_body", Some("/url")),
        ("{}", "invalid_request", Some("/url")),
        (r#"{"url":"file:///etc/passwd"}"#, "invalid_request", Some("/url")),
        (
            r#"{"url":"https://example.com/\u0000"}"#,
            "invalid_request",
            Some("/url"),
        ),
        (
            r#"{"url":"https://u:p@example.com"}"#,
            "invalid_request",
            Some("/url"),
        ),
        (
            r#"{"url":"https://example.com","secret":"hunter2"}"#,
            "invalid_request",
            Some("/secret"),
        ),
        (
            r#"{"url":"https://example.com","states":["queued"]}"#,
            "invalid_request",
            Some("/states/0"),
        ),
        (
            r#"{"url":"https://example.com","disabled_reason":"x"}"#,
            "invalid_body",
            Some("/disabled_reason"),
        ),
    ] {
        let refused = put(&door, body).await;
        assert_eq!(refused.code(), code, "{body}");
        assert_eq!(refused.json()["errors"][0]["pointer"].as_str(), pointer, "{body}");
    }
    let plain = request("PUT", BILLING, &[("content-type", "text/plain")], "{}");
    assert_eq!(door.call(plain).await.code(), "unsupported_media_type");
    assert!(door.fake.lock().webhooks.is_empty());
    let refused = call(&door, "PUT", "/v1/webhooks/No!", "{}").await;
    assert_eq!(refused.code(), "invalid_parameter");
}

#[tokio::test]
async fn a_trial_is_a_delivery_that_is_listed() {
    let door = Door::new();
    put(&door, r#"{"url":"https://example.com"}"#).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let told = call(&door, "POST", "/v1/webhooks/billing/test", "").await;
        assert_eq!(told.status, 202, "{told:?}");
        assert_eq!(told.json()["more"], false);
        ids.insert(0, told.json()["deliveries"][0].clone());
    }
    let first = door.get("/v1/webhooks/billing/deliveries?page_size=2").await;
    let (link, first) = (first.header("link").to_owned(), first.json());
    let delivery = &first["deliveries"][0];
    assert_eq!(delivery["id"], ids[0]);
    assert_eq!(delivery["type"], "dev.forebay.webhook.test");
    assert_eq!(
        (&delivery["state"], &delivery["task_id"]),
        (&json!("scheduled"), &Value::Null)
    );
    assert_eq!(delivery["next_attempt_at"], "2026-03-01T12:00:00Z");
    let next = link.split(['<', '>']).nth(1).unwrap();
    let second = door.get(next).await.json();
    assert_eq!(second["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&second["deliveries"][0]["id"], &second["next_page_token"]),
        (&ids[2], &Value::Null)
    );
    let refused = door.get("/v1/webhooks/billing/deliveries?page_token=x").await;
    assert_eq!(refused.code(), "invalid_page_token");
}

#[tokio::test]
async fn a_replay_tells_why_it_does_not() {
    let door = Door::new();
    let replay = |body: String| {
        let door = &door;
        async move { call(door, "POST", "/v1/webhooks/billing/replay", &body).await }
    };
    let since = r#"{"since":"2026-03-01T00:00:00Z"}"#.to_owned();
    assert_eq!(replay(since.clone()).await.code(), "webhook_not_found");
    put(&door, r#"{"url":"https://example.com"}"#).await;
    let nothing = replay(since.clone()).await;
    assert_eq!(
        (nothing.status.as_u16(), nothing.json()),
        (202, json!({"deliveries": [], "more": false}))
    );
    let until = r#"{"since":"2026-03-01T00:00:00Z","until":"2026-03-02T00:00:00Z"}"#;
    assert_eq!(replay(until.to_owned()).await.status, 202);
    for (body, pointer) in [
        ("{}", ""),
        (r#"{"task":"x"}"#, "/task"),
        (r#"{"since":"yesterday"}"#, "/since"),
        (r#"{"since":"2026-03-01T00:00:00Z","until":"now"}"#, "/until"),
        (r#"{"task":"x","until":"2026-03-01T00:00:00Z"}"#, "/until"),
        (r#"{"task":"x","since":"2026-03-01T00:00:00Z"}"#, "/since"),
    ] {
        let refused = replay(body.to_owned()).await;
        assert_eq!(refused.code(), "invalid_request", "{body}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    let task = door
        .post_json("/v1/tasks", r#"{"kind":"echo","notify":["billing"]}"#)
        .await
        .id();
    door.fake.catch_up();
    let one = json!({"task": task.to_string()}).to_string();
    let early = replay(one.clone()).await;
    assert_eq!(
        (early.code(), early.json()["state"].clone()),
        ("state_conflict".into(), json!("queued"))
    );
    door.fake.change(task, State::Succeeded, "2026-03-01T12:00:01Z");
    assert_eq!(replay(one.clone()).await.status, 202);
    let other = door.post_json("/v1/tasks", r#"{"kind":"echo"}"#).await.id();
    door.fake.catch_up();
    door.fake.change(other, State::Succeeded, "2026-03-01T12:00:01Z");
    let not_its = replay(json!({"task": other.to_string()}).to_string()).await;
    assert_eq!(not_its.json()["errors"][0]["pointer"], "/task");
    put(&door, r#"{"url":"https://example.com","disabled":true}"#).await;
    assert_eq!(replay(one).await.code(), "webhook_disabled");
    assert_eq!(
        call(&door, "POST", "/v1/webhooks/billing/test", "").await.code(),
        "webhook_disabled"
    );
}

#[tokio::test]
async fn since_when_one_fails_is_shown_until_it_is_put_anew() {
    let door = Door::new();
    put(&door, r#"{"url":"https://example.com"}"#).await;
    let name = "billing".parse().unwrap();
    for is_disabled in [false, true] {
        let noting = door
            .fake
            .note_failing(&name, "https://example.com", Duration::ZERO, "failing");
        assert_eq!(noting.await.unwrap(), is_disabled);
        let shown = door.get(BILLING).await.json();
        assert_eq!(shown["failing_since"], "2026-03-01T12:00:00Z");
        assert_eq!(shown["disabled"], is_disabled);
    }
    assert_eq!(door.get(BILLING).await.json()["disabled_reason"], "failing");
    let enabled = put(&door, r#"{"url":"https://example.com"}"#).await.json();
    assert_eq!(
        (
            &enabled["disabled"],
            &enabled["disabled_reason"],
            &enabled["failing_since"]
        ),
        (&json!(false), &Value::Null, &Value::Null)
    );
    let mine = put(&door, r#"{"url":"https://example.com","failing_since":null}"#).await;
    assert_eq!(mine.code(), "invalid_body", "nobody says so but deliveries");
}

#[tokio::test]
async fn a_deleted_one_is_gone() {
    let door = Door::new();
    put(&door, r#"{"url":"https://example.com"}"#).await;
    let deleted = door.call(request("DELETE", BILLING, &[], Body::empty())).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for (method, path) in [
        ("GET", BILLING),
        ("DELETE", BILLING),
        ("POST", "/v1/webhooks/billing/test"),
        ("GET", "/v1/webhooks/billing/deliveries"),
    ] {
        let refused = call(&door, method, path, "").await;
        assert_eq!(refused.code(), "webhook_not_found", "{method} {path}");
    }
}

#[tokio::test]
async fn a_task_names_only_webhooks_that_are_there_as_far_as_is_known() {
    let door = Door::new();
    put(&door, r#"{"url":"https://example.com"}"#).await;
    let accepted = door
        .post_json("/v1/tasks", r#"{"kind":"echo","notify":["billing"]}"#)
        .await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let body = r#"{"kind":"echo","notify":["billing","nobody"]}"#;
    let refused = door.post_json("/v1/tasks", body).await;
    assert_eq!(refused.code(), "invalid_request");
    let error = &refused.json()["errors"][0];
    assert_eq!(
        *error,
        json!({"pointer": "/notify/1", "detail": "there is no webhook nobody"})
    );
    let batch = call(
        &door,
        "POST",
        "/v1/tasks/batch",
        &format!(r#"[{body},{{"kind":"echo"}}]"#),
    )
    .await;
    let results = batch.json()["results"].clone();
    assert_eq!(results[0]["error"]["code"], "invalid_request", "{results}");
    assert!(results[1]["id"].is_string(), "{results}");
    door.fake.lock().store = Mood::Down;
    assert_eq!(
        door.post_json("/v1/tasks", body).await.status,
        202,
        "acceptance depends on the broker alone"
    );
}

#[tokio::test]
async fn what_forebay_submits_itself_nobody_else_does() {
    let door = Door::new();
    let refused = door
        .post_json(
            "/v1/tasks",
            r#"{"kind":"forebay.webhook","queue":"forebay-webhooks"}"#,
        )
        .await;
    assert_eq!(refused.code(), "invalid_request");
    let errors = refused.json()["errors"].clone();
    assert_eq!(
        (&errors[0]["pointer"], &errors[1]["pointer"]),
        (&json!("/kind"), &json!("/queue"))
    );
}
