//! Writing outcomes.

use std::time::Duration;

use forebay_core::{AttemptError, Decision, State, Timestamp, WorkerId, sanitize_text};
use forebay_store::{Completed, Completion, Result};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    error::failed,
    row::{Fields, micros_of, to_json},
};

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
    let mut answers = Vec::with_capacity(batch.len());
    for completion in batch {
        answers.push(complete_one(&mut tx, worker, completion, now).await?);
    }
    tx.commit().await?;
    Ok(answers)
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
