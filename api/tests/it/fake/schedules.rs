//! Schedules as they are kept. Nobody fires them here.

use std::ops::Bound;

use async_trait::async_trait;
use forebay_core::{Schedule, ScheduleName, Timestamp};
use forebay_store::{Fired, LISTED_BYTES_MAX, PutSchedule, Result, Schedules};

use super::{Fake, not_faked};

#[async_trait]
impl Schedules for Fake {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<PutSchedule> {
        let mut inner = self.store("put a schedule").await?;
        let old = inner.schedules.get(&schedule.name);
        let is_new = old.is_none();
        let kept = schedule.clone().replacing(old, schedule.updated_at);
        inner.schedules.insert(kept.name.clone(), kept.clone());
        Ok(PutSchedule {
            schedule: kept,
            is_new,
        })
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>> {
        Ok(self.store("read a schedule").await?.schedules.get(name).cloned())
    }

    async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Option<Schedule>> {
        let mut inner = self.store("pause a schedule").await?;
        let Some(schedule) = inner.schedules.get_mut(name) else {
            return Ok(None);
        };
        *schedule = schedule.resting(paused, schedule.updated_at);
        Ok(Some(schedule.clone()))
    }

    async fn schedules(&self, page_size: usize, after: Option<&ScheduleName>) -> Result<Vec<Schedule>> {
        let inner = self.store("list schedules").await?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let page = inner.schedules.range((after, Bound::Unbounded)).take(page_size);
        let page = page.take_while(|(_, schedule)| {
            let before = bytes;
            bytes += schedule.task.payload.as_bytes().len();
            before < LISTED_BYTES_MAX
        });
        Ok(page.map(|(_, schedule)| schedule.clone()).collect())
    }

    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool> {
        let mut inner = self.store("delete a schedule").await?;
        Ok(inner.schedules.remove(name).is_some())
    }

    async fn fire_schedules(&self, _: usize, _: Option<Timestamp>) -> Result<Fired> {
        not_faked()
    }
}
