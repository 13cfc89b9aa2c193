//! A worker under test, and waiting for conditions.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use forebay_broker::{Broker, Message};
use forebay_core::{
    Clock, Json, RetryPolicy, State, Submission, SubmitRequest, SystemClock, Task, TaskEvent, TaskId,
};
use forebay_runtime::{health::Health, metrics::Metrics, supervise::random_bytes};
use forebay_worker::{
    DispatcherOptions, Execution, HandlerResult, HandlerSettings, Handlers, IntakeOptions, Load, Roles,
    Worker, WorkerOptions,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{broker::MemoryBroker, store::MemoryStore};

/// How long a condition may take to hold.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Lease of the workers under test.
pub(crate) const LEASE: Duration = Duration::from_millis(900);

/// A store and a broker.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) broker: Arc<MemoryBroker>,
}

/// A worker that runs.
pub(crate) struct Running {
    pub(crate) health: Health,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    pub(crate) load: watch::Receiver<Load>,
    run: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn options() -> WorkerOptions {
    let ms = Duration::from_millis;
    WorkerOptions {
        concurrency: 10,
        lease: LEASE,
        drain_timeout: Duration::from_secs(5),
        handler_grace: ms(300),
        intake: IntakeOptions {
            wait: ms(100),
            deaf_after: ms(200),
            unknown_kind_pause: ms(50),
            held_longest: ms(1_500),
            health_ttl: Duration::from_secs(2),
            // Most tests are about what comes out of lanes.
            hand_off: false,
        },
        dispatcher: DispatcherOptions {
            due_interval: ms(10),
            take_back_interval: Some(ms(50)),
            republish_interval: ms(50),
            empty_lane_lag: ms(300),
            watermark_lag: ms(500),
            trim_interval: ms(100),
            maintain_interval: Duration::from_secs(3_600),
        },
        ..WorkerOptions::default()
    }
}

/// Quick retries, three attempts.
pub(crate) fn settings() -> HandlerSettings {
    HandlerSettings {
        timeout: Duration::from_secs(10),
        retry: RetryPolicy {
            base: Duration::from_millis(10),
            attempts_max: 3,
            ..RetryPolicy::default()
        },
        ..HandlerSettings::default()
    }
}

/// A registry with one handler, for the kind `test`.
pub(crate) fn handle<F, Fut>(function: F) -> Handlers
where
    F: Fn(Execution) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    handle_with(settings(), function)
}

pub(crate) fn handle_with<F, Fut>(settings: HandlerSettings, function: F) -> Handlers
where
    F: Fn(Execution) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    let run = move |_: serde_json::Value, execution| {
        let ended = function(execution);
        async move {
            ended
                .await
                .map(|json| serde_json::from_slice::<serde_json::Value>(json.as_bytes()).unwrap())
        }
    };
    Handlers::new().function("test", settings, run).unwrap()
}

/// A handler that succeeds at once.
pub(crate) fn succeed() -> Handlers {
    handle(|_| async { Ok(Json::null()) })
}

pub(crate) fn request() -> SubmitRequest {
    SubmitRequest {
        kind: "test".to_owned(),
        ..SubmitRequest::default()
    }
}

pub(crate) fn submission(request: SubmitRequest) -> Submission {
    request.accept(SystemClock.now(), &random_bytes()).unwrap()
}

impl World {
    pub(crate) fn worker(&self, options: WorkerOptions, handlers: Handlers) -> Running {
        self.worker_on(Arc::clone(&self.store), options, handlers)
    }

    pub(crate) fn worker_on(
        &self,
        store: Arc<MemoryStore>,
        options: WorkerOptions,
        handlers: Handlers,
    ) -> Running {
        let stop = CancellationToken::new();
        let health = Health::default();
        let metrics = Arc::new(Metrics::new());
        let worker = Worker::new(
            options,
            handlers,
            store,
            Arc::clone(&self.broker) as Arc<dyn Broker>,
            Arc::new(SystemClock),
            Arc::clone(&metrics),
            health.clone(),
        );
        Running {
            health,
            metrics,
            load: worker.load(),
            run: tokio::spawn(worker.run(stop.clone())),
            stop,
        }
    }

    /// Submits a task, as the API does.
    pub(crate) async fn submit(&self, request: SubmitRequest) -> TaskId {
        let task = submission(request);
        let id = task.id;
        let confirmed = self.broker.publish(vec![Message::Submission(task)]).await;
        assert_eq!(confirmed, [Ok(())]);
        id
    }

    pub(crate) async fn submit_many(&self, count: usize) -> Vec<TaskId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.submit(request()).await);
        }
        ids
    }

    /// Waits until a task is in `state`.
    pub(crate) async fn wait_for(&self, id: TaskId, state: State) -> Task {
        let what = format!("task {id} is {state}");
        until(&what, || {
            let seen = self.store.task(id);
            let reached = seen.clone().filter(|task| task.state == state);
            reached.ok_or_else(|| Box::new(seen))
        })
        .await
    }

    pub(crate) async fn wait_for_all(&self, ids: &[TaskId], state: State) {
        for &id in ids {
            self.wait_for(id, state).await;
        }
    }

    /// All events that are told from now on, as they come.
    pub(crate) async fn events(&self) -> Arc<std::sync::Mutex<Vec<TaskEvent>>> {
        use futures::StreamExt;
        let mut signals = self.broker.signals().await.unwrap();
        let events = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        tokio::spawn(async move {
            while let Some(signal) = signals.next().await {
                if let forebay_core::Signal::Events(mut batch) = signal {
                    heard.lock().unwrap().append(&mut batch);
                }
            }
        });
        events
    }
}

impl Running {
    /// Stops it in good order.
    pub(crate) async fn drain(self) {
        self.drains().await.expect("it ends in order");
    }

    /// Stops it, and tells whether all that it had done was stored.
    pub(crate) async fn drains(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.run).await;
        ended.expect("it drains in time").expect("it does not panic")
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ends(self) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(PATIENCE, self.run).await;
        ended.expect("it ends by itself").expect("it does not panic")
    }

    /// Ends it as a crash would.
    pub(crate) async fn crash(self) {
        self.run.abort();
        // The abort's own error.
        let _ = self.run.await;
    }

    pub(crate) async fn is_healthy(&self) {
        until("the worker is healthy", || {
            let problems = self.health.problems();
            if problems.is_empty() {
                Ok(())
            } else {
                Err(problems)
            }
        })
        .await;
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|known| known == line)
    }
}

/// Waits until `condition` gives `Ok`; in time, or the test fails with what it saw last.
pub(crate) async fn until<T, E: Debug>(what: &str, mut condition: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) => assert!(
                Instant::now() < deadline,
                "waited in vain until {what}; last seen: {seen:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// [`until`] for a plain condition.
pub(crate) async fn holds(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || if condition() { Ok(()) } else { Err(()) }).await;
}

/// Without a dispatcher: nobody publishes again.
pub(crate) fn undispatched() -> WorkerOptions {
    WorkerOptions {
        roles: Roles {
            dispatcher: false,
            ..Roles::ALL
        },
        ..options()
    }
}
