//! Claiming deliveries.

use std::collections::HashSet;

use forebay_core::{Json, Submission, Timestamp, WorkerId};
use forebay_store::{ClaimRequest, Claimed, Delivered, Result, StoreError};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    SqliteStore,
    error::failed,
    record::{insert, known_fingerprint, note_queues},
    row::{Fields, micros_of, micros_of_duration},
    workers::is_known,
};

const CLAIM: &str = include_str!("../queries/claim.sql");
const DOING: &str = "claim tasks";

/// Claims a batch in one transaction.
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
    let mut answers = Vec::with_capacity(batch.len());
    let mut granted = HashSet::new();
    for request in batch {
        // The same claim is granted as often as it is asked for, but a batch that names a task twice must not make
        // the worker run it twice.
        let answer = if granted.contains(&request.delivered.id()) {
            None
        } else {
            claim_one(&mut tx, worker, request, now).await?
        };
        granted.extend(answer.as_ref().map(|it| it.id));
        answers.push(answer);
    }
    tx.commit().await?;
    Ok(answers)
}

async fn claim_one(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Option<Claimed>> {
    if let Some(claimed) = claim_recorded(tx, worker, request, now).await? {
        return Ok(Some(claimed));
    }
    match &request.delivered {
        Delivered::Submission(task) if insert_unrecorded(tx, task, now).await? => {
            claim_recorded(tx, worker, request, now).await
        }
        _ => Ok(None),
    }
}

/// Inserts a submission that comes before the recorder; says whether it did.
async fn insert_unrecorded(tx: &mut SqliteConnection, task: &Submission, now: Timestamp) -> Result<bool> {
    if let Some(before) = task.id.previous_window()
        && known_fingerprint(tx, before).await?.is_some()
    {
        return Ok(false);
    }
    let inserted = insert(tx, task, now).await?;
    if inserted {
        note_queues(tx, std::slice::from_ref(&task.lane.queue), now).await?;
    }
    Ok(inserted)
}

async fn claim_recorded(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Option<Claimed>> {
    let row = sqlx::query(CLAIM)
        .bind(request.delivered.id().as_uuid())
        .bind(request.delivered.fence())
        .bind(worker.as_uuid())
        .bind(micros_of(now))
        .bind(request.max_attempts)
        .bind(micros_of_duration(request.timeout))
        .fetch_optional(tx)
        .await
        .map_err(failed(DOING))?;
    row.map(|row| claimed(&row, request)).transpose()
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
    })
}
