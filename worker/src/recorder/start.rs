//! Tasks that this process starts in the statement that records them.

use std::time::Instant;

use forebay_core::ClaimId;
use forebay_runtime::supervise::{Backoff, random_bytes};
use forebay_store::{Claimed, Recorded, StartRequest, StoreError};
use tracing::debug;

use super::{
    Announcement,
    write::{Answer, Batch, SLOW, Write},
};
use crate::{
    executor::{Handoff, Seat, Seats},
    shared::{STORE_CALL_MAX, chain, within},
    subscribe::Receipts,
};

/// Tasks with a seat in the executor of this process, and where to answer each, in the same order.
struct Seated {
    claim: ClaimId,
    requests: Vec<StartRequest>,
    seats: Vec<Seat>,
    answers: Vec<Answer>,
    /// Whether the store was asked, and may have done it without our hearing of it.
    doubtful: bool,
}

impl Seated {
    /// Cuts off the later half. It keeps the claim, and must be asked last: if the whole was started unheard, the note of
    /// that claim is all that tells of it, and goes with the first that is completed under it.
    fn halve(&mut self, claim: ClaimId) -> Self {
        let half = self.requests.len() / 2;
        Self {
            claim: std::mem::replace(&mut self.claim, claim),
            requests: self.requests.split_off(half),
            seats: self.seats.split_off(half),
            answers: self.answers.split_off(half),
            doubtful: self.doubtful,
        }
    }
}

impl Write {
    /// Records and starts what there are seats for, and returns the rest, to be recorded only. What is asked of the store
    /// is asked until there is an answer, since an answer that was lost may have started the tasks; where the worker
    /// stops meanwhile, the broker delivers them again.
    pub(super) async fn start(&self, batch: Batch, done: &mut Announcement) -> Batch {
        let Some(handoff) = &self.handoff else {
            return batch;
        };
        let Some(Seats { worker, seats }) = handoff.seats(&batch.tasks) else {
            return batch;
        };
        let (seated, mut rest) = split(batch, seats, self.new_claim());
        let mut unseated = Batch::default();
        let mut backoff = Backoff::default();
        // The last is asked first.
        let mut waiting = vec![seated];
        while let Some(mut seated) = waiting.pop() {
            let began = Instant::now();
            let asked = self
                .shared
                .store
                .record_and_claim(worker, seated.claim, &seated.requests);
            match within(STORE_CALL_MAX, "record and claim tasks", asked).await {
                Ok(answers) => {
                    self.shared.metrics.persisted("start", began.elapsed());
                    self.reporter.ok();
                    let recorded = answers.iter().map(|(recorded, _)| *recorded);
                    self.report(seated.requests.iter().map(|it| &it.task).zip(recorded));
                    let (seats, claimed) = settle(&mut seated, answers, done);
                    handoff
                        .start(worker, seated.claim, seats.into_iter().zip(claimed))
                        .await;
                }
                Err(gone @ StoreError::WorkerGone) => {
                    debug!(error = chain(&gone), "tasks are recorded without being started");
                    handoff.question_life();
                    unseat(seated, handoff, &mut unseated);
                }
                Err(refused @ (StoreError::Refused { .. } | StoreError::Corrupt(_))) if !seated.doubtful => {
                    debug!(
                        error = chain(&refused),
                        "tasks are recorded without being started"
                    );
                    unseat(seated, handoff, &mut unseated);
                }
                Err(error) => {
                    seated.doubtful = true;
                    // What takes too long as a whole is tried in parts, or it would be tried for ever.
                    if began.elapsed() > SLOW && seated.requests.len() > 1 {
                        waiting.push(seated.halve(self.new_claim()));
                    }
                    waiting.push(seated);
                    if self.wait_out(&error, &mut backoff).await.is_err() {
                        break;
                    }
                }
            }
        }
        // They came before those that found no seat.
        unseated.append(&mut rest);
        unseated
    }

    fn new_claim(&self) -> ClaimId {
        ClaimId::new(self.shared.clock.now(), &random_bytes())
    }
}

/// Parts what has a seat from what has none.
fn split(batch: Batch, seats: Vec<Option<Seat>>, claim: ClaimId) -> (Seated, Batch) {
    let mut seated = Seated {
        claim,
        requests: Vec::with_capacity(seats.len()),
        seats: Vec::with_capacity(seats.len()),
        answers: Vec::with_capacity(seats.len()),
        doubtful: false,
    };
    let mut rest = Batch::default();
    for ((task, answer), seat) in batch.tasks.into_iter().zip(batch.answers).zip(seats) {
        match seat {
            Some(seat) => {
                seated.requests.push(seat.request(task));
                seated.seats.push(seat);
                seated.answers.push(answer);
            }
            None => rest.add(task, answer),
        }
    }
    (seated, rest)
}

/// The store has answered: all is to be acknowledged, and what it neither started nor refused is published.
fn settle(
    seated: &mut Seated,
    answers: Vec<(Recorded, Option<Claimed>)>,
    done: &mut Announcement,
) -> (Vec<Seat>, Vec<Option<Claimed>>) {
    let mut receipts = Receipts::default();
    for (token, acks) in seated.answers.drain(..) {
        receipts.add(&acks, token);
    }
    let (mut tasks, mut unstarted) = (Vec::new(), Vec::new());
    let mut claims = Vec::with_capacity(answers.len());
    for (request, (recorded, claimed)) in seated.requests.drain(..).zip(answers) {
        if claimed.is_none() {
            tasks.push(request.task);
            unstarted.push(recorded);
        }
        claims.push(claimed);
    }
    done.add(Announcement::of(tasks, &unstarted, receipts));
    (std::mem::take(&mut seated.seats), claims)
}

fn unseat(seated: Seated, handoff: &Handoff, unseated: &mut Batch) {
    handoff.leave(seated.seats);
    for (request, answer) in seated.requests.into_iter().zip(seated.answers) {
        unseated.add(request.task, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_is_asked_last_keeps_the_claim() {
        let claims: Vec<ClaimId> = (1..=3)
            .map(|byte| ClaimId::new(forebay_core::Timestamp::UNIX_EPOCH, &[byte; 10]))
            .collect();
        let (mut whole, _) = split(Batch::default(), Vec::new(), claims[0]);
        let last = whole.halve(claims[1]);
        let before = whole.halve(claims[2]);
        assert_eq!([last.claim, before.claim, whole.claim], claims[..]);
    }
}
