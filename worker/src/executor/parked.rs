use std::{collections::VecDeque, sync::Arc, time::Duration};

use forebay_broker::{Acknowledge, Token};
use tokio::time::Instant;

use crate::subscribe::Receipts;

/// How many deliveries are held at once. While so many are held, no more are received.
const PARKED_MAX: usize = 1_000;

/// What becomes of a delivery that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It goes back to the broker, for anyone.
    HandBack,
    /// The broker forgets it. The store keeps the task, and the dispatcher publishes it again after a while.
    LeaveToStore,
}

struct Held {
    until: Instant,
    acks: Arc<dyn Acknowledge>,
    token: Token,
    then: Then,
}

/// Deliveries that this worker cannot use now, held for a moment before they are let go: let go at once they would
/// come again at once.
pub(super) struct Parked {
    pause: Duration,
    /// The oldest first: all are held for the same time.
    held: VecDeque<Held>,
}

impl Parked {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            held: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= PARKED_MAX
    }

    pub(super) fn add(&mut self, acks: &Arc<dyn Acknowledge>, token: Token, then: Then) {
        self.held.push_back(Held {
            until: Instant::now() + self.pause,
            acks: Arc::clone(acks),
            token,
            then,
        });
    }

    /// Waits until some were held long enough; for ever where there are none.
    pub(super) async fn due(&self) {
        match self.held.front() {
            Some(held) => tokio::time::sleep_until(held.until).await,
            None => std::future::pending().await,
        }
    }

    /// Those that were held long enough: what is to be acknowledged, and what is to be handed back.
    pub(super) fn take_due(&mut self) -> (Receipts, Receipts) {
        let now = Instant::now();
        let mut left = Receipts::default();
        let mut back = Receipts::default();
        while let Some(held) = self.held.pop_front_if(|held| held.until <= now) {
            match held.then {
                Then::LeaveToStore => left.add(&held.acks, held.token),
                Then::HandBack => back.add(&held.acks, held.token),
            }
        }
        (left, back)
    }

    /// All.
    pub(super) fn take_all(&mut self) -> Receipts {
        let mut receipts = Receipts::default();
        for held in self.held.drain(..) {
            receipts.add(&held.acks, held.token);
        }
        receipts
    }
}
