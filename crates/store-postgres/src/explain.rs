//! What only an explanation asks for.

use async_trait::async_trait;
use forebay_core::TaskId;
use forebay_store::{Explain, Place, Result};

use crate::{PostgresStore, error, hot::bounded, read::field, values::Instant};

/// How many tasks are looked at on the way back from the one that is asked for.
const LOOK_BACK: i64 = 10_000;

#[async_trait]
impl Explain for PostgresStore {
    async fn place(&self, id: TaskId) -> Result<Option<Place>> {
        const DOING: &str = "look for a task's place in its lane";
        let row = sqlx::query(include_str!("../queries/tasks_place.sql"))
            .bind(id.as_uuid())
            .bind(LOOK_BACK)
            .fetch_optional(&self.reads);
        let row = bounded(DOING, async { row.await.map_err(|e| error::read(DOING, e)) }).await?;
        let place = |row| {
            Ok(Place {
                queued_at: field::<Instant>(row, "queued_at")?.0,
                ahead: field::<i64>(row, "ahead")?.unsigned_abs(),
                is_exact: field(row, "is_exact")?,
            })
        };
        row.as_ref().map(place).transpose()
    }
}
