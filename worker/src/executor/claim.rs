//! Claims a batch: asks the store until it answers, whatever that takes.

use std::{sync::Arc, time::Instant};

use forebay_broker::{Acknowledge, Token};
use forebay_core::{ClaimId, Lane, Ready, Timestamp, WorkerId};
use forebay_runtime::supervise::{Backoff, random_bytes};
use forebay_store::{ClaimRequest, Claimed, StoreError};
use tracing::{debug, error};

use super::{bulkhead::Place, running::Start, slots::Taken};
use crate::{
    handlers::{Registered, Stop},
    shared::{STORE_CALL_MAX, Shared, chain, within},
};

/// The most that is claimed together.
pub(super) const CLAIM_MAX: usize = 1_000;

/// A delivery that this worker wants to run: all but the request itself.
pub(super) struct Candidate {
    pub(super) registered: Arc<Registered>,
    pub(super) stop: Stop,
    pub(super) slot: Taken,
    pub(super) place: Place,
    pub(super) acks: Arc<dyn Acknowledge>,
    pub(super) token: Token,
    pub(super) published_at: Timestamp,
}

/// Candidates, and the request for each, in the same order.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) requests: Vec<ClaimRequest>,
    pub(super) candidates: Vec<Candidate>,
}

impl Batch {
    pub(super) fn add(&mut self, ready: Ready, candidate: Candidate) {
        let settings = &candidate.registered.settings;
        self.requests.push(ClaimRequest {
            ready,
            max_attempts: settings.retry.attempts_max.max(1),
            timeout: settings.timeout,
        });
        self.candidates.push(candidate);
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The lane of each, and when it was published there.
    pub(super) fn published(&self) -> impl Iterator<Item = (&Lane, Timestamp)> {
        self.requests
            .iter()
            .zip(&self.candidates)
            .map(|(request, candidate)| (&request.ready.lane, candidate.published_at))
    }

    /// The first `count`; the rest stays.
    pub(super) fn take(&mut self, count: usize) -> Self {
        let count = count.min(self.len());
        let rest = self.split_off(count);
        std::mem::replace(self, rest)
    }

    /// Those of which this is so; the rest stays.
    pub(super) fn take_of(&mut self, is_meant: impl Fn(&Ready) -> bool) -> Self {
        let (mut taken, mut rest) = (Self::default(), Self::default());
        let Self { requests, candidates } = std::mem::take(self);
        for (request, candidate) in requests.into_iter().zip(candidates) {
            let batch = match is_meant(&request.ready) {
                true => &mut taken,
                false => &mut rest,
            };
            batch.requests.push(request);
            batch.candidates.push(candidate);
        }
        *self = rest;
        taken
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            requests: self.requests.split_off(at),
            candidates: self.candidates.split_off(at),
        }
    }
}

/// The start that a request would make.
pub(super) fn start_of(ready: &Ready) -> Start {
    (ready.id, ready.fence.saturating_add(1))
}

/// What the store said to a part of the batch.
pub(super) struct Granted {
    pub(super) claim: ClaimId,
    pub(super) batch: Batch,
    /// One for each of the batch, in order.
    pub(super) answers: Vec<Option<Claimed>>,
}

/// What became of the batch.
pub(super) struct Answer {
    /// In whose name it was claimed.
    pub(super) worker: WorkerId,
    pub(super) granted: Vec<Granted>,
    /// What was not claimed, because the worker was declared dead.
    pub(super) unclaimed: Vec<Batch>,
}

/// Claims a batch in the name of `worker`. While the store is away this waits, and the broker keeps what else comes.
/// What the store refuses to claim is found by halving the batch, and dropped: its task is in the store, and is published
/// again.
pub(super) async fn claim(shared: Arc<Shared>, worker: WorkerId, batch: Batch) -> Answer {
    #[cfg(feature = "sabotage")]
    let batch = sabotaged(&shared, batch).await;
    let mut answer = Answer {
        worker,
        granted: Vec::new(),
        unclaimed: Vec::new(),
    };
    let mut waiting = vec![batch];
    while let Some(mut batch) = waiting.pop() {
        let claim = ClaimId::new(shared.clock.now(), &random_bytes());
        match ask(&shared, worker, claim, &batch).await {
            Ok(answers) => answer.granted.push(Granted {
                claim,
                batch,
                answers,
            }),
            Err(StoreError::WorkerGone) => {
                answer.unclaimed.push(batch);
                answer.unclaimed.append(&mut waiting);
            }
            Err(refused) if batch.len() > 1 => {
                debug!(error = chain(&refused), count = batch.len(), "a claim is halved");
                waiting.push(batch.split_off(batch.len() / 2));
                waiting.push(batch);
            }
            Err(refused) => {
                let id = batch.requests.first().map(|request| request.ready.id);
                error!(task = ?id, error = chain(&refused), "a message is dropped: the store refuses to claim it");
                let answers = vec![None];
                answer.granted.push(Granted {
                    claim,
                    batch,
                    answers,
                });
            }
        }
    }
    answer
}

#[cfg(feature = "sabotage")]
async fn sabotaged(shared: &Shared, mut batch: Batch) -> Batch {
    let candidates = batch.candidates.iter_mut();
    let deliveries = candidates.map(|each| (&mut each.acks, each.token.clone()));
    shared.sabotage.before_commit(deliveries).await;
    batch
}

/// Asks until there is an answer, with the same claim: the answer to an earlier question may have been lost.
async fn ask(
    shared: &Shared,
    worker: WorkerId,
    claim: ClaimId,
    batch: &Batch,
) -> forebay_store::Result<Vec<Option<Claimed>>> {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let asked = shared.store.claim(worker, claim, &batch.requests);
        match within(STORE_CALL_MAX, "claim tasks", asked).await {
            Ok(answers) => {
                shared.metrics.persisted("claim", began.elapsed());
                return Ok(answers);
            }
            Err(refused @ (StoreError::Refused { .. } | StoreError::Corrupt(_) | StoreError::WorkerGone)) => {
                return Err(refused);
            }
            Err(error) => {
                debug!(
                    error = chain(&error),
                    count = batch.len(),
                    "claiming waits for the store"
                );
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}
