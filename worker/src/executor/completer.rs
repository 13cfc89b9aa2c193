//! Writes outcomes in batches: what ends while a batch is being written makes up the next one.
//!
//! A lone outcome is written at once. Further batches are begun beside one that is under way only if they are worth it.
//! While the store is away it goes on trying. Slots stay occupied until their outcomes are stored, so what waits
//! here is bounded.

mod notes;
mod write;

use std::{sync::Arc, time::Duration};

use forebay_core::{ClaimId, Decision, Kind, Outcome, QueueName, State, TaskEvent, WorkerId};
use forebay_store::{Completed, Completion};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::warn;

pub(super) use self::notes::Claims;
use self::write::{Write, Written};
use super::{bulkhead::Place, life::Life, meter::Meter, running::Running, slots::Taken, unpanicked};
use crate::shared::Shared;

/// How many outcomes are written together.
const BATCH_MAX: usize = 1_000;
/// How many batches are with the store at once.
const WRITES_MAX: usize = 3;
/// While a batch is under way, a further one waits until it has so many outcomes, or until that one returns.
const WORTHWHILE: usize = 200;

/// An attempt that ended, on its way into the store.
pub(super) struct Finished {
    pub(super) completion: Completion,
    pub(super) rest: Rest,
}

/// What it still holds, and what is told of it.
pub(super) struct Rest {
    pub(super) kind: Kind,
    pub(super) queue: QueueName,
    pub(super) claim: ClaimId,
    /// In whose name it was claimed.
    pub(super) worker: WorkerId,
    pub(super) slot: Taken,
    pub(super) place: Place,
    /// How long it ran.
    pub(super) ran: Duration,
}

pub(super) struct Completer {
    shared: Arc<Shared>,
    finished: mpsc::Receiver<Finished>,
    running: Arc<Running>,
    claims: Arc<Claims>,
    life: Arc<Life>,
    writes: JoinSet<Written>,
    /// Claims of which all is stored and whose notes are still to be forgotten.
    settled: Vec<ClaimId>,
    meter: Meter,
}

/// Whether an attempt has ended by itself. What is handed back since the worker stops has not.
fn is_served(((completion, _), completed): &((&Completion, &Rest), &Completed)) -> bool {
    completion.outcome != Outcome::Interrupted && matches!(completed, Completed::Applied(_))
}

impl Completer {
    pub(super) fn new(
        shared: Arc<Shared>,
        finished: mpsc::Receiver<Finished>,
        running: Arc<Running>,
        claims: Arc<Claims>,
        life: Arc<Life>,
    ) -> Self {
        Self {
            shared,
            finished,
            running,
            claims,
            life,
            writes: JoinSet::new(),
            settled: Vec::new(),
            meter: Meter::default(),
        }
    }

    /// Runs until every attempt has handed in its outcome and all are stored.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        let mut open = true;
        loop {
            while self.may_write(waiting.len()) {
                let rest = waiting.split_off(waiting.len().min(BATCH_MAX));
                let batch = std::mem::replace(&mut waiting, rest);
                self.write(batch);
            }
            if !open && self.writes.is_empty() {
                return Ok(());
            }
            tokio::select! {
                count = self.finished.recv_many(&mut waiting, BATCH_MAX), if open && waiting.len() < BATCH_MAX => {
                    open = count > 0;
                }
                Some(written) = self.writes.join_next() => self.settle(unpanicked(written)?),
            }
        }
    }

    fn may_write(&self, waiting: usize) -> bool {
        match self.writes.len() {
            0 => waiting > 0 || !self.settled.is_empty(),
            under_way => under_way < WRITES_MAX && waiting >= WORTHWHILE,
        }
    }

    fn write(&mut self, batch: Vec<Finished>) {
        // What was claimed in the name of a worker that was declared dead was taken back then.
        let (current, fenced): (Vec<Finished>, Vec<Finished>) = batch
            .into_iter()
            .partition(|finished| self.life.is(finished.rest.worker));
        for finished in &fenced {
            self.note_fenced(&finished.completion);
        }
        let fenced: Vec<Rest> = fenced.into_iter().map(|finished| finished.rest).collect();
        self.claims.stored(&fenced, &[]);
        self.free(fenced);
        let Some(worker) = current.first().map(|it| it.rest.worker).or(self.life.id()) else {
            self.settled.clear();
            return;
        };
        let (completions, rest): (Vec<Completion>, Vec<Rest>) = current
            .into_iter()
            .map(|finished| (finished.completion, finished.rest))
            .unzip();
        let mut released = self.claims.ended_by(&rest);
        released.append(&mut self.settled);
        if completions.is_empty() && released.is_empty() {
            return;
        }
        let write = Write {
            shared: Arc::clone(&self.shared),
            life: Arc::clone(&self.life),
            worker,
        };
        self.writes.spawn(write.run(completions, rest, released));
    }

    /// The store has answered.
    fn settle(&mut self, written: Written) {
        let mut settled = self.claims.stored(&written.rest, &written.released);
        self.settled.append(&mut settled);
        self.report(&written);
        self.free(written.rest);
    }

    fn report(&mut self, written: &Written) {
        let Written {
            completions,
            rest,
            completed,
            ..
        } = written;
        if completions.iter().any(|it| it.limited) && self.shared.store.has_released() {
            self.shared.due.ring();
        }
        let now = self.shared.clock.now();
        let mut told = self.shared.events.room_for(completions.len());
        let mut events = Vec::with_capacity(told);
        for ((completion, rest), completed) in completions.iter().zip(rest).zip(completed) {
            let Completed::Applied(state) = completed else {
                self.note_fenced(completion);
                continue;
            };
            let metrics = self.meter.of(&self.shared.metrics, &rest.queue, &rest.kind);
            metrics.finished(completion.outcome, rest.ran);
            if *state == State::Failed {
                metrics.failed_for_good();
            }
            if told == 0 {
                continue;
            }
            told -= 1;
            let uncharged = matches!(completion.decision, Decision::HandBack { .. });
            events.push(TaskEvent {
                id: completion.id,
                kind: rest.kind.clone(),
                queue: rest.queue.clone(),
                state: *state,
                attempt: completion.attempt.saturating_sub(u32::from(uncharged)),
                at: now,
            });
        }
        self.shared.events.send(events);
        let served = completions.iter().zip(rest).zip(completed).filter(is_served);
        self.running
            .news
            .finished(served.map(|((_, rest), _)| &rest.queue));
        self.running
            .release(completions.iter().map(|it| (it.id, it.fence)));
    }

    /// Refused by the store, or kept from it by a worker that knows that it was declared dead.
    fn note_fenced(&self, completion: &Completion) {
        let Completion {
            id, fence, outcome, ..
        } = completion;
        self.shared.metrics.fenced_write();
        self.running.release([(*id, *fence)]);
        warn!(task = %id, fence, %outcome, "an outcome was refused: the attempt was not the current one any more");
    }

    fn free(&self, batch: Vec<Rest>) {
        let mut freed: Option<Taken> = None;
        for rest in batch {
            // Before the slot: who hears that a slot is free finds that its kind has room.
            drop(rest.place);
            match &mut freed {
                Some(freed) => freed.join(rest.slot),
                None => freed = Some(rest.slot),
            }
        }
    }
}
