//! Giving places back, and letting the next go on.

use std::collections::BTreeMap;

use forebay_core::{Priority, TaskId, Timestamp, WorkerId};
use forebay_store::{
    Result,
    limits::{Head, Rules, next_in_line},
};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    current_rules,
    hold::{Use, phase, read_uses},
};
use crate::{
    error::failed,
    row::{Fields, hex, micros_of, to_json},
};

const FREE: &str = include_str!("../../queries/limit_uses_free.sql");
const HEADS: &str = include_str!("../../queries/throttled_heads.sql");
const RELEASE: &str = include_str!("../../queries/throttled_release.sql");
const COUNT_RELEASED: &str = "UPDATE limit_uses SET released = released + ?2 WHERE id = ?1";
const FORGET: &str = "DELETE FROM throttled WHERE task_id = ?1";
const LET_GO: &str = "UPDATE tasks SET run_at = ?2 WHERE id = ?1 AND state = 'throttled'";
const OF_WORKER: &str = include_str!("../../queries/holds_of_worker.sql");
const OF_STARTS: &str = include_str!("../../queries/holds_of_starts.sql");
const OF_WAITING: &str = include_str!("../../queries/holds_of_waiting.sql");
const DOING: &str = "let the next go on";

/// How many of one line are released together; the next pass takes the rest.
const RELEASED_AT_ONCE: u32 = 100;

fn holds(rows: &[SqliteRow]) -> Result<Vec<i64>> {
    let mut all = Vec::new();
    for row in rows {
        all.append(&mut Fields(row).list::<Vec<i64>>("holds")?);
    }
    Ok(all)
}

/// The places that tasks hold which run on a worker.
pub(crate) async fn holds_of_worker(tx: &mut SqliteConnection, worker: WorkerId) -> Result<Vec<i64>> {
    let rows = sqlx::query(OF_WORKER).bind(worker.as_uuid()).fetch_all(tx).await;
    holds(&rows.map_err(failed(DOING))?)
}

/// The places that these starts hold, so far as they run on this worker.
pub(crate) async fn holds_of_starts(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    starts: impl Iterator<Item = (TaskId, u32)>,
) -> Result<Vec<i64>> {
    let starts: Vec<Value> = starts.map(|(id, fence)| json!([hex(id), fence])).collect();
    if starts.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(OF_STARTS)
        .bind(to_json(&starts)?)
        .bind(worker.as_uuid())
        .fetch_all(tx)
        .await;
    holds(&rows.map_err(failed(DOING))?)
}

/// Gives places back, once for each time that they are named, and lets the next go on. Says how many these are.
pub(crate) async fn free(tx: &mut SqliteConnection, places: &[i64], now: Timestamp) -> Result<u64> {
    let mut counted: BTreeMap<i64, u32> = BTreeMap::new();
    for place in places {
        *counted.entry(*place).or_default() += 1;
    }
    if counted.is_empty() {
        return Ok(0);
    }
    let freed: Vec<(i64, u32)> = counted.iter().map(|(&id, &count)| (id, count)).collect();
    sqlx::query(FREE)
        .bind(to_json(&freed)?)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let ids: Vec<i64> = counted.into_keys().collect();
    let rules = current_rules(tx).await?;
    release(tx, &rules, &ids, now).await
}

/// Lets the next of these lines go on for whom there is room; says how many they are.
pub(super) async fn release(
    tx: &mut SqliteConnection,
    rules: &Rules,
    uses: &[i64],
    now: Timestamp,
) -> Result<u64> {
    if uses.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    for line in read_uses(tx, rules, &[], uses, now).await? {
        if line.state.has_line {
            count += release_one(tx, &line, now).await?;
        }
    }
    Ok(count)
}

async fn release_one(tx: &mut SqliteConnection, line: &Use, now: Timestamp) -> Result<u64> {
    let mut room = line.state.room().min(RELEASED_AT_ONCE) as usize;
    let mut released = 0;
    while room > 0 {
        let heads = heads(tx, line.state.id, room).await?;
        let next = next_in_line(heads, room, line.released + released);
        if next.is_empty() {
            break;
        }
        for id in next {
            // What was cancelled or has expired meanwhile is forgotten.
            if let_go(tx, id, now).await? {
                set_released(tx, id, now).await?;
                released += 1;
                room -= 1;
            } else {
                forget(tx, id).await?;
            }
        }
    }
    if released > 0 {
        sqlx::query(COUNT_RELEASED)
            .bind(line.state.id)
            .bind(released)
            .execute(tx)
            .await
            .map_err(failed(DOING))?;
    }
    Ok(released.unsigned_abs())
}

async fn heads(tx: &mut SqliteConnection, of: i64, room: usize) -> Result<Vec<Head>> {
    let mut heads = Vec::new();
    for priority in Priority::ALL {
        let rows = sqlx::query(HEADS)
            .bind(of)
            .bind(priority as u8)
            .bind(i64::try_from(room).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        for row in &rows {
            let id: Uuid = Fields(row).get("task_id")?;
            heads.push(Head {
                id: id.into(),
                priority,
                since: Fields(row).time("since")?,
            });
        }
    }
    Ok(heads)
}

/// Makes it due; says whether it still waited.
pub(super) async fn let_go(tx: &mut SqliteConnection, id: TaskId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query(LET_GO)
        .bind(id.as_uuid())
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(done.rows_affected() > 0)
}

async fn set_released(tx: &mut SqliteConnection, id: TaskId, now: Timestamp) -> Result<()> {
    sqlx::query(RELEASE)
        .bind(id.as_uuid())
        .bind(phase::RELEASED)
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

pub(super) async fn forget(tx: &mut SqliteConnection, id: TaskId) -> Result<()> {
    sqlx::query(FORGET)
        .bind(id.as_uuid())
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

/// Takes a task that was cancelled, or has expired, out of its line, and gives back what it had been given. Costs one
/// look where no limit held it back.
pub(crate) async fn leave(tx: &mut SqliteConnection, id: TaskId, now: Timestamp) -> Result<()> {
    let row = sqlx::query(OF_WAITING)
        .bind(id.as_uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let Some(row) = row else { return Ok(()) };
    let places: Vec<i64> = match Fields(&row).get::<Option<&str>>("holds")? {
        Some(_) => Fields(&row).list("holds")?,
        None => Vec::new(),
    };
    let of: i64 = Fields(&row).get("use_id")?;
    forget(tx, id).await?;
    free(tx, &places, now).await?;
    let rules = current_rules(tx).await?;
    release(tx, &rules, &[of], now).await.map(|_| ())
}
