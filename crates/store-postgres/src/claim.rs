//! Claiming: what became ready becomes a running task of one worker, or is turned away.

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Json, Project, TaskId, TraceParent, WorkerId};
use forebay_store::{ClaimRequest, Claimed, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    day::Days,
    error,
    hot::{Params, execute, nth_column},
    limits::{self, Known, Needs},
    values::{Instant, count, duration, duration_us, int, terms, word},
};

const DOING: &str = "claim tasks";

/// A request, with its place in the batch.
pub(crate) type Wanted<'a> = (usize, &'a ClaimRequest);

/// Claims a batch, in one statement; what counts to limits apart from the rest, and what has a place in advance apart from that. Where the claim is noted already, for other tasks,
/// the note stays even if it gets nothing here.
pub(crate) async fn claim(
    client: &mut Client,
    days: &Days,
    known: Known<'_>,
    worker: WorkerId,
    (claim, is_noted): (ClaimId, bool),
    batch: &[ClaimRequest],
) -> Result<Vec<Option<Claimed>>> {
    let (concerned, mut plain): (Vec<Wanted<'_>>, Vec<Wanted<'_>>) = in_order(batch)
        .into_iter()
        .partition(|(_, it)| known.rules.concern(&it.ready.lane.queue, &it.ready.kind));
    let (mut allotted, mut spare, mut look) = (Vec::new(), Vec::new(), Vec::new());
    let (needs, revision) = limits::needs(client, days, known, worker, &concerned).await?;
    for (it, needs) in concerned.into_iter().zip(needs) {
        match needs {
            Needs::Nothing => plain.push(it),
            Needs::Allotted(_) => allotted.push((it, needs.allotted())),
            Needs::Places(_) => spare.push((it, needs)),
            Needs::Look => look.push(it),
        }
    }
    let mut answers = vec![None; batch.len()];
    if !plain.is_empty() {
        plain.sort_by_key(start_of);
        let none = vec![None; plain.len()];
        let rows = write(client, days, (worker, claim), &plain, (None, &none)).await?;
        answer(&mut answers, &rows, &plain)?;
    }
    if !allotted.is_empty() {
        let (allotted, uses): (Vec<Wanted<'_>>, Vec<Option<String>>) = allotted.into_iter().unzip();
        let rows = write(client, days, (worker, claim), &allotted, (revision, &uses)).await?;
        answer(&mut answers, &rows, &allotted)?;
        if rows.is_empty() {
            known.allotments.doubt(worker);
        }
        look.extend(allotted.into_iter().filter(|(at, _)| answers[*at].is_none()));
    }
    if !spare.is_empty() {
        let rows = limits::claim_spare(client, days, (worker, claim), &spare).await?;
        let spare: Vec<Wanted<'_>> = spare.into_iter().map(|(it, _)| it).collect();
        answer(&mut answers, &rows, &spare)?;
        look.extend(spare.into_iter().filter(|(at, _)| answers[*at].is_none()));
    }
    if !look.is_empty() {
        look.sort_by_key(start_of);
        let (rows, granted) = limits::claim(client, days, known, (worker, claim), &look).await?;
        answer(&mut answers, &rows, &granted)?;
    }
    if !is_noted && answers.iter().all(Option::is_none) {
        forget(client, claim).await?;
    }
    Ok(answers)
}

fn answer(answers: &mut [Option<Claimed>], rows: &[Row], wanted: &[Wanted<'_>]) -> Result<()> {
    for row in rows {
        let number: i64 = nth_column(row, 0)?;
        let (index, request) = usize::try_from(number - 1)
            .ok()
            .and_then(|number| wanted.get(number).copied())
            .ok_or_else(|| error::corrupt("a claim that nobody asked for"))?;
        answers[index] = Some(claimed(row, request)?);
    }
    Ok(())
}

/// The requests with their places, sorted by id, as all batches are, and each start once: what is in the batch twice is
/// granted once.
fn in_order(batch: &[ClaimRequest]) -> Vec<Wanted<'_>> {
    let mut wanted: Vec<Wanted<'_>> = batch.iter().enumerate().collect();
    wanted.sort_by_key(start_of);
    wanted.dedup_by_key(|it| start_of(it));
    wanted
}

fn start_of((_, request): &Wanted<'_>) -> (TaskId, u32) {
    (request.ready.id, request.ready.fence)
}

async fn write(
    client: &Client,
    days: &Days,
    (worker, claim): (WorkerId, ClaimId),
    wanted: &[Wanted<'_>],
    (revision, allotted): (Option<i64>, &[Option<String>]),
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
        &revision,
        &allotted,
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
        terms: terms(nth_column(row, 8)?)?,
        limited: nth_column(row, 9)?,
    })
}
