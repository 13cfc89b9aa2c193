//! What each door answers, and how soon, while a dependency is down, hangs, is full or takes no writes, and what the
//! workers make of it afterwards. docs/degradation.md is the table of it.

use std::time::{Duration, Instant};

use forebay_testkit::{
    broker::{BrokerKind, BrokerServer},
    wait,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::stack::{Forebay, PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    postgres_hangs
    the_broker_hangs
    no_worker_is_left
}

/// How long the first calls of an outage may take: until silence is noticed, and a probe has confirmed it.
const FIRST_CALLS: Duration = Duration::from_millis(2_700);
/// How long all others may take, on a machine that runs many tests at once.
const AT_ONCE: Duration = Duration::from_millis(600);

/// A client that measures.
#[derive(Default)]
struct Stopwatch {
    client: reqwest::Client,
}

impl Stopwatch {
    async fn call(
        &self,
        method: Method,
        url: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> (Response, Duration) {
        let mut request = self.client.request(method, url).timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let began = Instant::now();
        let answer = request.send().await.unwrap();
        (answer, began.elapsed())
    }

    async fn get(&self, api: &Forebay, path: &str) -> (Response, Duration) {
        self.call(Method::GET, &format!("{}{path}", api.http), None, None)
            .await
    }

    async fn submit(&self, api: &Forebay, body: Value, key: Option<&str>) -> (Response, Duration) {
        let url = format!("{}/v1/tasks", api.http);
        self.call(Method::POST, &url, Some(body), key).await
    }

    /// Asserts that a call is refused for now, with this code, and says how long that took.
    fn refused(&self, (answer, took): &(Response, Duration), within: Duration) {
        assert_eq!(answer.status(), 503, "{answer:?}");
        let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=2).contains(&seconds), "Retry-After: {seconds}");
        assert!(*took < within, "refused after {took:?}");
    }
}

async fn id_of(answer: Response) -> String {
    assert_eq!(answer.status(), 202);
    let task: Value = answer.json().await.unwrap();
    task["id"].as_str().unwrap().to_owned()
}

/// How long until a read, or whatever this asks, works again.
async fn until_it_works(what: &str, call: impl AsyncFn() -> Option<String>) -> Duration {
    let began = Instant::now();
    wait::until(what, PATIENCE, || call()).await;
    began.elapsed()
}

async fn postgres_hangs(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let (user, watch) = (User::default(), Stopwatch::default());
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let before = id_of(watch.submit(&api, json!({"kind": "echo"}), None).await.0).await;
    user.finished(&api.http, &before).await;
    let task = format!("/v1/tasks/{before}");

    stack.postgres.pause().unwrap();
    let first = watch.get(&api, &task).await;
    watch.refused(&first, FIRST_CALLS);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        for path in [task.as_str(), "/v1/tasks", "/v1/workers"] {
            let answer = watch.get(&api, path).await;
            watch.refused(&answer, AT_ONCE);
            slowest = slowest.max(answer.1);
        }
    }
    let mut ids = Vec::new();
    for number in 0..40 {
        let key = format!("key-{number}");
        let key = (number % 2 == 0).then_some(key.as_str());
        let body = json!({"kind": "echo", "payload": number});
        let (answer, took) = watch.submit(&api, body, key).await;
        ids.push(id_of(answer).await);
        assert!(took < AT_ONCE, "a submission took {took:?} while Postgres hung");
    }
    let ready = watch.get(&api, "/health/ready").await.0;
    assert_eq!(
        ready.status(),
        200,
        "submissions go on, so the replica must stay in service"
    );

    stack.postgres.resume().unwrap();
    let back = until_it_works("a read", async || {
        user.get(&api.http, &before).await.map(|_| String::new())
    })
    .await;
    for id in &ids {
        assert_eq!(user.finished(&api.http, id).await["state"], "succeeded");
    }
    eprintln!(
        "{kind:?}: Postgres hung: first read {:?}, later ≤ {slowest:?}, readable after {back:?}",
        first.1
    );
}

async fn the_broker_hangs(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let (user, watch) = (User::default(), Stopwatch::default());
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let before = id_of(watch.submit(&api, json!({"kind": "echo"}), None).await.0).await;
    user.finished(&api.http, &before).await;

    stack.broker.pause().unwrap();
    let first = watch.submit(&api, json!({"kind": "echo"}), None).await;
    watch.refused(&first, FIRST_CALLS);
    // The probe's verdict may come a moment after the publisher's own timeout.
    wait::until("submissions to be refused at once", PATIENCE, || async {
        let (answer, took) = watch.submit(&api, json!({"kind": "echo"}), None).await;
        assert_eq!(answer.status(), 503);
        took < AT_ONCE / 2
    })
    .await;
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let key = format!("key-{number}");
        let answer = watch.submit(&api, json!({"kind": "echo"}), Some(&key)).await;
        watch.refused(&answer, AT_ONCE);
        slowest = slowest.max(answer.1);
        for path in [
            format!("/v1/tasks/{before}"),
            "/v1/tasks".to_owned(),
            "/v1/workers".to_owned(),
        ] {
            let (answer, took) = watch.get(&api, &path).await;
            assert_eq!(answer.status(), 200, "{path}");
            assert!(took < AT_ONCE, "{path} took {took:?}");
        }
    }
    wait::until("the replica to say that it is not ready", PATIENCE, || async {
        let ready = watch.get(&api, "/health/ready").await.0;
        ready.status() == 503
            && ready
                .text()
                .await
                .unwrap()
                .contains("the broker has not answered")
    })
    .await;

    stack.broker.resume().unwrap();
    let back = until_it_works("a submission", async || {
        user.submit(&api.http, &json!({"kind": "echo"}), Some("after"))
            .await
    })
    .await;
    let id = user
        .accepted(&api.http, &json!({"kind": "echo"}), Some("after"))
        .await;
    assert_eq!(user.finished(&api.http, &id).await["state"], "succeeded");
    eprintln!(
        "{kind:?}: broker hung: first submission {:?}, later ≤ {slowest:?}, accepted after {back:?}",
        first.1
    );
}

async fn no_worker_is_left(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let (user, watch) = (User::default(), Stopwatch::default());
    let api = stack.api().await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let (answer, _) = watch
            .submit(&api, json!({"kind": "echo", "payload": number}), None)
            .await;
        ids.push(id_of(answer).await);
    }
    // Nobody records: what was accepted is not found yet, and never "not found".
    let unrecorded = watch.get(&api, &format!("/v1/tasks/{}", ids[0])).await;
    watch.refused(&unrecorded, Duration::from_secs(4));
    assert!(unrecorded.0.text().await.unwrap().contains("not_yet_recorded"));
    assert_eq!(watch.get(&api, "/health/ready").await.0.status(), 200);
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    for id in &ids {
        assert_eq!(user.finished(&api.http, id).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dispatcher_only_what_is_due_later_waits() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let user = User::default();
    let api = stack.api().await;
    let _worker = stack
        .worker(&["--builtin-handlers", "--roles", "recorder,executor"])
        .await;
    let later = json!({"kind": "echo", "delay_seconds": 0.2});
    let later = user.accepted(&api.http, &later, None).await;
    for _ in 0..10 {
        let now = user.accepted(&api.http, &json!({"kind": "echo"}), None).await;
        assert_eq!(user.finished(&api.http, &now).await["state"], "succeeded");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let task = user.get(&api.http, &later).await.unwrap();
    assert_eq!(task["state"], "scheduled", "{task}");
    let _dispatcher = stack.worker(&["--roles", "dispatcher"]).await;
    assert_eq!(user.finished(&api.http, &later).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_recorder_what_is_accepted_waits_for_the_next() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let (user, watch) = (User::default(), Stopwatch::default());
    let api = stack.api().await;
    let _worker = stack
        .worker(&["--builtin-handlers", "--roles", "executor,dispatcher"])
        .await;
    let mut ids = Vec::new();
    for number in 0..10 {
        let body = json!({"kind": "echo", "payload": number});
        ids.push(user.accepted(&api.http, &body, None).await);
    }
    let (answer, _) = watch.get(&api, &format!("/v1/tasks/{}", ids[0])).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("not_yet_recorded"));
    let _recorder = stack.worker(&["--roles", "recorder"]).await;
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(user.finished(&api.http, id).await["result"], number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_takes_no_writes_is_read_and_everything_else_waits() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let (user, watch) = (User::default(), Stopwatch::default());
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let before = id_of(watch.submit(&api, json!({"kind": "echo"}), None).await.0).await;
    user.finished(&api.http, &before).await;
    let writes = |allowed: &str| {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {allowed}");
        stack.postgres.psql("postgres", &sql).unwrap();
        stack
            .postgres
            .psql("postgres", "SELECT pg_reload_conf()")
            .unwrap();
    };
    writes("on");
    wait::until("writes to be refused", PATIENCE, || async {
        let cancel = format!("{}/v1/tasks/{before}/retry", api.http);
        let (answer, _) = watch.call(Method::POST, &cancel, None, None).await;
        answer.status() == 503 || answer.status() == 409
    })
    .await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let body = json!({"kind": "echo", "payload": number});
        let (answer, took) = watch.submit(&api, body, Some(&format!("key-{number}"))).await;
        ids.push(id_of(answer).await);
        assert!(took < AT_ONCE, "{took:?}");
        for path in [
            format!("/v1/tasks/{before}"),
            "/v1/tasks".to_owned(),
            "/v1/workers".to_owned(),
        ] {
            let (answer, took) = watch.get(&api, &path).await;
            assert_eq!(answer.status(), 200, "{path}");
            assert!(took < AT_ONCE, "{path} took {took:?}");
        }
    }
    writes("off");
    for id in &ids {
        assert_eq!(user.finished(&api.http, id).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_nats_is_answered_429_and_reads_go_on() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let watch = Stopwatch::default();
    let api = stack.forebay(&["api", "--nats-stream-max-bytes", "1MiB"]).await;
    let payload = "x".repeat(100_000);
    let refused = wait::until("the stream to be full", PATIENCE, || async {
        let (answer, took) = watch
            .submit(&api, json!({"kind": "echo", "payload": payload}), None)
            .await;
        assert!(took < AT_ONCE, "{took:?}");
        (answer.status() != 202).then_some(answer)
    })
    .await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "2");
    assert_eq!(watch.get(&api, "/v1/tasks").await.0.status(), 200);
    assert_eq!(watch.get(&api, "/health/ready").await.0.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_alarm_is_answered_503_and_what_it_holds_is_recorded() {
    let stack = Stack::on(BrokerKind::RabbitMq).await;
    let (user, watch) = (User::default(), Stopwatch::default());
    let api = stack.api().await;
    let mut ids = Vec::new();
    for number in 0..50 {
        let body = json!({"kind": "echo", "payload": number});
        ids.push(user.accepted(&api.http, &body, None).await);
    }
    let BrokerServer::RabbitMq(server) = &stack.broker else {
        unreachable!("it was asked for")
    };
    server.raise_disk_alarm().await.unwrap();
    wait::until("submissions to be refused", PATIENCE, || async {
        let (answer, took) = watch.submit(&api, json!({"kind": "echo"}), None).await;
        assert!(took < FIRST_CALLS, "{took:?}");
        answer.status() == 503
    })
    .await;
    let answer = watch.submit(&api, json!({"kind": "echo"}), None).await;
    watch.refused(&answer, AT_ONCE);
    // A worker that starts only now consumes, and its circuit does not hold it up. Lanes take nothing meanwhile.
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    for id in &ids {
        wait::until("the task to be recorded", PATIENCE, || async {
            let task = user.get(&api.http, id).await.ok_or("unreadable")?;
            Ok::<_, String>(task["state"] != Value::Null)
        })
        .await;
    }
    server.clear_disk_alarm().await.unwrap();
    for id in &ids {
        assert_eq!(user.finished(&api.http, id).await["state"], "succeeded");
    }
    wait::until("a submission to be accepted", PATIENCE, || async {
        user.submit(&api.http, &json!({"kind": "echo"}), None).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_lease_costs_running_tasks_no_attempt() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let user = User::default();
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers", "--lease", "2s"]).await;
    let body = json!({"kind": "sleep", "payload": {"seconds": 7}, "timeout_seconds": 60});
    let id = user.accepted(&api.http, &body, None).await;
    wait::until("the task to run", PATIENCE, || async {
        let task = user.get(&api.http, &id).await.ok_or("unreadable")?;
        Ok::<_, &str>(task["state"] == "running")
    })
    .await;
    stack.postgres.pause().unwrap();
    // This is how long the outage lasts.
    tokio::time::sleep(Duration::from_secs(5)).await;
    stack.postgres.resume().unwrap();
    let task = user.finished(&api.http, &id).await;
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("succeeded"), &json!(1)),
        "{task}"
    );
    assert_eq!(task["errors"], json!([]), "{task}");
}
