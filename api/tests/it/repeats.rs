//! Requests that are repeated under their idempotency keys: they are answered by what was accepted, whatever the rules say by
//! then. To be refused they would be sent again under another key, and run twice.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    door::{Answer, Door, eventually, request},
    real::House,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const BILLING: &str = "/v1/webhooks/billing";

async fn change(door: &Door, method: &str, path: &str, body: &str) {
    let answer = door.call(request(method, path, &[JSON], body.to_owned())).await;
    assert!(answer.status.is_success(), "{answer:?}");
}

/// From now on nothing of this is accepted any more.
async fn change_the_rules(door: &Door) {
    change(door, "DELETE", BILLING, "").await;
    let schema = r#"{"schema":{"type":"object"},"mode":"enforce"}"#;
    change(door, "PUT", "/v1/kinds/echo/schema", schema).await;
    door.clock.set("2026-03-01T12:05:00Z");
}

fn body() -> Value {
    json!({"kind": "echo", "payload": 1, "notify": ["billing"], "expires_at": "2026-03-01T12:01:00Z"})
}

async fn a_door_with_a_webhook() -> Door {
    let door = Door::new();
    change(&door, "PUT", BILLING, r#"{"url":"https://example.com/hook"}"#).await;
    door
}

#[tokio::test]
async fn a_task_is_not_judged_anew() {
    let door = a_door_with_a_webhook().await;
    let post = async |key: &str| {
        let key = [("idempotency-key", key)];
        door.post_with("/v1/tasks", &key, body().to_string()).await
    };
    let first = post("k").await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    change_the_rules(&door).await;
    let again = post("k").await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (StatusCode::ACCEPTED, "true"),
        "{again:?}"
    );
    assert_eq!(again.id(), first.id());
    let new = post("l").await;
    assert_eq!(new.code(), "invalid_request");
    let pointers: Vec<Value> = new.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].clone())
        .collect();
    assert_eq!(pointers, ["/notify/0", "/expires_at"]);
    assert_eq!(door.fake.lock().published, 1);
}

/// What could not be read is not what was said before, even if the rest is.
#[tokio::test]
async fn a_mistake_is_no_repeat() {
    let door = Door::new();
    let key = [("idempotency-key", "k")];
    let first = door.post_with("/v1/tasks", &key, r#"{"kind":"echo"}"#).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let other = door
        .post_with("/v1/tasks", &key, r#"{"kind":"echo","run_at":"soon"}"#)
        .await;
    assert_eq!(other.code(), "invalid_request");
}

#[tokio::test]
async fn nor_is_one_of_many() {
    let door = a_door_with_a_webhook().await;
    let with_key = |key: &str| {
        let mut item = body();
        item["idempotency_key"] = json!(key);
        item
    };
    let post = async |items: Vec<Value>| {
        let answer = door.post_json("/v1/tasks/batch", json!(items).to_string()).await;
        answer.json()["results"].clone()
    };
    let first = post(vec![with_key("k")]).await;
    change_the_rules(&door).await;
    let again = post(vec![with_key("l"), with_key("k")]).await;
    assert_eq!(again[1]["id"], first[0]["id"], "{first} {again}");
    assert_eq!(again[0]["error"]["code"], "invalid_request");
    assert_eq!(door.fake.lock().published, 1);
}

#[tokio::test]
async fn nor_is_a_batch() {
    let door = a_door_with_a_webhook().await;
    let batch = json!({"tasks": [body()], "on_complete": body()}).to_string();
    let post = async |key: &str| {
        let key = [("idempotency-key", key)];
        door.post_with("/v1/batches", &key, batch.clone()).await
    };
    let first = post("k").await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    change_the_rules(&door).await;
    let again = post("k").await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (StatusCode::ACCEPTED, "true"),
        "{again:?}"
    );
    assert_eq!(again.json()["task_ids"], first.json()["task_ids"]);
    assert_eq!(post("l").await.code(), "invalid_request");
}

/// Against a real store, since it is the one that knows what was added.
#[tokio::test]
async fn nor_is_what_is_added_to_one() {
    let house = House::new().await;
    let ask = async |method: &str, path: &str, key: &str, body: &Value| -> Answer {
        let headers = [JSON, ("idempotency-key", key)];
        crate::door::call(&house.router, request(method, path, &headers, body.to_string())).await
    };
    let webhook = json!({"url": "https://example.com/hook"});
    assert_eq!(ask("PUT", BILLING, "-", &webhook).await.status, 201);
    let batch = ask("POST", "/v1/batches", "k", &json!({"open": true})).await;
    let tasks = format!("/v1/batches/{}/tasks", batch.id());
    let soon = now() + 1_000;
    let more = json!({"tasks": [{"kind": "echo", "notify": ["billing"], "expires_at": shown(soon)}]});
    let first = ask("POST", &tasks, "part", &more).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    assert_eq!(ask("DELETE", BILLING, "-", &json!(null)).await.status, 204);
    eventually("it expires", async || now() > soon).await;
    let again = ask("POST", &tasks, "part", &more).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
    assert_eq!(again.json()["task_ids"], first.json()["task_ids"]);
    assert_eq!(again.json()["total"], 1);
    assert_eq!(
        ask("POST", &tasks, "other", &more).await.code(),
        "invalid_request"
    );
}

fn now() -> i64 {
    forebay_core::Clock::now(&forebay_core::SystemClock).as_millisecond()
}

fn shown(millis: i64) -> String {
    forebay_core::from_unix_micros(millis * 1_000).to_string()
}

/// What has ended and is not kept any more does not run again.
#[tokio::test]
async fn nothing_of_a_complete_batch_is_submitted_again() {
    let door = Door::new();
    let post = async || {
        let body = r#"{"tasks":[{"kind":"echo"},{"kind":"echo"}]}"#;
        door.post_with("/v1/batches", &[("idempotency-key", "k")], body)
            .await
    };
    let first = post().await;
    {
        let mut inner = door.fake.lock();
        for batch in inner.kept_batches.values_mut() {
            batch.completed_at = Some(batch.created_at);
        }
        inner.tasks.clear();
    }
    let again = post().await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
    assert_eq!(again.json()["task_ids"], first.json()["task_ids"]);
    assert_eq!(door.fake.lock().published, 2);
}
