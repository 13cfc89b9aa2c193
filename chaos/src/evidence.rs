//! What a run leaves behind: what submitters were told, what handlers saw, what the database says, and which faults
//! struck when. Each is gathered apart from the others, so that they can be held against each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A moment of the run: the time since its start, by the driver's monotonic clock.
pub type Moment = Duration;

/// A task that was answered with 202.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which.
    pub id: Uuid,
    /// When the answer came.
    pub at: Moment,
    /// Its idempotency key, where it had one. The same key may be accepted several times, with the same id.
    pub key: Option<String>,
}

/// A handler was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Of which task.
    pub id: Uuid,
    /// With which fencing token. No two starts of a task share one.
    pub fence: u32,
    /// For the so manieth charged time.
    pub attempt: u32,
    /// When.
    pub at: Moment,
}

/// A state of a task, as the database spells it.
pub type State = String;

/// A row of `tasks` was inserted or changed its state, its fence, its attempt or its result: written by a trigger,
/// in the transaction that did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Their order.
    pub seq: i64,
    /// Of which task.
    pub id: Uuid,
    /// The state before; `None` for an insert.
    pub from: Option<State>,
    /// The state after.
    pub to: State,
    /// The fence before (0 for an insert) and after.
    pub fence: (u32, u32),
    /// The charged attempts before (0 for an insert) and after.
    pub attempt: (u32, u32),
    /// How many of its workers were lost, before (0 for an insert) and after.
    pub lost: (u32, u32),
    /// Whether the result was written anew.
    pub result_changed: bool,
    /// When.
    pub at: Moment,
}

/// A row of `tasks`, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub id: Uuid,
    /// Its state.
    pub state: State,
    /// How often it was started.
    pub fence: u32,
    /// How many of these were charged.
    pub attempt: u32,
    /// How many of its workers were lost.
    pub lost: u32,
    /// Its result, as JSON text. The handler of a run answers with the task's own payload.
    pub result: Option<String>,
    /// What it was submitted with, as JSON text.
    pub payload: String,
}

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// What was done, such as `kill -9`.
    pub fault: String,
    /// To whom, such as `worker`.
    pub target: String,
    /// When it began, and when it was undone.
    pub from: Moment,
    /// When it was undone: the process runs again, the line is whole again, the clock is right again. Of faults that
    /// overlap, when all of them were.
    pub until: Moment,
    /// The first time after `from` at which a task that was submitted after `until` was finished.
    pub recovered: Moment,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// In the order of the answers.
    pub accepted: Vec<Accepted>,
    /// In the order of the calls, from a file of the handlers' own.
    pub starts: Vec<Start>,
    /// In the order of `seq`.
    pub transitions: Vec<Transition>,
    /// All rows.
    pub rows: Vec<Row>,
    /// In the order in which they began. They may overlap.
    pub faults: Vec<Injected>,
    /// For how long after a fault was undone its consequences may show: the lease, and the time to notice.
    pub aftermath: Duration,
}
