//! One task: read, cancel, retry.

use axum::http::StatusCode;
use forebay_core::{Signal, State, TaskId};
use serde_json::json;

use crate::{
    door::{Door, eventually},
    fake::Mood,
};

const UNKNOWN: &str = "/v1/tasks/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d";

#[tokio::test]
async fn what_was_accepted_is_never_not_found() {
    let door = Door::new();
    door.fake.lock().lagging = true;
    let id = door.submit().await.id();
    let path = format!("/v1/tasks/{id}");
    let early = door.get(&path).await;
    assert_eq!(
        (early.code().as_str(), early.header("retry-after")),
        ("not_yet_recorded", "1")
    );
    let commands = [
        door.post(&format!("{path}/cancel")).await,
        door.post(&format!("{path}/retry")).await,
    ];
    assert!(commands.iter().all(|answer| answer.code() == "not_yet_recorded"));
    let (read, ()) = tokio::join!(door.get(&path), async { door.fake.catch_up() });
    assert_eq!((read.status, read.id()), (StatusCode::OK, id));
}

#[tokio::test]
async fn a_task_shows_how_far_it_is() {
    let door = Door::new();
    let answer = door.submit().await;
    assert_eq!(answer.json()["progress"], json!(null));
    let path = format!("/v1/tasks/{}", answer.id());
    assert_eq!(door.get(&path).await.json()["progress"], json!(null));
    door.fake
        .progress(answer.id(), 0.375, "page 3 of 8", "2026-03-01T12:00:02.5Z");
    let shown = json!({"fraction": 0.375, "message": "page 3 of 8", "at": "2026-03-01T12:00:02.5Z"});
    assert_eq!(door.get(&path).await.json()["progress"], shown);
    let listed = door.get("/v1/tasks").await.json();
    assert_eq!(listed["tasks"][0]["progress"], shown);
}

#[tokio::test]
async fn what_was_never_accepted_is_not_found() {
    let door = Door::new();
    assert_eq!(door.get(UNKNOWN).await.code(), "task_not_found");
    assert_eq!(
        door.post(&format!("{UNKNOWN}/cancel")).await.code(),
        "task_not_found"
    );
    door.fake.lock().broker = Mood::Down;
    assert_eq!(door.get(UNKNOWN).await.code(), "broker_unavailable");
    door.fake.lock().broker = Mood::Hangs;
    assert_eq!(door.get(UNKNOWN).await.code(), "broker_unavailable");
    // No id of ours has this version, so nobody need be asked.
    let foreign = "/v1/tasks/c56a4180-65aa-42ec-a945-5fd21dec0538";
    assert_eq!(door.get(foreign).await.code(), "task_not_found");
}

#[tokio::test]
async fn reads_say_so_when_the_store_is_away() {
    let door = Door::new();
    let id = door.submit().await.id();
    for mood in [Mood::Down, Mood::Hangs] {
        door.fake.lock().store = mood;
        for path in [
            format!("/v1/tasks/{id}"),
            "/v1/tasks".into(),
            "/v1/workers".into(),
            format!("/v1/tasks/{id}/events"),
        ] {
            let answer = door.get(&path).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (503, "store_unavailable"),
                "{path}"
            );
            assert!(
                !answer.text.contains("10.0.0"),
                "says what is inside: {}",
                answer.text
            );
            assert_eq!(answer.header("retry-after"), "2");
        }
    }
}

#[tokio::test]
async fn cancels_what_waits_at_once() {
    let door = Door::new();
    let id = door.submit().await.id();
    let cancelled = door.post(&format!("/v1/tasks/{id}/cancel")).await;
    assert_eq!(
        (cancelled.status, cancelled.json()["state"].as_str()),
        (StatusCode::ACCEPTED, Some("cancelled"))
    );
    let again = door.post(&format!("/v1/tasks/{id}/cancel")).await;
    assert_eq!(
        (again.status, again.code().as_str()),
        (StatusCode::CONFLICT, "state_conflict")
    );
    assert_eq!(again.json()["state"], "cancelled");
    let retried = door.post(&format!("/v1/tasks/{id}/retry")).await;
    assert_eq!(
        (retried.status, retried.json()["state"].as_str()),
        (StatusCode::ACCEPTED, Some("retrying"))
    );
    assert_eq!(
        door.post(&format!("/v1/tasks/{id}/retry")).await.code(),
        "state_conflict"
    );
}

#[tokio::test]
async fn tells_the_worker_to_end_what_runs() {
    let door = Door::new();
    let id = door.submit().await.id();
    door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
    let cancelled = door.post(&format!("/v1/tasks/{id}/cancel")).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED);
    assert_eq!(cancelled.json()["state"], "running");
    assert_eq!(cancelled.json()["cancel_requested"], json!(true));
    assert_eq!(door.fake.lock().signalled, [Signal::Cancel(vec![id])]);
    // The command stands even if the worker can't be told at once.
    door.fake.lock().broker = Mood::Down;
    assert_eq!(
        door.post(&format!("/v1/tasks/{id}/cancel")).await.status,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn tells_of_commands() {
    let door = Door::with_background().await;
    let id = door.submit().await.id();
    door.post(&format!("/v1/tasks/{id}/cancel")).await;
    let told = |signal: &Signal| matches!(signal, Signal::Events(events) if events.iter().any(|event| event.id == id && event.state == State::Cancelled));
    eventually("the event is told", async || {
        door.fake.lock().signalled.iter().any(told)
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_none_is_a_wrong_parameter() {
    let door = Door::new();
    for bad in [
        "x",
        "%00",
        "%ff",
        "1",
        "..%2f..",
        "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6",
    ] {
        for (method, suffix) in [
            ("GET", ""),
            ("GET", "/events"),
            ("POST", "/cancel"),
            ("POST", "/retry"),
        ] {
            let request = crate::door::request(method, &format!("/v1/tasks/{bad}{suffix}"), &[], "");
            let answer = door.call(request).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (400, "invalid_parameter"),
                "{bad}{suffix}"
            );
            assert_eq!(answer.json()["errors"][0]["pointer"], "/id");
        }
    }
    let id: TaskId = door.submit().await.id();
    let typo = door.get(&format!("/v1/tasks/{id}?verbose=1")).await;
    assert_eq!(
        typo.json()["errors"],
        json!([{"pointer": "/verbose", "detail": "is not a parameter of this path"}])
    );
}
