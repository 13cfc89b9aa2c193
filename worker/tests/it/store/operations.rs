//! The store in memory has no operations: how they are carried out is tested with a real one.

use async_trait::async_trait;
use forebay_store::{Result, StoreError};

use super::MemoryStore;

fn not_kept<T>() -> Result<T> {
    Err(StoreError::Corrupt("no operations are kept here".into()))
}

#[async_trait]
impl forebay_store::Operations for MemoryStore {
    async fn matching(&self, _: &forebay_core::OperationPlan, _: usize) -> Result<forebay_store::Matching> {
        not_kept()
    }

    async fn begin_operation(
        &self,
        _: forebay_core::OperationId,
        _: &forebay_core::OperationPlan,
        _: &forebay_store::Matching,
    ) -> Result<Option<forebay_core::Operation>> {
        not_kept()
    }

    async fn operation(&self, _: forebay_core::OperationId) -> Result<Option<forebay_core::Operation>> {
        not_kept()
    }

    async fn operations(
        &self,
        _: usize,
        _: Option<forebay_core::OperationId>,
    ) -> Result<Vec<forebay_core::Operation>> {
        not_kept()
    }

    async fn abort_operation(&self, _: forebay_core::OperationId) -> Result<Option<forebay_core::Operation>> {
        not_kept()
    }

    async fn pass_operation(&self) -> Result<forebay_store::OperationPass> {
        Ok(forebay_store::OperationPass::default())
    }
}
