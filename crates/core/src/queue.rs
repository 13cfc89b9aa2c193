//! Queues are divided into lanes, one for each priority. A lane is first in, first out.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::QueueName;

/// How urgent a task is within its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// What a task has unless said otherwise.
    #[default]
    Default,
    /// When nothing else waits.
    Low,
}

/// The text names no priority.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be one of high, default, low")]
pub struct UnknownPriority;

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Default, Self::Low];

    /// The name used in the API, in subjects and in the stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Default => "default",
            Self::Low => "low",
        }
    }
}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == text)
            .ok_or(UnknownPriority)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One queue at one priority: the unit that the broker keeps in order and a worker consumes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The queue.
    pub queue: QueueName,
    /// The priority within the queue.
    pub priority: Priority,
}

impl Lane {
    /// The lane of `queue` at `priority`.
    #[must_use]
    pub fn new(queue: QueueName, priority: Priority) -> Self {
        Self { queue, priority }
    }

    /// The three lanes of a queue, most urgent first.
    #[must_use]
    pub fn all_of(queue: &QueueName) -> [Self; 3] {
        Priority::ALL.map(|priority| Self::new(queue.clone(), priority))
    }
}

/// `<queue>.<priority>`, as in subjects and routing keys. Queue names have no dot, so it parses back.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.queue, self.priority)
    }
}

impl FromStr for Lane {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        let (queue, priority) = text.split_once('.').ok_or(UnknownPriority)?;
        Ok(Self {
            queue: queue.parse().map_err(|_| UnknownPriority)?,
            priority: priority.parse()?,
        })
    }
}
