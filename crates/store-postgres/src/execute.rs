//! What the executor calls; each method one checkout of a connection, bounded in time.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use forebay_core::{ClaimId, TaskEvent, WorkerId};
use forebay_store::{
    ClaimRequest, Claimed, Completed, Completion, Execute, Heartbeat, HeartbeatReply, Recorded, Result,
    StartRequest, record_then_claim,
};

use crate::{
    PostgresStore, claim, complete,
    hot::bounded,
    limits::{Allotted, Needs, with_allotments},
    record::may_start,
    start::{Fresh, start_new},
    workers,
};

impl PostgresStore {
    /// Claims a batch; see [`claim::claim`] for a claim that is noted.
    async fn claim_under(
        &self,
        worker: WorkerId,
        claim: (ClaimId, bool),
        batch: &[ClaimRequest],
    ) -> Result<Vec<Option<Claimed>>> {
        const DOING: &str = "claim tasks";
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.hot.get(DOING).await?;
        let work = async {
            let rules = self.rules(connection.client()).await?;
            let known = self.known(&rules);
            claim::claim(connection.client(), &self.days, known, worker, claim, batch).await
        };
        let outcome = bounded(DOING, work).await;
        connection.settle(outcome)
    }

    /// Starts what can be started in the statement that records it. What is `None` was not even recorded.
    async fn start(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<Option<(Recorded, Option<Claimed>)>>> {
        const DOING: &str = "record and claim tasks";
        let mut answers = vec![None; batch.len()];
        let fresh: Vec<usize> = (0..batch.len())
            .filter(|&at| may_start(&batch[at].task))
            .collect();
        if fresh.is_empty() {
            return Ok(answers);
        }
        let mut connection = self.hot.get(DOING).await?;
        let work = async {
            let client = connection.client();
            let rules = self.rules(client).await?;
            let known = self.known(&rules);
            let needs = |allotted: &Allotted| {
                let need = |&at: &usize| {
                    let task = &batch[at].task;
                    let key = task.terms.as_ref().and_then(|terms| terms.limit_key.as_ref());
                    Needs::of(known, allotted, (&task.lane.queue, &task.kind), key)
                };
                fresh.iter().map(need).collect()
            };
            let (needs, revision) = with_allotments(client, known.allotments, worker, needs).await?;
            let (places, fresh): (Vec<usize>, Vec<Fresh<'_>>) = fresh
                .iter()
                .copied()
                .zip(needs)
                .filter(|(_, needs)| *needs != Needs::Look)
                .map(|(at, needs)| (at, (&batch[at], needs)))
                .unzip();
            if fresh.is_empty() {
                return Ok((places, Vec::new()));
            }
            self.note_queues(client, fresh.iter().map(|(request, _)| &request.task))
                .await?;
            let started = start_new(client, &self.days, (worker, claim, revision), &fresh).await?;
            if revision.is_some() && started.iter().all(Option::is_none) {
                known.allotments.doubt(worker);
            }
            Ok((places, started))
        };
        let outcome = bounded(DOING, work).await;
        let (places, started) = connection.settle(outcome)?;
        for (at, started) in places.into_iter().zip(started) {
            answers[at] = started.map(|it| (Recorded::New, Some(it)));
        }
        Ok(answers)
    }
}

#[async_trait]
impl Execute for PostgresStore {
    async fn register(&self, beat: &Heartbeat) -> Result<()> {
        const DOING: &str = "register a worker";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, workers::register(connection.client(), beat)).await;
        connection.settle(outcome)
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<HeartbeatReply> {
        const DOING: &str = "renew a worker";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, workers::heartbeat(connection.client(), &self.days, beat)).await;
        connection.settle(outcome)
    }

    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[ClaimRequest],
    ) -> Result<Vec<Option<Claimed>>> {
        self.claim_under(worker, (claim, false), batch).await
    }

    async fn record_and_claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>> {
        let mut started = self.start(worker, claim, batch).await?;
        let rest: Vec<usize> = (0..batch.len()).filter(|&at| started[at].is_none()).collect();
        let is_noted = rest.len() < batch.len();
        if !rest.is_empty() {
            let requests: Vec<&StartRequest> = rest.iter().map(|&at| &batch[at]).collect();
            let claim = move |requests: Vec<ClaimRequest>| async move {
                self.claim_under(worker, (claim, is_noted), &requests).await
            };
            let answers = record_then_claim(self, &requests, claim).await?;
            for (at, answer) in rest.into_iter().zip(answers) {
                started[at] = Some(answer);
            }
        }
        Ok(started.into_iter().flatten().collect())
    }

    async fn complete(
        &self,
        worker: WorkerId,
        batch: &[Completion],
        released: &[ClaimId],
    ) -> Result<Vec<Completed>> {
        const DOING: &str = "complete tasks";
        if batch.is_empty() && released.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(
            DOING,
            complete::complete(connection.client(), &self.days, worker, batch, released),
        )
        .await;
        let (answers, count) = connection.settle(outcome)?;
        if count > 0 {
            self.released.store(true, Ordering::Relaxed);
        }
        Ok(answers)
    }

    async fn deregister(&self, worker: WorkerId) -> Result<()> {
        const DOING: &str = "forget a worker";
        self.allotments.forget(worker);
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, workers::forget(connection.client(), worker, None)).await;
        connection.settle(outcome).map(|_| ())
    }

    async fn abandon(&self, worker: WorkerId, lost_max: u32) -> Result<Vec<TaskEvent>> {
        const DOING: &str = "take back the tasks of a worker";
        self.allotments.forget(worker);
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(
            DOING,
            workers::forget(connection.client(), worker, Some(lost_max)),
        )
        .await;
        connection.settle(outcome)
    }
}
