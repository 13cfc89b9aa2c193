//! The life of workers: while one is heard of, its tasks are its own; afterwards they are taken back.

use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use forebay_core::{Lane, TaskEvent, TaskId, Timestamp, WorkerId, from_unix_micros, sanitize_text};
use forebay_store::{Heartbeat, HeartbeatReply, ProgressNote, Result, StoreError};
use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    day::Days,
    error,
    hot::{Params, column, query},
    limits,
    values::{Instant, count, duration_us, int, word},
};

/// What a heartbeat says, as the statements take it.
struct Said<'a> {
    id: Uuid,
    name: String,
    queues: Vec<&'a str>,
    slots: i32,
    busy: Value,
    finished: Value,
    draining: bool,
    watermarks: Value,
}

impl<'a> Said<'a> {
    fn of(beat: &'a Heartbeat) -> Self {
        let worker = &beat.worker;
        let busy = worker
            .busy
            .iter()
            .map(|(queue, tasks)| json!([queue.as_str(), tasks]))
            .collect();
        let finished = worker
            .finished
            .iter()
            .map(|(queue, attempts)| json!([queue.as_str(), attempts]))
            .collect();
        let watermarks: Map<String, Value> = beat
            .watermarks
            .iter()
            .map(|(lane, newest)| (lane.to_string(), newest.as_microsecond().into()))
            .collect();
        Self {
            id: worker.id.as_uuid(),
            name: sanitize_text(&worker.name),
            queues: worker.queues.iter().map(|queue| queue.as_str()).collect(),
            slots: int(worker.slots),
            busy: Value::Array(busy),
            finished: Value::Array(finished),
            draining: worker.draining,
            watermarks: Value::Object(watermarks),
        }
    }
}

pub(crate) async fn register(client: &Client, beat: &Heartbeat) -> Result<()> {
    let said = Said::of(beat);
    let started_at = Instant(beat.worker.started_at);
    query(
        client,
        "register a worker",
        include_str!("../queries/workers_register.sql"),
        &[
            &said.id,
            &said.name,
            &said.queues,
            &said.slots,
            &said.busy,
            &said.draining,
            &started_at,
            &said.watermarks,
            &said.finished,
        ],
    )
    .await?;
    Ok(())
}

pub(crate) async fn heartbeat(client: &Client, days: &Days, beat: &Heartbeat) -> Result<HeartbeatReply> {
    let said = Said::of(beat);
    let rows = query(
        client,
        "renew a worker",
        include_str!("../queries/workers_heartbeat.sql"),
        &[
            &said.id,
            &said.name,
            &said.queues,
            &said.slots,
            &said.busy,
            &said.draining,
            &said.watermarks,
            &said.finished,
        ],
    )
    .await?;
    let alive = rows.first().ok_or(StoreError::WorkerGone)?;
    let cancel: Vec<Uuid> = column(alive, "cancel")?;
    if !beat.progress.is_empty() {
        // The worker lives, and is told what to cancel, whatever becomes of this. What its tasks say next is written again.
        let _ = write_progress(client, days, beat.worker.id, &beat.progress).await;
    }
    Ok(HeartbeatReply {
        cancel: cancel.into_iter().map(TaskId::from).collect(),
    })
}

async fn write_progress(
    client: &Client,
    days: &Days,
    worker: WorkerId,
    notes: &[ProgressNote],
) -> Result<()> {
    let mut sorted: Vec<&ProgressNote> = notes.iter().collect();
    sorted.sort_by_key(|note| note.id);
    let id: Vec<Uuid> = sorted.iter().map(|note| note.id.as_uuid()).collect();
    let fence: Vec<i32> = sorted.iter().map(|note| int(note.fence)).collect();
    let fraction: Vec<f64> = sorted.iter().map(|note| note.fraction).collect();
    let message: Vec<&str> = sorted.iter().map(|note| note.message.as_str()).collect();
    let params: Params<'_> = &[&worker.as_uuid(), &id, &fence, &fraction, &message];
    let sql = include_str!("../queries/tasks_progress.sql");
    let written = days.execute(client, sql, &id, params).await;
    written.map_err(|e| error::hot("write progress", e))?;
    Ok(())
}

/// Takes from one worker what it still holds: hands it back where the worker stops, and takes it back where it has died,
/// for which `lost_max` is given.
pub(crate) async fn forget(
    client: &mut Client,
    worker: WorkerId,
    lost_max: Option<u32>,
) -> Result<Vec<TaskEvent>> {
    const DOING: &str = "forget a worker";
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let sql = include_str!("../queries/workers_lock.sql");
    let known = query(&transaction, DOING, sql, &[&worker.as_uuid()]).await?;
    let events = match known.is_empty() {
        true => Vec::new(),
        false => release(&transaction, DOING, &[worker.as_uuid()], lost_max).await?,
    };
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(events)
}

/// Takes back what the workers hold that were not heard of within the lease.
pub(crate) async fn take_back(client: &mut Client, lease: Duration, lost_max: u32) -> Result<Vec<TaskEvent>> {
    const DOING: &str = "take tasks back";
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let sql = include_str!("../queries/workers_lock_dead.sql");
    let rows = query(&transaction, DOING, sql, &[&duration_us(lease)]).await?;
    let dead: Vec<Uuid> = rows.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    let events = match dead.is_empty() {
        true => Vec::new(),
        false => release(&transaction, DOING, &dead, Some(lost_max)).await?,
    };
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(events)
}

/// Takes from workers, whose rows are locked, what runs under them, and forgets them. `lost_max` is given where they
/// died. A statement of its own, so that it sees the claims that were committed before the lock was got.
async fn release(
    transaction: &Transaction<'_>,
    doing: &'static str,
    workers: &[Uuid],
    lost_max: Option<u32>,
) -> Result<Vec<TaskEvent>> {
    let sql = include_str!("../queries/workers_release.sql");
    let (died, lost_max) = (lost_max.is_some(), int(lost_max.unwrap_or(u32::MAX)));
    let rows = query(transaction, doing, sql, &[&workers, &died, &lost_max]).await?;
    give_back(transaction, doing, workers, &rows).await?;
    query(
        transaction,
        doing,
        include_str!("../queries/workers_forget.sql"),
        &[&workers],
    )
    .await?;
    rows.iter().map(event).collect()
}

/// Gives back the places of limits that these tasks held, and those that the workers had in advance.
async fn give_back(
    transaction: &Transaction<'_>,
    doing: &'static str,
    workers: &[Uuid],
    rows: &[Row],
) -> Result<()> {
    let (mut tasks, mut places) = (Vec::new(), Vec::new());
    let allotted = limits::drop_allotted(transaction, workers, None).await?;
    for row in rows {
        if let Some(mut held) = column::<Option<Vec<i64>>>(row, "holds")? {
            tasks.push(column::<Uuid>(row, "id")?);
            places.append(&mut held);
        }
    }
    if !tasks.is_empty() {
        let sql = include_str!("../queries/tasks_drop_holds.sql");
        query(transaction, doing, sql, &[&tasks]).await?;
    }
    limits::free_with(transaction, &places, allotted).await?;
    Ok(())
}

/// A row that says what became of a task.
pub(crate) fn event(row: &Row) -> Result<TaskEvent> {
    Ok(TaskEvent {
        id: TaskId::from(column::<Uuid>(row, "id")?),
        kind: word(column(row, "kind")?)?,
        queue: word(column(row, "queue")?)?,
        state: word(column(row, "state")?)?,
        attempt: count(column(row, "attempt")?)?,
        at: column::<Instant>(row, "at")?.0,
    })
}

pub(crate) async fn watermarks(client: &Client) -> Result<Vec<(Lane, Timestamp)>> {
    let sql = include_str!("../queries/workers_watermarks.sql");
    let rows = query(client, "read the watermarks", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok((
                word(column(row, "lane")?)?,
                from_unix_micros(column(row, "newest")?),
            ))
        })
        .collect()
}
