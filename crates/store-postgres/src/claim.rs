//! Claiming: a delivery becomes a running task of one worker, or is turned away.

use std::collections::HashMap;

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Json, Lane, Submission, TaskId, TraceParent, WorkerId};
use forebay_store::{ClaimRequest, Claimed, Delivered, Result, StoreError};
use futures::future::try_join;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    error,
    hot::{Params, column, query},
    record::{self, Columns, apart_from_their_windows},
    values::{Instant, count, duration, duration_us, int, word},
};

const DOING: &str = "claim tasks";

/// A task and the number of starts that its delivery names: what a grant answers.
type Start = (TaskId, u32);
type Grants = HashMap<Start, Claimed>;

/// Claims a batch: what comes as a submission in one statement, what was recorded before in another.
pub(crate) async fn claim(
    client: &mut Client,
    worker: WorkerId,
    claim: ClaimId,
    batch: &[ClaimRequest],
) -> Result<Vec<Option<Claimed>>> {
    let (fresh, mut recorded) = sort_out(client, batch).await?;
    let by = (worker.as_uuid(), claim.as_uuid());
    let mut grants = Grants::new();
    if !fresh.is_empty() {
        for part in apart_from_their_windows(&fresh, |(task, _)| task.id) {
            grants.extend(claim_fresh(client, by, &part).await?);
        }
        // What was brought back before its first start waits for a time, and may be due.
        recorded.extend(fresh.into_iter().map(|(_, request)| request));
    }
    recorded.retain(|request| !grants.contains_key(&start_of(request)));
    recorded.sort_by_key(|request| start_of(request));
    recorded.dedup_by_key(|request| start_of(request));
    if !recorded.is_empty() {
        grants.extend(claim_recorded(client, by, &recorded).await?);
    }
    if grants.is_empty() && !is_known(client, worker).await? {
        return Err(StoreError::WorkerGone);
    }
    // A delivery that is in the batch twice is granted once.
    Ok(batch
        .iter()
        .map(|request| grants.remove(&start_of(request)))
        .collect())
}

fn start_of(request: &ClaimRequest) -> Start {
    (request.delivered.id(), request.delivered.fence())
}

/// Divides a batch into new submissions, sorted by id, and tasks that are recorded. A submission with a `run_at` does
/// not come through a lane; should one all the same, it is recorded here and taken for one that was.
async fn sort_out<'a>(
    client: &Client,
    batch: &'a [ClaimRequest],
) -> Result<(Vec<(&'a Submission, &'a ClaimRequest)>, Vec<&'a ClaimRequest>)> {
    let (mut fresh, mut recorded, mut parked) = (Vec::new(), Vec::new(), Vec::new());
    for request in batch {
        match &request.delivered {
            Delivered::Submission(task) if task.run_at.is_none() => fresh.push((task, request)),
            Delivered::Submission(task) => {
                parked.push(task.clone());
                recorded.push(request);
            }
            Delivered::Ready(_) => recorded.push(request),
        }
    }
    if !parked.is_empty() {
        record::record(client, &parked).await?;
    }
    fresh.sort_by_key(|(task, _)| task.id);
    fresh.dedup_by_key(|(task, _)| task.id);
    Ok((fresh, recorded))
}

async fn claim_fresh(
    client: &Client,
    (worker, claim): (Uuid, Uuid),
    fresh: &[&(&Submission, &ClaimRequest)],
) -> Result<Grants> {
    let mut c = Columns::default();
    for (task, request) in fresh {
        c.push(task);
        // In place of the submitter's gaps, what the handler says.
        let last = c.id.len() - 1;
        c.max_attempts[last].get_or_insert(int(request.max_attempts));
        c.timeout_us[last].get_or_insert(duration_us(request.timeout));
    }
    let params: Params<'_> = &[
        &worker,
        &claim,
        &c.id,
        &c.previous,
        &c.project,
        &c.kind,
        &c.queue,
        &c.priority,
        &c.payload,
        &c.tags,
        &c.max_attempts,
        &c.timeout_us,
        &c.created_at,
        &c.fingerprint,
        &c.traceparent,
    ];
    let rows = query(client, DOING, include_str!("../queries/tasks_claim.sql"), params).await?;
    let payloads: HashMap<TaskId, &Json> = fresh.iter().map(|(task, _)| (task.id, &task.payload)).collect();
    rows.iter().map(|row| grant(row, &payloads)).collect()
}

async fn claim_recorded(
    client: &mut Client,
    (worker, claim): (Uuid, Uuid),
    recorded: &[&ClaimRequest],
) -> Result<Grants> {
    let id: Vec<Uuid> = recorded.iter().map(|r| r.delivered.id().as_uuid()).collect();
    let fence: Vec<i32> = recorded.iter().map(|r| int(r.delivered.fence())).collect();
    let max_attempts: Vec<i32> = recorded.iter().map(|r| int(r.max_attempts)).collect();
    let timeout_us: Vec<i64> = recorded.iter().map(|r| duration_us(r.timeout)).collect();
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let due: Params<'_> = &[&id, &fence];
    let tasks: Params<'_> = &[&worker, &claim, &id, &fence, &max_attempts, &timeout_us];
    // Pipelined: the second is sent without waiting for the answer to the first.
    let (_, rows) = try_join(
        query(&transaction, DOING, include_str!("../queries/due_take.sql"), due),
        query(
            &transaction,
            DOING,
            include_str!("../queries/tasks_claim_ready.sql"),
            tasks,
        ),
    )
    .await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    let none = HashMap::new();
    rows.iter().map(|row| grant(row, &none)).collect()
}

/// A granted row. Its payload is the row's, or else that of the delivery.
fn grant(row: &Row, payloads: &HashMap<TaskId, &Json>) -> Result<(Start, Claimed)> {
    let id = TaskId::from(column::<Uuid>(row, "id")?);
    let fence = count(column(row, "fence")?)?;
    let payload = match column::<Option<String>>(row, "payload")? {
        Some(text) => Json::from_trusted(text.into()).map_err(error::corrupt)?,
        None => payloads
            .get(&id)
            .map(|&payload| payload.clone())
            .ok_or_else(|| error::corrupt(format!("task {id} without a payload")))?,
    };
    let claimed = Claimed {
        id,
        fence,
        attempt: count(column(row, "attempt")?)?,
        max_attempts: count(column(row, "max_attempts")?)?,
        timeout: duration(column(row, "timeout_us")?),
        project: word(column(row, "project")?)?,
        kind: word(column(row, "kind")?)?,
        lane: Lane::new(word(column(row, "queue")?)?, word(column(row, "priority")?)?),
        payload,
        queued_at: column::<Instant>(row, "queued_at")?.0,
        traceparent: column::<Option<&str>>(row, "traceparent")?.and_then(TraceParent::parse),
    };
    let started_before = fence
        .checked_sub(1)
        .ok_or_else(|| error::corrupt(format!("task {id} runs unstarted")))?;
    Ok(((id, started_before), claimed))
}

async fn is_known(client: &Client, worker: WorkerId) -> Result<bool> {
    let sql = include_str!("../queries/workers_exists.sql");
    let rows = query(client, DOING, sql, &[&worker.as_uuid()]).await?;
    rows.first()
        .map_or(Ok(false), |row| row.try_get(0).map_err(error::corrupt))
}
