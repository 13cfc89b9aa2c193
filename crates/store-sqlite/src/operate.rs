//! Operators' commands.

use async_trait::async_trait;
use forebay_core::{QueueName, Refused, TaskId, Timestamp};
use forebay_store::{Changed, Operate, Result};
use sqlx::SqliteConnection;

use crate::{SqliteStore, error::failed, limits, read::get, row::micros_of, terms};

const CANCEL: &str = include_str!("../queries/cancel.sql");
const RETRY: &str = include_str!("../queries/retry.sql");
const PAUSE_QUEUE: &str = include_str!("../queries/pause_queue.sql");
const RESUME_QUEUE: &str = include_str!("../queries/resume_queue.sql");

#[async_trait]
impl Operate for SqliteStore {
    async fn cancel(&self, id: TaskId) -> Result<Changed> {
        command(self, id, Command::Cancel, "cancel a task").await
    }

    async fn retry(&self, id: TaskId) -> Result<Changed> {
        command(self, id, Command::Retry, "retry a task").await
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<bool> {
        const DOING: &str = "pause or resume a queue";
        let mut tx = self.begin(DOING).await?;
        let change = match paused {
            true => sqlx::query(PAUSE_QUEUE)
                .bind(queue.as_str())
                .bind(micros_of(self.clock_now())),
            false => sqlx::query(RESUME_QUEUE).bind(queue.as_str()),
        };
        let changed = change.execute(&mut *tx).await.map_err(failed(DOING))?;
        tx.commit().await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// What an operator wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Cancel,
    Retry,
}

/// Carries out a command, and says what the task is now.
async fn command(store: &SqliteStore, id: TaskId, command: Command, doing: &'static str) -> Result<Changed> {
    let mut tx = store.begin(doing).await?;
    let Some(found) = get(&mut tx, id).await? else {
        tx.commit().await?;
        return Ok(Changed::NotFound);
    };
    let now = store.clock_now();
    if !obey(&mut tx, doing, command, found.id, now).await? {
        tx.commit().await?;
        let why = Refused::State(found.state);
        return Ok(Changed::Refused(Box::new(found), why));
    }
    let after = get(&mut tx, found.id).await?.unwrap_or(found);
    tx.commit().await?;
    Ok(Changed::Done(Box::new(after)))
}

/// Carries out a command on a task, and says whether the state allowed it. All that an operator's command does, on one
/// task or on many, is done here.
pub(crate) async fn obey(
    tx: &mut SqliteConnection,
    doing: &'static str,
    command: Command,
    id: TaskId,
    now: Timestamp,
) -> Result<bool> {
    let sql = match command {
        Command::Cancel => CANCEL,
        Command::Retry => RETRY,
    };
    let done = sqlx::query(sql)
        .bind(id.as_uuid())
        .bind(micros_of(now))
        .execute(&mut *tx)
        .await
        .map_err(failed(doing))?;
    if command == Command::Retry {
        terms::expiry::forget(tx, id).await?;
    }
    if command == Command::Cancel && done.rows_affected() > 0 {
        limits::leave(tx, id, now).await?;
    }
    Ok(done.rows_affected() > 0)
}
