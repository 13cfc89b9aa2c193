//! Tells whoever listens what happened to tasks: best effort, in batches, bounded.

use std::sync::Arc;

use forebay_broker::Broker;
use forebay_core::{Signal, TaskEvent};
use tokio::sync::mpsc;
use tracing::debug;

use crate::shared::BROKER_CALL_MAX;

/// How many events may wait. Past it they are dropped: nothing depends on them.
const WAITING_MAX: usize = 10_000;
/// How many are sent together.
const BATCH_MAX: usize = 500;

/// Hands in events. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EventSender(mpsc::Sender<TaskEvent>);

impl EventSender {
    /// Hands one in, and never waits.
    pub(crate) fn send(&self, event: TaskEvent) {
        if self.0.try_send(event).is_err() {
            debug!("an event was dropped: too many wait");
        }
    }
}

/// Sends them on.
pub(crate) struct Events {
    broker: Arc<dyn Broker>,
    waiting: mpsc::Receiver<TaskEvent>,
}

impl Events {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> (EventSender, Self) {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        (EventSender(sender), Self { broker, waiting })
    }

    /// Runs until every sender is gone and what they handed in was sent.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let signal = Signal::Events(std::mem::take(&mut batch));
            match tokio::time::timeout(BROKER_CALL_MAX, self.broker.signal(signal)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(error = crate::shared::chain(&error), "events were not sent"),
                Err(_) => debug!("events were not sent in time"),
            }
        }
    }
}
