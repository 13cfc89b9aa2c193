//! Tasks of batches.

use forebay_core::{BatchId, Submission};
use forebay_store::{BATCH_CANCELLED, Result};
use sqlx::SqliteConnection;

use super::Standing;
use crate::error::failed;

const DOING: &str = "record a task of a batch";
const CANCELLED: &str = "SELECT EXISTS (SELECT 1 FROM batches WHERE id = ?1 AND cancelled_at IS NOT NULL)";
const ADD: &str = "INSERT INTO batch_members (batch_id, task_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
// Of a batch that waits for no tasks any more, and has just those that were recorded.
const LATE: &str =
    "UPDATE batches SET total = total + 1 WHERE id = ?1 AND grown_at IS NULL AND cancel_from IS NULL";

fn batch_of(task: &Submission) -> Option<BatchId> {
    task.terms.as_ref().and_then(|terms| terms.batch)
}

/// Where a task stands whose batch is cancelled; `None` of any other.
pub(super) async fn standing(tx: &mut SqliteConnection, task: &Submission) -> Result<Option<Standing>> {
    let Some(batch) = batch_of(task) else {
        return Ok(None);
    };
    let is_cancelled: bool = sqlx::query_scalar(CANCELLED)
        .bind(batch.as_uuid())
        .fetch_one(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(is_cancelled.then(|| Standing::cancelled(BATCH_CANCELLED.to_owned())))
}

/// Notes which batch a new task belongs to.
pub(super) async fn note(tx: &mut SqliteConnection, task: &Submission) -> Result<()> {
    let Some(batch) = batch_of(task) else {
        return Ok(());
    };
    let added = sqlx::query(ADD)
        .bind(batch.as_uuid())
        .bind(task.id.as_uuid())
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    if added.rows_affected() > 0 {
        sqlx::query(LATE)
            .bind(batch.as_uuid())
            .execute(tx)
            .await
            .map_err(failed(DOING))?;
    }
    Ok(())
}
