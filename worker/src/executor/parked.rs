use std::{collections::VecDeque, sync::Arc, time::Duration};

use forebay_broker::{Acknowledge, Token};
use tokio::time::Instant;

use crate::subscribe::Receipts;

/// How many deliveries are held at once. While so many are held, no more are received.
const PARKED_MAX: usize = 1_000;

/// Deliveries that this worker cannot use now, held for a moment before they are handed back: handed back at once
/// they would come again at once.
pub(super) struct Parked {
    pause: Duration,
    /// The oldest first: all are held for the same time.
    held: VecDeque<(Instant, Arc<dyn Acknowledge>, Token)>,
}

impl Parked {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            held: VecDeque::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= PARKED_MAX
    }

    pub(super) fn add(&mut self, acks: &Arc<dyn Acknowledge>, token: Token) {
        self.held
            .push_back((Instant::now() + self.pause, Arc::clone(acks), token));
    }

    /// Waits until some were held long enough; for ever where there are none.
    pub(super) async fn due(&self) {
        match self.held.front() {
            Some((at, ..)) => tokio::time::sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    /// Those that were held long enough.
    pub(super) fn take_due(&mut self) -> Receipts {
        let now = Instant::now();
        let mut receipts = Receipts::default();
        while let Some((_, acks, token)) = self.held.pop_front_if(|(at, ..)| *at <= now) {
            receipts.add(&acks, token);
        }
        receipts
    }

    /// All.
    pub(super) fn take_all(&mut self) -> Receipts {
        let mut receipts = Receipts::default();
        for (_, acks, token) in self.held.drain(..) {
            receipts.add(&acks, token);
        }
        receipts
    }
}
