//! The worker on the embedded store and broker, as `forebay dev` has it.

#![expect(clippy::unwrap_used, reason = "what does not unwrap here is a failed test")]

#[path = "it/remote/client.rs"]
mod client;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_broker::{Broker, Message};
use forebay_broker_embedded::EmbeddedBroker;
use forebay_core::{
    Clock, Lane, LimitRequest, Priority, QueueName, RetryPolicy, ScheduleRequest, Signal, State,
    SubmitRequest, SystemClock, Task, TaskId,
};
use forebay_runtime::{health::Health, metrics::Metrics, supervise::random_bytes};
use forebay_store::{Admin, Limits, Operate, Read, Schedules, Store};
use forebay_store_sqlite::SqliteStore;
use forebay_worker::{
    Execution, HandlerError, HandlerSettings, Handlers, IntakeOptions, RemoteOptions, Roles, Worker,
    WorkerOptions,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::client::{Server, hello, id_of, succeeded};

const PATIENCE: Duration = Duration::from_secs(30);

/// A second queue of the workers.
const OTHER: &str = "other";

/// How often each task was run.
type Runs = Arc<Mutex<HashMap<TaskId, u32>>>;

struct World {
    store: SqliteStore,
    broker: Arc<EmbeddedBroker>,
    runs: Runs,
    _folder: TempDir,
}

struct Running {
    stop: CancellationToken,
    health: Health,
    run: JoinHandle<anyhow::Result<()>>,
}

/// Does as the payload says.
async fn obey(order: String, execution: Execution, runs: Runs) -> Result<u32, HandlerError> {
    *runs.lock().unwrap().entry(execution.id).or_default() += 1;
    match order.as_str() {
        "fail once" if execution.attempt == 1 => Err(HandlerError::retryable("once")),
        "wait" if execution.attempt == 1 => {
            execution.stop.cancelled().await;
            Err(HandlerError::retryable("stopped"))
        }
        // Not the first run: a worker may die between its claim and the start of the handler.
        "hang on the first start" if execution.fence == 1 => std::future::pending().await,
        _ => Ok(execution.attempt),
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("forebay.db"))
            .await
            .unwrap();
        store.migrate().await.unwrap();
        Self {
            broker: Arc::new(EmbeddedBroker::new(Arc::new(store.clone()))),
            store,
            runs: Runs::default(),
            _folder: folder,
        }
    }

    fn worker(&self) -> Running {
        self.worker_with(|worker| worker)
    }

    fn worker_with(&self, prepare: impl FnOnce(Worker) -> Worker) -> Running {
        self.worker_as(|_| (), prepare)
    }

    fn worker_as(
        &self,
        change: impl FnOnce(&mut WorkerOptions),
        prepare: impl FnOnce(Worker) -> Worker,
    ) -> Running {
        let settings = HandlerSettings {
            retry: RetryPolicy {
                base: Duration::from_millis(20),
                ..RetryPolicy::default()
            },
            ..HandlerSettings::default()
        };
        let runs = Arc::clone(&self.runs);
        let handlers = Handlers::new()
            .function("test", settings, move |order, execution| {
                obey(order, execution, Arc::clone(&runs))
            })
            .unwrap();
        let mut options = WorkerOptions {
            lease: Duration::from_secs(1),
            drain_timeout: Duration::from_millis(200),
            handler_grace: Duration::from_millis(200),
            queues: vec![QueueName::default(), OTHER.parse().unwrap()],
            intake: IntakeOptions {
                unknown_kind_pause: Duration::from_millis(50),
                ..IntakeOptions::default()
            },
            ..WorkerOptions::default()
        };
        change(&mut options);
        let (stop, health) = (CancellationToken::new(), Health::default());
        let worker = Worker::new(
            options,
            handlers,
            Arc::new(self.store.clone()) as Arc<dyn Store>,
            Arc::clone(&self.broker) as Arc<dyn Broker>,
            Arc::new(SystemClock),
            Arc::new(Metrics::new()),
            health.clone(),
        );
        let run = tokio::spawn(prepare(worker).run(stop.clone()));
        Running { stop, health, run }
    }

    async fn submit(&self, order: &str, delay_seconds: Option<f64>) -> TaskId {
        self.submit_to("default", order, delay_seconds).await
    }

    async fn submit_to(&self, queue: &str, order: &str, delay_seconds: Option<f64>) -> TaskId {
        let request = SubmitRequest {
            queue: Some(queue.to_owned()),
            kind: "test".to_owned(),
            payload: Some(forebay_core::Json::of(order).unwrap()),
            delay_seconds,
            ..SubmitRequest::default()
        };
        self.accept(request).await
    }

    async fn accept(&self, request: SubmitRequest) -> TaskId {
        let task = request.accept(SystemClock.now(), &random_bytes()).unwrap();
        let id = task.id;
        let confirmed = self.broker.publish(vec![Message::Submission(task)]).await;
        assert_eq!(confirmed, [Ok(())]);
        id
    }

    async fn wait_for(&self, id: TaskId, state: State) -> Task {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let task = self.store.get(id).await.unwrap().unwrap();
            if task.state == state {
                return task;
            }
            assert!(Instant::now() < deadline, "it never was {state}: {task:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Running {
    async fn drain(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.run).await;
        ended.unwrap().unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_run_once_each_now_later_and_again() {
    let world = World::new().await;
    let worker = world.worker();
    let mut ids = Vec::new();
    for n in 0..300 {
        let (order, delay) = match n % 3 {
            0 => ("succeed", None),
            1 => ("fail once", None),
            _ => ("succeed", Some(0.3)),
        };
        ids.push((
            world.submit(order, delay).await,
            if order == "succeed" { 1 } else { 2 },
        ));
    }
    for (id, starts) in ids {
        let task = world.wait_for(id, State::Succeeded).await;
        assert_eq!((task.attempt, task.fence), (starts, starts));
        assert_eq!(world.runs.lock().unwrap()[&id], starts);
    }
    let deadline = Instant::now() + PATIENCE;
    while let [problem, ..] = &worker.health.problems()[..] {
        assert!(Instant::now() < deadline, "it never was healthy: {problem:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.drain().await;
    assert_eq!(world.store.workers().await.unwrap(), []);
}

/// With the intervals that a worker has unless told otherwise: what was submitted for later, and what a schedule submits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_starts_within_200_ms() {
    let world = World::new().await;
    let worker = world.worker();
    let ticking = ScheduleRequest {
        cron: "* * * * * *".to_owned(),
        overlap: Some("allow".to_owned()),
        task: SubmitRequest {
            kind: "test".to_owned(),
            payload: Some(forebay_core::Json::of("succeed").unwrap()),
            ..SubmitRequest::default()
        },
        ..ScheduleRequest::default()
    };
    let ticking = ticking
        .accept("ticking".parse().unwrap(), SystemClock.now())
        .unwrap();
    let ticking = world.store.put_schedule(&ticking).await.unwrap().schedule;
    let mut due = Vec::new();
    for n in 0..20 {
        let later = SubmitRequest {
            kind: "test".to_owned(),
            payload: Some(forebay_core::Json::of("succeed").unwrap()),
            run_at: Some(SystemClock.now() + Duration::from_millis(500 + 143 * n)),
            ..SubmitRequest::default()
        };
        due.push((later.run_at.unwrap(), world.accept(later).await));
    }
    let ticks = ticking.upcoming(ticking.created_at, 3);
    let deadline = Instant::now() + PATIENCE;
    while SystemClock.now() <= ticks[2] + Duration::from_secs(1) {
        assert!(Instant::now() < deadline, "time stands still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ticks = ticks
        .into_iter()
        .map(|tick| (tick, TaskId::of_tick(&ticking.name, tick)));
    // The machine may be busy for a while, but not all the time.
    for (what, times) in [("submitted for later", due), ("of a schedule", ticks.collect())] {
        let mut lateness = Vec::new();
        for (at, id) in times {
            let started = world.wait_for(id, State::Succeeded).await.started_at.unwrap();
            lateness.push(Duration::try_from(started.duration_since(at)).expect("not before its time"));
        }
        lateness.sort_unstable();
        assert!(
            lateness[lateness.len() / 4] < Duration::from_millis(200),
            "{what}: {lateness:?}"
        );
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paused_waits_until_it_is_resumed() {
    let world = World::new().await;
    let paused = QueueName::default();
    assert!(world.store.set_paused(&paused, true).await.unwrap());
    let worker = world.worker();
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(world.submit("succeed", None).await);
    }
    for _ in 0..5 {
        let other = world.submit_to(OTHER, "succeed", None).await;
        world.wait_for(other, State::Succeeded).await;
    }
    assert_eq!(world.runs.lock().unwrap().len(), 5);
    let lane = Lane::new(paused.clone(), Priority::Default);
    let depth = world.broker.depth(&lane).await.unwrap();
    assert_eq!((depth.waiting, depth.delivered), (50, 0));
    assert!(world.store.set_paused(&paused, false).await.unwrap());
    world.broker.signal(Signal::QueuesChanged).await.unwrap();
    for id in ids {
        assert_eq!(world.wait_for(id, State::Succeeded).await.fence, 1);
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_a_drain_and_a_cancellation() {
    let world = World::new().await;
    let first = world.worker();
    let lost = world.submit("hang on the first start", None).await;
    world.wait_for(lost, State::Running).await;
    first.run.abort();
    let second = world.worker();
    let task = world.wait_for(lost, State::Succeeded).await;
    assert_eq!((task.attempt, task.fence), (1, 2));
    let interrupted = world.submit("hang on the first start", None).await;
    world.wait_for(interrupted, State::Running).await;
    second.drain().await;
    let third = world.worker();
    let task = world.wait_for(interrupted, State::Succeeded).await;
    assert_eq!((task.attempt, task.fence), (1, 2));
    let cancelled = world.submit("wait", None).await;
    world.wait_for(cancelled, State::Running).await;
    world.store.cancel(cancelled).await.unwrap();
    world
        .broker
        .signal(Signal::Cancel(vec![cancelled]))
        .await
        .unwrap();
    world.wait_for(cancelled, State::Cancelled).await;
    third.drain().await;
}

/// A world in which one task may run at a time.
async fn one_at_a_time() -> World {
    let world = World::new().await;
    let one = LimitRequest {
        concurrency: Some(1),
        ..LimitRequest::default()
    };
    let one = one.accept("one".parse().unwrap()).unwrap();
    world.store.put_limit(&one).await.unwrap();
    world
}

/// Nobody looks at what is due for an hour, but when told: each that ends tells it of the next that may go on. What is told in
/// vain would go on ten seconds later, one after the other.
fn hourly(options: &mut WorkerOptions) {
    options.dispatcher.due_interval = Duration::from_secs(3_600);
}

/// A process that has no role but this.
fn dispatcher(options: &mut WorkerOptions) {
    hourly(options);
    options.roles = Roles {
        recorder: false,
        executor: false,
        dispatcher: true,
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_makes_the_next_of_a_limit_go_on_at_once() {
    let world = one_at_a_time().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(world.submit("succeed", None).await);
    }
    let worker = world.worker_as(hourly, |worker| worker);
    for id in ids.into_iter().rev() {
        world.wait_for(id, State::Succeeded).await;
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_of_a_limit_goes_on_at_once_by_a_dispatcher_elsewhere() {
    let world = one_at_a_time().await;
    let dispatcher = world.worker_as(dispatcher, |worker| worker);
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(world.submit("succeed", None).await);
    }
    let executor = world.worker_as(|options| options.roles = Roles::EXECUTOR, |worker| worker);
    for id in ids.into_iter().rev() {
        world.wait_for(id, State::Succeeded).await;
    }
    executor.drain().await;
    dispatcher.drain().await;
}

/// An API with remote workers has no dispatcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_of_a_limit_goes_on_at_once_after_a_remote_worker() {
    let world = one_at_a_time().await;
    let dispatcher = world.worker_as(dispatcher, |worker| worker);
    let (store, broker) = (Arc::new(world.store.clone()), Arc::clone(&world.broker));
    let server = Server::start(RemoteOptions::default(), store, broker).await;
    let mut remote = server.worker(hello("resize", 4)).await;
    for _ in 0..8 {
        world.accept(resize()).await;
    }
    let all = async {
        for _ in 0..8 {
            let start = remote.start().await;
            remote.finish(&start, succeeded("1")).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    drop(remote);
    server.stop.cancel();
    server.ends().await;
    dispatcher.drain().await;
}

/// A task for the remote worker.
fn resize() -> SubmitRequest {
    SubmitRequest {
        kind: "resize".to_owned(),
        ..SubmitRequest::default()
    }
}

/// As in `forebay dev`: both read the same queue, and each has a handler for another kind. One that is lost is taken back
/// long before its lease ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_worker_beside_another_gets_its_kinds() {
    let world = World::new().await;
    let mut options = RemoteOptions::default();
    options.executor.lease = Duration::from_secs(600);
    options.executor.intake.unknown_kind_pause = Duration::from_millis(50);
    let mut beside = None;
    let (store, broker) = (Arc::new(world.store.clone()), Arc::clone(&world.broker));
    let server = Server::start_beside(options, store, broker, |remote| {
        beside = Some(world.worker_with(|worker| worker.beside(remote)));
    })
    .await;
    let mut remote = server.worker(hello("resize", 4)).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(world.submit("succeed", None).await);
        ids.push(world.accept(resize()).await);
    }
    for _ in 0..20 {
        let start = remote.start().await;
        remote.finish(&start, succeeded("1")).await;
    }
    for id in ids {
        assert_eq!(world.wait_for(id, State::Succeeded).await.fence, 1);
    }
    let lost = world.accept(resize()).await;
    assert_eq!(id_of(&remote.start().await), (lost.to_string(), 1));
    drop(remote);
    let mut other = server.worker(hello("resize", 4)).await;
    let again = other.start().await;
    assert_eq!(id_of(&again), (lost.to_string(), 2));
    other.finish(&again, succeeded("1")).await;
    let task = world.wait_for(lost, State::Succeeded).await;
    assert_eq!(task.errors[0].outcome, "lost");
    server.stop.cancel();
    server.ends().await;
    beside.unwrap().drain().await;
    assert_eq!(world.store.workers().await.unwrap(), []);
}
