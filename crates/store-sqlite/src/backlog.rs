//! The store as the log of the embedded broker.

use async_trait::async_trait;
use forebay_core::{Lane, Ready, Timestamp};
use forebay_store::{Backlog, Result};

use crate::{SqliteStore, error::failed, row::Fields};

const WAITING: &str = include_str!("../queries/waiting.sql");
const COUNTS: &str = include_str!("../queries/waiting_counts.sql");

#[async_trait]
impl Backlog for SqliteStore {
    async fn waiting(&self, lane: &Lane, limit: usize) -> Result<Vec<(Ready, Timestamp)>> {
        const DOING: &str = "list what waits in a lane";
        let rows = sqlx::query(WAITING)
            .bind(lane.queue.as_str())
            .bind(lane.priority.as_str())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        rows.iter()
            .map(|row| Ok((Fields(row).ready()?, Fields(row).time("queued_at")?)))
            .collect()
    }

    async fn waiting_counts(&self) -> Result<Vec<(Lane, u64)>> {
        const DOING: &str = "count what waits";
        let rows = sqlx::query(COUNTS)
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        rows.iter()
            .map(|row| Ok((Fields(row).lane()?, count(row, "waiting")?)))
            .collect()
    }
}

/// A count is never negative.
pub(crate) fn count(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<u64> {
    let count: i64 = Fields(row).get(column)?;
    Ok(u64::try_from(count).unwrap_or(0))
}
