//! Batches as the connections for reads give them.

use forebay_core::{Fingerprint, TaskId};
use forebay_store::{Batch, BatchCounts, Result};
use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error,
    values::{Instant, word},
};

fn field<'a, T: Decode<'a, Postgres> + Type<Postgres>>(row: &'a PgRow, name: &str) -> Result<T> {
    row.try_get(name).map_err(error::corrupt)
}

pub(super) fn batch(row: &PgRow) -> Result<Batch> {
    let time = |name: &str| Ok(field::<Option<Instant>>(row, name)?.map(|at| at.0));
    let count = |name: &str| field::<i64>(row, name).map(i64::unsigned_abs);
    let fingerprint: Option<Uuid> = field(row, "fingerprint")?;
    Ok(Batch {
        id: field::<Uuid>(row, "id")?.into(),
        project: word(field(row, "project")?)?,
        name: field(row, "name")?,
        fingerprint: fingerprint.map(|uuid| Fingerprint(uuid.into_bytes())),
        total: count("total")?,
        ended: count("ended")?,
        completion: field::<Option<Uuid>>(row, "completion_task")?.map(TaskId::from),
        created_at: field::<Instant>(row, "created_at")?.0,
        closed_at: time("closed_at")?,
        cancelled_at: time("cancelled_at")?,
        completed_at: time("completed_at")?,
    })
}

pub(super) fn counts(rows: &[PgRow]) -> Result<BatchCounts> {
    let mut counts = BatchCounts::default();
    for row in rows {
        // A task that is no longer kept and of which nobody noted the end is none that could be told of.
        if let Some(state) = field::<Option<&str>>(row, "state")? {
            counts
                .of
                .insert(word(state)?, field::<i64>(row, "count")?.unsigned_abs());
        }
    }
    Ok(counts)
}
