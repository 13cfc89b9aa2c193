//! The embedded broker: the store is its log.
//!
//! Publishing a submission records it, and that is all the durability there is to it; so there is nothing for a
//! recorder to read. What waits in a lane is what the store has queued in it. This broker adds what a broker has and a
//! store has not: a delivery belongs to one reader until it is acknowledged or handed back, and readers wake up when
//! something comes. It serves one process.

mod lane;
mod signals;
mod subscription;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use forebay_broker::{Broker, BrokerError, Depth, Message, PublishError, Result, Source, Subscription};
use forebay_core::{Lane, Signal, Submission};
use forebay_store::{Backlog, Recorded, Recording, StoreError};
use futures::stream::BoxStream;
use tokio::time::{Instant, timeout_at};

use crate::{lane::LaneState, signals::Signals};

/// How long publishing may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

type Outcome = std::result::Result<(), PublishError>;

/// A broker on a store.
pub struct EmbeddedBroker {
    store: Arc<dyn Backlog>,
    /// The lanes that somebody reads, or has read.
    lanes: Mutex<HashMap<Lane, Arc<LaneState>>>,
    signals: Signals,
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmbeddedBroker")
    }
}

impl EmbeddedBroker {
    /// A broker on `store`. There must be only one on it.
    pub fn new(store: Arc<dyn Backlog>) -> Self {
        Self {
            store,
            lanes: Mutex::default(),
            signals: Signals::default(),
        }
    }

    /// The lane's state, where somebody reads it.
    fn read_lane(&self, lane: &Lane) -> Option<Arc<LaneState>> {
        self.lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(lane)
            .cloned()
    }

    fn wake(&self, lane: &Lane) {
        if let Some(state) = self.read_lane(lane) {
            state.wake();
        }
    }

    async fn record(&self, tasks: &[Submission]) -> Vec<Outcome> {
        match self.store.record_and_tell(tasks).await {
            Ok(recording) => self.tell(recording).into_iter().map(outcome).collect(),
            // One of them is at fault. The others are not to suffer from it.
            Err(StoreError::Refused { .. }) if tasks.len() > 1 => self.record_singly(tasks).await,
            Err(error) => vec![Err(unavailable(&error)); tasks.len()],
        }
    }

    async fn record_singly(&self, tasks: &[Submission]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(
                match self.store.record_and_tell(std::slice::from_ref(task)).await {
                    Ok(recording) => self.tell(recording).into_iter().try_for_each(outcome),
                    Err(error) => Err(unavailable(&error)),
                },
            );
        }
        outcomes
    }

    /// Tells whoever listens of what ended as it was recorded.
    fn tell(&self, recording: Recording) -> Vec<Recorded> {
        if !recording.ended.is_empty() {
            self.signals.send(Signal::Events(recording.ended));
        }
        recording.answers
    }
}

fn outcome(recorded: Recorded) -> Outcome {
    match recorded {
        Recorded::New | Recorded::Duplicate => Ok(()),
        Recorded::Conflict => Err(PublishError::Conflict),
    }
}

fn unavailable(error: &StoreError) -> PublishError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    PublishError::Unavailable(format!("{error}{}", cause.unwrap_or_default()))
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let lanes: Vec<Lane> = batch.iter().map(|message| message.lane().clone()).collect();
        let mut outcomes = vec![Ok(()); batch.len()];
        let mut places = Vec::new();
        let mut tasks = Vec::new();
        for (place, message) in batch.into_iter().enumerate() {
            // What is ready is in the store, or will be in a moment; its readers are woken below.
            if let Message::Submission(task) = message {
                places.push(place);
                tasks.push(task);
            }
        }
        if !tasks.is_empty() {
            let late =
                PublishError::Unavailable(format!("the store did not answer within {PUBLISH_TIMEOUT:?}"));
            let recorded = timeout_at(deadline, self.record(&tasks)).await;
            let recorded = recorded.unwrap_or_else(|_| vec![Err(late); tasks.len()]);
            for (place, outcome) in places.into_iter().zip(recorded) {
                outcomes[place] = outcome;
            }
        }
        for lane in &lanes {
            self.wake(lane);
        }
        outcomes
    }

    async fn consume(&self, source: Source) -> Result<Subscription> {
        Ok(match source {
            Source::Submissions => subscription::to_nothing(),
            Source::Lane(lane) => {
                let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                let state = lanes.entry(lane.clone()).or_default();
                subscription::to_lane(Arc::clone(&self.store), lane, Arc::clone(state))
            }
        })
    }

    async fn depth(&self, lane: &Lane) -> Result<Depth> {
        let counted = self.store.waiting_counts().await;
        let counted = counted.map_err(|error| BrokerError::new("count a lane", error))?;
        let queued = counted.into_iter().find(|(counted, _)| counted == lane);
        let queued = queued.map_or(0, |(_, count)| count);
        let delivered = self.read_lane(lane).map_or(0, |state| state.in_flight());
        Ok(Depth {
            waiting: queued.saturating_sub(delivered),
            delivered,
        })
    }

    /// Always none: what was published is recorded.
    async fn unrecorded(&self) -> Result<u64> {
        Ok(0)
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.signals.send(signal);
        Ok(())
    }

    async fn signals(&self) -> Result<BoxStream<'static, Signal>> {
        Ok(self.signals.listen())
    }

    /// Does nothing: a claim is what takes a message out of the store.
    async fn trim(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let lane = Lane::new(
            forebay_core::QueueName::default(),
            forebay_core::Priority::Default,
        );
        let looked = self.store.waiting(&lane, 1).await;
        looked
            .map(|_| ())
            .map_err(|error| BrokerError::new("read its store", error))
    }
}
