//! What a worker hears from others: which tasks are to be cancelled, which queues are paused, and that something is due.
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
use crate::{
    bell::Bell,
    shared::{BROKER_CALL_MAX, chain},
};

/// How many cancellations may wait for an executor. Those that it misses come with its heartbeat.
const CANCELS_MAX: usize = 256;

/// What was heard.
#[derive(Debug)]
pub(crate) struct Hearing {
    pub(super) pauses: Arc<Pauses>,
    cancels: broadcast::Sender<Vec<TaskId>>,
    due: Arc<Bell>,
}

impl Hearing {
    pub(crate) fn new(due: Arc<Bell>) -> Self {
        Self {
            pauses: Arc::default(),
            cancels: broadcast::Sender::new(CANCELS_MAX),
            due,
        }
    }

    /// Listens for ever, on behalf of all who have this.
    pub(crate) async fn listen(&self, store: &dyn Store, broker: &dyn Broker, reporter: &Reporter) {
        tokio::join!(
            hear(broker, |signal| self.heed(signal)),
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

    fn heed(&self, signal: Signal) {
        match signal {
            Signal::Cancel(ids) => {
                // Perhaps nobody runs anything.
                let _ = self.cancels.send(ids);
            }
            Signal::QueuesChanged => self.pauses.question(),
            Signal::Due => self.due.heard(),
            Signal::Events(_) | Signal::Progress(_) => {}
        }
    }
}

/// Listens for ever. Of what is missed, cancellations come with a heartbeat, pauses are asked for, and what is due is found
/// by a look.
pub(crate) async fn hear(broker: &dyn Broker, heed: impl Fn(Signal)) {
    let mut backoff = Backoff::default();
    loop {
        match tokio::time::timeout(BROKER_CALL_MAX, broker.signals()).await {
            Ok(Ok(mut signals)) => {
                backoff = Backoff::default();
                while let Some(signal) = signals.next().await {
                    heed(signal);
                }
            }
            Ok(Err(error)) => debug!(error = chain(&error), "listening for signals failed"),
            Err(_) => debug!("the broker does not answer to listening for signals"),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
