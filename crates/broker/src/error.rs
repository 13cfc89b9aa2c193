use std::time::Duration;

use thiserror::Error;

/// What a broker method returns.
pub type Result<T> = std::result::Result<T, BrokerError>;

/// The broker could not do it. Back off and try again.
#[derive(Debug, Error)]
#[error("the broker failed to {doing}")]
pub struct BrokerError {
    /// What was asked, as a verb and a noun.
    pub doing: &'static str,
    /// The client's error.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl BrokerError {
    /// Wraps a client's error.
    pub fn new(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            doing,
            source: source.into(),
        }
    }
}

/// Why a message was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker did not confirm it in time, or can't be reached. It may have been taken.
    #[error("the broker did not confirm the message: {0}")]
    Unavailable(String),
    /// The broker has not answered for a while, and was not asked. It was not taken.
    #[error("the broker was not asked: {why}")]
    Away {
        /// Since when it does not answer.
        why: String,
        /// When it is asked again.
        retry_in: Duration,
    },
    /// The broker, or the line in front of it, is full. It was not taken.
    #[error("the broker is full")]
    Full,
    /// Its idempotency key already names a task with another request. Only the embedded broker, whose log is the
    /// store, can tell at this point.
    #[error("the idempotency key is in use with another request")]
    Conflict,
}
