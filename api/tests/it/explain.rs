//! Explanations over HTTP, and over gRPC where they are the same.

use forebay_core::{State, WorkerId, WorkerInfo};
use forebay_proto::v1::{self, task_service_client::TaskServiceClient};
use serde_json::{Value, json};

use crate::{
    door::{Door, request},
    fake::Mood,
    grpc::{code_of, served},
};

async fn explained(door: &Door, id: &impl std::fmt::Display) -> Value {
    let answer = door.get(&format!("/v1/tasks/{id}/explain")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let it = answer.json();
    assert_eq!(it["id"], json!(id.to_string()));
    assert_ne!(it["detail"], "");
    it
}

fn worker(queue: &str) -> WorkerInfo {
    let at = "2026-03-01T11:00:00Z".parse().unwrap();
    WorkerInfo {
        id: WorkerId::new(at, &[9; 10]),
        name: "host-1".into(),
        queues: vec![queue.parse().unwrap()],
        slots: 4,
        busy: Vec::new(),
        finished: Vec::new(),
        draining: false,
        started_at: at,
        heartbeat_at: at,
    }
}

#[tokio::test]
async fn a_task_is_explained_wherever_it_is() {
    let door = Door::new();
    let first = door.submit().await.id();
    let second = door.submit().await.id();
    let it = explained(&door, &second).await;
    assert_eq!(it["reason"], "no_worker");
    door.fake.lock().workers = vec![worker("other")];
    assert_eq!(
        explained(&door, &second).await["reason"],
        "no_worker",
        "it reads another queue"
    );
    door.fake.lock().workers = vec![worker("default")];
    let it = explained(&door, &second).await;
    let ahead = u64::from(second > first);
    assert_eq!(
        it,
        json!({"id": second.to_string(), "state": "queued", "reason": "in_line", "detail": it["detail"],
            "run_at": null, "next_attempt": 1, "ahead": ahead, "ahead_is_exact": true, "worker": null,
            "worker_name": null, "limit": null, "blocked_on": [], "batch": null, "at": "2026-03-01T12:00:00Z"})
    );
    door.post("/v1/queues/default/pause").await;
    assert_eq!(explained(&door, &second).await["reason"], "queue_paused");

    door.fake.change(second, State::Running, "2026-03-01T12:00:00Z");
    let it = explained(&door, &second).await;
    let id = door.fake.lock().workers[0].id;
    door.fake.lock().tasks.get_mut(&second).unwrap().worker = Some(id);
    assert_eq!(it["reason"], "running");
    let it = explained(&door, &second).await;
    assert_eq!(
        (&it["worker"], &it["worker_name"]),
        (&json!(id.to_string()), &json!("host-1"))
    );
    door.post(&format!("/v1/tasks/{second}/cancel")).await;
    assert_eq!(explained(&door, &second).await["reason"], "cancelling");
    door.fake.change(second, State::Failed, "2026-03-01T12:00:01Z");
    let it = explained(&door, &second).await;
    assert_eq!(
        (&it["state"], &it["reason"]),
        (&json!("failed"), &json!("finished"))
    );
    assert!(it["detail"].as_str().unwrap().contains("no luck"), "{it}");
}

#[tokio::test]
async fn what_waits_for_a_time_is_explained_without_the_broker() {
    let door = Door::new();
    let later = door
        .post_json("/v1/tasks", r#"{"kind":"echo","delay_seconds":300}"#)
        .await
        .id();
    door.fake.lock().broker = Mood::Down;
    let it = explained(&door, &later).await;
    assert_eq!(
        json!([it["reason"], it["run_at"], it["next_attempt"]]),
        json!(["waits_for_time", "2026-03-01T12:05:00Z", 1])
    );
    door.clock.set("2026-03-01T12:10:00Z");
    assert_eq!(explained(&door, &later).await["reason"], "waits_for_dispatcher");
    // What is in line is explained, too: the broker only makes it clearer.
    door.fake.change(later, State::Queued, "2026-03-01T12:10:00Z");
    assert_eq!(explained(&door, &later).await["reason"], "no_worker");
}

#[tokio::test]
async fn it_is_refused_as_a_read_is() {
    let door = Door::new();
    let id = door.submit().await.id();
    for (path, code) in [
        (
            "/v1/tasks/01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d/explain".to_owned(),
            "task_not_found",
        ),
        ("/v1/tasks/one/explain".to_owned(), "invalid_parameter"),
        (format!("/v1/tasks/{id}/explain?deep=1"), "invalid_parameter"),
    ] {
        assert_eq!(door.get(&path).await.code(), code, "{path}");
    }
    let post = request("POST", &format!("/v1/tasks/{id}/explain"), &[], "");
    assert_eq!(door.call(post).await.code(), "method_not_allowed");
    door.fake.lock().store = Mood::Down;
    assert_eq!(
        door.get(&format!("/v1/tasks/{id}/explain")).await.code(),
        "store_unavailable"
    );
}

#[tokio::test]
async fn both_doors_say_the_same() {
    let door = Door::new();
    door.fake.lock().workers = vec![worker("default")];
    let (channel, _serving) = served(&door).await;
    let mut tasks = TaskServiceClient::new(channel);
    let id = door.submit().await.id().to_string();
    let over_http = explained(&door, &id).await;
    let request = v1::ExplainTaskRequest { id: id.clone() };
    let it = tasks.explain_task(request).await.unwrap().into_inner();
    let it = it.explanation.unwrap();
    assert_eq!((it.id, it.state), (id, v1::TaskState::Queued.into()));
    assert_eq!(
        json!([it.reason, it.detail, it.next_attempt, it.ahead, it.ahead_is_exact]),
        json!([
            over_http["reason"],
            over_http["detail"],
            over_http["next_attempt"],
            over_http["ahead"],
            over_http["ahead_is_exact"]
        ])
    );
    assert!(it.limit.is_none() && it.blocked_on.is_empty() && it.worker.is_empty());
    for (id, code) in [
        ("one", "invalid_parameter"),
        ("01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d", "task_not_found"),
    ] {
        let request = v1::ExplainTaskRequest { id: id.into() };
        let refused = tasks.explain_task(request).await.unwrap_err();
        assert_eq!(code_of(&refused), code);
    }
}
