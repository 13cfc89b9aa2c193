//! What the dispatcher asks of the store.

use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{Lane, Ready, TaskEvent, Timestamp};
use forebay_store::{Dispatch, ReadySink, Republished, Result};
use sqlx::sqlite::SqliteRow;

use crate::{
    SqliteStore, admin,
    error::failed,
    row::{Fields, micros_of},
    terms, workers,
};

const DUE: &str = include_str!("../queries/due.sql");
const DISPATCH: &str = include_str!("../queries/dispatch.sql");
const LOST: &str = include_str!("../queries/lost.sql");
const REQUEUE: &str = include_str!("../queries/requeue.sql");

#[async_trait]
impl Dispatch for SqliteStore {
    async fn dispatch_due(&self, limit: usize, sink: &dyn ReadySink) -> Result<Vec<TaskEvent>> {
        let due = due(self, limit).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let confirmed = sink.publish(&due).await;
        make_queued(self, &only(due, &confirmed)).await
    }

    async fn take_back(&self, lease: Duration, lost_max: u32) -> Result<Vec<TaskEvent>> {
        workers::take_back(self, lease, lost_max).await
    }

    /// The index finds what is queued without a look at the history, so no floor is needed.
    async fn republish_lost(
        &self,
        horizons: &[(Lane, Timestamp)],
        floor: Timestamp,
        limit: usize,
        sink: &dyn ReadySink,
    ) -> Result<Republished> {
        let lost = lost(self, horizons, limit).await?;
        let mut count = 0;
        if !lost.is_empty() {
            let confirmed = sink.publish(&lost).await;
            let lost = only(lost, &confirmed);
            count = lost.len();
            requeue(self, &lost).await?;
        }
        Ok(Republished { count, floor })
    }

    async fn expire_due(&self, limit: usize) -> Result<forebay_store::Expired> {
        terms::expiry::expire(self, limit).await
    }

    async fn watermarks(&self) -> Result<Vec<(Lane, Timestamp)>> {
        workers::watermarks(self).await
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.clock_now())
    }

    async fn maintain(&self, retention: Option<Duration>) -> Result<()> {
        admin::maintain(self, retention).await
    }
}

/// Those that were confirmed.
fn only(batch: Vec<Ready>, confirmed: &[bool]) -> Vec<Ready> {
    batch
        .into_iter()
        .zip(confirmed)
        .filter_map(|(task, &confirmed)| confirmed.then_some(task))
        .collect()
}

pub(crate) fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn ready(rows: &[SqliteRow]) -> Result<Vec<Ready>> {
    rows.iter().map(|row| Fields(row).ready()).collect()
}

async fn due(store: &SqliteStore, limit: usize) -> Result<Vec<Ready>> {
    const DOING: &str = "look for due tasks";
    let rows = sqlx::query(DUE)
        .bind(micros_of(store.clock_now()))
        .bind(bounded(limit))
        .fetch_all(&mut *store.reader(DOING).await?)
        .await
        .map_err(failed(DOING))?;
    ready(&rows)
}

async fn make_queued(store: &SqliteStore, batch: &[Ready]) -> Result<Vec<TaskEvent>> {
    const DOING: &str = "note what was dispatched";
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    let mut events = Vec::with_capacity(batch.len());
    for task in batch {
        let row = sqlx::query(DISPATCH)
            .bind(task.id.as_uuid())
            .bind(task.fence)
            .bind(micros_of(now))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        if let Some(row) = row {
            events.push(Fields(&row).event(now)?);
        }
    }
    tx.commit().await?;
    Ok(events)
}

async fn lost(store: &SqliteStore, horizons: &[(Lane, Timestamp)], limit: usize) -> Result<Vec<Ready>> {
    const DOING: &str = "look for lost messages";
    let mut reader = store.reader(DOING).await?;
    let mut found = Vec::new();
    for (lane, horizon) in horizons {
        if found.len() >= limit {
            break;
        }
        let rows = sqlx::query(LOST)
            .bind(lane.queue.as_str())
            .bind(lane.priority.as_str())
            .bind(micros_of(*horizon))
            .bind(bounded(limit - found.len()))
            .fetch_all(&mut *reader)
            .await
            .map_err(failed(DOING))?;
        found.extend(ready(&rows)?);
    }
    Ok(found)
}

async fn requeue(store: &SqliteStore, batch: &[Ready]) -> Result<()> {
    const DOING: &str = "note what was published again";
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    for task in batch {
        sqlx::query(REQUEUE)
            .bind(task.id.as_uuid())
            .bind(task.fence)
            .bind(micros_of(now))
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
    }
    tx.commit().await
}
