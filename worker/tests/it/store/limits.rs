//! There are no limits in the store in memory.

use async_trait::async_trait;
use forebay_core::{LimitName, LimitRule, TaskId};
use forebay_store::{Hold, Limit, LimitUse, Limits, Mended, PutLimit, Released, Result, StoreError};

use super::MemoryStore;

fn not_here<T>() -> Result<T> {
    Err(StoreError::Corrupt("there are no limits here".into()))
}

#[async_trait]
impl Limits for MemoryStore {
    async fn put_limit(&self, _: &LimitRule) -> Result<PutLimit> {
        not_here()
    }

    async fn limit(&self, _: &LimitName) -> Result<Option<Limit>> {
        not_here()
    }

    async fn limits(&self, _: usize, _: Option<&LimitName>) -> Result<Vec<Limit>> {
        not_here()
    }

    async fn delete_limit(&self, _: &LimitName) -> Result<bool> {
        not_here()
    }

    async fn limit_use(&self, _: &LimitName) -> Result<LimitUse> {
        not_here()
    }

    async fn held_by(&self, _: TaskId) -> Result<Option<Hold>> {
        not_here()
    }

    async fn release_throttled(&self, _: Option<i64>, _: usize) -> Result<Released> {
        Ok(Released::default())
    }

    async fn mend_limits(&self) -> Result<Mended> {
        Ok(Mended::default())
    }
}
