//! Claiming what became ready.

use std::collections::HashMap;

use forebay_core::{Json, TaskId, Timestamp, WorkerId};
use forebay_store::{ClaimRequest, Claimed, Result, StoreError};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    SqliteStore,
    error::failed,
    limits,
    row::{Fields, hex, micros_of, micros_of_duration, to_json},
    workers::is_known,
};

const CLAIM: &str = include_str!("../queries/claim.sql");
const DOING: &str = "claim tasks";

/// Claims a batch in one statement: each is a way to the thread of the connection and back.
pub(crate) async fn claim(
    store: &SqliteStore,
    worker: WorkerId,
    batch: &[ClaimRequest],
) -> Result<Vec<Option<Claimed>>> {
    let mut tx = store.begin(DOING).await?;
    if !is_known(&mut tx, worker).await? {
        tx.commit().await?;
        return Err(StoreError::WorkerGone);
    }
    let now = store.clock_now();
    let mut answers = vec![None; batch.len()];
    // The first of those that ask for a start: a batch that names a task twice must not make the worker run it twice.
    let mut places = HashMap::with_capacity(batch.len());
    for (index, request) in batch.iter().enumerate() {
        places
            .entry((request.ready.id, request.ready.fence + 1))
            .or_insert(index);
    }
    let allowed = allowed(store, &mut tx, batch, now).await?;
    for row in claim_all(&mut tx, worker, &allowed, now).await? {
        let (id, fence): (TaskId, u32) = (Fields(&row).task_id()?, Fields(&row).get("fence")?);
        let &index = places
            .get(&(id, fence))
            .ok_or_else(|| StoreError::Corrupt(format!("task {id} was not asked for")))?;
        answers[index] = Some(claimed(&row, &batch[index])?);
    }
    tx.commit().await?;
    Ok(answers)
}

/// What no limit holds back.
async fn allowed<'a>(
    store: &SqliteStore,
    tx: &mut SqliteConnection,
    batch: &'a [ClaimRequest],
    now: Timestamp,
) -> Result<Vec<&'a ClaimRequest>> {
    let rules = limits::rules(store, tx).await?;
    let (concerned, mut allowed): (Vec<&ClaimRequest>, Vec<&ClaimRequest>) = batch
        .iter()
        .partition(|it| rules.concern(&it.ready.lane.queue, &it.ready.kind));
    if !concerned.is_empty() {
        allowed.extend(limits::claimable(tx, &rules, &concerned, now).await?);
    }
    Ok(allowed)
}

async fn claim_all(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    batch: &[&ClaimRequest],
    now: Timestamp,
) -> Result<Vec<SqliteRow>> {
    let requests: Vec<Value> = batch
        .iter()
        .map(|it| {
            let timeout = micros_of_duration(it.timeout);
            json!([hex(it.ready.id), it.ready.fence, it.max_attempts, timeout])
        })
        .collect();
    sqlx::query(CLAIM)
        .bind(to_json(&requests)?)
        .bind(worker.as_uuid())
        .bind(micros_of(now))
        .fetch_all(tx)
        .await
        .map_err(failed(DOING))
}

fn claimed(row: &SqliteRow, request: &ClaimRequest) -> Result<Claimed> {
    let fields = Fields(row);
    Ok(Claimed {
        id: fields.task_id()?,
        fence: fields.get("fence")?,
        attempt: fields.get("attempt")?,
        max_attempts: fields.get("max_attempts")?,
        timeout: fields.duration("timeout")?.unwrap_or(request.timeout),
        project: fields.text("project")?,
        kind: fields.text("kind")?,
        lane: fields.lane()?,
        payload: fields.json("payload")?.unwrap_or_else(Json::null),
        queued_at: fields.time("queued_at")?,
        traceparent: fields.traceparent()?,
        terms: fields.terms()?,
        limited: fields.get("limited")?,
    })
}
