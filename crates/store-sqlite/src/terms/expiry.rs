//! Tasks that expire unless they are started in time.

use forebay_core::{Submission, TaskId, Timestamp};
use forebay_store::{Expired, Result};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::Standing;
use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    limits,
    row::{Fields, micros_of},
};

const NOTE: &str = include_str!("../../queries/expiries_add.sql");
const LATE: &str = include_str!("../../queries/expiries_late.sql");
const EXPIRE: &str = include_str!("../../queries/expire.sql");
const FORGET: &str = include_str!("../../queries/expiries_forget.sql");
const STRETCH: &str = include_str!("../../queries/expiries_stretch.sql");
const FORGET_OVER: &str = include_str!("../../queries/expiries_forget_over.sql");

/// How many are looked at in one transaction, whether they can expire at all.
const FORGOTTEN_AT_ONCE: i64 = 5_000;

/// Keeps in mind when a recorded task expires.
pub(super) async fn note(tx: &mut SqliteConnection, task: &Submission, standing: &Standing) -> Result<()> {
    let expires_at = task.terms.as_ref().and_then(|terms| terms.expires_at);
    if let Some(expires_at) = expires_at.filter(|_| !standing.state.is_final()) {
        sqlx::query(NOTE)
            .bind(task.id.as_uuid())
            .bind(micros_of(expires_at))
            .execute(tx)
            .await
            .map_err(failed("note when a task expires"))?;
    }
    Ok(())
}

/// A task does not expire any more.
pub(crate) async fn forget(tx: &mut SqliteConnection, id: TaskId) -> Result<()> {
    let forgotten = sqlx::query(FORGET).bind(id.as_uuid()).execute(tx).await;
    forgotten
        .map(|_| ())
        .map_err(failed("forget when a task expires"))
}

/// Looks at up to `limit` tasks that are to have been started by now, and ends those that were not.
pub(crate) async fn expire(store: &SqliteStore, limit: usize) -> Result<Expired> {
    const DOING: &str = "end what was not started in time";
    let now = store.clock_now();
    let late = late(store, limit, now).await?;
    if late.is_empty() {
        return Ok(Expired::default());
    }
    let mut tx = store.begin(DOING).await?;
    let (mut events, looked_at) = (Vec::new(), late.len());
    for id in late {
        let expired = sqlx::query(EXPIRE)
            .bind(id.as_uuid())
            .bind(micros_of(now))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        if let Some(row) = expired {
            events.push(Fields(&row).event(now)?);
            limits::leave(&mut tx, id, now).await?;
        }
        forget(&mut tx, id).await?;
    }
    tx.commit().await?;
    Ok(Expired { events, looked_at })
}

/// Forgets when tasks expire that cannot any more: what was started in time, has ended or is gone. Stretch by stretch, so
/// that others need not wait long.
pub(crate) async fn forget_over(store: &SqliteStore) -> Result<()> {
    const DOING: &str = "forget what cannot expire any more";
    let mut place = Some(Uuid::nil());
    while let Some(from) = place {
        let mut tx = store.begin(DOING).await?;
        let end: Option<Uuid> = sqlx::query_scalar(STRETCH)
            .bind(from)
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        sqlx::query(FORGET_OVER)
            .bind(from)
            .bind(end)
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        place = end;
    }
    Ok(())
}

/// Looked for without a claim on the one connection that writes: mostly there are none.
async fn late(store: &SqliteStore, limit: usize, now: Timestamp) -> Result<Vec<TaskId>> {
    const DOING: &str = "look for what was not started in time";
    let rows = sqlx::query(LATE)
        .bind(micros_of(now))
        .bind(bounded(limit))
        .fetch_all(&mut *store.reader(DOING).await?)
        .await
        .map_err(failed(DOING))?;
    rows.iter()
        .map(|row| row.try_get::<Uuid, _>(0).map(TaskId::from))
        .collect::<sqlx::Result<_>>()
        .map_err(failed(DOING))
}
