//! What an executor hears from others: which tasks are to be cancelled, and which queues are paused.
//!
//! Where a process has many executors they hear together. Each by itself would cost the broker a subscription to all
//! signals, and the store a question every second.

use std::{future::pending, sync::Arc};

use forebay_broker::Broker;
use forebay_core::{Signal, TaskId};
use forebay_runtime::{health::Reporter, supervise::Backoff};
use forebay_store::Store;
use futures::StreamExt;
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::debug;

use super::{
    pauses::{self, Pauses},
    running::Running,
};
use crate::shared::{BROKER_CALL_MAX, chain};

/// How many cancellations may wait for an executor. Those that it misses come with its heartbeat.
const CANCELS_MAX: usize = 256;

/// What was heard.
#[derive(Debug)]
pub(crate) struct Hearing {
    pub(super) pauses: Arc<Pauses>,
    cancels: broadcast::Sender<Vec<TaskId>>,
}

impl Default for Hearing {
    fn default() -> Self {
        Self {
            pauses: Arc::default(),
            cancels: broadcast::Sender::new(CANCELS_MAX),
        }
    }
}

impl Hearing {
    /// Listens for ever, on behalf of all who have this.
    pub(crate) async fn listen(&self, store: &dyn Store, broker: &dyn Broker, reporter: &Reporter) {
        tokio::join!(
            self.heed_signals(broker),
            pauses::follow(store, &self.pauses, reporter)
        );
    }

    /// Ends tasks as soon as it is heard that they are cancelled, for ever.
    pub(super) fn obey(&self, running: Arc<Running>) -> impl Future<Output = ()> + Send + use<> {
        let mut cancels = self.cancels.subscribe();
        async move {
            loop {
                match cancels.recv().await {
                    Ok(ids) => running.cancel(&ids),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => pending().await,
                }
            }
        }
    }

    /// Cancellations that are missed come with a heartbeat; pauses that are missed are asked for.
    async fn heed_signals(&self, broker: &dyn Broker) {
        let mut backoff = Backoff::default();
        loop {
            match tokio::time::timeout(BROKER_CALL_MAX, broker.signals()).await {
                Ok(Ok(mut signals)) => {
                    backoff = Backoff::default();
                    while let Some(signal) = signals.next().await {
                        self.heed(signal);
                    }
                }
                Ok(Err(error)) => debug!(error = chain(&error), "listening for signals failed"),
                Err(_) => debug!("the broker does not answer to listening for signals"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn heed(&self, signal: Signal) {
        match signal {
            Signal::Cancel(ids) => {
                // Perhaps nobody runs anything.
                let _ = self.cancels.send(ids);
            }
            Signal::QueuesChanged => self.pauses.question(),
            Signal::Events(_) | Signal::Progress(_) => {}
        }
    }
}
