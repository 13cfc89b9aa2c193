//! Operators' commands.

use async_trait::async_trait;
use forebay_core::{QueueName, Refused, TaskId};
use forebay_store::{Changed, Operate, Result};

use crate::{SqliteStore, error::failed, read::get, row::micros_of};

const CANCEL: &str = include_str!("../queries/cancel.sql");
const RETRY: &str = include_str!("../queries/retry.sql");
const PAUSE_QUEUE: &str = include_str!("../queries/pause_queue.sql");
const RESUME_QUEUE: &str = include_str!("../queries/resume_queue.sql");

#[async_trait]
impl Operate for SqliteStore {
    async fn cancel(&self, id: TaskId) -> Result<Changed> {
        command(self, id, CANCEL, "cancel a task").await
    }

    async fn retry(&self, id: TaskId) -> Result<Changed> {
        command(self, id, RETRY, "retry a task").await
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

/// Runs a guarded update of the task that `id` names, and says what it is now.
async fn command(
    store: &SqliteStore,
    id: TaskId,
    update: &'static str,
    doing: &'static str,
) -> Result<Changed> {
    let mut tx = store.begin(doing).await?;
    let Some(found) = get(&mut tx, id).await? else {
        tx.commit().await?;
        return Ok(Changed::NotFound);
    };
    let done = sqlx::query(update)
        .bind(found.id.as_uuid())
        .bind(micros_of(store.clock_now()))
        .execute(&mut *tx)
        .await
        .map_err(failed(doing))?;
    if done.rows_affected() == 0 {
        tx.commit().await?;
        let why = Refused::State(found.state);
        return Ok(Changed::Refused(Box::new(found), why));
    }
    let after = get(&mut tx, found.id).await?.unwrap_or(found);
    tx.commit().await?;
    Ok(Changed::Done(Box::new(after)))
}
