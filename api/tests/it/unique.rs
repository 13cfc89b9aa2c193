//! Unique tasks, as both doors answer them. Which of several is the one is decided by the stores' own suite.

use axum::http::StatusCode;
use forebay_core::State;
use serde_json::{Value, json};

use crate::door::Door;

/// A submission that must be the only one with this key.
fn body(key: &str, on_conflict: &str) -> String {
    json!({"kind": "echo", "unique": {"key": key, "on_conflict": on_conflict}}).to_string()
}

#[tokio::test]
async fn the_task_that_is_under_way_stands_for_the_next() {
    let door = Door::new();
    let first = door.post_json("/v1/tasks", body("a", "return")).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert!(first.headers.get("unique-returned").is_none());
    let again = door.post_json("/v1/tasks", body("a", "return")).await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert_eq!(
        (again.id(), again.header("unique-returned")),
        (first.id(), "true")
    );
    assert_eq!(again.header("location"), format!("/v1/tasks/{}", first.id()));
    assert!(again.headers.get("idempotency-replayed").is_none());
    assert_eq!(door.fake.lock().published, 1);
    let other = door.post_json("/v1/tasks", body("b", "return")).await;
    assert_ne!(other.id(), first.id());
    door.fake
        .change(first.id(), State::Succeeded, "2026-03-01T12:00:01Z");
    let next = door.post_json("/v1/tasks", body("a", "return")).await;
    assert_ne!(next.id(), first.id());
    assert!(next.headers.get("unique-returned").is_none());
}

#[tokio::test]
async fn who_asks_for_it_is_refused() {
    let door = Door::new();
    let first = door.post_json("/v1/tasks", body("a", "return")).await;
    let refused = door.post_json("/v1/tasks", body("a", "reject")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (409, "unique_conflict")
    );
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&first.id().to_string()), "{detail}");
    assert_eq!(door.fake.lock().published, 1);
}

#[tokio::test]
async fn what_waits_is_replaced_and_what_runs_is_not() {
    let door = Door::new();
    let first = door.post_json("/v1/tasks", body("a", "replace")).await;
    let second = door.post_json("/v1/tasks", body("a", "replace")).await;
    assert_ne!(first.id(), second.id());
    assert_eq!(door.fake.lock().published, 2, "the recorder replaces it");
    door.fake
        .change(first.id(), State::Cancelled, "2026-03-01T12:00:01Z");
    door.fake
        .change(second.id(), State::Running, "2026-03-01T12:00:01Z");
    let refused = door.post_json("/v1/tasks", body("a", "replace")).await;
    assert_eq!(refused.code(), "unique_conflict");
    assert_eq!(door.fake.lock().published, 2);
}

/// With the store away it is accepted: the recorder decides, once the store is back.
#[tokio::test]
async fn with_the_store_away_the_recorder_decides() {
    let door = Door::new();
    door.post_json("/v1/tasks", body("a", "reject")).await;
    door.fake.lock().store = crate::fake::Mood::Down;
    let next = door.post_json("/v1/tasks", body("a", "reject")).await;
    assert_eq!(next.status, StatusCode::ACCEPTED);
    assert_eq!(door.fake.lock().published, 2);
}

#[tokio::test]
async fn an_idempotency_key_says_more_than_a_unique_one() {
    let door = Door::new();
    let key = [("idempotency-key", "k")];
    let first = door.post_with("/v1/tasks", &key, body("a", "reject")).await;
    let again = door.post_with("/v1/tasks", &key, body("a", "reject")).await;
    assert_eq!(
        (again.id(), again.header("idempotency-replayed")),
        (first.id(), "true")
    );
    let other = [("idempotency-key", "l")];
    let refused = door.post_with("/v1/tasks", &other, body("a", "reject")).await;
    assert_eq!(refused.code(), "unique_conflict");
}

#[tokio::test]
async fn the_items_of_a_batch_are_answered_each() {
    let door = Door::new();
    let first = door.post_json("/v1/tasks", body("a", "return")).await;
    let items: Vec<Value> = [body("a", "return"), body("a", "reject"), body("b", "reject")]
        .iter()
        .map(|item| serde_json::from_str(item).unwrap())
        .collect();
    let answer = door.post_json("/v1/tasks/batch", json!(items).to_string()).await;
    let results = answer.json()["results"].clone();
    assert_eq!(results[0]["id"], first.id().to_string());
    assert_eq!(results[1]["error"]["code"], "unique_conflict");
    assert_ne!(results[2]["id"], first.id().to_string());
    assert_eq!(door.fake.lock().published, 2);
}
