use std::{sync::Arc, time::Duration};

use anyhow::Context;
use forebay_broker::Broker;
use forebay_core::Clock;
use forebay_runtime::{
    health::{Health, Reporter},
    metrics::Metrics,
};
use forebay_store::Store;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Handlers, RemoteWorkers, WorkerOptions, dispatcher::Dispatcher, events::Events, executor::Executor,
    neighbours::Neighbours, recorder::Recorder, shared::Shared, webhooks,
};

/// How long the last events may take.
pub(crate) const EVENTS_FLUSH_MAX: Duration = Duration::from_secs(2);

/// A worker: recorder, executor and dispatcher, as its options say.
pub struct Worker {
    shared: Arc<Shared>,
    events: Events,
    /// Keeps the process from looking ready before its parts have begun to report.
    starting: Reporter,
}

/// How busy a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// How many of its slots run a task.
    pub busy: usize,
    /// How long the task that it has run for longest has been running.
    pub longest: Duration,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("options", &self.shared.options)
            .field("handlers", &self.shared.handlers)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker that runs `handlers`. Nothing happens until [`Self::run`] is driven. What it reports to `health` and
    /// `metrics` is for the caller to show.
    #[must_use]
    pub fn new(
        options: WorkerOptions,
        handlers: Handlers,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        health: Health,
    ) -> Self {
        let starting = health.component("worker", Duration::MAX);
        let due = Arc::default();
        let (sender, events) = Events::new(Arc::clone(&broker), Arc::clone(&due));
        let shared = Shared {
            options,
            handlers,
            store,
            broker,
            clock,
            metrics,
            health,
            events: sender,
            hearing: None,
            neighbours: Neighbours::default(),
            progress: Arc::default(),
            due,
            load: watch::Sender::default(),
            #[cfg(feature = "sabotage")]
            sabotage: crate::Sabotage::default(),
        };
        Self {
            shared: Arc::new(shared),
            events,
            starting,
        }
    }

    /// Makes it known to the remote workers that are connected to this process, and them to it: a task for which one of
    /// them has no handler is given to the other, and who waits for the place of a limit that one of them gives back goes on
    /// at once.
    #[must_use]
    pub fn beside(mut self, remote: &RemoteWorkers) -> Self {
        let shared = Arc::get_mut(&mut self.shared);
        let shared = shared.expect("nothing shares it before it runs");
        shared.neighbours = remote.neighbours();
        shared.due = remote.due();
        self.events.due = remote.due();
        self
    }

    /// Makes it break its promises as told, for tests that must see that.
    #[cfg(feature = "sabotage")]
    #[must_use]
    pub fn sabotage(mut self, sabotage: crate::Sabotage) -> Self {
        warn!(?sabotage, "this worker loses tasks on purpose");
        let shared = Arc::get_mut(&mut self.shared);
        shared.expect("nothing shares it before it runs").sabotage = sabotage;
        self
    }

    /// How busy it is, brought up to date about every second while it runs. The sender is gone once it has ended.
    #[must_use]
    pub fn load(&self) -> watch::Receiver<Load> {
        self.shared.load.subscribe()
    }

    /// Works until `stop` is cancelled, or until its own end where [`WorkerOptions::once`] or
    /// [`WorkerOptions::tasks_max`] set one; then drains: takes nothing new, lets what runs finish within the drain
    /// timeout, hands back the rest, and returns. Outages of store and broker are waited out and never end it.
    ///
    /// Dropping the future ends everything at once, as a crash would: other workers take over after the lease.
    ///
    /// # Errors
    /// Where one of its parts ended unexpectedly, its last outcomes could not be stored, or a worker that works [once](WorkerOptions::once) could not find out
    /// whether anything is ready; the other parts are drained before this returns.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            shared,
            events,
            starting,
        } = self;
        let options = &shared.options;
        let queues: Vec<String> = options
            .distinct_queues()
            .iter()
            .map(ToString::to_string)
            .collect();
        info!(name = options.name, roles = %options.roles, ?queues, slots = options.concurrency, "the worker starts");
        if options.roles.executor && shared.handlers.is_empty() {
            warn!("no handlers: this executor will run nothing");
        }
        let mut events_part = JoinSet::new();
        events_part.spawn(events.run());
        let ended = run_roles(shared, &stop.child_token(), starting).await;
        // Its senders are gone now.
        let flushed = tokio::time::timeout(EVENTS_FLUSH_MAX, events_part.join_next()).await;
        if flushed.is_err() {
            warn!("the last events were not sent");
        }
        ended
    }
}

/// Runs the roles; when one ends, all are stopped.
async fn run_roles(shared: Arc<Shared>, stop: &CancellationToken, starting: Reporter) -> anyhow::Result<()> {
    let mut roles: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let enabled = shared.options.roles;
    let mut executor = enabled.executor.then(|| Executor::new(Arc::clone(&shared), stop));
    if enabled.recorder {
        let handoff = executor
            .as_mut()
            .filter(|_| shared.options.intake.hand_off)
            .map(Executor::handoff);
        roles.spawn(Recorder::new(Arc::clone(&shared), handoff).run(stop.clone()));
    }
    if enabled.dispatcher {
        roles.spawn(Dispatcher::new(&shared).run(stop.clone()));
        roles.spawn(webhooks::run(Arc::clone(&shared), stop.clone()));
    }
    if let Some(executor) = executor {
        roles.spawn(executor.run(stop.clone()));
    }
    drop(shared);
    starting.retire();
    let mut first_problem = Ok(());
    while let Some(ended) = roles.join_next().await {
        stop.cancel();
        let ended = ended
            .context("a part of the worker panicked")
            .and_then(|ended| ended);
        if first_problem.is_ok() {
            first_problem = ended;
        }
    }
    first_problem
}
