//! Tasks that the store has granted, by their claim or as they were recorded, begin to run.

use std::{sync::Arc, time::Duration};

use forebay_core::{ClaimId, State, TaskEvent, Timestamp};
use forebay_store::Claimed;

use super::{
    Executor,
    attempt::{self, Attempt},
    claim::{Answer, Granted, start_of},
    handoff::Started,
};
use crate::{handlers::StopReason, subscribe::Receipts};

impl Executor {
    /// The store has answered: acknowledges all, since from now on it guards what was granted, and what it turned away
    /// is not needed; and starts what was granted.
    pub(super) fn begin(&mut self, answer: Answer) {
        // What was granted to a worker that was declared dead since was taken back with it.
        let alive = self.life.is(answer.worker);
        let mut done = Receipts::default();
        for Granted {
            claim,
            batch,
            answers,
        } in answer.granted
        {
            self.watermarks.raise(batch.published());
            let mut attempts = Vec::with_capacity(batch.len());
            let mut turned_away = Vec::new();
            let answers = answers.into_iter().chain(std::iter::repeat(None));
            for ((request, candidate), claimed) in
                batch.requests.into_iter().zip(batch.candidates).zip(answers)
            {
                done.add(&candidate.acks, candidate.token);
                let Some(claimed) = claimed.filter(|_| alive) else {
                    turned_away.push(start_of(&request.ready));
                    continue;
                };
                debug_assert_eq!(
                    (claimed.id, claimed.fence),
                    start_of(&request.ready),
                    "the claim's own start"
                );
                debug_assert_eq!(claimed.kind, request.ready.kind, "a recorded task's own kind");
                attempts.push(Attempt {
                    claimed,
                    registered: candidate.registered,
                    stop: candidate.stop,
                    slot: candidate.slot,
                    place: candidate.place,
                    claim,
                    worker: answer.worker,
                });
            }
            self.running.release(turned_away);
            self.start(claim, attempts);
        }
        let mut back = Receipts::default();
        for batch in answer.unclaimed {
            self.life.question();
            self.give_up(batch, &mut back);
        }
        self.answer(done, back);
    }

    fn start(&mut self, claim: ClaimId, mut attempts: Vec<Attempt>) {
        if attempts.is_empty() {
            return;
        }
        attempts.iter_mut().for_each(|attempt| attempt.slot.spend());
        self.notes.begin(claim, attempts.len());
        self.running
            .claimed(attempts.iter().map(|it| (it.claimed.id, it.claimed.fence)));
        if self.is_interrupting {
            for attempt in &attempts {
                attempt.stop.ask(StopReason::Shutdown);
            }
        }
        self.tell_started(&attempts);
        let mut row = Vec::new();
        for attempt in attempts {
            if attempt.registered.pace.is_quick() {
                row.push(attempt);
                if row.len() == attempt::ROW_MAX {
                    self.start_row(std::mem::take(&mut row));
                }
            } else {
                let run = attempt::run(Arc::clone(&self.shared), attempt, self.finished.clone());
                self.attempts.spawn(run);
            }
        }
        self.start_row(row);
    }

    fn start_row(&mut self, row: Vec<Attempt>) {
        if !row.is_empty() {
            let run = attempt::run_row(Arc::clone(&self.shared), row, self.finished.clone());
            self.attempts.spawn(run);
        }
    }

    fn tell_started(&mut self, attempts: &[Attempt]) {
        let now = self.shared.clock.now();
        for Attempt { claimed, .. } in attempts {
            let waited = Duration::try_from(now.duration_since(claimed.queued_at)).unwrap_or_default();
            self.meter
                .of(&self.shared.metrics, &claimed.lane.queue, &claimed.kind)
                .started(waited);
        }
        let told = self.shared.events.room_for(attempts.len());
        let events = attempts[..told].iter().map(|it| started(&it.claimed, now));
        self.shared.events.send(events.collect());
    }

    /// What the recorder has started.
    pub(super) fn begin_started(&mut self, started: Started) {
        let Started {
            worker,
            claim,
            attempts,
        } = started;
        // What was started in the name of a worker that was declared dead since was taken back with it.
        if self.life.is(worker) {
            self.start(claim, attempts);
        } else {
            self.running
                .release(attempts.iter().map(|it| (it.claimed.id, it.claimed.fence)));
        }
    }
}

fn started(claimed: &Claimed, now: Timestamp) -> TaskEvent {
    TaskEvent {
        id: claimed.id,
        kind: claimed.kind.clone(),
        queue: claimed.lane.queue.clone(),
        state: State::Running,
        attempt: claimed.attempt,
        at: now,
    }
}
