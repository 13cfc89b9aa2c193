//! Reading a lane.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{Acknowledge, BrokerError, Consumer, Delivery, Message, Result, Subscription, Token};
use forebay_core::{Lane, Ready, TaskId, Timestamp};
use forebay_store::Backlog;
use tokio::time::{Instant, sleep, timeout_at};

use crate::lane::{Key, LaneState};

/// The bell may ring before what it announces is committed. So for a while after it rang the store is looked at
/// often, and seldom later, for what may have come about without a bell.
const POLL_SOON: Duration = Duration::from_millis(25);
const POLL_LATER: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(5);
/// How long over its time one look at the store may take.
const GRACE: Duration = Duration::from_millis(800);

/// A subscription to a lane.
pub(crate) fn to_lane(store: Arc<dyn Backlog>, lane: Lane, state: Arc<LaneState>) -> Subscription {
    let held = Arc::new(Held {
        number: state.subscribe(),
        state,
    });
    Subscription {
        consumer: Box::new(LaneConsumer {
            store,
            lane,
            held: Arc::clone(&held),
        }),
        acks: held,
    }
}

/// A subscription that delivers nothing.
pub(crate) fn to_nothing() -> Subscription {
    Subscription {
        consumer: Box::new(Nothing),
        acks: Arc::new(Nothing),
    }
}

/// What a subscription holds. When both its sides are gone, others may have it.
struct Held {
    number: u64,
    state: Arc<LaneState>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.release_all_of(self.number);
    }
}

struct LaneConsumer {
    store: Arc<dyn Backlog>,
    lane: Lane,
    held: Arc<Held>,
}

#[async_trait]
impl Consumer for LaneConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let until = Instant::now() + wait;
        loop {
            let state = Arc::clone(&self.held.state);
            let mut woken = std::pin::pin!(state.woken());
            // From here on no ring is missed, so the store is looked at after.
            woken.as_mut().enable();
            let found = timeout_at(until + GRACE, self.look(max)).await;
            let found = found.map_err(|_| BrokerError::new("deliver", "the store does not answer"))??;
            let left = until.saturating_duration_since(Instant::now());
            if !found.is_empty() || left.is_zero() {
                return Ok(found);
            }
            let poll = if state.quiet_for() < SOON {
                POLL_SOON
            } else {
                POLL_LATER
            };
            tokio::select! {
                () = woken => {}
                () = sleep(poll.min(left)) => {}
            }
        }
    }
}

impl LaneConsumer {
    async fn look(&self, max: usize) -> Result<Vec<Delivery>> {
        let state = &self.held.state;
        let read = state.begin_read();
        // What is under way is still queued, and in front; so is what was left to the store for now.
        let limit = max.saturating_add(state.passed_over());
        let rows = self.store.waiting(&self.lane, limit).await;
        let rows = rows.map_err(|error| BrokerError::new("deliver", error))?;
        Ok(read
            .assign(rows, max, self.held.number)
            .into_iter()
            .map(delivery)
            .collect())
    }
}

fn delivery((task, queued_at): (Ready, Timestamp)) -> Delivery {
    let mut token = Vec::with_capacity(20);
    token.extend_from_slice(task.id.as_uuid().as_bytes());
    token.extend_from_slice(&task.fence.to_be_bytes());
    Delivery {
        message: Ok(Message::Ready(task)),
        published_at: queued_at,
        token: Token(Bytes::from(token)),
    }
}

fn key(token: &Token) -> Option<Key> {
    let (id, fence) = token.0.split_at_checked(16)?;
    let id = TaskId::from_bytes(id.try_into().ok()?);
    Some((id, u32::from_be_bytes(fence.try_into().ok()?)))
}

#[async_trait]
impl Acknowledge for Held {
    async fn ack(&self, tokens: Vec<Token>) -> Result<()> {
        self.state.acknowledge(tokens.iter().filter_map(key));
        Ok(())
    }

    async fn leave(&self, tokens: Vec<Token>) -> Result<()> {
        self.state.leave(tokens.iter().filter_map(key));
        Ok(())
    }

    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()> {
        let keys: HashSet<Key> = tokens.iter().filter_map(key).collect();
        self.state.release(&keys);
        Ok(())
    }
}

/// Both sides of a subscription that delivers nothing.
struct Nothing;

#[async_trait]
impl Consumer for Nothing {
    async fn next(&mut self, _max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        sleep(wait).await;
        Ok(Vec::new())
    }
}

#[async_trait]
impl Acknowledge for Nothing {
    async fn ack(&self, _tokens: Vec<Token>) -> Result<()> {
        Ok(())
    }

    async fn hand_back(&self, _tokens: Vec<Token>) -> Result<()> {
        Ok(())
    }
}
