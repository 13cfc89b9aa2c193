//! Signals within one process.

use forebay_core::Signal;
use futures::{StreamExt, stream, stream::BoxStream};
use tokio::sync::broadcast::{self, error::RecvError};

/// How many signals a listener may be behind; a slower one misses some.
const BEHIND_MAX: usize = 1_024;

/// Where signals are sent and heard.
pub(crate) struct Signals(broadcast::Sender<Signal>);

impl Default for Signals {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }
}

impl Signals {
    pub(crate) fn send(&self, signal: Signal) {
        // An error says that nobody listens, which is nobody's loss.
        let _ = self.0.send(signal);
    }

    pub(crate) fn listen(&self) -> BoxStream<'static, Signal> {
        stream::unfold(self.0.subscribe(), |mut heard| async {
            loop {
                match heard.recv().await {
                    Ok(signal) => return Some((signal, heard)),
                    Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "a listener is slow"),
                    Err(RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }
}
