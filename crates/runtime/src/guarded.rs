//! The store and the broker behind a circuit each. What is refused while a circuit is open is refused as
//! unavailable, which every caller knows how to deal with.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_broker::{Broker, BrokerError, Depth, Message, PublishError, Source, Subscription};
use forebay_core::{
    BatchId, ClaimId, Fingerprint, Json, Kind, KindSchema, Lane, LimitName, LimitRule, NewWebhook, Operation,
    OperationId, OperationPlan, Project, QueueName, Schedule, ScheduleName, SchemaMode, Signal, Submission,
    Task, TaskEvent, TaskId, Timestamp, UniqueMark, Webhook, WebhookName, WorkerId, WorkerInfo,
};
use forebay_store::{
    Admin, Batch, BatchCounts, BatchPage, BatchPart, BlockedOn, Changed, ClaimRequest, Claimed, Completed,
    Completion, Compose, Delivery, Dispatch, Execute, Explain, Fired, Grown, Heartbeat, HeartbeatReply, Hold,
    Kinds, Limit, LimitUse, Limits, Matching, Mended, NewBatch, OldestReady, Opened, Operate, OperationPass,
    Operations, Page, PageToken, Place, PutLimit, PutSchedule, PutSchema, PutWebhook, QueueCounts, Read,
    ReadySink, ReadyWalk, Record, Recorded, Recording, Reject, Rejects, Released, Replay, Replayed,
    Republished, Schedules, Settled, StartRequest, Store, StoreError, TaskFilter, Webhooks,
};
use futures::{FutureExt, stream::BoxStream};

use crate::{
    guard::{Away, Guard, Verdict},
    metrics::Metrics,
};

/// How long a batch may go on once the circuit is open: it has a bound of its own, by which it says what was confirmed.
const PUBLISH_GRACE: Duration = Duration::from_millis(300);

/// A store behind a circuit.
#[derive(Debug)]
pub struct GuardedStore {
    inner: Opaque<dyn Store>,
    guard: Guard,
}

/// A broker behind a circuit.
#[derive(Debug)]
pub struct GuardedBroker {
    inner: Opaque<dyn Broker>,
    guard: Guard,
}

/// A port, which can't be shown.
struct Opaque<T: ?Sized>(Arc<T>);

impl<T: ?Sized> std::fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

impl GuardedStore {
    /// Puts a circuit in front of `inner`, which [`Admin::check`] probes.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let probed = Arc::clone(&inner);
        let probe = move || {
            let probed = Arc::clone(&probed);
            async move { told(probed.check().await, judge) }.boxed()
        };
        Self {
            guard: Guard::new("store", "the database", metrics, Box::new(probe)),
            inner: Opaque(inner),
        }
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = forebay_store::Result<T>>,
    ) -> forebay_store::Result<T> {
        match self.guard.call(Duration::ZERO, call, judge).await {
            Ok(result) => result,
            Err(away) => Err(StoreError::Unavailable {
                doing,
                source: Box::new(away),
            }),
        }
    }
}

/// What a probe tells: where its dependency is away, the error with its causes.
fn told<E: std::error::Error>(
    checked: Result<(), E>,
    judge: impl FnOnce(&Result<(), E>) -> Verdict,
) -> Result<(), String> {
    let failed = judge(&checked) == Verdict::Failed;
    let Err(error) = checked else { return Ok(()) };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    if failed { Err(text) } else { Ok(()) }
}

/// Only what says that the database is away counts against it: it may refuse what it is asked as often as it likes.
fn judge<T>(result: &forebay_store::Result<T>) -> Verdict {
    match result {
        Err(StoreError::Unavailable { .. }) => Verdict::Failed,
        Ok(_) | Err(_) => Verdict::Answered,
    }
}

/// Implements a port by calling each method of the inner store under the guard, but for what it knows unasked.
macro_rules! guarded {
    ($port:ident { $(
        $doing:literal $method:ident($($name:ident: $type:ty),*) -> $output:ty;
    )* $(unasked $known:ident() -> $answer:ty;)* }) => {
        #[async_trait]
        impl $port for GuardedStore {
            $(async fn $method(&self, $($name: $type),*) -> forebay_store::Result<$output> {
                self.call($doing, self.inner.0.$method($($name),*)).await
            })*
            $(fn $known(&self) -> $answer {
                self.inner.0.$known()
            })*
        }
    };
}

guarded!(Record {
    "record tasks" record_and_tell(batch: &[Submission]) -> Recording;
    "set messages aside" set_aside(rejects: &[Reject]) -> ();
});

guarded!(Execute {
    "register a worker" register(beat: &Heartbeat) -> ();
    "renew a worker" heartbeat(beat: &Heartbeat) -> HeartbeatReply;
    "claim tasks" claim(worker: WorkerId, claim: ClaimId, batch: &[ClaimRequest]) -> Vec<Option<Claimed>>;
    "record and claim tasks" record_and_claim(worker: WorkerId, claim: ClaimId, batch: &[StartRequest]) -> Vec<(Recorded, Option<Claimed>)>;
    "complete tasks" complete(worker: WorkerId, batch: &[Completion], released: &[ClaimId]) -> Vec<Completed>;
    "forget a worker" deregister(worker: WorkerId) -> ();
    "take back the tasks of a worker" abandon(worker: WorkerId, lost_max: u32) -> Vec<TaskEvent>;
});

guarded!(Read {
    "read a task" get(id: TaskId) -> Option<Task>;
    "look for a unique task" unique_holder(project: &Project, mark: UniqueMark) -> Option<Task>;
    "list tasks" list(filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> Page;
    "list queues" queues() -> Vec<QueueCounts>;
    "list paused queues" paused_queues() -> Vec<QueueName>;
    "look for the oldest ready task" oldest_ready(queue: &QueueName, walk: ReadyWalk) -> OldestReady;
    "list workers" workers() -> Vec<WorkerInfo>;
    "list what was set aside" rejects(limit: usize, excerpt_bytes: usize) -> Rejects;
});

guarded!(Limits {
    "put a limit" put_limit(rule: &LimitRule) -> PutLimit;
    "read a limit" limit(name: &LimitName) -> Option<Limit>;
    "list limits" limits(page_size: usize, after: Option<&LimitName>) -> Vec<Limit>;
    "delete a limit" delete_limit(name: &LimitName) -> bool;
    "read how a limit is used" limit_use(name: &LimitName) -> LimitUse;
    "read what holds a task back" held_by(task: TaskId) -> Option<Hold>;
    "let waiting tasks go on" release_throttled(after: Option<i64>, limit: usize) -> Released;
    "mend the counters of limits" mend_limits() -> Mended;
    unasked has_released() -> bool;
});

guarded!(Explain {
    "look for a task's place" place(id: TaskId) -> Option<Place>;
});

guarded!(Kinds {
    "put a schema" put_schema(kind: &Kind, mode: SchemaMode, schema: &Json) -> PutSchema;
    "read a schema" schema(kind: &Kind, version: Option<u32>) -> Option<KindSchema>;
    "list schemas" schemas(page_size: usize, after: Option<&Kind>) -> Vec<KindSchema>;
    "look which schemas count" schema_versions() -> Vec<(Kind, u32)>;
    "delete a schema" delete_schema(kind: &Kind) -> bool;
});

guarded!(Operate {
    "cancel a task" cancel(id: TaskId) -> Changed;
    "retry a task" retry(id: TaskId) -> Changed;
    "pause or resume a queue" set_paused(queue: &QueueName, paused: bool) -> bool;
});

guarded!(Compose {
    "look for tasks" unknown(ids: &[TaskId]) -> Vec<TaskId>;
    "look what a task waits for" blocked_on(id: TaskId) -> BlockedOn;
    "open a batch" open_batch(batch: &NewBatch) -> Opened;
    "add to a batch" grow_batch(id: BatchId, part: &BatchPart) -> Grown;
    "look for a part of a batch" knows_part(id: BatchId, part: Fingerprint) -> bool;
    "close a batch" close_batch(id: BatchId) -> Option<Batch>;
    "cancel a batch" cancel_batch(id: BatchId) -> Option<Batch>;
    "read a batch" batch(id: BatchId) -> Option<Batch>;
    "count the tasks of a batch" batch_counts(id: BatchId) -> BatchCounts;
    "list batches" batches(project: Option<&Project>, page_size: usize, after: Option<BatchPage>) -> Vec<Batch>;
    "list the tasks of a batch" batch_tasks(id: BatchId, page_size: usize, after: Option<TaskId>) -> Vec<Task>;
    "see to the ends of tasks" settle(limit: usize) -> Settled;
});

guarded!(Operations {
    "count the tasks of an operation" matching(plan: &OperationPlan, sample: usize) -> Matching;
    "begin an operation" begin_operation(id: OperationId, plan: &OperationPlan, expected: &Matching) -> Option<Operation>;
    "read an operation" operation(id: OperationId) -> Option<Operation>;
    "list operations" operations(page_size: usize, after: Option<OperationId>) -> Vec<Operation>;
    "abort an operation" abort_operation(id: OperationId) -> Option<Operation>;
    "carry out an operation" pass_operation() -> OperationPass;
});

guarded!(Schedules {
    "put a schedule" put_schedule(schedule: &Schedule) -> PutSchedule;
    "read a schedule" schedule(name: &ScheduleName) -> Option<Schedule>;
    "pause a schedule" pause_schedule(name: &ScheduleName, paused: bool) -> Option<Schedule>;
    "list schedules" schedules(page_size: usize, after: Option<&ScheduleName>) -> Vec<Schedule>;
    "delete a schedule" delete_schedule(name: &ScheduleName) -> bool;
    "fire schedules" fire_schedules(limit: usize, now: Option<Timestamp>) -> Fired;
});

guarded!(Webhooks {
    "put a webhook" put_webhook(webhook: &NewWebhook) -> PutWebhook;
    "read a webhook" webhook(name: &WebhookName) -> Option<Webhook>;
    "list webhooks" webhooks(page_size: usize, after: Option<&WebhookName>) -> Vec<Webhook>;
    "delete a webhook" delete_webhook(name: &WebhookName) -> bool;
    "disable a webhook" disable_webhook(name: &WebhookName, url: &str, reason: &str) -> bool;
    "note that a webhook fails" note_failing(name: &WebhookName, url: &str, patience: Duration, reason: &str) -> bool;
    "note that a webhook works" note_working(name: &WebhookName, url: &str) -> ();
    "list deliveries" deliveries(name: &WebhookName, page_size: usize, before: Option<i64>) -> Vec<Delivery>;
    "replay deliveries" replay(name: &WebhookName, what: Replay) -> Replayed;
});

#[async_trait]
impl Dispatch for GuardedStore {
    async fn dispatch_due(
        &self,
        limit: usize,
        sink: &dyn ReadySink,
    ) -> forebay_store::Result<Vec<TaskEvent>> {
        let call = self.inner.0.dispatch_due(limit, sink);
        self.call("dispatch tasks", call).await
    }

    async fn take_back(&self, lease: Duration, lost_max: u32) -> forebay_store::Result<Vec<TaskEvent>> {
        let call = self.inner.0.take_back(lease, lost_max);
        self.call("take tasks back", call).await
    }

    async fn republish_lost(
        &self,
        horizons: &[(Lane, Timestamp)],
        floor: Timestamp,
        limit: usize,
        sink: &dyn ReadySink,
    ) -> forebay_store::Result<Republished> {
        let call = self.inner.0.republish_lost(horizons, floor, limit, sink);
        self.call("publish tasks again", call).await
    }

    async fn expire_due(&self, limit: usize) -> forebay_store::Result<forebay_store::Expired> {
        self.call("end what has expired", self.inner.0.expire_due(limit))
            .await
    }

    async fn watermarks(&self) -> forebay_store::Result<Vec<(Lane, Timestamp)>> {
        self.call("read watermarks", self.inner.0.watermarks()).await
    }

    async fn now(&self) -> forebay_store::Result<Timestamp> {
        self.call("read the time", self.inner.0.now()).await
    }

    /// Takes as long as it takes, on a connection of its own: not under the guard.
    async fn maintain(&self, retention: Option<Duration>) -> forebay_store::Result<()> {
        self.inner.0.maintain(retention).await
    }
}

#[async_trait]
impl Admin for GuardedStore {
    /// As [`Dispatch::maintain`], not under the guard.
    async fn migrate(&self) -> forebay_store::Result<()> {
        self.inner.0.migrate().await
    }

    async fn check(&self) -> forebay_store::Result<()> {
        self.call("check the schema", self.inner.0.check()).await
    }
}

impl GuardedBroker {
    /// Puts a circuit in front of `inner`, which [`Broker::check`] probes.
    #[must_use]
    pub fn new(inner: Arc<dyn Broker>, metrics: Arc<Metrics>) -> Self {
        let probed = Arc::clone(&inner);
        let probe = move || {
            let probed = Arc::clone(&probed);
            async move { told(probed.check().await, judge_broker) }.boxed()
        };
        Self {
            guard: Guard::new("broker", "the broker", metrics, Box::new(probe)),
            inner: Opaque(inner),
        }
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = forebay_broker::Result<T>>,
    ) -> forebay_broker::Result<T> {
        match self.guard.call(Duration::ZERO, call, judge_broker).await {
            Ok(result) => result,
            Err(away) => Err(BrokerError::new(doing, away)),
        }
    }
}

fn judge_broker<T>(result: &forebay_broker::Result<T>) -> Verdict {
    match result {
        Ok(_) => Verdict::Answered,
        Err(_) => Verdict::Failed,
    }
}

/// A broker that is full answers. One that confirms a part of a batch answers, too.
fn judge_publish(results: &[Result<(), PublishError>]) -> Verdict {
    let unanswered = |result: &Result<(), PublishError>| {
        matches!(
            result,
            Err(PublishError::Unavailable(_) | PublishError::Away { .. })
        )
    };
    match (results.is_empty(), results.iter().all(unanswered)) {
        (true, _) => Verdict::Unknown,
        (false, true) => Verdict::Failed,
        (false, false) => Verdict::Answered,
    }
}

fn unpublished(away: &Away) -> PublishError {
    match away.asked {
        true => PublishError::Unavailable(away.to_string()),
        false => PublishError::Away {
            why: away.to_string(),
            retry_in: away.retry_in,
        },
    }
}

#[async_trait]
impl Broker for GuardedBroker {
    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let size = batch.len();
        let publish = self.inner.0.publish(batch);
        match self
            .guard
            .call(PUBLISH_GRACE, publish, |results| judge_publish(results))
            .await
        {
            Ok(results) => results,
            Err(away) => vec![Err(unpublished(&away)); size],
        }
    }

    /// Not under the guard: who consumes tries again with backoff anyway, and a broker that takes no messages may
    /// still hand them out, which is how it gets room.
    async fn consume(&self, source: Source) -> forebay_broker::Result<Subscription> {
        self.inner.0.consume(source).await
    }

    async fn depth(&self, lane: &Lane) -> forebay_broker::Result<Depth> {
        self.call("count a lane", self.inner.0.depth(lane)).await
    }

    async fn unrecorded(&self) -> forebay_broker::Result<u64> {
        self.call("count what is unrecorded", self.inner.0.unrecorded())
            .await
    }

    async fn signal(&self, signal: Signal) -> forebay_broker::Result<()> {
        self.call("send a signal", self.inner.0.signal(signal)).await
    }

    async fn signals(&self) -> forebay_broker::Result<BoxStream<'static, Signal>> {
        self.call("listen for signals", self.inner.0.signals()).await
    }

    async fn trim(&self) -> forebay_broker::Result<()> {
        self.call("forget messages", self.inner.0.trim()).await
    }

    async fn check(&self) -> forebay_broker::Result<()> {
        self.call("answer", self.inner.0.check()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_the_store_is_away_counts_against_it() {
        let failed = Err::<(), _>(StoreError::Unavailable {
            doing: "test",
            source: "no route to host".into(),
        });
        assert_eq!(judge(&failed), Verdict::Failed);
        assert_eq!(judge(&Ok(())), Verdict::Answered);
        for answer in [
            StoreError::WorkerGone,
            StoreError::Corrupt("x".into()),
            StoreError::Schema { found: 0, needed: 1 },
            StoreError::Refused {
                doing: "test",
                source: "a bad row".into(),
            },
        ] {
            assert_eq!(judge(&Err::<(), _>(answer)), Verdict::Answered);
        }
    }

    #[test]
    fn a_broker_that_confirms_or_refuses_any_of_a_batch_is_there() {
        let late = || Err(PublishError::Unavailable("late".into()));
        assert_eq!(judge_publish(&[late(), late()]), Verdict::Failed);
        assert_eq!(judge_publish(&[late(), Ok(())]), Verdict::Answered);
        assert_eq!(
            judge_publish(&[Err(PublishError::Full), late()]),
            Verdict::Answered
        );
        assert_eq!(judge_publish(&[Err(PublishError::Conflict)]), Verdict::Answered);
        assert_eq!(judge_publish(&[]), Verdict::Unknown);
    }
}
