//! What can go wrong with a call to the server.

use std::{future::Future, time::Duration};

use lapin::ErrorKind;
use thiserror::Error;
use tokio::time::timeout;

/// Why the server did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    /// It said no, and closed the channel.
    #[error("{text} (code {code})")]
    Refused {
        /// AMQP's number of the error.
        code: u16,
        /// What it said.
        text: String,
    },
    /// There is no connection, or no answer in time.
    #[error("{0}")]
    Unreachable(String),
}

/// AMQP's reply codes.
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

impl Failure {
    pub(crate) fn unreachable(why: impl Into<String>) -> Self {
        Self::Unreachable(why.into())
    }

    pub(crate) fn no_answer(limit: Duration) -> Self {
        Self::Unreachable(format!("no answer within {limit:?}"))
    }

    /// Whether the queue or exchange that was named does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == NOT_FOUND)
    }

    /// Whether a queue that was declared exists with other settings.
    pub(crate) fn is_different(&self) -> bool {
        matches!(self, Self::Refused { code, text } if *code == PRECONDITION_FAILED && text.contains("inequivalent"))
    }
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => Self::Refused {
                code: refusal.get_id(),
                text: refusal.get_message().to_string(),
            },
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// Waits for an answer, for a bounded time.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(Failure::from),
        Err(_) => Err(Failure::no_answer(limit)),
    }
}
