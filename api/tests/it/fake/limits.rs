//! Limits as they are kept. Nobody enforces them here.

use std::ops::Bound;

use async_trait::async_trait;
use forebay_core::{LIMITS_MAX, LimitName, LimitRule, TaskId, Timestamp};
use forebay_store::{Hold, Limit, LimitUse, Limits, Mended, PutLimit, Released, Result};

use super::{Fake, not_faked};

#[async_trait]
impl Limits for Fake {
    async fn put_limit(&self, rule: &LimitRule) -> Result<PutLimit> {
        let mut inner = self.store("put a limit").await?;
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let old = inner.limits.get(&rule.name).cloned();
        if old.is_none() && inner.limits.len() >= LIMITS_MAX {
            return Ok(PutLimit::TooMany);
        }
        let limit = Limit {
            rule: rule.clone(),
            created_at: old.as_ref().map_or(now, |old| old.created_at),
            updated_at: now,
        };
        inner.limits.insert(rule.name.clone(), limit.clone());
        Ok(match old {
            Some(_) => PutLimit::Replaced(limit),
            None => PutLimit::New(limit),
        })
    }

    async fn limit(&self, name: &LimitName) -> Result<Option<Limit>> {
        Ok(self.store("read a limit").await?.limits.get(name).cloned())
    }

    async fn limits(&self, page_size: usize, after: Option<&LimitName>) -> Result<Vec<Limit>> {
        let inner = self.store("list limits").await?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = inner.limits.range((after, Bound::Unbounded)).take(page_size);
        Ok(page.map(|(_, limit)| limit.clone()).collect())
    }

    async fn delete_limit(&self, name: &LimitName) -> Result<bool> {
        let mut inner = self.store("delete a limit").await?;
        Ok(inner.limits.remove(name).is_some())
    }

    async fn limit_use(&self, _: &LimitName) -> Result<LimitUse> {
        drop(self.store("count what a limit holds back").await?);
        Ok(LimitUse {
            running: 2,
            waiting: 5,
        })
    }

    async fn held_by(&self, _: TaskId) -> Result<Option<Hold>> {
        drop(self.store("look for what holds a task back").await?);
        Ok(None)
    }

    async fn release_throttled(&self, _: Option<i64>, _: usize) -> Result<Released> {
        not_faked()
    }

    async fn mend_limits(&self) -> Result<Mended> {
        not_faked()
    }
}
