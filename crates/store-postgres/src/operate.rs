//! Operators' commands: each a transaction, and the task as it is after it.

use async_trait::async_trait;
use forebay_core::{QueueName, Refused, TaskId};
use forebay_store::{Changed, Operate, Result};

use crate::{PostgresStore, error, hot::bounded, read};

#[async_trait]
impl Operate for PostgresStore {
    async fn cancel(&self, id: TaskId) -> Result<Changed> {
        const DOING: &str = "cancel a task";
        let sql = include_str!("../queries/tasks_cancel.sql");
        bounded(
            DOING,
            self.change(DOING, id, sql, Some(include_str!("../queries/due_drop_free.sql"))),
        )
        .await
    }

    async fn retry(&self, id: TaskId) -> Result<Changed> {
        const DOING: &str = "retry a task";
        bounded(
            DOING,
            self.change(DOING, id, include_str!("../queries/tasks_retry.sql"), None),
        )
        .await
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

impl PostgresStore {
    /// Runs `change`, which answers with a row where the state allows it, and `after` where that leaves the task final.
    async fn change(
        &self,
        doing: &'static str,
        id: TaskId,
        change: &'static str,
        after: Option<&'static str>,
    ) -> Result<Changed> {
        let failed = |e| error::read(doing, e);
        let mut transaction = self.reads.begin().await.map_err(failed)?;
        let Some(found) = read::get(&mut *transaction, id).await? else {
            return Ok(Changed::NotFound);
        };
        let id = found.id.as_uuid();
        let hold = sqlx::query(include_str!("../queries/due_hold.sql")).bind(id);
        hold.fetch_optional(&mut *transaction).await.map_err(failed)?;
        let changed = sqlx::query(change)
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
        let Some(task) = read::get(&mut *transaction, found.id).await? else {
            return Ok(Changed::NotFound);
        };
        let outcome = match changed {
            Some(_) => Changed::Done(Box::new(task.clone())),
            None => Changed::Refused(Box::new(task.clone()), Refused::State(task.state)),
        };
        if let (true, Some(after)) = (task.state.is_final(), after) {
            sqlx::query(after)
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(outcome)
    }
}
