//! Tasks that expire unless they are started in time.

use deadpool_postgres::{Client, Transaction};
use forebay_core::{Submission, TaskEvent};
use forebay_store::{Expired, Result};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error,
    hot::{column, query},
    limits,
    values::Instant,
    workers,
};

/// How many are looked at together, whether they can expire at all.
const FORGOTTEN_AT_ONCE: i64 = 5_000;

/// Keeps in mind when the recorded tasks expire.
pub(super) async fn note(transaction: &Transaction<'_>, recorded: &[&Submission]) -> Result<()> {
    let expiring = recorded.iter().filter_map(|task| {
        let expires_at = task.terms.as_ref()?.expires_at?;
        Some((task.id.as_uuid(), Instant(expires_at)))
    });
    let (ids, times): (Vec<Uuid>, Vec<Instant>) = expiring.unzip();
    if !ids.is_empty() {
        let sql = include_str!("../../queries/expiries_add.sql");
        query(transaction, "note when tasks expire", sql, &[&ids, &times]).await?;
    }
    Ok(())
}

/// Looks at up to `limit` tasks that are to have been started by now, and ends those that were not.
pub(crate) async fn expire(client: &mut Client, limit: usize) -> Result<Expired> {
    const DOING: &str = "end what was not started in time";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let sql = include_str!("../../queries/expiries_lock.sql");
    let rows = query(&transaction, DOING, sql, &[&limit]).await?;
    let mut late: Vec<Uuid> = rows
        .iter()
        .map(|row| column(row, "task_id"))
        .collect::<Result<_>>()?;
    if late.is_empty() {
        return Ok(Expired::default());
    }
    late.sort_unstable();
    let hold = include_str!("../../queries/due_hold_all.sql");
    query(&transaction, DOING, hold, &[&late]).await?;
    let sql = include_str!("../../queries/tasks_expire.sql");
    let rows = query(&transaction, DOING, sql, &[&late]).await?;
    let events: Vec<TaskEvent> = rows.iter().map(workers::event).collect::<Result<_>>()?;
    // Those alone: what was started in time may stand in a line again.
    let expired: Vec<Uuid> = events.iter().map(|event| event.id.as_uuid()).collect();
    limits::leave(&transaction, &expired).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(Expired {
        events,
        looked_at: late.len(),
    })
}

/// Forgets when tasks expire that cannot any more: what was started in time, has ended or is gone. Stretch by stretch.
pub(crate) async fn forget_over(connection: &mut PgConnection) -> std::result::Result<(), sqlx::Error> {
    let mut place = Some(Uuid::nil());
    while let Some(from) = place {
        place = sqlx::query_scalar(include_str!("../../queries/expiries_forget.sql"))
            .bind(from)
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_optional(&mut *connection)
            .await?;
    }
    Ok(())
}
