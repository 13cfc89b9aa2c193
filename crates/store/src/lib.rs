//! The port to the database: what a store must do for Forebay, split by the role that needs it.
//!
//! All methods of the hot path take and give batches. Each transition of a task is one guarded statement that
//! does what [`forebay_core::Lifecycle`] says; nothing else changes a state. Every implementation passes
//! `conformance`, which holds it against that model.

mod compose;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod execute;
mod explain;
mod kinds;
pub mod limits;
mod operations;
mod read;
mod schedules;
mod unique;
mod webhooks;

use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{Lane, QueueName, Ready, Submission, TaskEvent, Timestamp};

pub use compose::{
    BATCH_CANCELLED, BATCH_TASKS_MAX, Batch, BatchCounts, BatchPage, BatchPart, BlockedOn, Blocker, Compose,
    GivenUp, Grown, MISSING_WAIT_MAX, NewBatch, Opened, Settled, StandsAfter, UNKNOWN_WAIT_MAX, not_run,
};
pub use error::{Result, StoreError};
pub use execute::{
    ClaimRequest, Claimed, Completed, Completion, Execute, Heartbeat, HeartbeatReply, ProgressNote,
    StartRequest, record_then_claim,
};
pub use explain::{Explain, Place};
pub use kinds::{Kinds, PutSchema};
pub use limits::{Hold, Limit, LimitUse, Limits, Mended, PutLimit, Released};
pub use operations::{
    COUNTED_MAX, COUNTING_TIME_MAX, Done, HeldOperation, KEY_KEPT, Matching, MovedOn, OPERATIONS_KEPT,
    OPERATIONS_MAX, OperationPass, Operations, PASS_MAX, STRETCH, Stretch,
};
pub use read::{
    Changed, OldestReady, Operate, Page, PageToken, QueueCounts, Read, ReadyWalk, Rejects, SetAside,
    TaskFilter,
};
pub use schedules::{Fired, Firing, LISTED_BYTES_MAX, PutSchedule, Schedules, UNREADABLE_PAUSE, readable};
pub use unique::{Entry, UniqueHolder, enter, replaced_by};
pub use webhooks::{
    Delivery, DeliveryStanding, Ended, NewDelivery, PutWebhook, REPLAYED_AT_ONCE, Replay, Replayed, Webhooks,
    is_told, new_deliveries,
};

/// Everything a store does.
pub trait Store:
    Execute
    + Dispatch
    + Read
    + Explain
    + Operate
    + Operations
    + Schedules
    + Limits
    + Compose
    + Webhooks
    + Kinds
    + Admin
{
}

impl<
    T: Execute
        + Dispatch
        + Read
        + Explain
        + Operate
        + Operations
        + Schedules
        + Limits
        + Compose
        + Webhooks
        + Kinds
        + Admin,
> Store for T
{
}

/// What became of a submission that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is a new task.
    New,
    /// The task was known: a repeated delivery, or a repeated idempotency key.
    Duplicate,
    /// Its idempotency key already names a task with another request. It was dropped.
    Conflict,
}

/// A broker message that nobody can decode, kept for a person to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Where it was published.
    pub subject: String,
    /// As it came.
    pub body: bytes::Bytes,
    /// Why it was set aside.
    pub reason: String,
}

/// What recording a batch came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// One for each submission, in order.
    pub answers: Vec<Recorded>,
    /// Tasks that ended by it, for whoever watches: new ones that were over before they began, and those whose place others
    /// have taken.
    pub ended: Vec<TaskEvent>,
}

impl Recording {
    /// Nothing has ended by it.
    #[must_use]
    pub fn of(answers: Vec<Recorded>) -> Self {
        Self {
            answers,
            ended: Vec::new(),
        }
    }
}

/// What the recorder needs.
#[async_trait]
pub trait Record: Send + Sync + 'static {
    /// Inserts accepted tasks; knows those it has. One result for each, in order. A submission whose id is that
    /// of an idempotency key counts as known, too, if its key named a task in the window before or after.
    ///
    /// A submission with a `run_at` becomes `scheduled`, any other `queued` since now. Whoever records publishes a
    /// message for each that is queued *afterwards*: so a message is never older than what it speaks of. Queues that were not seen before
    /// become known. The batch may hold an id twice.
    async fn record_and_tell(&self, batch: &[Submission]) -> Result<Recording>;

    /// As [`Self::record_and_tell`], for whoever has nobody to tell.
    async fn record(&self, batch: &[Submission]) -> Result<Vec<Recorded>> {
        Ok(self.record_and_tell(batch).await?.answers)
    }

    /// Keeps messages that cannot be recorded.
    async fn set_aside(&self, rejects: &[Reject]) -> Result<()>;
}

/// Where the dispatcher's statements publish to while their transaction is open.
#[async_trait]
pub trait ReadySink: Send + Sync {
    /// Publishes, and says of each whether the broker confirmed it. What it did not confirm stays as it was.
    async fn publish(&self, batch: &[Ready]) -> Vec<bool>;
}

/// What one pass over lost messages found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Republished {
    /// How many were published again.
    pub count: usize,
    /// Where the next pass may begin: no task created before, and recorded soon after, is queued without a message that
    /// is known of.
    pub floor: Timestamp,
}

/// What one look at the tasks that expire came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// What was ended.
    pub events: Vec<TaskEvent>,
    /// How many were looked at. Those that were not ended were started in time, or are over. Where it is the limit, there
    /// may be more.
    pub looked_at: usize,
}

/// What the dispatcher needs. Any number of dispatchers may run at once.
#[async_trait]
pub trait Dispatch: Send + Sync + 'static {
    /// Publishes up to `limit` tasks that are due, oldest first, and makes those queued that were confirmed. It
    /// publishes *before* it commits, so a crash repeats a message and never loses one. Returns what it made
    /// queued.
    async fn dispatch_due(&self, limit: usize, sink: &dyn ReadySink) -> Result<Vec<TaskEvent>>;

    /// Takes back the tasks of workers that have not been heard of for `lease`, as
    /// [`forebay_core::Lifecycle::take_back`] does, and forgets these workers. Returns what happened to them.
    async fn take_back(&self, lease: Duration, lost_max: u32) -> Result<Vec<TaskEvent>>;

    /// Publishes again up to `limit` tasks that still wait although they were queued before their lane's horizon
    /// (before which every message of the lane is known to be delivered), and notes that they were queued now.
    /// Need not look at tasks created before `floor`, except those that were recorded long after. Lanes that are not
    /// named are left alone.
    async fn republish_lost(
        &self,
        horizons: &[(Lane, Timestamp)],
        floor: Timestamp,
        limit: usize,
        sink: &dyn ReadySink,
    ) -> Result<Republished>;

    /// Looks at up to `limit` tasks whose `expires_at` has come, those of the longest past first, once at each, and ends
    /// what was never started, as [`forebay_core::Lifecycle::expire`] does. A claim has not granted these since that moment.
    async fn expire_due(&self, limit: usize) -> Result<Expired>;

    /// For each lane, the publishing time of the newest message that any live worker has reported as received.
    async fn watermarks(&self) -> Result<Vec<(Lane, Timestamp)>>;

    /// The store's time. Horizons and leases are counted by this one clock.
    async fn now(&self) -> Result<Timestamp>;

    /// Makes room for the days to come, and drops days older than `retention` on which nothing is unfinished.
    async fn maintain(&self, retention: Option<Duration>) -> Result<()>;
}

/// What an operator's commands and the health checks need.
#[async_trait]
pub trait Admin: Send + Sync + 'static {
    /// Brings the schema up to date. Safe to run twice and side by side.
    async fn migrate(&self) -> Result<()>;

    /// Whether the store answers and its schema is the one this program was made for.
    async fn check(&self) -> Result<()>;
}

/// A store that can serve as the log of the embedded broker: it lists what waits in a lane.
#[async_trait]
pub trait Backlog: Record {
    /// The first `limit` queued tasks of a lane, oldest first, with the time since which each is queued.
    async fn waiting(&self, lane: &Lane, limit: usize) -> Result<Vec<(Ready, Timestamp)>>;

    /// How many tasks are queued, of each lane that has any.
    async fn waiting_counts(&self) -> Result<Vec<(Lane, u64)>>;
}

/// The queues named in a batch, each once.
pub fn queues_of<'a>(batch: impl IntoIterator<Item = &'a Submission>) -> Vec<QueueName> {
    let mut queues: Vec<&QueueName> = batch.into_iter().map(|task| &task.lane.queue).collect();
    queues.sort_unstable();
    queues.dedup();
    queues.into_iter().cloned().collect()
}
