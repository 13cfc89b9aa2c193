//! A task as it stands in the store, and as it is read.

use std::time::Duration;

use crate::{
    Json, Kind, Lane, Outcome, Priority, Project, QueueName, State, TaskId, Timestamp, TraceParent, WorkerId,
};

/// The longest error message or log tail that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Everything known about a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Names it for ever.
    pub id: TaskId,
    /// Whose it is.
    pub project: Project,
    /// What it does.
    pub kind: Kind,
    /// Which pool of workers it waits for.
    pub queue: QueueName,
    /// Its lane within the queue.
    pub priority: Priority,
    /// Where it stands.
    pub state: State,
    /// The input of its handler.
    pub payload: Json,
    /// What its handler returned, once it succeeded.
    pub result: Option<Json>,
    /// How many attempts were charged to it, the current one included.
    pub attempt: u32,
    /// How often it was started: the fencing token of the current start.
    pub fence: u32,
    /// How many attempts it may have. `None` until a handler is known that says so.
    pub max_attempts: Option<u32>,
    /// How long one attempt may take. `None` until a handler is known that says so.
    pub timeout: Option<Duration>,
    /// The submitter's labels.
    pub tags: Vec<String>,
    /// When it became or becomes due.
    pub run_at: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its latest attempt started.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// Who runs it, or ran it last.
    pub worker: Option<WorkerId>,
    /// Whether it is to be cancelled but still runs.
    pub cancel_requested: bool,
    /// The attempts that did not succeed, the latest last; the ten latest are kept.
    pub errors: Vec<AttemptError>,
    /// The tail of what its latest attempt logged.
    pub log: Option<String>,
    /// What its latest attempt said last of how far it is, while it ran.
    pub progress: Option<TaskProgress>,
    /// The trace of the request that submitted it.
    pub traceparent: Option<TraceParent>,
    /// What distinguishes two submissions under one idempotency key.
    pub fingerprint: Option<crate::Fingerprint>,
    /// What it asks for beyond being run.
    pub terms: Option<Box<crate::Terms>>,
}

impl Task {
    /// The lane it belongs to.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::new(self.queue.clone(), self.priority)
    }
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttemptError {
    /// Its number.
    pub attempt: u32,
    /// How it ended: the name of an [`Outcome`].
    pub outcome: String,
    /// What the handler, or Forebay, says of it. Sanitized by [`sanitize_text`].
    pub message: String,
    /// When it ended.
    pub at: Timestamp,
}

impl AttemptError {
    /// Describes an attempt that ended in `outcome`.
    #[must_use]
    pub fn new(attempt: u32, outcome: Outcome, message: &str, at: Timestamp) -> Self {
        Self {
            attempt,
            outcome: outcome.as_str().to_owned(),
            message: sanitize_text(message),
            at,
        }
    }
}

/// How far an attempt is, by its own word.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TaskProgress {
    /// How much is done, from 0 to 1.
    pub fraction: f64,
    /// What it is at, for people; empty where it does not say.
    pub message: String,
    /// When the store heard of it.
    pub at: Timestamp,
}

impl TaskProgress {
    /// The longest message, in bytes.
    pub const MESSAGE_BYTES_MAX: usize = 256;

    /// Any number as a fraction: what is below 0, or no number, is 0, and what is above 1 is 1.
    #[must_use]
    pub fn fraction(number: f64) -> f64 {
        if number > 0.0 { number.min(1.0) } else { 0.0 }
    }

    /// Any text as a message: fit for any store, and no more than its beginning where it is too long.
    #[must_use]
    pub fn message(text: &str) -> String {
        let mut message = text.replace('\0', "\u{fffd}");
        message.truncate(message.floor_char_boundary(Self::MESSAGE_BYTES_MAX));
        message
    }
}

/// Makes text from outside fit for any store: without NUL characters, and cut to the last 8 KiB.
#[must_use]
pub fn sanitize_text(text: &str) -> String {
    let mut start = text.len().saturating_sub(TEXT_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].replace('\0', "\u{fffd}")
}

/// A task that became ready and is to be published: the message names it, the row holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Which task.
    pub id: TaskId,
    /// What a worker needs to choose a handler before it claims.
    pub kind: Kind,
    /// Where it goes.
    pub lane: Lane,
    /// How often it had been started when it became ready; a claim must still find this number.
    pub fence: u32,
    /// How many workers had died while they ran it.
    pub lost: u32,
}

/// A worker as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// This life of it.
    pub id: WorkerId,
    /// Its host name, or what its operator called it.
    pub name: String,
    /// The queues it consumes.
    pub queues: Vec<QueueName>,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How many it runs now, of each queue.
    pub busy: Vec<(QueueName, u32)>,
    /// How many attempts of each queue have ended in this life, and their outcomes are stored.
    pub finished: Vec<(QueueName, u64)>,
    /// Whether it takes no more tasks and is about to stop.
    pub draining: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was heard of last.
    pub heartbeat_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_has_no_nul() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        assert!(sanitize_text(&format!("x{long}")).len() <= TEXT_BYTES_MAX);
        assert!(!sanitize_text("a\0b").contains('\0'));
    }

    #[test]
    fn whatever_is_said_of_progress_is_within_its_bounds() {
        for (said, meant) in [
            (-0.5, 0.0),
            (f64::NAN, 0.0),
            (0.25, 0.25),
            (1.5, 1.0),
            (f64::INFINITY, 1.0),
            (f64::NEG_INFINITY, 0.0),
        ] {
            assert_eq!(TaskProgress::fraction(said), meant, "{said}");
        }
        let long = TaskProgress::message(&format!("x{}", "ä".repeat(200)));
        assert_eq!(long.len(), 255, "cut between two characters");
        assert!(long.starts_with("xää"));
        assert_eq!(TaskProgress::message("a\0b"), "a\u{fffd}b");
    }
}
