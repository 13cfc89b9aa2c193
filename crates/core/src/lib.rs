//! The domain of Forebay: what a task is, which states it may take, when it is tried again, and which
//! input is refused. Pure code: it does no I/O, spawns nothing and never reads a clock by itself.
//!
//! The one idea behind all of it: a task that is *ready* waits in the broker, a task that is *not ready*
//! waits in the store, and the dispatcher moves it over when it becomes ready.

mod event;
mod id;
mod lifecycle;
mod name;
mod payload;
mod queue;
mod retry;
mod schedule;
mod submit;
mod task;
mod time;
mod trace;

pub use event::{Signal, TaskEvent};
pub use id::{ClaimId, IdempotencyKey, TaskId, WorkerId};
pub use lifecycle::{Decision, Lifecycle, Outcome, Refused, State, UnknownState};
pub use name::{InvalidName, Kind, Project, QueueName, ScheduleName};
pub use payload::{InvalidJson, Json, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};
pub use queue::{Lane, Priority, UnknownPriority};
pub use retry::RetryPolicy;
pub use schedule::{
    CATCH_UP_MAX, Cron, InvalidCron, JITTER_MAX, Missed, Overlap, Plan, Schedule, ScheduleRequest,
    ScheduledTask, Tick, TimeZone, UnknownOverlap, UnknownTimeZone, plan,
};
pub use submit::{Fingerprint, Problem, RUN_AT_AHEAD_MAX, Submission, SubmitRequest, Violation};
pub use task::{AttemptError, Ready, Task, TaskProgress, WorkerInfo, sanitize_text};
pub use time::{Clock, SystemClock, Timestamp, from_unix_micros, micros};
pub use trace::TraceParent;
