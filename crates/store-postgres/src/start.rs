//! Recording and claiming in one statement: what a recorder starts in its own process.

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Submission, WorkerId};
use forebay_store::{Claimed, Result, StartRequest};
use tokio_postgres::error::SqlState;

use crate::{
    day::Days,
    error,
    hot::{Params, nth_column},
    record::Columns,
    values::{Instant, duration_us, int},
};

const DOING: &str = "record and claim tasks";

/// Starts submissions that look new; `None`, and nothing was done, where one of them is known, or this claim was made
/// before.
pub(crate) async fn start_new(
    client: &Client,
    days: &Days,
    worker: WorkerId,
    claim: ClaimId,
    batch: &[StartRequest],
) -> Result<Option<Vec<Claimed>>> {
    let mut sorted: Vec<&StartRequest> = batch.iter().collect();
    sorted.sort_by_key(|request| request.task.id);
    let tasks: Vec<&Submission> = sorted.iter().map(|request| &request.task).collect();
    let c = Columns::of(&tasks);
    let max_attempts: Vec<i32> = sorted
        .iter()
        .map(|it| int(it.task.max_attempts.unwrap_or(it.max_attempts)))
        .collect();
    let timeout_us: Vec<i64> = sorted
        .iter()
        .map(|it| duration_us(it.task.timeout.unwrap_or(it.timeout)))
        .collect();
    let params: Params<'_> = &[
        &worker.as_uuid(),
        &claim.as_uuid(),
        &c.id,
        &c.project,
        &c.kind,
        &c.queue,
        &c.priority,
        &c.payload,
        &c.tags,
        &max_attempts,
        &timeout_us,
        &c.created_at,
        &c.traceparent,
    ];
    let sql = include_str!("../queries/tasks_start.sql");
    let rows = match days.query(client, sql, &c.id, params).await {
        Ok(rows) => rows,
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => return Ok(None),
        Err(error) => return Err(error::hot(DOING, error)),
    };
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("the clock does not answer"))?;
    let now = nth_column::<Instant>(row, 0)?.0;
    Ok(Some(batch.iter().map(|request| request.started(now)).collect()))
}
