//! Claiming: what became ready becomes a running task of one worker, or is turned away.

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Json, Project, TraceParent, WorkerId};
use forebay_store::{ClaimRequest, Claimed, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    day::Days,
    error,
    hot::{Params, execute, nth_column},
    values::{Instant, count, duration, duration_us, int, word},
};

const DOING: &str = "claim tasks";

/// Claims a batch, in one statement.
pub(crate) async fn claim(
    client: &Client,
    days: &Days,
    worker: WorkerId,
    claim: ClaimId,
    batch: &[ClaimRequest],
) -> Result<Vec<Option<Claimed>>> {
    let wanted = in_order(batch);
    let rows = write(client, days, worker, claim, &wanted).await?;
    if rows.is_empty() {
        forget(client, claim).await?;
    }
    let mut answers = vec![None; batch.len()];
    for row in &rows {
        let number: i64 = nth_column(row, 0)?;
        let (index, request) = usize::try_from(number - 1)
            .ok()
            .and_then(|number| wanted.get(number).copied())
            .ok_or_else(|| error::corrupt("a claim that nobody asked for"))?;
        answers[index] = Some(claimed(row, request)?);
    }
    Ok(answers)
}

/// The requests with their places, sorted by id, as all batches are, and each start once: what is in the batch twice is
/// granted once.
fn in_order(batch: &[ClaimRequest]) -> Vec<(usize, &ClaimRequest)> {
    let mut wanted: Vec<(usize, &ClaimRequest)> = batch.iter().enumerate().collect();
    wanted.sort_by_key(|(_, request)| (request.ready.id, request.ready.fence));
    wanted.dedup_by_key(|(_, request)| (request.ready.id, request.ready.fence));
    wanted
}

async fn write(
    client: &Client,
    days: &Days,
    worker: WorkerId,
    claim: ClaimId,
    wanted: &[(usize, &ClaimRequest)],
) -> Result<Vec<Row>> {
    let id: Vec<Uuid> = wanted.iter().map(|(_, it)| it.ready.id.as_uuid()).collect();
    let fence: Vec<i32> = wanted.iter().map(|(_, it)| int(it.ready.fence)).collect();
    let max_attempts: Vec<i32> = wanted.iter().map(|(_, it)| int(it.max_attempts)).collect();
    let timeout_us: Vec<i64> = wanted.iter().map(|(_, it)| duration_us(it.timeout)).collect();
    let params: Params<'_> = &[
        &worker.as_uuid(),
        &claim.as_uuid(),
        &id,
        &fence,
        &max_attempts,
        &timeout_us,
    ];
    let sql = include_str!("../queries/tasks_claim.sql");
    let rows = days.query(client, sql, &id, params).await;
    rows.map_err(|e| error::hot(DOING, e))
}

/// A claim that got nothing leaves no note. Should this fail, it stays until the worker stops, and does no harm.
async fn forget(client: &Client, claim: ClaimId) -> Result<()> {
    let sql = include_str!("../queries/claims_forget.sql");
    let forgotten = execute(client, sql, &[&vec![claim.as_uuid()]]).await;
    forgotten.map(|_| ()).map_err(|e| error::hot(DOING, e))
}

/// A granted row, and what the message said: kind and lane of a task never change.
fn claimed(row: &Row, request: &ClaimRequest) -> Result<Claimed> {
    let project: &str = nth_column(row, 4)?;
    let payload: &str = nth_column(row, 7)?;
    Ok(Claimed {
        id: request.ready.id,
        fence: request.ready.fence + 1,
        attempt: count(nth_column(row, 1)?)?,
        max_attempts: count(nth_column(row, 2)?)?,
        timeout: duration(nth_column(row, 3)?),
        project: word::<Project>(project)?,
        kind: request.ready.kind.clone(),
        lane: request.ready.lane.clone(),
        payload: Json::from_trusted(bytes::Bytes::copy_from_slice(payload.as_bytes()))
            .map_err(error::corrupt)?,
        queued_at: nth_column::<Instant>(row, 5)?.0,
        traceparent: nth_column::<Option<&str>>(row, 6)?.and_then(TraceParent::parse),
    })
}
