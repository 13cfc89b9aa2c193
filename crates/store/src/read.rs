use async_trait::async_trait;
use bytes::Bytes;
use forebay_core::{Kind, Project, QueueName, Refused, State, Task, TaskId, Timestamp, WorkerInfo};

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
    /// Reads a task. The id of an idempotency key finds the key's task of the window before, too.
    async fn get(&self, id: TaskId) -> Result<Option<Task>>;

    /// Lists up to `page_size` tasks, newest first by `created_at`, after `page`.
    async fn list(&self, filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> Result<Page>;

    /// All queues that were ever seen, by name.
    async fn queues(&self) -> Result<Vec<QueueCounts>>;

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
}
