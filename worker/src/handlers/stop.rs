use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why an attempt should end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody cancelled the task.
    Cancelled,
    /// The attempt has taken longer than it may.
    TimedOut,
    /// The attempt has said nothing for longer than it may.
    Silent,
    /// The worker shuts down, or lost the task to another. The task is started again elsewhere.
    Shutdown,
}

/// Says when, and why, an attempt should end early. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl Stop {
    /// Nothing asks for an end yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the attempt should end, and says why. Never returns where nothing asks for it.
    pub async fn cancelled(&self) -> StopReason {
        self.token.cancelled().await;
        // The reason is set before the token.
        self.reason().unwrap_or(StopReason::Shutdown)
    }

    /// Why the attempt should end; `None` as long as it may go on.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    /// The token behind it, for code that takes one.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Asks for the end. The first reason counts.
    pub fn ask(&self, reason: StopReason) {
        // A second reason changes nothing.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts() {
        let stop = Stop::new();
        assert_eq!(stop.reason(), None);
        stop.clone().ask(StopReason::TimedOut);
        stop.ask(StopReason::Cancelled);
        assert_eq!(stop.cancelled().await, StopReason::TimedOut);
    }
}
