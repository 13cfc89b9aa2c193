//! What processes tell one another while they live. None of it is stored, and none of it is needed for a task
//! to be executed: it makes a cancellation, a pause or a release fast and a page live.

use crate::{Kind, QueueName, State, TaskId, Timestamp};

/// A task changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEvent {
    /// Which task.
    pub id: TaskId,
    /// Its kind.
    pub kind: Kind,
    /// Its queue.
    pub queue: QueueName,
    /// The state it is in since `at`.
    pub state: State,
    /// Its attempt, as in [`crate::Task::attempt`].
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
}

/// A message to all processes that listen at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Whoever runs one of these: end it.
    Cancel(Vec<TaskId>),
    /// These happened.
    Events(Vec<TaskEvent>),
    /// These have said how far they are: the store knows it.
    Progress(Vec<TaskId>),
    /// Queues were paused or resumed: the store knows which.
    QueuesChanged,
    /// Something has become due that nobody could expect: dispatchers look at once.
    Due,
}
