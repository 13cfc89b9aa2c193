//! What all roles of a worker are given, and the few things they all do.

use std::{future::Future, sync::Arc, time::Duration};

use forebay_broker::Broker;
use forebay_core::{Clock, State, TaskEvent};
use forebay_runtime::{health::Health, metrics::Metrics};
use forebay_store::{Store, StoreError};

use tokio::sync::watch;

use crate::{
    Handlers, WorkerOptions, bell::Bell, events::EventSender, executor::Hearing, handlers::Board,
    neighbours::Neighbours, worker::Load,
};

/// How long one call to the store may take before it counts as unanswered.
pub(crate) const STORE_CALL_MAX: Duration = Duration::from_secs(30);

/// How long one acknowledgement, signal or subscription may take.
pub(crate) const BROKER_CALL_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Shared {
    pub(crate) options: WorkerOptions,
    pub(crate) handlers: Handlers,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
    pub(crate) events: EventSender,
    /// What is heard on behalf of all executors of this process; `None` where this one listens by itself.
    pub(crate) hearing: Option<Arc<Hearing>>,
    /// The other executors of this process.
    pub(crate) neighbours: Neighbours,
    /// What the attempts of the executor say of how far they are.
    pub(crate) progress: Arc<Board>,
    /// Rung where something has become due.
    pub(crate) due: Arc<Bell>,
    /// How busy the executor is, for whoever listens.
    pub(crate) load: watch::Sender<Load>,
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: crate::Sabotage,
}

impl Shared {
    /// Tells whoever watches of tasks that were taken back, and counts those that have failed by it.
    pub(crate) fn taken_back(&self, events: Vec<TaskEvent>) {
        for lost in events.iter().filter(|event| event.state == State::Failed) {
            let metrics = self.metrics.of_kind(&lost.queue, lost.kind.as_str());
            metrics.failed_for_good();
        }
        // Others may have waited for the places that they held.
        if !events.is_empty() {
            self.due.ring();
        }
        self.tell(events);
    }

    /// Tells whoever watches.
    pub(crate) fn tell(&self, events: impl IntoIterator<Item = TaskEvent>) {
        let mut events: Vec<TaskEvent> = events.into_iter().collect();
        events.truncate(self.events.room_for(events.len()));
        self.events.send(events);
    }
}

/// Calls the store, and does not wait for ever: what was not answered in time is `Unavailable`.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    call: impl Future<Output = forebay_store::Result<T>>,
) -> forebay_store::Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(StoreError::Unavailable {
            doing,
            source: Box::new(elapsed),
        }),
    }
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
