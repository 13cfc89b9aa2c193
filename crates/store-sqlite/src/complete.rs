//! Writing outcomes.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use forebay_core::{AttemptError, Decision, State, TaskId, Timestamp, WorkerId, sanitize_text};
use forebay_store::{Completed, Completion, Result};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    error::failed,
    limits,
    row::{Fields, hex, micros_of, to_json},
};

const SUCCEED: &str = include_str!("../queries/succeed.sql");
const COMPLETE: &str = include_str!("../queries/complete.sql");
const COMPLETED_BEFORE: &str = include_str!("../queries/completed_before.sql");
const DOING: &str = "write outcomes";

/// Writes a batch of outcomes in one transaction.
pub(crate) async fn complete(
    store: &SqliteStore,
    worker: WorkerId,
    batch: &[Completion],
) -> Result<Vec<Completed>> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    let limited = batch.iter().filter(|it| it.limited).map(|it| (it.id, it.fence));
    let places = limits::holds_of_starts(&mut tx, worker, limited).await?;
    let succeeded = succeed(&mut tx, worker, batch, now).await?;
    let mut answers = Vec::with_capacity(batch.len());
    for completion in batch {
        let is_written = succeeded.contains(&(completion.id, completion.fence));
        answers.push(match (has_just_succeeded(completion), is_written) {
            (true, true) => Completed::Applied(State::Succeeded),
            (true, false) => completed_before(&mut tx, worker, completion).await?,
            (false, _) => complete_one(&mut tx, worker, completion, now).await?,
        });
    }
    let count = limits::free(&mut tx, &places, now).await?;
    tx.commit().await?;
    if count > 0 {
        store.released.store(true, Ordering::Relaxed);
    }
    Ok(answers)
}

fn has_just_succeeded(completion: &Completion) -> bool {
    completion.decision == Decision::Succeed && completion.error.is_none()
}

/// Writes all that succeeded in one statement, and says which were written.
async fn succeed(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    batch: &[Completion],
    now: Timestamp,
) -> Result<HashSet<(TaskId, u32)>> {
    let succeeded: Vec<Value> = batch
        .iter()
        .filter(|it| has_just_succeeded(it))
        .map(|it| {
            let result = it.result.as_ref().map(|json| json.as_str());
            let log = it.log.as_deref().map(sanitize_text);
            json!([hex(it.id), it.fence, result, log])
        })
        .collect();
    if succeeded.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query(SUCCEED)
        .bind(to_json(&succeeded)?)
        .bind(worker.as_uuid())
        .bind(micros_of(now))
        .fetch_all(tx)
        .await
        .map_err(failed(DOING))?;
    rows.iter()
        .map(|row| Ok((Fields(row).task_id()?, Fields(row).get("fence")?)))
        .collect()
}

/// What a decision leads to: the state, how many attempts are given back, and how long to wait.
fn consequence(decision: Decision) -> (State, u32, Duration) {
    match decision {
        Decision::Succeed => (State::Succeeded, 0, Duration::ZERO),
        Decision::Fail => (State::Failed, 0, Duration::ZERO),
        Decision::Cancel => (State::Cancelled, 0, Duration::ZERO),
        Decision::Retry { delay } => (State::Retrying, 0, delay),
        Decision::HandBack { delay } => (State::Retrying, 1, delay),
    }
}

async fn complete_one(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    completion: &Completion,
    now: Timestamp,
) -> Result<Completed> {
    let (state, given_back, delay) = consequence(completion.decision);
    let due = now.saturating_add(delay).unwrap_or(Timestamp::MAX);
    let result = completion.result.as_ref().filter(|_| state == State::Succeeded);
    let error = completion
        .error
        .as_ref()
        .map(|message| AttemptError::new(completion.attempt, completion.outcome, message, now));
    let row = sqlx::query(COMPLETE)
        .bind(completion.id.as_uuid())
        .bind(completion.fence)
        .bind(worker.as_uuid())
        .bind(state.as_str())
        .bind(given_back)
        .bind(micros_of(due))
        .bind(micros_of(now))
        .bind(result.map(|json| json.as_str()))
        .bind(completion.log.as_deref().map(sanitize_text))
        .bind(error.as_ref().map(to_json).transpose()?)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    match row {
        Some(row) => Fields(&row).text("state").map(Completed::Applied),
        None => completed_before(tx, worker, completion).await,
    }
}

async fn completed_before(
    tx: &mut SqliteConnection,
    worker: WorkerId,
    completion: &Completion,
) -> Result<Completed> {
    let row = sqlx::query(COMPLETED_BEFORE)
        .bind(completion.id.as_uuid())
        .bind(completion.fence)
        .bind(worker.as_uuid())
        .fetch_optional(tx)
        .await
        .map_err(failed(DOING))?;
    match row {
        Some(row) => Fields(&row).text("state").map(Completed::Applied),
        None => Ok(Completed::Fenced),
    }
}
