//! `POST /v1/tasks`.

use std::time::Duration;

use axum::http::StatusCode;
use forebay_core::{Signal, State};
use serde_json::json;

use crate::{
    door::{Door, eventually},
    fake::Mood,
};

#[tokio::test]
async fn answers_with_the_task_and_where_it_is() {
    let door = Door::new();
    let answer = door
        .post_json(
            "/v1/tasks",
            r#"{"kind":"thumb","queue":"images","priority":"high","payload":{"b":1.0,"a":"\u0000"},"tags":["x"],
                "max_attempts":3.0,"timeout_seconds":2.5,"project":"shop"}"#,
        )
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.id();
    assert_eq!(answer.header("location"), format!("/v1/tasks/{id}"));
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(
        answer.text.contains(r#""payload":{"b":1.0,"a":"\u0000"}"#),
        "kept as it came: {}",
        answer.text
    );
    assert_eq!(
        answer.json(),
        json!({
            "id": id.to_string(), "project": "shop", "kind": "thumb", "queue": "images", "state": "queued",
            "priority": "high", "payload": {"b": 1.0, "a": "\0"}, "result": null, "error": null, "attempt": 0,
            "max_attempts": 3, "progress": null, "tags": ["x"], "run_at": null,
            "created_at": "2026-03-01T12:00:00Z", "started_at": null, "finished_at": null,
            "timeout_seconds": 2.5, "worker": null, "errors": [], "log": null, "cancel_requested": false,
            "expires_at": null, "heartbeat_timeout_seconds": null, "retry": null, "limit_key": null, "unique": null,
            "after": [], "on_dependency_failure": null, "notify": [], "batch": null,
        })
    );
    let read = door.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!((read.status, read.json()), (StatusCode::OK, answer.json()));
}

#[tokio::test]
async fn a_delay_schedules_and_null_is_as_good_as_absent() {
    let door = Door::new();
    let answer = door
        .post_json(
            "/v1/tasks",
            r#"{"kind":"echo","delay_seconds":90,"queue":null,"payload":null,"run_at":null}"#,
        )
        .await;
    let task = answer.json();
    assert_eq!(task["state"], "scheduled");
    assert_eq!(task["run_at"], "2026-03-01T12:01:30Z");
    let at = door
        .post_json(
            "/v1/tasks",
            r#"{"kind":"echo","run_at":"2026-03-01T14:00:00+01:00"}"#,
        )
        .await;
    assert_eq!(at.json()["run_at"], "2026-03-01T13:00:00Z");
}

#[tokio::test]
async fn acceptance_needs_no_store() {
    let door = Door::new();
    for mood in [Mood::Down, Mood::Hangs] {
        door.fake.lock().store = mood;
        let keyed = door
            .post_with("/v1/tasks", &[("idempotency-key", "k1")], r#"{"kind":"echo"}"#)
            .await;
        assert_eq!(keyed.status, StatusCode::ACCEPTED);
        door.submit().await;
    }
}

#[tokio::test]
async fn a_key_names_one_task() {
    let door = Door::new();
    let key = [("idempotency-key", "order-17")];
    let first = door
        .post_with("/v1/tasks", &key, r#"{"kind":"echo","payload":1}"#)
        .await;
    assert_eq!(first.header("idempotency-replayed"), "");
    door.clock.set("2026-03-01T12:00:05Z");
    for key in ["order-17", "\"order-17\""] {
        let again = door
            .post_with(
                "/v1/tasks",
                &[("idempotency-key", key)],
                r#"{"kind":"echo","payload":1}"#,
            )
            .await;
        assert_eq!(again.status, StatusCode::ACCEPTED);
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(again.json(), first.json());
    }
    let in_body = r#"{"kind":"echo","payload":1,"idempotency_key":"order-17"}"#;
    let in_body = door.post_json("/v1/tasks", in_body).await;
    assert_eq!(
        (in_body.code().as_str(), &in_body.json()["errors"][0]["pointer"]),
        ("invalid_body", &json!("/idempotency_key"))
    );
    let other = door
        .post_with("/v1/tasks", &key, r#"{"kind":"echo","payload":2}"#)
        .await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (422, "idempotency_key_reused")
    );
    assert_eq!(door.fake.lock().published, 1);
}

#[tokio::test]
async fn a_key_is_known_to_the_store_when_this_replica_never_saw_it() {
    let door = Door::new();
    let key = [("idempotency-key", "k")];
    let first = door.post_with("/v1/tasks", &key, r#"{"kind":"echo"}"#).await;
    door.fake
        .change(first.id(), State::Succeeded, "2026-03-01T12:00:01Z");
    // The next day the key still finds the task, whose id has the day before in it.
    door.clock.set("2026-03-02T11:00:00Z");
    let again = door.post_with("/v1/tasks", &key, r#"{"kind":"echo"}"#).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(
        (again.id(), again.json()["state"].as_str()),
        (first.id(), Some("succeeded"))
    );
    assert_eq!(again.header("location"), format!("/v1/tasks/{}", first.id()));
    let other = door.post_with("/v1/tasks", &key, r#"{"kind":"other"}"#).await;
    assert_eq!(other.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_holds_while_the_recorder_lags() {
    let door = Door::new();
    door.fake.lock().lagging = true;
    let key = [("idempotency-key", "k")];
    let first = door.post_with("/v1/tasks", &key, r#"{"kind":"echo"}"#).await;
    let again = door.post_with("/v1/tasks", &key, r#"{"kind":"echo"}"#).await;
    assert_eq!(
        (again.id(), again.header("idempotency-replayed")),
        (first.id(), "true")
    );
    let other = door.post_with("/v1/tasks", &key, r#"{"kind":"other"}"#).await;
    assert_eq!(other.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_that_was_refused_for_want_of_room_is_free_again() {
    let door = Door::new();
    let key = [("idempotency-key", "k")];
    door.fake.lock().broker = Mood::Full;
    let refused = door.post_with("/v1/tasks", &key, r#"{"kind":"echo"}"#).await;
    assert_eq!(refused.code(), "backlog_full");
    door.fake.lock().broker = Mood::Up;
    let other = door.post_with("/v1/tasks", &key, r#"{"kind":"other"}"#).await;
    assert_eq!(other.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn waits_for_the_end_where_the_client_prefers_to() {
    let door = Door::with_background().await;
    let submit = door.post_with("/v1/tasks", &[("prefer", "wait=30")], r#"{"kind":"echo"}"#);
    let finish = async {
        eventually("the task is recorded", async || {
            !door.fake.lock().tasks.is_empty()
        })
        .await;
        let id = *door.fake.lock().tasks.keys().next().unwrap();
        door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
        door.fake.change(id, State::Succeeded, "2026-03-01T12:00:02Z");
    };
    let (answer, ()) = tokio::join!(submit, finish);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("preference-applied"), "wait=30");
    assert_eq!(answer.json()["state"], "succeeded");
    assert_eq!(answer.json()["result"], json!({"done": true}));
    assert_eq!(answer.header("location"), format!("/v1/tasks/{}", answer.id()));
}

#[tokio::test]
async fn waits_without_events_too_and_not_for_ever() {
    let door = Door::new();
    let late = door
        .post_with("/v1/tasks", &[("prefer", "wait=1")], r#"{"kind":"echo"}"#)
        .await;
    assert_eq!(
        (late.status, late.header("preference-applied")),
        (StatusCode::ACCEPTED, "wait=1")
    );
    let submit = door.post_with("/v1/tasks", &[("prefer", "wait=999")], r#"{"kind":"slow"}"#);
    let finish = async {
        let slow = |door: &Door| {
            let inner = door.fake.lock();
            inner
                .tasks
                .values()
                .find(|task| task.kind.as_str() == "slow")
                .map(|task| task.id)
        };
        eventually("the task is recorded", async || slow(&door).is_some()).await;
        // Nobody listens: only a look at the store can tell.
        door.fake
            .change(slow(&door).unwrap(), State::Failed, "2026-03-01T12:00:02Z");
    };
    let (answer, ()) = tokio::join!(submit, finish);
    assert_eq!(
        (answer.status, answer.header("preference-applied")),
        (StatusCode::OK, "wait=60")
    );
    assert_eq!(answer.json()["error"]["message"], "no luck");
}

#[tokio::test]
async fn a_wait_ends_when_the_process_stops() {
    let door = Door::new();
    let submit = door.post_with("/v1/tasks", &[("prefer", "wait=60")], r#"{"kind":"echo"}"#);
    let stop = async {
        eventually("the task is recorded", async || {
            !door.fake.lock().tasks.is_empty()
        })
        .await;
        door.app.stop.cancel();
    };
    let (answer, ()) = tokio::join!(submit, stop);
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let refused = door.post_json("/v1/tasks", r#"{"kind":"echo"}"#).await;
    assert_eq!(refused.code(), "shutting_down");
}

#[tokio::test]
async fn the_callers_trace_travels_with_the_task() {
    let door = Door::new();
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = door
        .post_with("/v1/tasks", &[("traceparent", sent)], r#"{"kind":"echo"}"#)
        .await;
    let task = door.fake.lock().tasks[&answer.id()].clone();
    assert_eq!(task.traceparent.unwrap().as_str(), sent);
    let wrong = door.post_with("/v1/tasks", &[("traceparent", sent)], "{").await;
    assert_eq!(wrong.json()["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let malformed = door
        .post_with("/v1/tasks", &[("traceparent", "garbage")], r#"{"kind":"echo"}"#)
        .await;
    assert_eq!(malformed.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn tells_of_what_was_accepted_and_counts_it() {
    let door = Door::with_background().await;
    let id = door.submit().await.id();
    let told = |signal: &Signal| matches!(signal, Signal::Events(events) if events.iter().any(|event| event.id == id && event.state == State::Queued));
    eventually("the event is told", async || {
        door.fake.lock().signalled.iter().any(told)
    })
    .await;
    let metrics = door.app.metrics.encode();
    assert!(
        metrics.contains("forebay_tasks_submitted_total{queue=\"default\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains(
            "http_server_request_duration_seconds_count{method=\"POST\",route=\"/v1/tasks\",status=\"202\"} 1"
        ),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_broker_that_is_silent_is_answered_for_in_time() {
    let door = Door::new();
    door.fake.lock().broker = Mood::Hangs;
    let answer = tokio::time::timeout(
        Duration::from_secs(5),
        door.post_json("/v1/tasks", r#"{"kind":"echo"}"#),
    )
    .await;
    let answer = answer.unwrap();
    assert_eq!(
        (answer.code().as_str(), answer.header("retry-after")),
        ("broker_unavailable", "2")
    );
}

#[tokio::test]
async fn a_task_is_an_object_and_no_list_of_values() {
    let door = Door::new();
    let all = r#"["echo",null,null,null,1,null,null,null,null,null,null]"#;
    for body in [all, "[]", "7", "\"echo\"", "null"] {
        let answer = door.post_json("/v1/tasks", body).await;
        assert_eq!(answer.code(), "invalid_body", "{body}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("a task must be a JSON object"), "{detail}");
    }
}
