//! What the executor calls; each method one checkout of a connection, bounded in time.

use async_trait::async_trait;
use forebay_core::{ClaimId, WorkerId};
use forebay_store::{
    ClaimRequest, Claimed, Completed, Completion, Execute, Heartbeat, HeartbeatReply, Result,
};

use crate::{PostgresStore, claim, complete, hot::bounded, workers};

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
        let outcome = bounded(DOING, workers::heartbeat(connection.client(), beat)).await;
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
        let outcome = bounded(DOING, workers::deregister(connection.client(), worker)).await;
        connection.settle(outcome)
    }
}
