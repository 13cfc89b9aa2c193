//! Queues, workers, health.

use forebay_api::Bounds;
use forebay_core::{State, WorkerId, WorkerInfo};
use serde_json::{Value, json};

use crate::{
    door::{Door, eventually, quick},
    fake::Mood,
};

#[tokio::test]
async fn counts_what_waits_and_what_runs() {
    let door = Door::new();
    for body in [
        r#"{"kind":"a","queue":"images"}"#,
        r#"{"kind":"a","queue":"images","priority":"low"}"#,
        r#"{"kind":"a","queue":"images","delay_seconds":9}"#,
        r#"{"kind":"a","queue":"mail"}"#,
    ] {
        door.post_json("/v1/tasks", body).await;
    }
    let mail = door
        .fake
        .lock()
        .tasks
        .values()
        .find(|task| task.queue.as_str() == "mail")
        .unwrap()
        .id;
    door.fake.change(mail, State::Running, "2026-03-01T12:00:01Z");
    let body = door.get("/v1/queues").await.json();
    let images = json!({"name": "images", "ready": 2, "running": 0, "scheduled": 1,
        "observed_at": "2026-03-01T12:00:00Z", "stale": false, "problem": null});
    assert_eq!(
        (&body["queues"][0]["name"], &body["queues"][0]["ready"]),
        (&json!("images"), &json!(2))
    );
    assert_eq!(body["queues"][1]["running"], 1);
    let one = door.get("/v1/queues/images").await.json();
    for key in ["name", "ready", "running", "scheduled", "observed_at", "problem"] {
        assert_eq!(one[key], images[key], "{key}");
    }
    let metrics = door.app.metrics.encode();
    assert!(
        metrics.contains("forebay_queue_ready{queue=\"images\"} 2"),
        "{metrics}"
    );
    assert_eq!(door.get("/v1/queues/unheard-of").await.code(), "queue_not_found");
}

#[tokio::test]
async fn the_first_submission_shows_at_once() {
    let door = Door::bounded(Bounds {
        fresh: Bounds::default().fresh,
        ..quick()
    });
    let names = async || -> usize {
        let body = door.get("/v1/queues").await.json();
        body["queues"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(names().await, 0);
    door.submit().await;
    assert_eq!(names().await, 1);
}

#[tokio::test]
async fn who_waits_too_long_for_a_count_gets_the_former_one() {
    let door = Door::bounded(Bounds {
        ask: std::time::Duration::from_secs(60),
        ..quick()
    });
    door.submit().await;
    door.get("/v1/queues").await;
    door.fake.lock().broker = Mood::Hangs;
    let body = door.get("/v1/queues").await.json();
    assert_eq!(body["queues"][0]["ready"], 1);
}

#[tokio::test]
async fn what_is_not_known_is_null() {
    let door = Door::new();
    door.submit().await;
    door.get("/v1/queues").await;
    let figures = |body: &Value| json!([body["ready"], body["running"], body["scheduled"]]);
    for (broker, store, expected) in [
        (Mood::Down, Mood::Up, json!([null, 0, 0])),
        (Mood::Hangs, Mood::Up, json!([null, 0, 0])),
        (Mood::Up, Mood::Down, json!([1, null, null])),
        (Mood::Down, Mood::Down, json!([null, null, null])),
    ] {
        door.fake.lock().broker = broker;
        door.fake.lock().store = store;
        let one = door.get("/v1/queues/default").await.json();
        assert_eq!(figures(&one), expected, "{broker:?} {store:?}");
        assert!(one["problem"].is_string());
        let all = door.get("/v1/queues").await.json();
        assert_eq!(figures(&all["queues"][0]), expected);
    }
    assert_eq!(door.get("/v1/queues/other").await.code(), "store_unavailable");
    let fresh = Door::new();
    fresh.fake.lock().store = Mood::Down;
    assert_eq!(fresh.get("/v1/queues").await.code(), "store_unavailable");
}

#[tokio::test]
async fn workers() {
    let door = Door::new();
    assert_eq!(door.get("/v1/workers").await.json(), json!({"workers": []}));
    let at = "2026-03-01T12:00:00Z".parse().unwrap();
    let id = WorkerId::new(at, &[1; 10]);
    door.fake.lock().workers.push(WorkerInfo {
        id,
        name: "w1".into(),
        queues: vec!["images".parse().unwrap()],
        slots: 8,
        busy: vec![("images".parse().unwrap(), 3)],
        draining: false,
        started_at: at,
        heartbeat_at: at,
    });
    assert_eq!(
        door.get("/v1/workers").await.json(),
        json!({"workers": [{"id": id.to_string(), "name": "w1", "queues": ["images"], "slots": 8, "busy": {"images": 3},
            "draining": false, "started_at": "2026-03-01T12:00:00Z", "heartbeat_at": "2026-03-01T12:00:00Z"}]})
    );
}

#[tokio::test]
async fn readiness_follows_the_broker_and_not_the_store() {
    let door = Door::with_background().await;
    let ready = async || door.get("/health/ready").await.status == 200;
    eventually("ready", ready).await;
    door.fake.lock().store = Mood::Down;
    door.fake.lock().broker = Mood::Down;
    eventually("not ready", async || !ready().await).await;
    let answer = door.get("/health/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({"status": "not ready", "problems": [{"component": "broker", "problem": "the broker does not answer"}]})
    );
    assert_eq!(
        door.get("/health/live").await.json(),
        json!({"status": "live", "problems": []})
    );
    door.fake.lock().broker = Mood::Up;
    eventually("ready again without the store", ready).await;
    door.app.stop.cancel();
    assert_eq!(
        door.get("/health/ready").await.json()["problems"][0]["problem"],
        "is shutting down"
    );
    assert_eq!(door.get("/health/live").await.status, 200);
}
