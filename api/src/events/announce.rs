//! Tells others of tasks that were accepted, in batches and off the path of a request.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use forebay_broker::Broker;
use forebay_core::{Signal, Task, TaskEvent, Timestamp};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// How many events wait to be told. Further ones are not told.
const WAITING_MAX: usize = 8_192;
/// How many are told together.
const BATCH_MAX: usize = 512;
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

    /// Hands in what became of a task. Never waits; where nobody can be told in time, nobody is.
    pub(crate) fn announce(&self, task: &Task, at: Timestamp) {
        let event = TaskEvent {
            id: task.id,
            kind: task.kind.clone(),
            queue: task.queue.clone(),
            state: task.state,
            attempt: task.attempt,
            at,
        };
        // A full line means that events are lost, which every listener reckons with.
        let _ = self.waiting.try_send(event);
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
        }
    }
}
