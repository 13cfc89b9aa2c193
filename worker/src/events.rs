//! Tells whoever listens what happened to tasks: best effort, in batches, bounded in number and in rate. Nobody can
//! follow more than so many a second, and nothing depends on them, so a worker that ends tens of thousands of tasks a
//! second spends nothing on most of them. What has become due is told on the same way, for dispatchers elsewhere.

use std::sync::{Arc, Mutex, PoisonError};

use forebay_broker::Broker;
use forebay_core::{Signal, TaskEvent, TaskId};
use forebay_store::ProgressNote;
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

use crate::{bell::Bell, shared::BROKER_CALL_MAX};

/// How many batches may wait. Past it they are dropped.
const WAITING_MAX: usize = 1_000;
/// So many are sent together, at the least, while others wait.
const TOGETHER: usize = 500;
/// How many are told a second, in the long run.
const PER_SECOND: u32 = 5_000;
/// How many are told at once after a time of quiet.
const BURST: u32 = 20_000;

/// Hands in events. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EventSender {
    line: mpsc::Sender<Batch>,
    budget: Arc<Mutex<Budget>>,
}

/// What is told together.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<TaskEvent>,
    /// Tasks that have said how far they are.
    progress: Vec<TaskId>,
}

impl Batch {
    fn len(&self) -> usize {
        self.events.len() + self.progress.len()
    }

    fn append(&mut self, mut next: Self) {
        self.events.append(&mut next.events);
        self.progress.append(&mut next.progress);
    }
}

/// How many more may be told.
#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let grown = now.duration_since(self.since).as_secs_f64() * f64::from(PER_SECOND);
        if grown >= 1.0 {
            // Cut to whole events, and to the burst.
            let grown = grown.min(f64::from(BURST)) as u32;
            self.left = self.left.saturating_add(grown).min(BURST);
            self.since = now;
        }
        let granted = wanted.min(self.left as usize);
        self.left -= u32::try_from(granted).unwrap_or(self.left);
        granted
    }
}

impl EventSender {
    /// Of how many events, of `wanted`, somebody is to be told. Ask before they are made.
    pub(crate) fn room_for(&self, wanted: usize) -> usize {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.take(wanted, Instant::now())
    }

    /// Hands a batch in, and never waits.
    pub(crate) fn send(&self, events: Vec<TaskEvent>) {
        self.hand_in(Batch {
            events,
            ..Batch::default()
        });
    }

    /// Hands in that tasks have said how far they are, those of them that there is room for; and never waits.
    pub(crate) fn send_progress(&self, notes: &[ProgressNote]) {
        let told = self.room_for(notes.len());
        self.hand_in(Batch {
            progress: notes[..told].iter().map(|note| note.id).collect(),
            ..Batch::default()
        });
    }

    fn hand_in(&self, batch: Batch) {
        if batch.len() > 0 && self.line.try_send(batch).is_err() {
            debug!("events were dropped: too many wait");
        }
    }
}

/// Sends them on.
pub(crate) struct Events {
    broker: Arc<dyn Broker>,
    waiting: mpsc::Receiver<Batch>,
    pub(crate) due: Arc<Bell>,
}

impl Events {
    pub(crate) fn new(broker: Arc<dyn Broker>, due: Arc<Bell>) -> (EventSender, Self) {
        let (line, waiting) = mpsc::channel(WAITING_MAX);
        let budget = Budget {
            left: BURST,
            since: Instant::now(),
        };
        let sender = EventSender {
            line,
            budget: Arc::new(Mutex::new(budget)),
        };
        (sender, Self { broker, waiting, due })
    }

    /// Runs until every sender is gone and what they handed in was sent. Neither what is rung nor what is handed in keeps the
    /// other waiting, however much of it there is.
    pub(crate) async fn run(mut self) {
        loop {
            let mut batch = tokio::select! {
                () = self.due.rung_for_others() => {
                    self.signal(Signal::Due).await;
                    continue;
                }
                next = self.waiting.recv() => match next {
                    Some(batch) => batch,
                    None => break,
                },
            };
            while batch.len() < TOGETHER
                && let Ok(next) = self.waiting.try_recv()
            {
                batch.append(next);
            }
            if !batch.events.is_empty() {
                self.signal(Signal::Events(batch.events)).await;
            }
            if !batch.progress.is_empty() {
                self.signal(Signal::Progress(batch.progress)).await;
            }
        }
        // What was rung just before the end, as where a worker hands back what it holds.
        if self.due.was_rung_for_others() {
            self.signal(Signal::Due).await;
        }
    }

    async fn signal(&self, signal: Signal) {
        match tokio::time::timeout(BROKER_CALL_MAX, self.broker.signal(signal)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error = crate::shared::chain(&error), "events were not sent"),
            Err(_) => debug!("events were not sent in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_broker_embedded::EmbeddedBroker;
    use forebay_core::State;
    use forebay_store_sqlite::SqliteStore;
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn what_is_rung_just_before_the_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("forebay.db"))
            .await
            .unwrap();
        let broker = Arc::new(EmbeddedBroker::new(Arc::new(store)));
        let heard = broker.signals().await.unwrap();
        let due = Arc::<Bell>::default();
        let (sender, events) = Events::new(broker, Arc::clone(&due));
        due.ring();
        due.rung_for_others().await;
        due.ring();
        let event = TaskEvent {
            id: TaskId::from_bytes([1; 16]),
            kind: "echo".parse().unwrap(),
            queue: "default".parse().unwrap(),
            state: State::Succeeded,
            attempt: 1,
            at: forebay_core::Timestamp::UNIX_EPOCH,
        };
        sender.send(vec![event.clone()]);
        drop(sender);
        events.run().await;
        let told = heard.take(2).collect::<Vec<Signal>>();
        let told = tokio::time::timeout(BROKER_CALL_MAX, told).await.unwrap();
        assert!(told.contains(&Signal::Due), "{told:?}");
        assert!(told.contains(&Signal::Events(vec![event])), "{told:?}");
    }

    #[test]
    fn a_burst_is_told_and_a_flood_is_not() {
        let begin = Instant::now();
        let mut budget = Budget {
            left: BURST,
            since: begin,
        };
        assert_eq!(budget.take(15_000, begin), 15_000);
        assert_eq!(budget.take(15_000, begin), 5_000);
        assert_eq!(budget.take(1, begin), 0);
        let later = begin + Duration::from_millis(100);
        assert_eq!(budget.take(1_000, later), 500);
        assert_eq!(budget.take(30_000, later + Duration::from_secs(3_600)), 20_000);
    }
}
