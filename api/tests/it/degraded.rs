//! What is answered, and how soon, while a dependency is away: behind the circuits that production has, and with its
//! bounds. The first calls of an outage wait until it is known for one; all others are answered at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use forebay_api::{App, Bounds, Parts, background, error::Code, router, serve_grpc};
use forebay_broker::{Broker, GroupCommit};
use forebay_core::TaskId;
use forebay_proto::v1::{self, task_service_client::TaskServiceClient};
use forebay_runtime::guarded::{GuardedBroker, GuardedStore};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic_types::StatusExt;
use tower::ServiceExt;

use crate::{
    door::{Answer, Door, eventually, quick, request},
    fake::{Fake, Mood},
};

const ECHO: &str = r#"{"kind":"echo"}"#;
const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];
/// How long an answer may take that waits for nothing, on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_millis(250);
/// How long the first calls of an outage may wait for the dependency.
const FIRST_CALLS: Duration = Duration::from_millis(2_400);
/// How soon it must be noticed that a dependency is back.
const NOTICED: Duration = Duration::from_millis(3_000);

/// A door behind circuits.
fn guarded(bounds: Bounds) -> Door {
    let mut door = Door::bounded(bounds);
    let bare = door.app.clone();
    let (store, broker) = (Arc::clone(&bare.store), Arc::clone(&bare.broker));
    let broker: Arc<dyn Broker> = Arc::new(GuardedBroker::new(broker, Arc::clone(&bare.metrics)));
    let (submitter, group) = GroupCommit::new(Arc::clone(&broker));
    tokio::spawn(group.run());
    let parts = Parts {
        store: Arc::new(GuardedStore::new(store, Arc::clone(&bare.metrics))),
        broker,
        submitter,
        clock: Arc::clone(&bare.clock),
        metrics: Arc::clone(&bare.metrics),
        health: bare.health.clone(),
        stop: bare.stop.clone(),
    };
    door.app = App::bounded(parts, bare.bounds.clone());
    door.router = router(door.app.clone());
    door
}

/// What an answer was, and how long it took.
async fn timed(answer: impl Future<Output = Answer>) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = answer.await;
    (answer, began.elapsed())
}

fn circuit(door: &Door, dependency: &str) -> String {
    let text = door.app.metrics.encode();
    let name = format!("forebay_circuit_state{{dependency=\"{dependency}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_default().to_owned()
}

/// Calls until the circuit is open, and says how long the first of these calls took.
async fn open(door: &Door, dependency: &str, call: impl AsyncFn() -> Answer) -> Duration {
    let (first, took) = timed(call()).await;
    assert_eq!(first.status, 503, "{first:?}");
    assert_ne!(first.header("retry-after"), "");
    eventually("the circuit opens", async || {
        call().await;
        circuit(door, dependency) != "0"
    })
    .await;
    took
}

/// Every way to read, and to command.
async fn reads(door: &Door, id: TaskId) -> Vec<(&'static str, Answer, Duration)> {
    let task = format!("/v1/tasks/{id}");
    let (cancel, retry, events) = (
        format!("{task}/cancel"),
        format!("{task}/retry"),
        format!("{task}/events"),
    );
    let mut answers = Vec::new();
    for (name, call) in [
        ("get", request("GET", &task, &[], Body::empty())),
        ("list", request("GET", "/v1/tasks", &[], Body::empty())),
        ("workers", request("GET", "/v1/workers", &[], Body::empty())),
        ("cancel", request("POST", &cancel, &[], Body::empty())),
        ("retry", request("POST", &retry, &[], Body::empty())),
        ("events of a task", request("GET", &events, &[], Body::empty())),
    ] {
        let (answer, took) = timed(door.call(call)).await;
        answers.push((name, answer, took));
    }
    answers
}

/// Every way to submit; the second with a key.
async fn submissions(door: &Door, key: &str) -> Vec<(&'static str, Answer, Duration)> {
    let mut answers = Vec::new();
    let item = format!(r#"[{{"kind":"echo","idempotency_key":"{key}-item"}}]"#);
    let (answer, took) = timed(door.post_json("/v1/tasks", ECHO)).await;
    answers.push(("submit", answer, took));
    let (answer, took) = timed(door.post_with("/v1/tasks", &[("idempotency-key", key)], ECHO)).await;
    answers.push(("submit with a key", answer, took));
    let (answer, took) = timed(door.post_json("/v1/tasks/batch", item)).await;
    answers.push(("batch", answer, took));
    let lines = request("POST", "/v1/tasks/batch", &NDJSON, ECHO);
    let (answer, took) = timed(door.call(lines)).await;
    answers.push(("ndjson", answer, took));
    answers
}

/// With the store in this mood.
async fn without_the_store(mood: Mood) {
    let door = guarded(Bounds::default());
    let id = door.submit().await.id();
    assert_eq!(door.get("/v1/queues").await.status, 200);
    door.fake.lock().store = mood;
    let took = open(&door, "store", async || door.get("/v1/workers").await).await;
    assert!(took < FIRST_CALLS, "the first read of the outage took {took:?}");
    let asked = door.fake.lock().store_asked;
    for (name, answer, took) in reads(&door, id).await {
        assert_eq!(answer.code(), "store_unavailable", "{name}: {answer:?}");
        assert_eq!(answer.header("retry-after"), "1", "{name}");
        assert!(took < AT_ONCE, "{name} took {took:?}");
    }
    for (name, answer, took) in submissions(&door, "k").await {
        assert_eq!(answer.status, 202, "{name}: {answer:?}");
        assert!(!answer.text.contains("error\":{"), "{name}: {answer:?}");
        assert!(took < AT_ONCE, "{name} took {took:?}");
    }
    let probes = door.fake.lock().store_asked - asked;
    assert!(
        probes < 10,
        "the store was asked {probes} times while it was away"
    );
    // What is not known is null, once what was known is too old.
    eventually("running tasks are not known", async || {
        let queues = door.get("/v1/queues").await;
        assert_eq!(queues.status, 200);
        queues.json()["queues"][0]["running"] == json!(null)
    })
    .await;
    assert_eq!(door.get("/health/live").await.status, 200);
    assert_eq!(listen(&door).await, 200);
    door.fake.lock().store = Mood::Up;
    let back = Instant::now();
    eventually("reads work again", async || {
        door.get("/v1/workers").await.status == 200
    })
    .await;
    assert!(
        back.elapsed() < NOTICED,
        "{:?} until reads worked again",
        back.elapsed()
    );
    assert_eq!(circuit(&door, "store"), "0");
}

/// The status of an answer that stays open.
async fn listen(door: &Door) -> u16 {
    let events = request("GET", "/v1/events", &[], Body::empty());
    door.router
        .clone()
        .oneshot(events)
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn without_the_store_submissions_go_on_and_reads_are_refused_at_once() {
    without_the_store(Mood::Down).await;
}

#[tokio::test]
async fn a_store_that_hangs_is_found_out_in_two_seconds() {
    without_the_store(Mood::Hangs).await;
}

/// With the broker in this mood.
async fn without_the_broker(mood: Mood) {
    let door = guarded(Bounds::default());
    let background = AbortOnDropHandle::new(tokio::spawn(background(door.app.clone())));
    eventually("the door is ready", async || {
        door.get("/health/ready").await.status == 200
    })
    .await;
    let id = door.submit().await.id();
    let published = door.fake.lock().published;
    door.fake.lock().broker = mood;
    let took = open(&door, "broker", async || door.post_json("/v1/tasks", ECHO).await).await;
    assert!(
        took < FIRST_CALLS,
        "the first submission of the outage took {took:?}"
    );
    for (name, answer, took) in submissions(&door, "k").await {
        if name == "ndjson" {
            assert!(answer.text.contains("broker_unavailable"), "{answer:?}");
        } else {
            assert_eq!(answer.code(), "broker_unavailable", "{name}: {answer:?}");
            assert_eq!(answer.header("retry-after"), "1", "{name}");
        }
        assert!(took < AT_ONCE, "{name} took {took:?}");
    }
    assert_eq!(door.get(&format!("/v1/tasks/{id}")).await.status, 200);
    assert_eq!(door.get("/v1/tasks").await.status, 200);
    assert_eq!(door.get("/v1/workers").await.status, 200);
    assert_eq!(door.get("/v1/queues").await.status, 200);
    assert_eq!(door.post(&format!("/v1/tasks/{id}/cancel")).await.status, 202);
    assert_eq!(door.post(&format!("/v1/tasks/{id}/retry")).await.status, 202);
    eventually("it is not ready", async || {
        let ready = door.get("/health/ready").await;
        ready.status == 503 && ready.text.contains("the broker has not answered for")
    })
    .await;
    assert_eq!(door.get("/health/live").await.status, 200);
    if mood == Mood::Down {
        assert_eq!(door.fake.lock().published, published);
    }
    door.fake.lock().broker = Mood::Up;
    let back = Instant::now();
    eventually("a submission is accepted", async || {
        door.post_json("/v1/tasks", ECHO).await.status == 202
    })
    .await;
    assert!(
        back.elapsed() < NOTICED,
        "{:?} until it was accepted",
        back.elapsed()
    );
    eventually("it is ready", async || {
        door.get("/health/ready").await.status == 200
    })
    .await;
    drop(background);
}

#[tokio::test]
async fn without_the_broker_reads_go_on_and_submissions_are_refused_at_once() {
    without_the_broker(Mood::Down).await;
}

#[tokio::test]
async fn a_broker_that_hangs_is_found_out_in_two_seconds() {
    without_the_broker(Mood::Hangs).await;
}

#[tokio::test]
async fn a_key_that_was_not_handed_on_is_free_again() {
    let door = guarded(Bounds::default());
    door.fake.lock().broker = Mood::Down;
    open(&door, "broker", async || door.post_json("/v1/tasks", ECHO).await).await;
    let key = [("idempotency-key", "k")];
    assert_eq!(
        door.post_with("/v1/tasks", &key, ECHO).await.code(),
        "broker_unavailable"
    );
    door.fake.lock().broker = Mood::Up;
    let other = r#"{"kind":"other"}"#;
    eventually("another request takes the key", async || {
        let answer = door.post_with("/v1/tasks", &key, other).await;
        assert_ne!(answer.status, 422, "{answer:?}");
        answer.status == 202
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_full_answers_and_its_circuit_stays_closed() {
    let door = guarded(Bounds::default());
    let id = door.submit().await.id();
    door.fake.lock().broker = Mood::Full;
    for _ in 0..20 {
        let (answer, took) = timed(door.post_json("/v1/tasks", ECHO)).await;
        assert_eq!(
            (answer.code().as_str(), answer.header("retry-after")),
            ("backlog_full", "2")
        );
        assert!(took < AT_ONCE, "{took:?}");
    }
    assert_eq!(circuit(&door, "broker"), "0");
    assert_eq!(door.get(&format!("/v1/tasks/{id}")).await.status, 200);
    assert_eq!(door.get("/v1/tasks").await.status, 200);
}

#[tokio::test]
async fn both_doors_say_the_same_of_what_is_away() {
    let door = guarded(Bounds::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let _server = AbortOnDropHandle::new(tokio::spawn(serve_grpc(door.app.clone(), listener)));
    let mut client = TaskServiceClient::connect(address).await.unwrap();
    let id = door.submit().await.id();
    {
        let mut inner = door.fake.lock();
        (inner.store, inner.broker) = (Mood::Down, Mood::Down);
    }
    open(&door, "store", async || door.get("/v1/workers").await).await;
    open(&door, "broker", async || door.post_json("/v1/tasks", ECHO).await).await;
    let echo = v1::SubmitTaskRequest {
        kind: "echo".into(),
        ..Default::default()
    };
    let get = v1::GetTaskRequest { id: id.to_string() };
    let cancel = v1::CancelTaskRequest { id: id.to_string() };
    let watch = v1::WatchTaskRequest {
        id: id.to_string(),
        ..Default::default()
    };
    let began = Instant::now();
    let refused = [
        ("broker_unavailable", client.submit_task(echo).await.unwrap_err()),
        ("store_unavailable", client.get_task(get).await.unwrap_err()),
        (
            "store_unavailable",
            client
                .list_tasks(v1::ListTasksRequest::default())
                .await
                .unwrap_err(),
        ),
        ("store_unavailable", client.cancel_task(cancel).await.unwrap_err()),
        (
            "store_unavailable",
            client.watch_task(watch).await.map(drop).unwrap_err(),
        ),
    ];
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    for (code, status) in refused {
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, code);
        let retry = details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(retry, Some(Duration::from_secs(1)), "{status:?}");
    }
}

#[tokio::test]
async fn a_read_on_a_broken_connection_is_tried_once_more() {
    let door = Door::new();
    let id = door.submit().await.id();
    let asked = |fake: &Fake| fake.lock().store_asked;
    for path in [
        format!("/v1/tasks/{id}"),
        "/v1/tasks".to_owned(),
        "/v1/workers".to_owned(),
    ] {
        let before = asked(&door.fake);
        door.fake.lock().store_fails = 1;
        assert_eq!(door.get(&path).await.status, 200, "{path}");
        assert_eq!(asked(&door.fake) - before, 2, "{path}");
        door.fake.lock().store_fails = 2;
        assert_eq!(door.get(&path).await.code(), "store_unavailable", "{path}");
    }
    // A command may have been obeyed although its answer was lost.
    let before = asked(&door.fake);
    door.fake.lock().store_fails = 1;
    let cancelled = door.post(&format!("/v1/tasks/{id}/cancel")).await;
    assert_eq!(cancelled.code(), "store_unavailable");
    assert_eq!(asked(&door.fake) - before, 1);
}

#[tokio::test]
async fn second_tries_cannot_multiply_an_outage() {
    const READS: usize = 1_000;
    let door = Door::new();
    door.fake.lock().store = Mood::Down;
    let before = door.fake.lock().store_asked;
    for _ in 0..READS {
        assert_eq!(door.get("/v1/workers").await.code(), "store_unavailable");
    }
    let extra = door.fake.lock().store_asked - before - READS;
    assert!(extra > 0, "nothing was tried again");
    // A tenth, and two a second of the ten or so that are counted.
    assert!(extra <= READS / 10 + 40, "{extra} second tries of {READS} reads");
}

#[tokio::test]
async fn a_submission_that_nobody_waits_for_is_not_published() {
    let door = Door::new();
    door.fake.lock().broker = Mood::Hangs;
    // The first is with the broker; those behind it stand in line, and their callers leave.
    let first = request("POST", "/v1/tasks", &[("content-type", "application/json")], ECHO);
    let first = tokio::spawn(door.router.clone().oneshot(first));
    eventually("the first is under way", async || door.fake.lock().batches == 1).await;
    let leaving = (0..5).map(|_| door.post_json("/v1/tasks", ECHO));
    for answer in futures::future::join_all(leaving).await {
        assert_eq!(answer.code(), "broker_unavailable");
    }
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
    door.fake.lock().broker = Mood::Up;
    door.submit().await;
    let published = door.fake.lock().published;
    assert!(published <= 2, "{published} were published, for one caller");
}

#[test]
fn whatever_is_refused_for_now_says_when_to_come_again() {
    for code in Code::ALL {
        let row = code.row();
        let for_now = matches!(row.status, 408 | 429 | 503);
        assert_eq!(row.retry_after_seconds.is_some(), for_now, "{}", row.code);
    }
}

#[tokio::test]
async fn a_refusal_for_want_of_room_costs_nobody_anything() {
    const REQUESTS: u32 = 5_000;
    let door = Door::bounded(Bounds {
        reads: 0,
        submissions: 0,
        ..quick()
    });
    let began = Instant::now();
    for _ in 0..REQUESTS / 2 {
        assert_eq!(door.get("/v1/tasks").await.header("retry-after"), "1");
        assert_eq!(door.post_json("/v1/tasks", ECHO).await.status, 503);
    }
    let each = began.elapsed() / REQUESTS;
    assert!(each < Duration::from_millis(2), "a refusal took {each:?}");
    let inner = door.fake.lock();
    assert_eq!((inner.store_asked, inner.published), (0, 0));
}
