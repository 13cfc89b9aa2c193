//! Workers as rows: they come, tell of themselves, stop or fall silent.

use std::{collections::BTreeMap, time::Duration};

use forebay_core::{
    AttemptError, Lane, Outcome, QueueName, TaskEvent, TaskId, Timestamp, WorkerId, WorkerInfo,
    from_unix_micros,
};
use forebay_store::{Heartbeat, HeartbeatReply, ProgressNote, Result, StoreError};
use serde_json::json;
use sqlx::{
    Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use uuid::Uuid;

use crate::{
    SqliteStore,
    error::failed,
    limits,
    row::{Fields, hex, micros_of, micros_of_duration, to_json},
};

const REGISTER: &str = include_str!("../queries/register.sql");
const HEARTBEAT: &str = include_str!("../queries/heartbeat.sql");
const PROGRESS: &str = include_str!("../queries/progress.sql");
const TO_CANCEL: &str = include_str!("../queries/to_cancel.sql");
const EXISTS: &str = include_str!("../queries/worker_exists.sql");
const HAND_BACK: &str = include_str!("../queries/hand_back.sql");
const FORGET: &str = include_str!("../queries/forget_worker.sql");
const SILENT: &str = include_str!("../queries/silent_workers.sql");
const TAKE_BACK: &str = include_str!("../queries/take_back.sql");
const WORKERS: &str = include_str!("../queries/workers.sql");
const WATERMARKS: &str = include_str!("../queries/watermarks.sql");
const BUSY: &str = include_str!("../queries/busy.sql");

/// How many dead workers are buried in one transaction; the next pass takes the rest.
const BURIED_AT_ONCE: i64 = 100;

/// Whether the worker is registered and was not declared dead.
pub(crate) async fn is_known(tx: &mut SqliteConnection, worker: WorkerId) -> Result<bool> {
    let row = sqlx::query(EXISTS)
        .bind(worker.as_uuid())
        .fetch_optional(tx)
        .await
        .map_err(failed("look for a worker"))?;
    Ok(row.is_some())
}

/// Binds all columns of a worker.
fn bind<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    beat: &Heartbeat,
    now: Timestamp,
) -> Result<Query<'q, Sqlite, SqliteArguments>> {
    let WorkerInfo {
        id,
        name,
        queues,
        slots,
        busy,
        finished,
        draining,
        started_at,
        heartbeat_at: _,
    } = &beat.worker;
    let queues: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
    let busy: Vec<(&str, u32)> = busy
        .iter()
        .map(|(queue, count)| (queue.as_str(), *count))
        .collect();
    let finished: Vec<(&str, u64)> = finished
        .iter()
        .map(|(queue, count)| (queue.as_str(), *count))
        .collect();
    let marks: Vec<(String, i64)> = beat
        .watermarks
        .iter()
        .map(|(lane, at)| (lane.to_string(), micros_of(*at)))
        .collect();
    Ok(query
        .bind(id.as_uuid())
        .bind(name.clone())
        .bind(to_json(&queues)?)
        .bind(to_json(&busy)?)
        .bind(to_json(&marks)?)
        .bind(*slots)
        .bind(*draining)
        .bind(micros_of(*started_at))
        .bind(micros_of(now))
        .bind(to_json(&finished)?))
}

pub(crate) async fn register(store: &SqliteStore, beat: &Heartbeat) -> Result<()> {
    const DOING: &str = "register a worker";
    let mut tx = store.begin(DOING).await?;
    bind(sqlx::query(REGISTER), beat, store.clock_now())?
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    tx.commit().await
}

pub(crate) async fn heartbeat(store: &SqliteStore, beat: &Heartbeat) -> Result<HeartbeatReply> {
    const DOING: &str = "renew a worker's life";
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    let renewed = bind(sqlx::query(HEARTBEAT), beat, now)?
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    if renewed.rows_affected() == 0 {
        tx.commit().await?;
        return Err(StoreError::WorkerGone);
    }
    if !beat.progress.is_empty() {
        write_progress(&mut tx, beat.worker.id, &beat.progress, now).await?;
    }
    let cancel: Vec<Uuid> = sqlx::query_scalar(TO_CANCEL)
        .bind(beat.worker.id.as_uuid())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    tx.commit().await?;
    Ok(HeartbeatReply {
        cancel: cancel.into_iter().map(TaskId::from).collect(),
    })
}

async fn write_progress(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    notes: &[ProgressNote],
    now: Timestamp,
) -> Result<()> {
    let mut rows = Vec::with_capacity(notes.len());
    for note in notes {
        let ProgressNote {
            fence,
            fraction,
            message,
            ..
        } = note;
        let kept = json!({ "fence": fence, "fraction": fraction, "message": message, "at": now });
        rows.push(json!([hex(note.id), fence, kept.to_string()]));
    }
    sqlx::query(PROGRESS)
        .bind(to_json(&rows)?)
        .bind(worker.as_uuid())
        .execute(tx)
        .await
        .map_err(failed("write progress"))?;
    Ok(())
}

pub(crate) async fn deregister(store: &SqliteStore, worker: WorkerId) -> Result<()> {
    const DOING: &str = "forget a worker that stopped";
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    let places = limits::holds_of_worker(&mut tx, worker).await?;
    sqlx::query(HAND_BACK)
        .bind(worker.as_uuid())
        .bind(micros_of(now))
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    limits::free(&mut tx, &places, now).await?;
    forget(&mut tx, worker, DOING).await?;
    tx.commit().await
}

async fn forget(tx: &mut SqliteConnection, worker: WorkerId, doing: &'static str) -> Result<()> {
    sqlx::query(FORGET)
        .bind(worker.as_uuid())
        .execute(tx)
        .await
        .map_err(failed(doing))?;
    Ok(())
}

pub(crate) async fn take_back(store: &SqliteStore, lease: Duration, lost_max: u32) -> Result<Vec<TaskEvent>> {
    const DOING: &str = "take back the tasks of dead workers";
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    let silent_since = micros_of(now).saturating_sub(micros_of_duration(lease));
    let dead: Vec<Uuid> = sqlx::query_scalar(SILENT)
        .bind(silent_since)
        .bind(BURIED_AT_ONCE)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let mut events = Vec::new();
    for worker in dead {
        events.append(&mut bury(&mut tx, worker.into(), lost_max, now).await?);
    }
    tx.commit().await?;
    Ok(events)
}

/// Takes back what one worker holds, and forgets it.
async fn bury(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    lost_max: u32,
    now: Timestamp,
) -> Result<Vec<TaskEvent>> {
    const DOING: &str = "take back the tasks of a dead worker";
    let lost = AttemptError::new(0, Outcome::Lost, "", now);
    let places = limits::holds_of_worker(tx, worker).await?;
    let rows = sqlx::query(TAKE_BACK)
        .bind(worker.as_uuid())
        .bind(lost_max)
        .bind(micros_of(now))
        .bind(to_json(&lost)?)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    limits::free(tx, &places, now).await?;
    forget(tx, worker, DOING).await?;
    rows.iter().map(|row| Fields(row).event(now)).collect()
}

/// What runs under a worker that is not known was taken from it before.
pub(crate) async fn abandon(store: &SqliteStore, worker: WorkerId, lost_max: u32) -> Result<Vec<TaskEvent>> {
    let mut tx = store.begin("take back the tasks of a worker").await?;
    let events = bury(&mut tx, worker, lost_max, store.clock_now()).await?;
    tx.commit().await?;
    Ok(events)
}

pub(crate) async fn workers(store: &SqliteStore) -> Result<Vec<WorkerInfo>> {
    const DOING: &str = "list the workers";
    let rows = sqlx::query(WORKERS)
        .fetch_all(&mut *store.reader(DOING).await?)
        .await
        .map_err(failed(DOING))?;
    rows.iter().map(info).collect()
}

fn info(row: &SqliteRow) -> Result<WorkerInfo> {
    let fields = Fields(row);
    let queues: Vec<String> = fields.list("queues")?;
    Ok(WorkerInfo {
        id: fields.get::<Uuid>("id")?.into(),
        name: fields.get("name")?,
        queues: queues.iter().map(|name| queue(name)).collect::<Result<_>>()?,
        slots: fields.get("slots")?,
        busy: busy_of(row)?,
        finished: finished_of(row)?,
        draining: fields.get("draining")?,
        started_at: fields.time("started_at")?,
        heartbeat_at: fields.time("heartbeat_at")?,
    })
}

fn queue(name: &str) -> Result<QueueName> {
    name.parse()
        .map_err(|e| StoreError::Corrupt(format!("a queue named {name:?}: {e}")))
}

fn busy_of(row: &SqliteRow) -> Result<Vec<(QueueName, u32)>> {
    let busy: Vec<(String, u32)> = Fields(row).list("busy")?;
    busy.into_iter()
        .map(|(name, count)| Ok((queue(&name)?, count)))
        .collect()
}

fn finished_of(row: &SqliteRow) -> Result<Vec<(QueueName, u64)>> {
    let finished: Vec<(String, u64)> = Fields(row).list("finished")?;
    finished
        .into_iter()
        .map(|(name, count)| Ok((queue(&name)?, count)))
        .collect()
}

/// How many tasks of each queue run, by the workers' latest word.
pub(crate) async fn busy(reader: &mut SqliteConnection) -> Result<BTreeMap<QueueName, u64>> {
    let rows = sqlx::query(BUSY)
        .fetch_all(reader)
        .await
        .map_err(failed("count what runs"))?;
    let mut sums = BTreeMap::new();
    for row in &rows {
        for (queue, count) in busy_of(row)? {
            *sums.entry(queue).or_default() += u64::from(count);
        }
    }
    Ok(sums)
}

pub(crate) async fn watermarks(store: &SqliteStore) -> Result<Vec<(Lane, Timestamp)>> {
    const DOING: &str = "read the watermarks";
    let rows = sqlx::query(WATERMARKS)
        .fetch_all(&mut *store.reader(DOING).await?)
        .await
        .map_err(failed(DOING))?;
    let mut newest: BTreeMap<Lane, i64> = BTreeMap::new();
    for row in &rows {
        let marks: Vec<(String, i64)> = Fields(row).list("watermarks")?;
        for (lane, at) in marks {
            let lane = lane
                .parse()
                .map_err(|e| StoreError::Corrupt(format!("a lane named {lane:?}: {e}")))?;
            let mark = newest.entry(lane).or_insert(at);
            *mark = at.max(*mark);
        }
    }
    Ok(newest
        .into_iter()
        .map(|(lane, at)| (lane, from_unix_micros(at)))
        .collect())
}
