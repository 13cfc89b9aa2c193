use std::{sync::Arc, time::Instant};

use forebay_core::{ClaimId, Decision, Outcome, WorkerId};
use forebay_runtime::supervise::Backoff;
use forebay_store::{Completed, Completion, StoreError};
use tracing::{debug, error};

use super::{Life, Rest};
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// One batch on its way into the store.
pub(super) struct Write {
    pub(super) shared: Arc<Shared>,
    pub(super) life: Arc<Life>,
    pub(super) worker: WorkerId,
}

/// What became of it: an answer for each, in order.
pub(super) struct Written {
    pub(super) completions: Vec<Completion>,
    pub(super) rest: Vec<Rest>,
    pub(super) completed: Vec<Completed>,
    /// The claims that the store was told to forget with it.
    pub(super) released: Vec<ClaimId>,
}

impl Write {
    pub(super) async fn run(
        self,
        completions: Vec<Completion>,
        rest: Vec<Rest>,
        released: Vec<ClaimId>,
    ) -> Written {
        let mut completed = Vec::with_capacity(completions.len());
        self.store(&completions, &released, &mut completed).await;
        Written {
            completions,
            rest,
            completed,
            released,
        }
    }

    /// Writes outcomes. One that the store refuses is found by halving, so that it never stops its neighbours.
    async fn store(&self, batch: &[Completion], released: &[ClaimId], completed: &mut Vec<Completed>) {
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            // With the last part: by then, all tasks of these claims are completed.
            let notes = if waiting.is_empty() { released } else { &[] };
            match self.ask(batch, notes).await {
                Ok(mut answers) => completed.append(&mut answers),
                Err(StoreError::WorkerGone) => {
                    self.life.question();
                    completed.extend(batch.iter().map(|_| Completed::Fenced));
                }
                Err(refused) => match batch {
                    [] => debug!(error = chain(&refused), "notes of claims could not be forgotten"),
                    [only] => completed.push(self.store_refused(only, &refused, notes).await),
                    _ => {
                        let (first, second) = batch.split_at(batch.len() / 2);
                        waiting.push(second);
                        waiting.push(first);
                    }
                },
            }
        }
    }

    /// The store does not take this outcome: the task has failed by that.
    async fn store_refused(
        &self,
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
        match self.ask(std::slice::from_ref(&failed), released).await {
            Ok(answers) => answers.first().copied().unwrap_or(Completed::Fenced),
            Err(error) => {
                error!(task = %failed.id, error = chain(&error), "an outcome is lost");
                Completed::Fenced
            }
        }
    }

    /// Asks until there is an answer; the answer to an earlier question may have been lost, and is given again.
    async fn ask(&self, batch: &[Completion], released: &[ClaimId]) -> forebay_store::Result<Vec<Completed>> {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let asked = self.shared.store.complete(self.worker, batch, released);
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
}
