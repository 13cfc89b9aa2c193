//! Webhooks from end to end, on the embedded store and broker: a task ends, and a real server hears of it.

#![expect(clippy::unwrap_used, reason = "what does not unwrap here is a failed test")]

#[path = "handlers/server.rs"]
mod server;

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_broker::{Broker, Message};
use forebay_broker_embedded::EmbeddedBroker;
use forebay_core::{
    Clock, Json, Project, QueueName, State, SubmitRequest, SystemClock, Task, TaskId, Terms, TermsRequest,
    Webhook, WebhookName, WebhookRequest,
};
use forebay_runtime::{health::Health, metrics::Metrics, supervise::random_bytes};
use forebay_store::{Admin, Delivery, Read, Replay, Replayed, Store, Webhooks};
use forebay_store_sqlite::SqliteStore;
use forebay_worker::{HandlerError, HandlerSettings, Handlers, WebhookOptions, Worker, WorkerOptions};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::server::{Request, Server, response};

const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: &str = include_str!("../../docs/webhooks.md");
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDsV0a2gFxjPk=";
const OTHER_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// A store, a broker, and a worker with all roles.
struct World {
    store: SqliteStore,
    broker: Arc<EmbeddedBroker>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    run: JoinHandle<anyhow::Result<()>>,
    _folder: TempDir,
}

impl World {
    /// One that delivers to this machine, too.
    async fn local() -> Self {
        Self::reaching(&["127.0.0.1/32"]).await
    }

    async fn reaching(networks: &[&str]) -> Self {
        Self::delivering(networks, WebhookOptions::default()).await
    }

    async fn delivering(networks: &[&str], options: WebhookOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("forebay.db"))
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let broker = Arc::new(EmbeddedBroker::new(Arc::new(store.clone())));
        let handlers = Handlers::new()
            .function(
                "test",
                HandlerSettings::default(),
                |order: String, _| async move {
                    match order.as_str() {
                        "fail" => Err(HandlerError::permanent("as it was told")),
                        _ => Ok(order),
                    }
                },
            )
            .unwrap();
        let options = WorkerOptions {
            queues: vec![QueueName::default()],
            drain_timeout: Duration::from_millis(200),
            handler_grace: Duration::from_millis(200),
            webhooks: WebhookOptions {
                allow_private: networks.iter().map(|network| network.parse().unwrap()).collect(),
                look_every: Duration::from_millis(20),
                ..options
            },
            ..WorkerOptions::default()
        };
        let metrics = Arc::new(Metrics::new());
        let worker = Worker::new(
            options,
            handlers,
            Arc::new(store.clone()) as Arc<dyn Store>,
            Arc::clone(&broker) as Arc<dyn Broker>,
            Arc::new(SystemClock),
            Arc::clone(&metrics),
            Health::default(),
        );
        let stop = CancellationToken::new();
        let run = tokio::spawn(worker.run(stop.clone()));
        Self {
            store,
            broker,
            metrics,
            stop,
            run,
            _folder: folder,
        }
    }

    async fn put(&self, url: &str, secret: &str) -> Webhook {
        self.put_as(billing(), url, secret).await
    }

    async fn put_as(&self, name: WebhookName, url: &str, secret: &str) -> Webhook {
        let request = WebhookRequest {
            url: url.to_owned(),
            secret: Some(secret.to_owned()),
            include_result: true,
            ..WebhookRequest::default()
        };
        let webhook = request.accept(name, &[0; 32]).unwrap();
        self.store.put_webhook(&webhook).await.unwrap().webhook
    }

    /// Submits a task that names the webhook, and waits for its end.
    async fn run_task(&self, order: &str) -> TaskId {
        let request = SubmitRequest {
            kind: "test".to_owned(),
            payload: Some(Json::of(order).unwrap()),
            terms: TermsRequest {
                notify: vec![billing().to_string()],
                ..TermsRequest::default()
            },
            ..SubmitRequest::default()
        };
        let task = request.accept(SystemClock.now(), &random_bytes()).unwrap();
        let id = task.id;
        let confirmed = self.broker.publish(vec![Message::Submission(task)]).await;
        assert_eq!(confirmed, [Ok(())]);
        self.wait_until("it has ended", || async {
            self.store
                .get(id)
                .await
                .unwrap()
                .is_some_and(|task| task.state.is_final())
        })
        .await;
        id
    }

    async fn wait_until<R: Future<Output = bool>>(&self, what: &str, mut condition: impl FnMut() -> R) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries_to(&billing()).await
    }

    async fn deliveries_to(&self, name: &WebhookName) -> Vec<Delivery> {
        self.store.deliveries(name, 1_000, None).await.unwrap()
    }

    /// Sends a trial.
    async fn try_out(&self, name: &WebhookName) {
        let told = self.store.replay(name, Replay::Trial).await.unwrap();
        assert!(matches!(told, Replayed::Done { .. }), "{told:?}");
    }

    async fn webhook(&self) -> Webhook {
        self.store.webhook(&billing()).await.unwrap().unwrap()
    }

    /// Until so many deliveries to this webhook have arrived.
    async fn delivered(&self, name: &WebhookName, count: usize) {
        self.wait_until(&format!("{count} have arrived"), || async {
            let all = self.deliveries_to(name).await;
            let arrived = all.iter().filter(|it| {
                it.standing
                    .as_ref()
                    .is_some_and(|it| it.state == State::Succeeded)
            });
            arrived.count() == count
        })
        .await;
    }

    /// The latest delivery, once its task is in this state.
    async fn delivery(&self, state: State) -> (Delivery, Task) {
        self.latest(state, |_| true).await
    }

    /// The latest delivery, once it is about this task and its own is in this state.
    async fn delivery_of(&self, task: TaskId, state: State) -> (Delivery, Task) {
        self.latest(state, |delivery| delivery.task == Some(task)).await
    }

    async fn latest(&self, state: State, is_meant: impl Fn(&Delivery) -> bool) -> (Delivery, Task) {
        self.wait_until(&format!("the delivery is {state}"), || async {
            let latest = self.deliveries().await.into_iter().next();
            latest
                .filter(|latest| is_meant(latest))
                .and_then(|latest| latest.standing)
                .is_some_and(|standing| standing.state == state)
        })
        .await;
        let delivery = self.deliveries().await.remove(0);
        let task = self
            .store
            .get(delivery.delivered_by.unwrap())
            .await
            .unwrap()
            .unwrap();
        (delivery, task)
    }

    async fn drain(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.run).await;
        ended.unwrap().unwrap().unwrap();
        assert_eq!(
            self.store.workers().await.unwrap(),
            [],
            "all of it has said good-bye"
        );
    }
}

fn billing() -> WebhookName {
    "billing".parse().unwrap()
}

fn ok() -> Vec<u8> {
    response("204 No Content", "", "")
}

/// Whether the example of the documentation takes a request for one of Forebay's.
fn verify(secret: &str, request: &Request, body: &[u8]) -> Result<(), String> {
    let (_, rest) = PAGE.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let program = format!(
        "{example}\nimport json, sys\nhead = json.loads(sys.stdin.buffer.readline())\n\
         verify(head['secret'], head['headers'], sys.stdin.buffer.read())\n"
    );
    let mut python = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let head = serde_json::json!({"secret": secret, "headers": request.headers});
    let mut input = python.stdin.take().unwrap();
    input.write_all(format!("{head}\n").as_bytes()).unwrap();
    input.write_all(body).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_posted_as_a_signed_cloud_event() {
    let (world, server) = (World::local().await, Server::answering(ok()).await);
    world.put(&server.url(), SECRET).await;
    let task = world.run_task("hello").await;
    let (delivery, delivering) = world.delivery(State::Succeeded).await;
    assert_eq!(delivering.result.unwrap().as_str(), r#"{"status":204}"#);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert!(
        request.line.starts_with("POST /hooks/secret-path "),
        "{}",
        request.line
    );
    assert_eq!(
        request.headers["content-type"],
        "application/cloudevents+json; charset=utf-8"
    );
    assert_eq!(request.headers["webhook-id"], delivery.event_id);
    let event: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["id"], *delivery.event_id);
    assert_eq!(event["type"], "dev.forebay.task.succeeded");
    assert_eq!(event["subject"], task.to_string());
    assert_eq!(event["data"]["result"], "hello");
    verify(SECRET, request, &request.body).unwrap();
    let mut tampered = request.body.clone();
    tampered.push(b' ');
    assert!(
        verify(SECRET, request, &tampered)
            .unwrap_err()
            .contains("not signed")
    );
    assert!(verify(OTHER_SECRET, request, &request.body).is_err());
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_sign_while_one_replaces_the_other() {
    let (world, server) = (World::local().await, Server::answering(ok()).await);
    world.put(&server.url(), SECRET).await;
    world.put(&server.url(), OTHER_SECRET).await;
    world.run_task("fail").await;
    world.delivery(State::Succeeded).await;
    let request = server.requests().remove(0);
    assert_eq!(request.headers["webhook-signature"].split(' ').count(), 2);
    for secret in [SECRET, OTHER_SECRET] {
        verify(secret, &request, &request.body).unwrap();
    }
    let event: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(event["data"]["error"]["message"], "as it was told");
    assert_eq!(event["data"]["result"], serde_json::Value::Null);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_taken_is_tried_again_on_the_schedule() {
    let busy = response("503 Service Unavailable", "Retry-After: 1\r\n", "later");
    let silence = Vec::new();
    let options = WebhookOptions {
        answer_max: Duration::from_secs(2),
        ..WebhookOptions::default()
    };
    let (world, server) = (
        World::delivering(&["127.0.0.1/32"], options).await,
        Server::answering_in_turn([busy, silence, ok()]).await,
    );
    world.put(&server.url(), SECRET).await;
    world.run_task("hello").await;
    let (delivery, delivering) = world.delivery(State::Retrying).await;
    let error = delivery.standing.unwrap().error.unwrap();
    assert!(
        error.message.contains("503 Service Unavailable: later"),
        "{error:?}"
    );
    let first = delivering.run_at.unwrap().duration_since(delivering.errors[0].at);
    assert!(
        (4_900..=5_100).contains(&first.as_millis()),
        "a Retry-After of a second does not shorten the first wait: {first:?}"
    );
    assert_eq!(world.webhook().await.failing_since, None, "once is nothing");
    world
        .wait_until("it was tried twice", || async { server.requests().len() == 2 })
        .await;
    world
        .wait_until("that is noted", || async {
            let standing = world.deliveries().await.remove(0).standing.unwrap();
            standing.state == State::Retrying && standing.attempt == 2
        })
        .await;
    let (delivery, delivering) = world.delivery(State::Retrying).await;
    let scheduled = delivering.run_at.unwrap().duration_since(delivering.errors[1].at);
    assert!(
        (299..=301).contains(&scheduled.as_secs()),
        "the second wait is of five minutes: {scheduled:?}"
    );
    assert!(
        world.webhook().await.failing_since.is_some(),
        "twice is something"
    );
    let error = delivery.standing.unwrap().error.unwrap();
    assert!(error.message.contains("did not answer in time"), "{error:?}");
    let ids: Vec<String> = server
        .requests()
        .iter()
        .map(|it| it.headers["webhook-id"].clone())
        .collect();
    assert_eq!(ids[0], ids[1]);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_gone_is_disabled_and_hears_later_what_it_missed() {
    let gone = response("410 Gone", "", "");
    let (world, server) = (
        World::local().await,
        Server::answering_in_turn([gone, ok()]).await,
    );
    let began = SystemClock.now();
    world.put(&server.url(), SECRET).await;
    let first = world.run_task("one").await;
    let (_, delivering) = world.delivery(State::Failed).await;
    assert_eq!(delivering.attempt, 1, "it is not tried again");
    let webhook = world.webhook().await;
    assert!(webhook.disabled);
    assert_eq!(
        webhook.disabled_reason.as_deref(),
        Some("its endpoint answered 410 Gone")
    );
    let second = world.run_task("two").await;
    world
        .wait_until("the second is noted", || async {
            world.deliveries().await.len() == 2
        })
        .await;
    assert_eq!(world.deliveries().await[0].delivered_by, None);
    assert_eq!(server.requests().len(), 1);

    world.put(&server.url(), SECRET).await;
    let replayed = world
        .store
        .replay(&billing(), Replay::Since(began, None))
        .await
        .unwrap();
    let Replayed::Done { events, more: false } = replayed else {
        panic!("{replayed:?}");
    };
    assert_eq!(events.len(), 2);
    world
        .wait_until("both have arrived", || async { server.requests().len() == 3 })
        .await;
    let mut told: Vec<String> = server.requests()[1..]
        .iter()
        .map(|request| {
            serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["subject"].to_string()
        })
        .collect();
    told.sort();
    let mut expected = [first, second].map(|id| format!("\"{id}\""));
    expected.sort();
    assert_eq!(told, expected);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_address_calls_gone_is_told_to_the_new_one() {
    let (world, new) = (World::local().await, Server::answering(ok()).await);
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", old.local_addr().unwrap());
    world.put(&url, SECRET).await;
    let task = world.run_task("hello").await;
    let called = tokio::time::timeout(PATIENCE, old.accept()).await;
    let (mut connection, _) = called.unwrap().unwrap();
    // An answer to what was not asked yet would be another mistake.
    connection.readable().await.unwrap();
    // It moves while the old address has not answered yet.
    world.put(&new.url(), SECRET).await;
    connection.write_all(&response("410 Gone", "", "")).await.unwrap();
    connection.shutdown().await.unwrap();
    // Until the other side has hung up, however it does.
    let _ = connection.read_to_end(&mut Vec::new()).await;
    let (_, delivering) = world.delivery_of(task, State::Succeeded).await;
    assert_eq!(delivering.attempt, 1, "that it moved costs no attempt");
    assert_eq!(new.requests().len(), 1);
    let webhook = world.webhook().await;
    assert!(!webhook.disabled);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_public_is_not_called() {
    let (world, server) = (
        World::reaching(&["10.0.0.0/8"]).await,
        Server::answering(ok()).await,
    );
    let by_name = format!("http://localhost:{}/", server.address.port());
    let urls = [
        server.url(),
        by_name,
        format!("http://[::ffff:127.0.0.1]:{}/", server.address.port()),
    ];
    for (before, url) in urls.iter().enumerate() {
        world.put(url, SECRET).await;
        let task = world.run_task("hello").await;
        let (delivery, delivering) = world.delivery_of(task, State::Failed).await;
        assert_eq!(world.deliveries().await.len(), before + 1);
        let error = delivery.standing.unwrap().error.unwrap();
        assert!(error.message.contains("not public"), "{error:?}");
        assert_eq!(delivering.attempt, 1);
    }
    assert_eq!(server.requests().len(), 0);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let target = Server::answering(ok()).await;
    let moved = response(
        "307 Temporary Redirect",
        &format!("Location: {}\r\n", target.url()),
        "",
    );
    let (world, server) = (World::local().await, Server::answering(moved).await);
    world.put(&server.url(), SECRET).await;
    world.run_task("hello").await;
    let (delivery, _) = world.delivery(State::Retrying).await;
    let standing = delivery.standing.unwrap();
    assert!(standing.error.unwrap().message.contains("307"));
    assert_eq!((server.requests().len(), target.requests().len()), (1, 0));
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_there_is_a_webhook_nothing_runs_for_it() {
    let world = World::local().await;
    let others = |workers: Vec<forebay_core::WorkerInfo>| {
        let others = workers
            .into_iter()
            .filter(|worker| worker.name.ends_with("/webhooks"));
        others.count()
    };
    world.run_task("hello").await;
    assert_eq!(others(world.store.workers().await.unwrap()), 0);
    assert_eq!(world.deliveries().await, []);
    let server = Server::answering(ok()).await;
    world.put(&server.url(), SECRET).await;
    world.store.replay(&billing(), Replay::Trial).await.unwrap();
    let (delivery, delivering) = world.delivery(State::Succeeded).await;
    assert_eq!(delivery.event_kind, "dev.forebay.webhook.test");
    assert_eq!(delivering.project, Project::default());
    assert!(delivering.terms.is_some_and(|terms| *terms != Terms::default()));
    assert_eq!(others(world.store.workers().await.unwrap()), 1);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_a_quick_receiver_is_handed_back_never() {
    const BURST: usize = 200;
    let options = WebhookOptions {
        slots: 8,
        patience: PATIENCE,
        ..WebhookOptions::default()
    };
    let world = World::delivering(&["127.0.0.1/32"], options).await;
    let server = Server::answering(ok()).await;
    world.put(&server.url(), SECRET).await;
    for _ in 0..BURST {
        world.try_out(&billing()).await;
    }
    world.delivered(&billing(), BURST).await;
    for delivery in world.deliveries().await {
        let task = world
            .store
            .get(delivery.delivered_by.unwrap())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(task.fence, 1, "who is handed back is started again: {task:?}");
    }
    assert_eq!(server.requests().len(), BURST);
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_leaves_places_to_the_others() {
    let options = WebhookOptions {
        slots: 4,
        patience: Duration::from_millis(20),
        ..WebhookOptions::default()
    };
    let world = World::delivering(&["127.0.0.1/32"], options).await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world
        .put(&format!("http://{}/", slow.local_addr().unwrap()), SECRET)
        .await;
    for _ in 0..20 {
        world.try_out(&billing()).await;
    }
    let calls = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&calls);
    let taking = tokio::spawn(async move {
        while let Ok((call, _)) = slow.accept().await {
            taken.lock().unwrap().push(call);
        }
    });
    world
        .wait_until("it is called", || async { calls.lock().unwrap().len() == 2 })
        .await;
    let (server, quick) = (
        Server::answering(ok()).await,
        "quick".parse::<WebhookName>().unwrap(),
    );
    world.put_as(quick.clone(), &server.url(), SECRET).await;
    world.try_out(&quick).await;
    world.delivered(&quick, 1).await;
    let called = calls.lock().unwrap().len();
    assert_eq!(called, 2, "two of the four places are for one webhook at most");
    world.drain().await;
    taking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_nothing_for_long_is_disabled() {
    let options = WebhookOptions {
        failing_max: Duration::ZERO,
        ..WebhookOptions::default()
    };
    let world = World::delivering(&["10.0.0.0/8"], options).await;
    world.put("http://127.0.0.1:9/", SECRET).await;
    let disabled = || {
        world
            .metrics
            .encode()
            .contains("forebay_webhooks_disabled_total 1")
    };
    let first = world.run_task("one").await;
    world.delivery_of(first, State::Failed).await;
    let failing = world.webhook().await;
    assert!(failing.failing_since.is_some() && !failing.disabled && !disabled());
    let second = world.run_task("two").await;
    let (delivery, _) = world.delivery_of(second, State::Failed).await;
    let error = delivery.standing.unwrap().error.unwrap();
    assert!(
        error.message.contains("is disabled: it has taken nothing"),
        "{error:?}"
    );
    let given_up = world.webhook().await;
    assert!(given_up.disabled && given_up.failing_since == failing.failing_since && disabled());
    assert_eq!(
        given_up.disabled_reason.as_deref(),
        Some("it has taken nothing for 0 days")
    );
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_something_works_again() {
    let (world, server) = (World::local().await, Server::answering(ok()).await);
    let made = world.put(&server.url(), SECRET).await;
    let noted = world
        .store
        .note_failing(&billing(), &server.url(), PATIENCE, "no")
        .await;
    assert!(!noted.unwrap());
    assert!(world.webhook().await.failing_since.is_some());
    world.try_out(&billing()).await;
    world.delivered(&billing(), 1).await;
    assert_eq!(world.webhook().await, made);
    world.drain().await;
}
