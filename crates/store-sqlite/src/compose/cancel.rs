//! Cancelling a batch: at once for what is to come, and bit by bit for what is there.

use forebay_core::{BatchId, State, TaskEvent, TaskId, Timestamp};
use forebay_store::{BATCH_CANCELLED, Batch, Result, Settled};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    get,
    settle::{self, DOING},
};
use crate::{
    dispatch::bounded,
    error::failed,
    operate::{Command, obey},
    row::{Fields, micros_of},
};

/// How many tasks of a batch are cancelled together.
const TOGETHER: usize = 200;

const CANCEL: &str =
    "UPDATE batches SET closed_at = coalesce(closed_at, ?2), cancelled_at = ?2, cancel_from = zeroblob(16)
    WHERE id = ?1 AND cancelled_at IS NULL AND completed_at IS NULL";
// Any of them: one that fails whenever it is tried is not to keep the others waiting.
const CANCELLING: &str =
    "SELECT id, cancel_from FROM batches WHERE cancel_from IS NOT NULL ORDER BY random() LIMIT 1";
const NEXT: &str =
    "SELECT task_id FROM batch_members WHERE batch_id = ?1 AND task_id > ?2 ORDER BY task_id LIMIT ?3";
const EVENT: &str = "SELECT id, kind, queue, state, attempt FROM tasks WHERE id = ?1";
const MOVE: &str = "UPDATE batches SET cancel_from = ?2 WHERE id = ?1";
// What was announced and never recorded is not waited for.
const COME_TO_AN_END: &str = "UPDATE batches
    SET cancel_from = NULL, grown_at = NULL, total = (SELECT count(*) FROM batch_members WHERE batch_id = ?1)
    WHERE id = ?1";

pub(super) async fn cancel(tx: &mut SqliteConnection, id: BatchId, now: Timestamp) -> Result<Option<Batch>> {
    sqlx::query(CANCEL)
        .bind(id.as_uuid())
        .bind(micros_of(now))
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let cancelled = get(tx, id).await?;
    let unfinished = cancelled.as_ref().filter(|batch| batch.completed_at.is_none());
    if let Some(task) = unfinished.and_then(|batch| batch.completion) {
        settle::give_up(tx, task, BATCH_CANCELLED, now).await?;
    }
    Ok(cancelled)
}

/// Cancels the next tasks of a batch that is being cancelled.
pub(super) async fn go_on(tx: &mut SqliteConnection, now: Timestamp) -> Result<Settled> {
    let mut settled = Settled::default();
    let row = sqlx::query(CANCELLING)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let Some(row) = row else {
        return Ok(settled);
    };
    let (batch, from): (Uuid, Vec<u8>) = (Fields(&row).get("id")?, Fields(&row).get("cancel_from")?);
    let rows = sqlx::query(NEXT)
        .bind(batch)
        .bind(from)
        .bind(bounded(TOGETHER))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let mut last = None;
    for row in &rows {
        let task: Uuid = Fields(row).get("task_id")?;
        last = Some(task);
        if obey(tx, DOING, Command::Cancel, task.into(), now).await?
            && let Some(event) = event(tx, task.into(), now).await?
        {
            match event.state {
                State::Running => settled.cancel.push(event.id),
                _ => settled.events.push(event),
            }
        }
    }
    let moved = match last.filter(|_| rows.len() >= TOGETHER) {
        Some(last) => sqlx::query(MOVE).bind(batch).bind(last),
        None => sqlx::query(COME_TO_AN_END).bind(batch),
    };
    moved.execute(&mut *tx).await.map_err(failed(DOING))?;
    settled
        .events
        .extend(settle::complete(tx, batch.into(), now).await?);
    settled.more = true;
    Ok(settled)
}

/// How a task stands, to be told.
pub(crate) async fn event(
    tx: &mut SqliteConnection,
    task: TaskId,
    now: Timestamp,
) -> Result<Option<TaskEvent>> {
    let row = sqlx::query(EVENT)
        .bind(task.as_uuid())
        .fetch_optional(tx)
        .await
        .map_err(failed(DOING))?;
    row.map(|row| Fields(&row).event(now)).transpose()
}
