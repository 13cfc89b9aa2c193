//! What runs a task: the trait that every handler implements, and the registry that maps kinds to handlers.
//!
//! Handlers never see the broker or the store. They are given an [`Execution`], and return a result or say what
//! should become of the task.

pub mod builtin;
pub mod command;
pub mod config;
mod function;
pub mod http;
mod log;
mod pace;
mod progress;
mod pulse;
mod stop;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use forebay_core::{InvalidName, Json, Kind, Project, QueueName, RetryPolicy, TaskId, TraceParent};
use thiserror::Error;

pub use log::LogTail;
pub(crate) use pace::Pace;
pub(crate) use progress::Board;
pub use progress::Progress;
pub(crate) use pulse::Pulse;
pub use stop::{Stop, StopReason};

/// One attempt at a task: what a handler is given.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Which task. The same for all its attempts: a key for what must not happen twice.
    pub id: TaskId,
    /// What it does.
    pub kind: Kind,
    /// The queue it came through.
    pub queue: QueueName,
    /// Whose it is.
    pub project: Project,
    /// The number of this attempt; the first is 1.
    pub attempt: u32,
    /// How many it may have.
    pub max_attempts: u32,
    /// How often the task was started, this start included: a fencing token. Unlike `attempt` it grows with every
    /// start, even where the one before was only interrupted. A system that remembers the highest it has seen for a
    /// task and refuses lower ones is safe from a worker that was stopped, declared dead, and woke up.
    pub fence: u32,
    /// Its input.
    pub payload: Json,
    /// The trace to go on with: the attempt's own span where traces are exported, else the submitter's.
    pub traceparent: Option<TraceParent>,
    /// How long this attempt may take.
    pub timeout: Duration,
    /// When that time is over.
    pub deadline: tokio::time::Instant,
    /// How long this attempt may say nothing: see [`Self::heartbeat`]. `None` for as long as it likes.
    pub heartbeat_timeout: Option<Duration>,
    /// Says when and why the attempt should end early.
    pub stop: Stop,
    /// Where to log to; its tail is kept with the task.
    pub log: LogTail,
    /// Where to say how far it is; the latest word is kept with the task.
    pub progress: Progress,
}

impl Execution {
    /// Says that the attempt is alive, where it has nothing else to say: progress and lines of its log say so, too. An
    /// attempt with a [`Self::heartbeat_timeout`] that says nothing for so long is ended as one that takes too long is.
    /// Never waits, and costs next to nothing.
    pub fn heartbeat(&self) {
        self.progress.beat();
    }
}

/// Why an attempt did not succeed, and what should become of the task.
///
/// Any other error turns into [`HandlerError::Retryable`] by `?`, with its chain of causes as the message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerError {
    /// Another attempt may help: the task is retried by its policy while it has attempts left.
    Retryable {
        /// What went wrong.
        message: String,
    },
    /// Another attempt is no use: the task has failed.
    Permanent {
        /// What went wrong.
        message: String,
    },
    /// As [`HandlerError::Retryable`], but after a wait that the handler, or whom it asked, knows better.
    RetryAfter {
        /// What went wrong.
        message: String,
        /// How long to wait.
        delay: Duration,
    },
    /// Nothing went wrong, it is too early: call again later. Uses up no attempt.
    Snooze {
        /// How long to wait.
        delay: Duration,
    },
}

impl HandlerError {
    /// Another attempt may help.
    pub fn retryable(message: impl fmt::Display) -> Self {
        Self::Retryable {
            message: message.to_string(),
        }
    }

    /// Another attempt is no use.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self::Permanent {
            message: message.to_string(),
        }
    }

    /// Another attempt may help, but not before `delay` has passed.
    pub fn retry_after(delay: Duration, message: impl fmt::Display) -> Self {
        Self::RetryAfter {
            message: message.to_string(),
            delay,
        }
    }

    /// It is too early: call again after `delay`.
    #[must_use]
    pub fn snooze(delay: Duration) -> Self {
        Self::Snooze { delay }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retryable { message } | Self::Permanent { message } | Self::RetryAfter { message, .. } => {
                f.write_str(message)
            }
            Self::Snooze { delay } => write!(f, "snoozed for {delay:?}"),
        }
    }
}

// HandlerError itself is no std::error::Error, so that this does not overlap with the identity conversion.
impl<E: Into<anyhow::Error>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retryable(format_args!("{:#}", error.into()))
    }
}

/// What a handler returns: the task's result as JSON, of at most [`RESULT_BYTES_MAX`].
pub type HandlerResult = Result<Json, HandlerError>;

/// The largest result, in bytes. A larger one fails the task for good.
pub const RESULT_BYTES_MAX: usize = 256 * 1024;

/// Runs tasks of one kind.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt. Several attempts run at the same time, and after a crash one may run twice.
    ///
    /// A handler should watch `execution.stop`. Shortly after it has said that the attempt should end, this
    /// future is dropped wherever it waits: what it holds must be released by its destructors. What a handler
    /// returns after a cancellation or a timeout no longer counts, unless it is a success.
    async fn run(&self, execution: Execution) -> HandlerResult;

    /// Whether its attempts can say anything before they end. Those that can't have no heartbeat timeout.
    fn can_speak(&self) -> bool {
        true
    }
}

/// What holds for all tasks of one kind, where the task itself does not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct HandlerSettings {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long an attempt may say nothing; see [`Execution::heartbeat`]. `None` for as long as it likes.
    pub heartbeat_timeout: Option<Duration>,
    /// How many attempts there are, and how long to wait in between.
    pub retry: RetryPolicy,
    /// How many attempts run at once in this worker. `None` for as many as it has slots, or nine in ten of them, and
    /// not the last, where it serves other kinds, too: a flood of one kind leaves room for the others. Tasks beyond are
    /// not started yet, and hold no slot.
    pub concurrency: Option<usize>,
}

impl Default for HandlerSettings {
    /// Five minutes, the default policy, no bound.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            heartbeat_timeout: None,
            retry: RetryPolicy::default(),
            concurrency: None,
        }
    }
}

/// Why a handler could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The kind is not a valid name.
    #[error("the kind {kind:?} {source}")]
    InvalidKind {
        /// As it was given.
        kind: String,
        /// What is allowed.
        source: InvalidName,
    },
    /// The kind has a handler already.
    #[error("the kind {0} has two handlers")]
    Duplicate(Kind),
}

/// A handler as the registry keeps it.
pub(crate) struct Registered {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) settings: HandlerSettings,
    pub(crate) pace: Pace,
}

/// Which kinds a worker knows, and what runs them.
#[derive(Default)]
pub struct Handlers {
    by_kind: BTreeMap<Kind, Arc<Registered>>,
}

impl Handlers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler.
    ///
    /// # Errors
    /// Where the kind has one already.
    pub fn register(
        &mut self,
        kind: Kind,
        settings: HandlerSettings,
        handler: impl Handler,
    ) -> Result<(), RegisterError> {
        self.register_shared(kind, settings, Arc::new(handler))
    }

    /// As [`Self::register`], for a handler that serves several kinds or that is chosen at run time.
    ///
    /// # Errors
    /// Where the kind has one already.
    pub fn register_shared(
        &mut self,
        kind: Kind,
        settings: HandlerSettings,
        handler: Arc<dyn Handler>,
    ) -> Result<(), RegisterError> {
        match self.by_kind.entry(kind) {
            Entry::Occupied(taken) => Err(RegisterError::Duplicate(taken.key().clone())),
            Entry::Vacant(place) => {
                let pace = Pace::default();
                place.insert(Arc::new(Registered {
                    handler,
                    settings,
                    pace,
                }));
                Ok(())
            }
        }
    }

    /// The kinds that have a handler, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.by_kind.keys()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    /// The handler of a kind and its settings: to try it out without a worker.
    #[must_use]
    pub fn handler(&self, kind: &Kind) -> Option<(Arc<dyn Handler>, HandlerSettings)> {
        let found = self.get(kind)?;
        Some((Arc::clone(&found.handler), found.settings.clone()))
    }

    pub(crate) fn get(&self, kind: &Kind) -> Option<&Arc<Registered>> {
        self.by_kind.get(kind)
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}
