//! Tells others of tasks that were accepted, in batches and off the path of a request.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use forebay_broker::Broker;
use forebay_core::{Signal, TaskEvent};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How many events wait to be told. Further ones are not told.
const WAITING_MAX: usize = 8_192;
/// How many are told together.
const BATCH_MAX: usize = 512;
/// Between two batches. With it no more than about 20,000 events are told in a second, however many tasks are accepted:
/// each is heard, and decoded, by every replica.
const PAUSE: Duration = Duration::from_millis(25);
/// How long telling may take.
const TELL: Duration = Duration::from_secs(1);

/// Takes events. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    waiting: mpsc::Sender<TaskEvent>,
    /// Held by the loop while it runs.
    line: Arc<Mutex<Option<mpsc::Receiver<TaskEvent>>>>,
}

impl Announcer {
    pub(crate) fn new() -> Self {
        let (waiting, line) = mpsc::channel(WAITING_MAX);
        Self {
            waiting,
            line: Arc::new(Mutex::new(Some(line))),
        }
    }

    /// Hands in what became of a task. Never waits; where nobody can be told in time, nobody is, and `event` is not
    /// even made.
    pub(crate) fn announce(&self, event: impl FnOnce() -> TaskEvent) {
        // A full line means that events are lost, which every listener reckons with.
        if let Ok(place) = self.waiting.try_reserve() {
            place.send(event());
        }
    }

    /// Tells what was handed in, until `stop`. A second loop of the same announcer does nothing.
    pub(crate) async fn run(&self, broker: &dyn Broker, stop: &CancellationToken) {
        let taken = self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut line) = taken else { return };
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = line.recv_many(&mut batch, BATCH_MAX) => {}
            }
            match timeout(TELL, broker.signal(Signal::Events(batch))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = %error, "events were not told"),
                Err(_) => tracing::debug!("events were not told in time"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }
}
