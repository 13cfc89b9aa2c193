//! Operators' commands: each a transaction, and the task as it is after it.

use async_trait::async_trait;
use forebay_core::{QueueName, Refused, TaskId};
use forebay_store::{Changed, Operate, Result};
use sqlx::PgConnection;

use crate::{PostgresStore, error, hot::bounded, read};

#[async_trait]
impl Operate for PostgresStore {
    async fn cancel(&self, id: TaskId) -> Result<Changed> {
        const DOING: &str = "cancel a task";
        bounded(DOING, self.change(DOING, id, Command::Cancel)).await
    }

    async fn retry(&self, id: TaskId) -> Result<Changed> {
        const DOING: &str = "retry a task";
        bounded(DOING, self.change(DOING, id, Command::Retry)).await
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<bool> {
        const DOING: &str = "pause or resume a queue";
        let sql = match paused {
            true => include_str!("../queries/queues_pause.sql"),
            false => include_str!("../queries/queues_resume.sql"),
        };
        let change = sqlx::query(sql).bind(queue.as_str()).execute(&self.reads);
        let changed = bounded(DOING, async { change.await.map_err(|e| error::read(DOING, e)) }).await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// What an operator wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Cancel,
    Retry,
}

impl PostgresStore {
    async fn change(&self, doing: &'static str, id: TaskId, command: Command) -> Result<Changed> {
        let failed = |e| error::read(doing, e);
        let mut transaction = self.reads.begin().await.map_err(failed)?;
        let Some(found) = read::get(&mut *transaction, id).await? else {
            return Ok(Changed::NotFound);
        };
        let hold = sqlx::query(include_str!("../queries/due_hold.sql")).bind(found.id.as_uuid());
        hold.fetch_optional(&mut *transaction).await.map_err(failed)?;
        let changed = obey(&mut transaction, doing, command, found.id).await?;
        let Some(task) = read::get(&mut *transaction, found.id).await? else {
            return Ok(Changed::NotFound);
        };
        let outcome = match changed {
            true => Changed::Done(Box::new(task)),
            false => {
                let why = Refused::State(task.state);
                Changed::Refused(Box::new(task), why)
            }
        };
        transaction.commit().await.map_err(failed)?;
        Ok(outcome)
    }
}

/// Carries out a command on a task whose `due` row is held by this transaction, and says whether the state allowed it.
/// All that an operator's command does, on one task or on many, is done here.
pub(crate) async fn obey(
    transaction: &mut PgConnection,
    doing: &'static str,
    command: Command,
    id: TaskId,
) -> Result<bool> {
    let failed = |e| error::read(doing, e);
    let sql = match command {
        Command::Cancel => include_str!("../queries/tasks_cancel.sql"),
        Command::Retry => include_str!("../queries/tasks_retry.sql"),
    };
    let change = sqlx::query(sql).bind(id.as_uuid());
    let changed = change.fetch_optional(&mut *transaction).await.map_err(failed)?;
    if command == Command::Cancel {
        let forget = sqlx::query(include_str!("../queries/due_drop_free.sql")).bind(id.as_uuid());
        forget.execute(&mut *transaction).await.map_err(failed)?;
        let leave = sqlx::query(include_str!("../queries/throttled_leave.sql")).bind(vec![id.as_uuid()]);
        leave.execute(&mut *transaction).await.map_err(failed)?;
    }
    Ok(changed.is_some())
}
