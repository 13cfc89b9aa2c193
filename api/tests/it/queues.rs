//! Queues, workers, health.

use forebay_api::Bounds;
use forebay_core::{Signal, State, WorkerId, WorkerInfo};
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
    let images = json!({"name": "images", "ready": 2, "running": 0, "scheduled": 1, "paused": false,
        "observed_at": "2026-03-01T12:00:00Z", "stale": false, "problem": null});
    assert_eq!(
        (&body["queues"][0]["name"], &body["queues"][0]["ready"]),
        (&json!("images"), &json!(2))
    );
    assert_eq!(body["queues"][1]["running"], 1);
    let one = door.get("/v1/queues/images").await.json();
    for key in [
        "name",
        "ready",
        "running",
        "scheduled",
        "paused",
        "observed_at",
        "problem",
    ] {
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
    let figures = |body: &Value| json!([body["ready"], body["running"], body["scheduled"], body["paused"]]);
    for (broker, store, expected) in [
        (Mood::Down, Mood::Up, json!([null, 0, 0, false])),
        (Mood::Hangs, Mood::Up, json!([null, 0, 0, false])),
        (Mood::Up, Mood::Down, json!([1, null, null, null])),
        (Mood::Down, Mood::Down, json!([null, null, null, null])),
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
async fn a_queue_is_paused_and_resumed() {
    let door = Door::new();
    door.submit().await;
    // Twice is once, and the workers are told each time.
    for (command, paused) in [
        ("pause", true),
        ("pause", true),
        ("resume", false),
        ("resume", false),
    ] {
        let said = door.post(&format!("/v1/queues/default/{command}")).await;
        assert_eq!(said.status, 200, "{command}: {}", said.text);
        let shown = door.get("/v1/queues/default").await.json();
        let listed = door.get("/v1/queues").await.json();
        for queue in [said.json(), shown, listed["queues"][0].clone()] {
            assert_eq!(
                json!([queue["name"], queue["ready"], queue["paused"], queue["problem"]]),
                json!(["default", 1, paused, null])
            );
        }
    }
    let told = |signal: &&Signal| matches!(signal, Signal::QueuesChanged);
    assert_eq!(door.fake.lock().signalled.iter().filter(told).count(), 4);
    assert_eq!(door.submit().await.status, 202);
}

#[tokio::test]
async fn a_queue_may_be_paused_before_its_first_task() {
    let door = Door::new();
    let resumed = door.post("/v1/queues/reports/resume").await;
    assert_eq!(resumed.code(), "queue_not_found");
    let paused = door.post("/v1/queues/reports/pause").await.json();
    assert_eq!(json!([paused["ready"], paused["paused"]]), json!([0, true]));
    assert_eq!(door.get("/v1/queues/reports").await.json()["paused"], true);
    for (path, code) in [
        ("/v1/queues/No!/pause", "invalid_parameter"),
        ("/v1/queues/reports/pause?for=ever", "invalid_parameter"),
    ] {
        assert_eq!(door.post(path).await.code(), code);
    }
}

#[tokio::test]
async fn a_pause_needs_the_store_and_not_the_broker() {
    let door = Door::new();
    door.submit().await;
    for mood in [Mood::Down, Mood::Hangs] {
        door.fake.lock().broker = mood;
        for (command, paused) in [("pause", true), ("resume", false)] {
            let said = door.post(&format!("/v1/queues/default/{command}")).await;
            assert_eq!(said.status, 200, "{command}: {}", said.text);
            assert_eq!(said.json()["paused"], paused);
        }
    }
    door.fake.lock().broker = Mood::Up;
    door.fake.lock().store = Mood::Down;
    let refused = door.post("/v1/queues/default/pause").await;
    assert_eq!(refused.code(), "store_unavailable");
    door.fake.lock().store = Mood::Up;
    assert_eq!(door.get("/v1/queues/default").await.json()["paused"], false);
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
        finished: Vec::new(),
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

#[tokio::test]
async fn what_a_queue_needs() {
    let door = Door::new();
    for body in [
        r#"{"kind":"a","queue":"images"}"#,
        r#"{"kind":"a","queue":"images","priority":"low"}"#,
        r#"{"kind":"a","queue":"images","delay_seconds":9}"#,
    ] {
        door.post_json("/v1/tasks", body).await;
    }
    let needs = async || door.get("/v1/queues/images/autoscale").await;
    assert_eq!(
        needs().await.json(),
        json!({"queue": "images", "ready": 2, "running": 0, "gated": 0, "scheduled": 1,
            "oldest_ready_age_seconds": 1.5, "desired_workers": 1, "at": "2026-03-01T12:00:00Z"})
    );
    let metrics = door.app.metrics.encode();
    for line in [
        "forebay_queue_ready{queue=\"images\"} 2",
        "forebay_queue_gated{queue=\"images\"} 0",
        "forebay_queue_oldest_ready_age_seconds{queue=\"images\"} 1.5",
        "forebay_queue_desired_workers{queue=\"images\"} 1",
        "forebay_queue_stats_timestamp_seconds{} 1772366400",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    door.post("/v1/queues/images/pause").await;
    let gated = needs().await.json();
    assert_eq!(
        json!([
            gated["ready"],
            gated["gated"],
            gated["desired_workers"],
            gated["oldest_ready_age_seconds"]
        ]),
        json!([0, 2, 0, null])
    );
}

#[tokio::test]
async fn what_an_unknown_queue_needs_is_nothing_and_not_an_error() {
    let door = Door::new();
    assert_eq!(
        door.get("/v1/queues/unheard-of/autoscale").await.json(),
        json!({"queue": "unheard-of", "ready": 0, "running": 0, "gated": 0, "scheduled": 0,
            "oldest_ready_age_seconds": null, "desired_workers": 0, "at": "2026-03-01T12:00:00Z"})
    );
    for path in [
        "/v1/queues/No!/autoscale",
        "/v1/queues/default/autoscale?page_size=1",
    ] {
        assert_eq!(door.get(path).await.code(), "invalid_parameter", "{path}");
    }
}

#[tokio::test]
async fn what_a_queue_needs_is_an_error_where_any_of_it_is_not_known() {
    for (broker, store, code) in [
        (Mood::Down, Mood::Up, "broker_unavailable"),
        (Mood::Hangs, Mood::Up, "broker_unavailable"),
        (Mood::Up, Mood::Down, "store_unavailable"),
        (Mood::Up, Mood::Hangs, "store_unavailable"),
        (Mood::Down, Mood::Down, "store_unavailable"),
    ] {
        let door = Door::new();
        door.submit().await;
        door.fake.lock().broker = broker;
        door.fake.lock().store = store;
        for queue in ["default", "unheard-of"] {
            let answer = door.get(&format!("/v1/queues/{queue}/autoscale")).await;
            assert_eq!(answer.status, 503, "{broker:?} {store:?}: {answer:?}");
            assert_eq!(answer.code(), code, "{broker:?} {store:?}");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        assert!(
            !door
                .app
                .metrics
                .encode()
                .contains("forebay_queue_desired_workers{")
        );
        assert!(
            !door
                .app
                .metrics
                .encode()
                .contains("forebay_queue_stats_timestamp_seconds{")
        );
    }
}
