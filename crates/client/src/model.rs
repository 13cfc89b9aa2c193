//! What the API sends and takes. Payloads and results stay the JSON text that they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A task to submit.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewTask {
    /// What to do.
    pub kind: String,
    /// The handler's input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// Which pool of workers does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// How urgent it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Labels to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Not before this time, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
    /// Not before this many seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// How many attempts it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// It expires unless it has been started by then, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// It expires unless it is started so long after it was accepted, or after its `run_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_to_start_timeout_seconds: Option<f64>,
    /// An attempt that says nothing for so long is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout_seconds: Option<f64>,
    /// How it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What it counts to in limits by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// What it must be the only one of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<NewUnique>,
    /// Ids of the tasks it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What happens where one of those does not succeed: `cancel` or `run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_dependency_failure: Option<String>,
    /// Names of webhooks that hear of its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
}

/// How a task is tried again: what is not said is as its handler says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Retry {
    /// The longest wait after the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_seconds: Option<f64>,
    /// By how much that grows with each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// No wait is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_seconds: Option<f64>,
    /// The waits themselves, without chance; then none of the above is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delays_seconds: Vec<f64>,
}

/// What a task must be the only one of, in its project.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct NewUnique {
    /// Among those of its kind; its payload unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For how long after it was accepted others are in conflict with it even if it is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// `return`, `reject` or `replace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<String>,
}

/// What a task is the only one of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Unique {
    pub mark: String,
    pub until: Option<String>,
    pub on_conflict: String,
}

/// A task as the server shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Task {
    pub id: String,
    #[serde(default)]
    pub project: String,
    pub kind: String,
    pub queue: String,
    pub state: String,
    pub priority: String,
    pub payload: Option<Box<RawValue>>,
    pub result: Option<Box<RawValue>>,
    pub error: Option<AttemptError>,
    pub attempt: u32,
    pub max_attempts: Option<u32>,
    #[serde(default)]
    pub progress: Option<Progress>,
    #[serde(default)]
    pub tags: Vec<String>,
    pub run_at: Option<String>,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub timeout_seconds: Option<f64>,
    pub worker: Option<String>,
    #[serde(default)]
    pub errors: Vec<AttemptError>,
    #[serde(default)]
    pub log: Option<String>,
    #[serde(default)]
    pub cancel_requested: bool,
    #[serde(default)]
    pub expires_at: Option<String>,
    #[serde(default)]
    pub heartbeat_timeout_seconds: Option<f64>,
    #[serde(default)]
    pub retry: Option<Retry>,
    #[serde(default)]
    pub limit_key: Option<String>,
    #[serde(default)]
    pub unique: Option<Unique>,
    #[serde(default)]
    pub after: Vec<String>,
    #[serde(default)]
    pub on_dependency_failure: Option<String>,
    #[serde(default)]
    pub notify: Vec<String>,
    #[serde(default)]
    pub batch: Option<String>,
}

impl Task {
    /// Whether nothing but a retry will ever change it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        is_final(&self.state)
    }

    /// Whether it is final, and what it was for is done.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        self.state == "succeeded"
    }
}

pub(crate) fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled" | "expired")
}

/// How far an attempt is, by its own word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Progress {
    pub fraction: f64,
    pub message: String,
    pub at: String,
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct AttemptError {
    pub attempt: u32,
    pub outcome: String,
    pub message: String,
    pub at: String,
}

/// What became of one item of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemResult {
    /// Which item: its place in the batch, or the number of its line, from 0.
    pub index: u64,
    /// The task, where it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its state, where it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The problem, where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<super::Problem>,
}

/// A queue and what is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Queue {
    pub name: String,
    pub ready: Option<u64>,
    pub running: Option<u64>,
    pub scheduled: Option<u64>,
    /// Whether none of its tasks is started; absent where a server is older than pauses.
    #[serde(default)]
    pub paused: Option<bool>,
}

/// A schedule to put.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewSchedule {
    /// When: minute, hour, day of month, month, day of week; or six fields, with seconds first.
    pub cron: String,
    /// An IANA name such as `Europe/Berlin`; UTC unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What is submitted at each tick.
    pub task: ScheduledTask,
    /// What happens at a tick while a task of an earlier one is unfinished: `skip`, `queue` or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// How late a tick may still be fired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up_seconds: Option<f64>,
    /// By how much each tick is moved at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_seconds: Option<f64>,
    /// Whether it rests.
    pub paused: bool,
}

/// What a schedule submits at each tick.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ScheduledTask {
    /// What to do.
    pub kind: String,
    /// Which pool of workers does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// The handler's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// Labels to find its tasks by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How many attempts a task may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// An attempt that says nothing for so long is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout_seconds: Option<f64>,
    /// How its tasks are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What its tasks count to in limits by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// Names of webhooks that hear of their ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
}

/// A schedule as the server shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Schedule {
    pub name: String,
    pub cron: String,
    pub time_zone: String,
    pub task: ScheduledTask,
    pub overlap: String,
    pub catch_up_seconds: f64,
    pub jitter_seconds: f64,
    pub paused: bool,
    /// The next ticks, the earliest first; none while it is paused.
    pub next: Vec<String>,
    pub last_tick: Option<String>,
    pub last_task_id: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

/// What is to be put for a schedule to stay as it is: to change one member of it, say.
impl From<Schedule> for NewSchedule {
    fn from(schedule: Schedule) -> Self {
        Self {
            cron: schedule.cron,
            time_zone: Some(schedule.time_zone),
            task: schedule.task,
            overlap: Some(schedule.overlap),
            catch_up_seconds: Some(schedule.catch_up_seconds),
            jitter_seconds: Some(schedule.jitter_seconds),
            paused: schedule.paused,
        }
    }
}

/// A worker that is alive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Worker {
    pub id: String,
    pub name: String,
    pub queues: Vec<String>,
    pub slots: u32,
    /// How many tasks it runs, of each queue.
    pub busy: BTreeMap<String, u32>,
    pub draining: bool,
    pub started_at: String,
    pub heartbeat_at: String,
}

/// Messages that were set aside because nobody could decode them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Rejects {
    pub count: u64,
    pub rejects: Vec<Reject>,
}

/// A message that was set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Reject {
    pub subject: String,
    pub reason: String,
    pub rejected_at: String,
    pub bytes: u64,
    pub excerpt: String,
    pub encoding: String,
}

/// A task changed its state, or has said how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are described in the API's document")]
pub struct Event {
    pub id: String,
    /// Not told again where one task is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// As `kind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    pub state: String,
    pub attempt: u32,
    pub at: String,
    /// How far it is, where that is what changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

impl Event {
    /// Whether nothing but a retry will ever follow it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        is_final(&self.state)
    }
}
