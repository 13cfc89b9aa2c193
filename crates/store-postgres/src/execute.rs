//! What the executor calls; each method one checkout of a connection, bounded in time.

use async_trait::async_trait;
use forebay_core::{ClaimId, TaskEvent, WorkerId};
use forebay_store::{
    ClaimRequest, Claimed, Completed, Completion, Execute, Heartbeat, HeartbeatReply, Recorded, Result,
    StartRequest, record_then_claim,
};

use crate::{PostgresStore, claim, complete, hot::bounded, record::looks_new, start::start_new, workers};

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
        const DOING: &str = "claim tasks";
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(
            DOING,
            claim::claim(connection.client(), &self.days, worker, claim, batch),
        )
        .await;
        connection.settle(outcome)
    }

    async fn record_and_claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>> {
        const DOING: &str = "record and claim tasks";
        if !batch.is_empty() && batch.iter().all(|request| looks_new(&request.task)) {
            let mut connection = self.hot.get(DOING).await?;
            let work = async {
                let client = connection.client();
                self.note_queues(client, batch.iter().map(|request| &request.task))
                    .await?;
                start_new(client, &self.days, worker, claim, batch).await
            };
            let outcome = bounded(DOING, work).await;
            if let Some(started) = connection.settle(outcome)? {
                return Ok(started.into_iter().map(|it| (Recorded::New, Some(it))).collect());
            }
        }
        record_then_claim(self, worker, claim, batch).await
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
        connection.settle(outcome)
    }

    async fn deregister(&self, worker: WorkerId) -> Result<()> {
        const DOING: &str = "forget a worker";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, workers::forget(connection.client(), worker, None)).await;
        connection.settle(outcome).map(|_| ())
    }

    async fn abandon(&self, worker: WorkerId, lost_max: u32) -> Result<Vec<TaskEvent>> {
        const DOING: &str = "take back the tasks of a worker";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(
            DOING,
            workers::forget(connection.client(), worker, Some(lost_max)),
        )
        .await;
        connection.settle(outcome)
    }
}
