//! A store and a broker in memory, which can be down, full, hang or lag behind on demand. The rules of the states
//! are those of the core.

mod compose;
mod kinds;
mod limits;
mod operations;
mod schedules;
mod webhooks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use forebay_broker::{
    Broker, BrokerError, Depth, Message, PublishError, Result as BrokerResult, Source, Subscription,
};
use forebay_core::{
    AttemptError, ClaimId, Json, Lane, Lifecycle, LimitName, Outcome, Project, QueueName, Schedule,
    ScheduleName, Signal, State, Submission, Task, TaskEvent, TaskId, TaskProgress, Timestamp, UniqueMark,
    Webhook, WebhookName, WorkerId, WorkerInfo,
};
use forebay_store::{
    Admin, Changed, ClaimRequest, Claimed, Completed, Completion, Delivery, Dispatch, Execute, Heartbeat,
    HeartbeatReply, OldestReady, Operate, Page, PageToken, QueueCounts, Read, ReadySink, ReadyWalk, Record,
    Recorded, Recording, Reject, Rejects, Republished, Result, SetAside, StartRequest, StoreError,
    TaskFilter,
};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// How a dependency behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Up,
    Down,
    Hangs,
    Full,
    Conflicts,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    /// Confirmed by the broker, and not recorded.
    pub(crate) unrecorded: Vec<Submission>,
    /// Whether the recorder stands still.
    pub(crate) lagging: bool,
    pub(crate) store: Mood,
    pub(crate) broker: Mood,
    /// How often the store was asked, and how many further questions fail as on a broken connection.
    pub(crate) store_asked: usize,
    pub(crate) store_fails: usize,
    /// Whether reading a task panics.
    pub(crate) panics: bool,
    /// How many batches the broker was handed, and how many messages it took.
    pub(crate) batches: usize,
    pub(crate) published: usize,
    pub(crate) signalled: Vec<Signal>,
    pub(crate) workers: Vec<WorkerInfo>,
    pub(crate) rejects: Vec<SetAside>,
    pub(crate) paused: BTreeSet<QueueName>,
    pub(crate) schedules: BTreeMap<ScheduleName, Schedule>,
    /// Whether the answer to a batch that is opened takes its time.
    pub(crate) slow_batches: bool,
    /// How often the tasks of a batch were counted.
    pub(crate) batches_counted: usize,
    pub(crate) kept_batches: BTreeMap<forebay_core::BatchId, forebay_store::Batch>,
    pub(crate) limits: BTreeMap<LimitName, forebay_store::Limit>,
    pub(crate) operations: BTreeMap<forebay_core::OperationId, forebay_core::Operation>,
    pub(crate) webhooks: BTreeMap<WebhookName, Webhook>,
    /// All versions, and whether the last counts.
    pub(crate) schemas: BTreeMap<forebay_core::Kind, (Vec<forebay_core::KindSchema>, bool)>,
    pub(crate) deliveries: Vec<(WebhookName, Delivery)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
    signals: broadcast::Sender<Signal>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::default(),
            signals: broadcast::Sender::new(1_024),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// The recorder writes what waits for it.
    pub(crate) fn catch_up(&self) {
        let mut inner = self.lock();
        inner.lagging = false;
        let waiting = std::mem::take(&mut inner.unrecorded);
        for submission in waiting {
            inner.record(&submission);
        }
    }

    /// Puts a task into a state, as a worker would, and tells of it.
    pub(crate) fn change(&self, id: TaskId, state: State, at: &str) {
        let at: Timestamp = at.parse().unwrap();
        let event = {
            let mut inner = self.lock();
            let task = inner.tasks.get_mut(&id).expect("the task is recorded");
            task.state = state;
            match state {
                State::Running => {
                    task.attempt += 1;
                    task.fence += 1;
                    task.started_at = Some(at);
                    task.worker = Some(WorkerId::new(at, &[9; 10]));
                }
                State::Succeeded => {
                    task.result = Json::parse(b"{\"done\":true}").ok();
                    task.finished_at = Some(at);
                }
                State::Failed => {
                    task.errors
                        .push(AttemptError::new(task.attempt, Outcome::Failed, "no luck", at));
                    task.finished_at = Some(at);
                }
                _ => {}
            }
            TaskEvent {
                id,
                kind: task.kind.clone(),
                queue: task.queue.clone(),
                state,
                attempt: task.attempt,
                at,
            }
        };
        let _ = self.signals.send(Signal::Events(vec![event]));
    }

    /// Says how far a task is, as a worker would, and tells of it.
    pub(crate) fn progress(&self, id: TaskId, fraction: f64, message: &str, at: &str) {
        let progress = TaskProgress {
            fraction,
            message: message.to_owned(),
            at: at.parse().unwrap(),
        };
        self.lock()
            .tasks
            .get_mut(&id)
            .expect("the task is recorded")
            .progress = Some(progress);
        let _ = self.signals.send(Signal::Progress(vec![id]));
    }

    /// How many listen to signals.
    pub(crate) fn listeners(&self) -> usize {
        self.signals.receiver_count()
    }

    pub(crate) fn tell(&self, events: Vec<TaskEvent>) {
        let _ = self.signals.send(Signal::Events(events));
    }

    async fn store(&self, doing: &'static str) -> Result<MutexGuard<'_, Inner>> {
        let mood = {
            let mut inner = self.lock();
            inner.store_asked += 1;
            let broken = inner.store_fails > 0;
            inner.store_fails = inner.store_fails.saturating_sub(1);
            if broken { Mood::Down } else { inner.store }
        };
        match mood {
            Mood::Hangs => std::future::pending().await,
            Mood::Up => Ok(self.lock()),
            _ => Err(StoreError::Unavailable {
                doing,
                source: "connection refused (10.0.0.7:5432)".into(),
            }),
        }
    }

    async fn broker(&self, doing: &'static str) -> BrokerResult<()> {
        let mood = self.lock().broker;
        match mood {
            Mood::Hangs => std::future::pending().await,
            Mood::Down => Err(BrokerError::new(doing, "no servers available (10.0.0.8:4222)")),
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn record(&mut self, submission: &Submission) {
        self.tasks.entry(submission.id).or_insert_with(|| Task {
            id: submission.id,
            project: submission.project.clone(),
            kind: submission.kind.clone(),
            queue: submission.lane.queue.clone(),
            priority: submission.lane.priority,
            state: submission.state(),
            payload: submission.payload.clone(),
            result: None,
            attempt: 0,
            fence: 0,
            max_attempts: submission.max_attempts,
            timeout: submission.timeout,
            tags: submission.tags.clone(),
            run_at: submission.run_at,
            created_at: submission.created_at,
            started_at: None,
            finished_at: None,
            worker: None,
            cancel_requested: false,
            errors: Vec::new(),
            log: None,
            progress: None,
            traceparent: submission.traceparent.clone(),
            fingerprint: submission.fingerprint,
            terms: submission.terms.clone(),
        });
    }

    fn change(
        &mut self,
        id: TaskId,
        change: impl FnOnce(&mut Lifecycle) -> std::result::Result<(), forebay_core::Refused>,
    ) -> Changed {
        let Some(task) = self.tasks.get_mut(&id) else {
            return Changed::NotFound;
        };
        let mut life = Lifecycle {
            state: task.state,
            fence: task.fence,
            attempt: task.attempt,
            lost: 0,
            worker: task.worker,
            run_at: task.run_at,
            cancel_requested: task.cancel_requested,
        };
        match change(&mut life) {
            Err(refused) => Changed::Refused(Box::new(task.clone()), refused),
            Ok(()) => {
                task.state = life.state;
                task.attempt = life.attempt;
                task.run_at = life.run_at;
                task.cancel_requested = life.cancel_requested;
                if life.state.is_final() {
                    task.finished_at = Some(task.created_at);
                }
                Changed::Done(Box::new(task.clone()))
            }
        }
    }
}

#[async_trait]
impl Broker for Fake {
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>> {
        self.lock().batches += 1;
        // A broker that hangs takes what it was sent when it comes to.
        while self.lock().broker == Mood::Hangs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mood = self.lock().broker;
        let refused = match mood {
            Mood::Up | Mood::Hangs => None,
            Mood::Down => Some(PublishError::Unavailable("no servers (10.0.0.8:4222)".into())),
            Mood::Full => Some(PublishError::Full),
            Mood::Conflicts => Some(PublishError::Conflict),
        };
        let mut inner = self.lock();
        batch
            .into_iter()
            .map(|message| {
                if let Some(refused) = &refused {
                    return Err(refused.clone());
                }
                if let Message::Submission(submission) = message {
                    inner.published += 1;
                    if inner.lagging {
                        inner.unrecorded.push(submission);
                    } else {
                        inner.record(&submission);
                    }
                }
                Ok(())
            })
            .collect()
    }

    async fn consume(&self, _: Source) -> BrokerResult<Subscription> {
        Err(BrokerError::new("consume", "not faked"))
    }

    async fn depth(&self, lane: &Lane) -> BrokerResult<Depth> {
        self.broker("count").await?;
        let waiting = |task: &&Task| task.state == State::Queued && task.lane() == *lane;
        let count = self.lock().tasks.values().filter(waiting).count();
        Ok(Depth {
            waiting: count as u64,
            delivered: 0,
        })
    }

    async fn unrecorded(&self) -> BrokerResult<u64> {
        self.broker("count").await?;
        Ok(self.lock().unrecorded.len() as u64)
    }

    async fn signal(&self, signal: Signal) -> BrokerResult<()> {
        self.broker("signal").await?;
        self.lock().signalled.push(signal.clone());
        let _ = self.signals.send(signal);
        Ok(())
    }

    async fn signals(&self) -> BrokerResult<BoxStream<'static, Signal>> {
        let signals = BroadcastStream::new(self.signals.subscribe());
        Ok(signals.filter_map(async |signal| signal.ok()).boxed())
    }

    async fn trim(&self) -> BrokerResult<()> {
        Ok(())
    }

    async fn check(&self) -> BrokerResult<()> {
        self.broker("check").await
    }
}

#[async_trait]
impl Read for Fake {
    async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        let inner = self.store("read a task").await?;
        assert!(!inner.panics, "a secret from inside");
        let known = |id: TaskId| inner.tasks.get(&id).cloned();
        Ok(known(id).or_else(|| id.adjacent_windows().find_map(known)))
    }

    async fn unique_holder(&self, project: &Project, mark: UniqueMark) -> Result<Option<Task>> {
        let inner = self.store("look for a unique task").await?;
        let holds = |task: &&Task| {
            let unique = task.terms.as_ref().and_then(|terms| terms.unique.as_ref());
            task.project == *project
                && !task.state.is_final()
                && unique.is_some_and(|unique| unique.mark == mark)
        };
        Ok(inner.tasks.values().find(holds).cloned())
    }

    async fn list(&self, filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> Result<Page> {
        let inner = self.store("list tasks").await?;
        let mut tasks: Vec<Task> = inner
            .tasks
            .values()
            .filter(|task| filter.state.is_none_or(|state| state == task.state))
            .filter(|task| filter.queue.as_ref().is_none_or(|queue| *queue == task.queue))
            .filter(|task| filter.kind.as_ref().is_none_or(|kind| *kind == task.kind))
            .filter(|task| filter.tag.as_ref().is_none_or(|tag| task.tags.contains(tag)))
            .filter(|task| filter.created_after.is_none_or(|at| task.created_at > at))
            .filter(|task| filter.created_before.is_none_or(|at| task.created_at < at))
            .filter(|task| page.is_none_or(|page| (task.created_at, task.id) < (page.created_at, page.id)))
            .cloned()
            .collect();
        tasks.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
        let more = tasks.len() > page_size;
        tasks.truncate(page_size);
        let next = tasks.last().filter(|_| more).map(|task| PageToken {
            created_at: task.created_at,
            id: task.id,
        });
        Ok(Page { tasks, next })
    }

    async fn queues(&self) -> Result<Vec<QueueCounts>> {
        let inner = self.store("list queues").await?;
        let mut queues = BTreeMap::new();
        for task in inner.tasks.values() {
            let counts = queues.entry(task.queue.clone()).or_insert_with(|| QueueCounts {
                name: task.queue.clone(),
                running: 0,
                scheduled: 0,
                throttled: 0,
                paused: false,
            });
            counts.running += u64::from(task.state == State::Running);
            counts.scheduled += u64::from(matches!(task.state, State::Scheduled | State::Retrying));
        }
        for name in &inner.paused {
            let counts = queues.entry(name.clone()).or_insert_with(|| QueueCounts {
                name: name.clone(),
                running: 0,
                scheduled: 0,
                throttled: 0,
                paused: true,
            });
            counts.paused = true;
        }
        Ok(queues.into_values().collect())
    }

    async fn paused_queues(&self) -> Result<Vec<QueueName>> {
        let inner = self.store("list paused queues").await?;
        Ok(inner.paused.iter().cloned().collect())
    }

    async fn oldest_ready(&self, queue: &QueueName, walk: ReadyWalk) -> Result<OldestReady> {
        let inner = self.store("look for the oldest ready task").await?;
        let is_ready = |task: &&Task| task.queue == *queue && task.state == State::Queued;
        Ok(OldestReady {
            age: inner
                .tasks
                .values()
                .find(is_ready)
                .map(|_| Duration::from_millis(1_500)),
            walk,
            is_complete: true,
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        Ok(self.store("list workers").await?.workers.clone())
    }

    async fn rejects(&self, limit: usize, excerpt_bytes: usize) -> Result<Rejects> {
        let inner = self.store("list what was set aside").await?;
        let latest = inner.rejects.iter().rev().take(limit).cloned();
        let cut = |mut reject: SetAside| {
            reject.excerpt.truncate(excerpt_bytes);
            reject
        };
        Ok(Rejects {
            count: inner.rejects.len() as u64,
            latest: latest.map(cut).collect(),
        })
    }
}

#[async_trait]
impl forebay_store::Explain for Fake {
    async fn place(&self, id: TaskId) -> Result<Option<forebay_store::Place>> {
        let inner = self.store("look for a task's place").await?;
        let waits = |task: &&Task| task.state == State::Queued;
        let Some(task) = inner.tasks.get(&id).filter(waits) else {
            return Ok(None);
        };
        let is_before = |other: &&Task| {
            other.lane() == task.lane() && (other.created_at, other.id) < (task.created_at, task.id)
        };
        let ahead = inner.tasks.values().filter(waits).filter(is_before).count();
        Ok(Some(forebay_store::Place {
            queued_at: task.created_at,
            ahead: ahead as u64,
            is_exact: true,
        }))
    }
}

#[async_trait]
impl Operate for Fake {
    async fn cancel(&self, id: TaskId) -> Result<Changed> {
        Ok(self.store("cancel a task").await?.change(id, Lifecycle::cancel))
    }

    async fn retry(&self, id: TaskId) -> Result<Changed> {
        let now = "2026-03-01T13:00:00Z".parse().unwrap();
        Ok(self
            .store("retry a task")
            .await?
            .change(id, |life| life.retry(now)))
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<bool> {
        let mut inner = self.store("pause or resume a queue").await?;
        Ok(match paused {
            true => inner.paused.insert(queue.clone()),
            false => inner.paused.remove(queue),
        })
    }
}

#[async_trait]
impl Admin for Fake {
    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.store("check").await.map(drop)
    }
}

fn not_faked<T>() -> Result<T> {
    Err(StoreError::Corrupt("the doors do not call this".into()))
}

#[async_trait]
impl Record for Fake {
    async fn record_and_tell(&self, _: &[Submission]) -> Result<Recording> {
        not_faked()
    }

    async fn set_aside(&self, _: &[Reject]) -> Result<()> {
        not_faked()
    }
}

#[async_trait]
impl Execute for Fake {
    async fn register(&self, _: &Heartbeat) -> Result<()> {
        not_faked()
    }

    async fn heartbeat(&self, _: &Heartbeat) -> Result<HeartbeatReply> {
        not_faked()
    }

    async fn claim(&self, _: WorkerId, _: ClaimId, _: &[ClaimRequest]) -> Result<Vec<Option<Claimed>>> {
        not_faked()
    }

    async fn record_and_claim(
        &self,
        _: WorkerId,
        _: ClaimId,
        _: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>> {
        not_faked()
    }

    async fn complete(&self, _: WorkerId, _: &[Completion], _: &[ClaimId]) -> Result<Vec<Completed>> {
        not_faked()
    }

    async fn deregister(&self, _: WorkerId) -> Result<()> {
        not_faked()
    }

    async fn abandon(&self, _: WorkerId, _: u32) -> Result<Vec<TaskEvent>> {
        not_faked()
    }
}

#[async_trait]
impl Dispatch for Fake {
    async fn dispatch_due(&self, _: usize, _: &dyn ReadySink) -> Result<Vec<TaskEvent>> {
        not_faked()
    }

    async fn take_back(&self, _: Duration, _: u32) -> Result<Vec<TaskEvent>> {
        not_faked()
    }

    async fn republish_lost(
        &self,
        _: &[(Lane, Timestamp)],
        _: Timestamp,
        _: usize,
        _: &dyn ReadySink,
    ) -> Result<Republished> {
        not_faked()
    }

    async fn expire_due(&self, _: usize) -> Result<forebay_store::Expired> {
        not_faked()
    }

    async fn watermarks(&self) -> Result<Vec<(Lane, Timestamp)>> {
        not_faked()
    }

    async fn now(&self) -> Result<Timestamp> {
        not_faked()
    }

    async fn maintain(&self, _: Option<Duration>) -> Result<()> {
        not_faked()
    }
}
