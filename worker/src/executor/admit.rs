//! What becomes of a delivery: it waits to be claimed, or for room in its kind's bulkhead, or it is not for this worker.

use std::sync::Arc;

use forebay_broker::{Acknowledge, Delivery, Message, Token, Undecodable};
use forebay_core::{Kind, Ready};
use forebay_store::{Reject, StoreError};
use tracing::{debug, error, warn};

use super::{
    Executor,
    bulkhead::Place,
    claim::{Candidate, start_of},
    held::Waiting,
    intake::Pulled,
    parked::Then,
    running::Admitted,
    slots::Taken,
};
use crate::{
    neighbours::Neighbour,
    shared::{STORE_CALL_MAX, Shared, chain, within},
    subscribe::Receipts,
};

/// How many kinds without a handler are told apart in the log.
const UNKNOWN_KINDS_MAX: usize = 1_000;
/// How often a task is handed back for a neighbour who has no room yet.
const NEIGHBOUR_TRIES: u32 = 10;
/// How many tasks of such kinds are remembered; then it begins anew.
const HANDED_BACK_MAX: usize = 10_000;

impl Executor {
    /// What arrived.
    pub(super) fn admit(&mut self, pulled: Option<Pulled>) {
        let Some(Pulled { deliveries, acks }) = pulled else {
            return;
        };
        let mut back = Receipts::default();
        let mut done = Receipts::default();
        for (delivery, slot) in deliveries {
            let Some(waiting) = self.recognise(delivery, &acks) else {
                continue;
            };
            let Some(waiting) = self.unless_here(waiting, &mut done) else {
                continue;
            };
            if self.holds_back(&waiting.ready.lane.queue) {
                back.add(&acks, waiting.token);
                continue;
            }
            // Its slot, if it has one, is free again while it is held.
            let cell = self.bulkheads.cell(&waiting.ready);
            // Behind those that wait for the same room.
            if self.held.has(&cell) {
                self.held.add(cell, waiting);
                continue;
            }
            let Some(place) = self.bulkheads.place(&cell) else {
                self.held.add(cell, waiting);
                continue;
            };
            match slot {
                Some(slot) => self.take_on(waiting, slot, place, &mut done),
                None => {
                    self.backlogs.leave_to(&waiting.ready.lane);
                    back.add(&acks, waiting.token);
                }
            }
        }
        self.answer(done, back);
    }

    /// What comes once more of a start that this worker has already needs no room.
    fn unless_here(&mut self, mut waiting: Waiting, done: &mut Receipts) -> Option<Waiting> {
        match self.running.is_claimed(start_of(&waiting.ready)) {
            Some(true) => done.add(&waiting.acks, waiting.token),
            Some(false) => self.parked.add(&waiting.acks, waiting.token, Then::HandBack),
            None if self.held.renew(&mut waiting) => done.add(&waiting.acks, waiting.token),
            None => return Some(waiting),
        }
        None
    }

    /// Where a bulkhead has room again, what is held for it comes before what is new.
    pub(super) fn start_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let mut done = Receipts::default();
        for cell in self.held.cells() {
            while let Some(place) = self.bulkheads.place(&cell) {
                let slot = self.slots.take(1);
                if slot.count() == 0 {
                    break;
                }
                let Some(waiting) = self.held.take(&cell) else {
                    break;
                };
                self.take_on(waiting, slot, place, &mut done);
            }
        }
        self.answer(done, Receipts::default());
    }

    /// What this worker does not hold yet waits to be claimed.
    fn take_on(&mut self, waiting: Waiting, slot: Taken, place: Place, done: &mut Receipts) {
        let Waiting {
            ready,
            registered,
            acks,
            token,
            published_at,
        } = waiting;
        match self.running.admit(start_of(&ready), &ready.lane.queue) {
            Admitted::Claimed => done.add(&acks, token),
            Admitted::Claiming => self.parked.add(&acks, token, Then::HandBack),
            Admitted::New(stop) => {
                let candidate = Candidate {
                    registered,
                    stop,
                    slot,
                    place,
                    acks,
                    token,
                    published_at,
                };
                self.waiting.add(ready, candidate);
            }
        }
    }

    /// A task for which there is a handler here; what else it may be is dealt with.
    fn recognise(&mut self, delivery: Delivery, acks: &Arc<dyn Acknowledge>) -> Option<Waiting> {
        let Delivery {
            message,
            published_at,
            token,
        } = delivery;
        let acks = Arc::clone(acks);
        let ready = match message {
            Ok(Message::Ready(ready)) => ready,
            // Lanes carry none. One that is there all the same is claimed like any task if it is recorded, and else turned
            // away: the recorder has its own copy.
            Ok(Message::Submission(task)) => task.into_ready(),
            Err(undecodable) => {
                let set_aside = set_aside(Arc::clone(&self.shared), undecodable, acks, token);
                self.chores.spawn(set_aside);
                return None;
            }
        };
        let Some(registered) = self.shared.handlers.get(&ready.kind).map(Arc::clone) else {
            let then = self.note_unknown(&ready);
            self.parked.add(&acks, token, then);
            return None;
        };
        Some(Waiting {
            ready,
            registered,
            acks,
            token,
            published_at,
        })
    }

    /// A kind that has no handler here may have one elsewhere, so its task is handed back: once, or some times where a
    /// neighbour has one, and again and again while that has room. When it comes again, it is left to the store: a
    /// broker delivers again before it delivers what is new, and keeps what comes after a message that nobody takes.
    fn note_unknown(&mut self, ready: &Ready) -> Then {
        let tries = match self.shared.neighbours.of(&ready.lane.queue, &ready.kind) {
            Neighbour::Free => return Then::HandBack,
            Neighbour::Busy => NEIGHBOUR_TRIES,
            Neighbour::None => {
                self.say_unknown(&ready.kind);
                1
            }
        };
        if self.handed_back.len() >= HANDED_BACK_MAX {
            self.handed_back.clear();
        }
        let handed_back = self.handed_back.entry(start_of(ready)).or_default();
        *handed_back += 1;
        if *handed_back <= tries {
            Then::HandBack
        } else {
            Then::LeaveToStore
        }
    }

    fn say_unknown(&mut self, kind: &Kind) {
        let room = self.unknown_kinds.len() < UNKNOWN_KINDS_MAX;
        if room && self.unknown_kinds.insert(kind.clone()) {
            warn!(%kind, "no handler here; such tasks are left to other workers of the queue");
        }
    }
}

/// Sets a message aside that nobody can decode.
async fn set_aside(shared: Arc<Shared>, message: Undecodable, acks: Arc<dyn Acknowledge>, token: Token) {
    let mut receipts = Receipts::default();
    receipts.add(&acks, token);
    let Undecodable {
        subject,
        body,
        reason,
    } = message;
    warn!(subject, reason, "a message is set aside: nobody can decode it");
    let rejects = [Reject {
        subject,
        body,
        reason,
    }];
    let kept = shared.store.set_aside(&rejects);
    match within(STORE_CALL_MAX, "set aside messages", kept).await {
        Ok(()) => {}
        Err(refused @ StoreError::Refused { .. }) => {
            // Nothing else can be done with it, and it would come for ever.
            error!(
                subject = rejects[0].subject,
                error = chain(&refused),
                "a message is dropped: the store won't keep it"
            );
        }
        Err(error) => {
            debug!(error = chain(&error), "setting a message aside failed");
            tokio::time::sleep(shared.options.intake.unknown_kind_pause).await;
            receipts.hand_back().await;
            return;
        }
    }
    shared.metrics.undecodable_message();
    receipts.ack().await;
}
