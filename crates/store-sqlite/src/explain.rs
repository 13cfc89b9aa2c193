//! What only an explanation asks for.

use async_trait::async_trait;
use forebay_core::TaskId;
use forebay_store::{Explain, Place, Result};

use crate::{SqliteStore, backlog::count, error::failed, row::Fields};

const PLACE: &str = include_str!("../queries/place.sql");

/// How many tasks before it are counted.
const COUNTED_MAX: u32 = 100_000;

#[async_trait]
impl Explain for SqliteStore {
    async fn place(&self, id: TaskId) -> Result<Option<Place>> {
        const DOING: &str = "look for a task's place in its lane";
        let row = sqlx::query(PLACE)
            .bind(id.as_uuid())
            .bind(COUNTED_MAX)
            .fetch_optional(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let place = |row| {
            let ahead = count(row, "ahead")?;
            Ok(Place {
                queued_at: Fields(row).time("queued_at")?,
                ahead,
                is_exact: ahead < u64::from(COUNTED_MAX),
            })
        };
        row.as_ref().map(place).transpose()
    }
}
