//! What executors ask of the store.

use async_trait::async_trait;
use forebay_core::{ClaimId, WorkerId};
use forebay_store::{
    ClaimRequest, Claimed, Completed, Completion, Execute, Heartbeat, HeartbeatReply, Result,
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
}
