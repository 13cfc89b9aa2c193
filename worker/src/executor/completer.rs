//! Writes outcomes in batches: what ends while a batch is being written makes up the next one.
//!
//! While the store is away it goes on trying. Slots stay occupied until their outcomes are stored, so what waits
//! here is bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use forebay_core::{ClaimId, Decision, Kind, Outcome, QueueName, TaskEvent, WorkerId};
use forebay_runtime::supervise::Backoff;
use forebay_store::{Completed, Completion, StoreError};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::{bulkhead::Place, life::Life, running::Running, slots::Taken};
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// How many outcomes are written together.
const BATCH_MAX: usize = 1_000;

/// An attempt that ended, on its way into the store.
pub(super) struct Finished {
    pub(super) completion: Completion,
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

/// How many tasks of each claim are not completed yet.
#[derive(Debug, Default)]
pub(super) struct Claims {
    left: Mutex<HashMap<ClaimId, usize>>,
}

impl Claims {
    pub(super) fn begin(&self, claim: ClaimId, tasks: usize) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert(claim, tasks);
    }

    /// Those of which the last task is among these.
    fn end<'a>(&self, claims: impl Iterator<Item = &'a ClaimId>) -> Vec<ClaimId> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut released = Vec::new();
        for claim in claims {
            if let Some(tasks) = left.get_mut(claim) {
                *tasks -= 1;
                if *tasks == 0 {
                    left.remove(claim);
                    released.push(*claim);
                }
            }
        }
        released
    }
}

pub(super) struct Completer {
    pub(super) shared: Arc<Shared>,
    pub(super) finished: mpsc::Receiver<Finished>,
    pub(super) running: Arc<Running>,
    pub(super) claims: Arc<Claims>,
    pub(super) life: Arc<Life>,
}

impl Completer {
    /// Runs until every attempt has handed in its outcome and all are stored.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.finished.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.complete(std::mem::take(&mut batch)).await;
        }
    }

    async fn complete(&self, batch: Vec<Finished>) {
        let released = self.claims.end(batch.iter().map(|finished| &finished.claim));
        // What was claimed in the name of a worker that was declared dead was taken back then.
        let (mut current, mut freed): (Vec<Finished>, Vec<Finished>) = batch
            .into_iter()
            .partition(|finished| self.life.is(finished.worker));
        for finished in &freed {
            self.note_fenced(&finished.completion);
        }
        if let Some(worker) = current.first().map(|finished| finished.worker) {
            let completions: Vec<Completion> = current.iter().map(|f| f.completion.clone()).collect();
            let completed = self.store(worker, completions, released).await;
            self.report(&current, &completed);
        }
        freed.append(&mut current);
        self.free(freed);
    }

    /// Writes outcomes. One that the store refuses is found by halving, so that it never stops its neighbours.
    async fn store(
        &self,
        worker: WorkerId,
        batch: Vec<Completion>,
        released: Vec<ClaimId>,
    ) -> Vec<Completed> {
        let mut completed = Vec::with_capacity(batch.len());
        let mut waiting = vec![batch];
        while let Some(mut batch) = waiting.pop() {
            // With the last part: by then, all tasks of these claims are completed.
            let notes = if waiting.is_empty() { &released[..] } else { &[] };
            match self.ask(worker, &batch, notes).await {
                Ok(mut answers) => completed.append(&mut answers),
                Err(StoreError::WorkerGone) => {
                    self.life.question();
                    completed.extend(batch.iter().map(|_| Completed::Fenced));
                }
                Err(refused) => match &mut batch[..] {
                    [only] => completed.push(self.store_refused(worker, only, &refused, notes).await),
                    _ => {
                        waiting.push(batch.split_off(batch.len() / 2));
                        waiting.push(batch);
                    }
                },
            }
        }
        completed
    }

    /// The store does not take this outcome: the task has failed by that.
    async fn store_refused(
        &self,
        worker: WorkerId,
        completion: &Completion,
        refused: &StoreError,
        released: &[ClaimId],
    ) -> Completed {
        let reason = chain(refused);
        error!(task = %completion.id, error = reason, "the store refuses an outcome, the task has failed by that");
        let failed = Completion {
            outcome: Outcome::Failed,
            decision: Decision::Fail,
            result: None,
            error: Some(format!("the store refused the outcome: {reason}")),
            log: None,
            ..completion.clone()
        };
        match self.ask(worker, std::slice::from_ref(&failed), released).await {
            Ok(answers) => answers.first().copied().unwrap_or(Completed::Fenced),
            Err(error) => {
                error!(task = %failed.id, error = chain(&error), "an outcome is lost");
                Completed::Fenced
            }
        }
    }

    /// Asks until there is an answer; the answer to an earlier question may have been lost, and is given again.
    async fn ask(
        &self,
        worker: WorkerId,
        batch: &[Completion],
        released: &[ClaimId],
    ) -> forebay_store::Result<Vec<Completed>> {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let asked = self.shared.store.complete(worker, batch, released);
            match within(STORE_CALL_MAX, "complete tasks", asked).await {
                Ok(answers) => {
                    self.shared.metrics.persisted("complete", began.elapsed());
                    return Ok(answers);
                }
                Err(
                    refused @ (StoreError::Refused { .. } | StoreError::Corrupt(_) | StoreError::WorkerGone),
                ) => {
                    return Err(refused);
                }
                Err(error) => {
                    debug!(
                        error = chain(&error),
                        count = batch.len(),
                        "outcomes wait for the store"
                    );
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    fn report(&self, batch: &[Finished], completed: &[Completed]) {
        let now = self.shared.clock.now();
        for (finished, completed) in batch.iter().zip(completed) {
            let Completion {
                id,
                attempt,
                outcome,
                decision,
                ..
            } = finished.completion;
            match completed {
                Completed::Applied(state) => {
                    let kind = finished.kind.as_str();
                    self.shared
                        .metrics
                        .task_finished(&finished.queue, kind, outcome, finished.ran);
                    let uncharged = matches!(decision, Decision::HandBack { .. });
                    self.shared.events.send(TaskEvent {
                        id,
                        kind: finished.kind.clone(),
                        queue: finished.queue.clone(),
                        state: *state,
                        attempt: attempt.saturating_sub(u32::from(uncharged)),
                        at: now,
                    });
                }
                Completed::Fenced => self.note_fenced(&finished.completion),
            }
        }
    }

    /// Refused by the store, or kept from it by a worker that knows that it was declared dead.
    fn note_fenced(&self, completion: &Completion) {
        let Completion {
            id, fence, outcome, ..
        } = completion;
        self.shared.metrics.fenced_write();
        warn!(task = %id, fence, %outcome, "an outcome was refused: the attempt was not the current one any more");
    }

    fn free(&self, batch: Vec<Finished>) {
        let mut freed: Option<Taken> = None;
        for finished in batch {
            self.running
                .release((finished.completion.id, finished.completion.fence));
            // Before the slot: who hears that a slot is free finds that its kind has room.
            drop(finished.place);
            match &mut freed {
                Some(freed) => freed.join(finished.slot),
                None => freed = Some(finished.slot),
            }
        }
    }
}
