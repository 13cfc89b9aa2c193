use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_core::{
    Kind, Project, QueueName, Refused, State, Task, TaskId, Timestamp, UniqueMark, WorkerInfo,
};

use crate::Result;

/// Which tasks to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFilter {
    /// Only of this project.
    pub project: Option<Project>,
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this queue.
    pub queue: Option<QueueName>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only with this label.
    pub tag: Option<String>,
    /// Only created after this time.
    pub created_after: Option<Timestamp>,
    /// Only created before this time.
    pub created_before: Option<Timestamp>,
}

/// The place after which a list goes on: the last task that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// When that task was created.
    pub created_at: Timestamp,
    /// Which task it was.
    pub id: TaskId,
}

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<PageToken>,
}

/// A queue as the store knows it. What is ready is the broker's to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCounts {
    /// Its name.
    pub name: QueueName,
    /// How many of its tasks run, by the workers' latest word.
    pub running: u64,
    /// How many wait for a time: scheduled or retrying.
    pub scheduled: u64,
    /// How many a limit holds back. A task that has ended meanwhile may count for a moment.
    pub throttled: u64,
    /// Whether it is paused: its tasks are recorded, and none is started.
    pub paused: bool,
}

/// How far a queue has been walked in search of what is ready. The default is the beginning of all tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadyWalk {
    /// No task that was created before is ready, except for those that were recorded long after.
    pub from: Option<Timestamp>,
    /// The latest note of a late record that was heeded. Only the store knows what it means.
    pub noted: i64,
}

/// What a walk in search of what is ready has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OldestReady {
    /// How long the first of it has been ready, by the store's clock; at least so long where the walk is not complete.
    /// `None` where nothing was found.
    pub age: Option<Duration>,
    /// Where to go on.
    pub walk: ReadyWalk,
    /// Whether the walk has come to a ready task or to the present. Where it has not, there may be
    /// something that has waited longer than what was found.
    pub is_complete: bool,
}

/// A message that was set aside, as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// When.
    pub rejected_at: Timestamp,
    /// Where it was published.
    pub subject: String,
    /// Why it was set aside.
    pub reason: String,
    /// How long its body is.
    pub bytes: u64,
    /// The beginning of its body.
    pub excerpt: Bytes,
}

/// Messages that were set aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejects {
    /// How many are kept.
    pub count: u64,
    /// The latest of them, newest first.
    pub latest: Vec<SetAside>,
}

/// What reading needs.
#[async_trait]
pub trait Read: Send + Sync + 'static {
    /// Reads a task. The id of an idempotency key finds the key's task of the window before or after, too.
    async fn get(&self, id: TaskId) -> Result<Option<Task>>;

    /// The task that a submission with this mark would be in conflict with at this moment, if there is one.
    async fn unique_holder(&self, project: &Project, mark: UniqueMark) -> Result<Option<Task>>;

    /// Lists up to `page_size` tasks, newest first by `created_at`, after `page`.
    async fn list(&self, filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> Result<Page>;

    /// All queues that were ever seen, by name.
    async fn queues(&self) -> Result<Vec<QueueCounts>>;

    /// The queues that are paused, by name. Cheap enough for every worker to ask for each second.
    async fn paused_queues(&self) -> Result<Vec<QueueName>>;

    /// Looks how long the first ready task of a queue has been so. Goes on where an earlier walk has stopped, and only so
    /// far that every observer may ask each second: on the way through a long history it says that it is not complete.
    /// Whether the queue is paused does not matter.
    async fn oldest_ready(&self, queue: &QueueName, walk: ReadyWalk) -> Result<OldestReady>;

    /// All workers that are alive, the longest running first.
    async fn workers(&self) -> Result<Vec<WorkerInfo>>;

    /// The latest `limit` messages that were set aside, each with up to `excerpt_bytes` of its body.
    async fn rejects(&self, limit: usize, excerpt_bytes: usize) -> Result<Rejects>;
}

/// What became of an operator's command.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// It was obeyed; the task as it is now.
    Done(Box<Task>),
    /// The state forbids it; the task as it is.
    Refused(Box<Task>, Refused),
    /// There is no such task.
    NotFound,
}

/// What operators' commands need.
#[async_trait]
pub trait Operate: Send + Sync + 'static {
    /// Cancels as [`forebay_core::Lifecycle::cancel`] does. A running task is marked, and its worker is told
    /// with its next heartbeat.
    async fn cancel(&self, id: TaskId) -> Result<Changed>;

    /// Brings a task back as [`forebay_core::Lifecycle::retry`] does.
    async fn retry(&self, id: TaskId) -> Result<Changed>;

    /// Pauses a queue or resumes it, which is kept until it is said otherwise, and changes nothing of its tasks: the
    /// store goes on to grant claims, and it is workers that start none while they know of the pause. To pause a queue
    /// makes it known, if it was not. Returns whether that was anything new.
    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<bool>;
}
