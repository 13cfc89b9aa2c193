//! What executors ask of the store.

use async_trait::async_trait;
use forebay_core::{ClaimId, TaskEvent, WorkerId};
use forebay_store::{
    ClaimRequest, Claimed, Completed, Completion, Execute, Heartbeat, HeartbeatReply, Recorded, Result,
    StartRequest, record_then_claim,
};

use crate::{SqliteStore, claim, complete, workers};

#[async_trait]
impl Execute for SqliteStore {
    async fn register(&self, beat: &Heartbeat) -> Result<()> {
        workers::register(self, beat).await
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<HeartbeatReply> {
        workers::heartbeat(self, beat).await
    }

    /// What a worker runs is found by an index on `tasks`, so there is no note of the claim to be kept.
    async fn claim(
        &self,
        worker: WorkerId,
        _claim: ClaimId,
        batch: &[ClaimRequest],
    ) -> Result<Vec<Option<Claimed>>> {
        claim::claim(self, worker, batch).await
    }

    /// Nobody calls it here but the tests: with the embedded broker submissions are recorded as they are accepted.
    async fn record_and_claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>> {
        let requests: Vec<&StartRequest> = batch.iter().collect();
        let claim =
            move |requests: Vec<ClaimRequest>| async move { self.claim(worker, claim, &requests).await };
        record_then_claim(self, &requests, claim).await
    }

    async fn complete(
        &self,
        worker: WorkerId,
        batch: &[Completion],
        _released: &[ClaimId],
    ) -> Result<Vec<Completed>> {
        complete::complete(self, worker, batch).await
    }

    async fn deregister(&self, worker: WorkerId) -> Result<()> {
        workers::deregister(self, worker).await
    }

    async fn abandon(&self, worker: WorkerId, lost_max: u32) -> Result<Vec<TaskEvent>> {
        workers::abandon(self, worker, lost_max).await
    }
}
