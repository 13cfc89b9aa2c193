//! Completing: the outcome of an attempt is written, once, where the attempt is the current one.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Duration,
};

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Decision, Json, State, TaskId, WorkerId, sanitize_text};
use forebay_store::{Completed, Completion, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    day::{Days, Prepares},
    error,
    hot::{Params, column, execute, query},
    limits,
    values::{count, duration_us, int, word},
};

const DOING: &str = "complete tasks";

type Start = (TaskId, u32);

/// Completions, each start once and sorted by id, as the arrays that the statement takes.
#[derive(Default)]
struct Columns<'a> {
    id: Vec<Uuid>,
    fence: Vec<i32>,
    attempt: Vec<i32>,
    outcome: Vec<&'static str>,
    state: Vec<&'static str>,
    charged: Vec<bool>,
    delay_us: Vec<i64>,
    result: Vec<Option<&'a str>>,
    error: Vec<Option<String>>,
    log: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, done: &'a Completion) {
        let (state, charged, delay) = written_as(done.decision);
        self.id.push(done.id.as_uuid());
        self.fence.push(int(done.fence));
        self.attempt.push(int(done.attempt));
        self.outcome.push(done.outcome.as_str());
        self.state.push(state.as_str());
        self.charged.push(charged);
        self.delay_us.push(duration_us(delay));
        self.result.push(result(done));
        self.error.push(done.error.as_deref().map(sanitize_text));
        self.log.push(log(done));
    }
}

fn result(done: &Completion) -> Option<&str> {
    done.result.as_ref().map(Json::as_str)
}

fn log(done: &Completion) -> Option<Cow<'_, str>> {
    let log = done.log.as_deref()?;
    Some(Cow::Owned(sanitize_text(log)))
}

/// The state that a decision leads to, whether the attempt is charged, and after what delay the next may start.
fn written_as(decision: Decision) -> (State, bool, Duration) {
    match decision {
        Decision::Succeed => (State::Succeeded, true, Duration::ZERO),
        Decision::Fail => (State::Failed, true, Duration::ZERO),
        Decision::Cancel => (State::Cancelled, true, Duration::ZERO),
        Decision::Retry { delay } => (State::Retrying, true, delay),
        Decision::HandBack { delay } => (State::Retrying, false, delay),
    }
}

fn start_of(done: &Completion) -> Start {
    (done.id, done.fence)
}

/// Writes a batch, and says of each completion whether it was written, now or before.
///
/// What succeeded is written last, and with it the claims are forgotten: a claim must not be while one of its tasks
/// could still run. Says with the answers how many tasks may go on that waited for limits.
pub(crate) async fn complete(
    client: &mut Client,
    days: &Days,
    worker: WorkerId,
    batch: &[Completion],
    released: &[ClaimId],
) -> Result<(Vec<Completed>, u64)> {
    let is_apart = |done: &&Completion| done.limited && !has_just_succeeded(done);
    let (apart, others): (Vec<&Completion>, Vec<&Completion>) = batch.iter().partition(is_apart);
    let (answers_apart, mut count) = match apart.is_empty() {
        true => (Vec::new(), 0),
        false => complete_limited(client, days, worker, &apart).await?,
    };
    let (answers, contended) = write_all(client, days, worker, &others, released).await?;
    if !contended.is_empty() {
        count += limits::pass_on(client, &contended).await?;
    }
    let (mut answers_apart, mut answers) = (answers_apart.into_iter(), answers.into_iter());
    let mut answer = |done: &Completion| match is_apart(&done) {
        true => answers_apart.next(),
        false => answers.next(),
    };
    Ok((batch.iter().filter_map(&mut answer).collect(), count))
}

/// Writes what has not just succeeded, and gives back the places that it holds.
async fn complete_limited(
    client: &mut Client,
    days: &Days,
    worker: WorkerId,
    batch: &[&Completion],
) -> Result<(Vec<Completed>, u64)> {
    let mut starts: Vec<Start> = batch.iter().map(|done| start_of(done)).collect();
    starts.sort_unstable();
    starts.dedup();
    let id: Vec<Uuid> = starts.iter().map(|(id, _)| id.as_uuid()).collect();
    let fence: Vec<i32> = starts.iter().map(|(_, fence)| int(*fence)).collect();
    let sql = include_str!("../queries/tasks_lock_holds.sql");
    for sql in [sql, include_str!("../queries/tasks_complete.sql")] {
        let prepared = days.prepare(client, sql, &id).await;
        prepared.map_err(|e| error::hot(DOING, e))?;
    }
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let worker_id = worker.as_uuid();
    let params: Params<'_> = &[&worker_id, &id, &fence];
    // Sent together, in this order: their places are read before they have ended.
    let (rows, answers) = futures::join!(
        days.query(&transaction, sql, &id, params),
        write_all(&transaction, days, worker, batch, &[])
    );
    let mut places: Vec<i64> = Vec::new();
    for row in &rows.map_err(|e| error::hot(DOING, e))? {
        places.extend(column::<Option<Vec<i64>>>(row, "holds")?.unwrap_or_default());
    }
    let (answers, _) = answers?;
    let count = limits::free(&transaction, &places).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok((answers, count))
}

/// As [`complete`], but for nobody being let go on: says with the answers for which places somebody may be waiting.
async fn write_all(
    client: &impl Prepares,
    days: &Days,
    worker: WorkerId,
    batch: &[&Completion],
    released: &[ClaimId],
) -> Result<(Vec<Completed>, Vec<i64>)> {
    let mut sorted: Vec<&Completion> = batch.to_vec();
    sorted.sort_by_key(|done| start_of(done));
    sorted.dedup_by_key(|done| start_of(done));
    let (succeeded, others): (Vec<&Completion>, Vec<&Completion>) =
        sorted.into_iter().partition(|done| has_just_succeeded(done));
    let mut written = match others.is_empty() {
        true => HashMap::new(),
        false => write(client, days, worker, &others).await?,
    };
    let (number, contended) = write_successes(client, days, worker, &succeeded, released).await?;
    let all_succeeded = number == succeeded.len();
    let mut answer = |done: &Completion| match has_just_succeeded(done) {
        true => all_succeeded.then_some(State::Succeeded),
        false => written.remove(&start_of(done)),
    };
    let mut answers: Vec<Option<State>> = batch.iter().map(|done| answer(done)).collect();
    let missed: Vec<&Completion> = batch
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_none())
        .map(|(done, _)| *done)
        .collect();
    if !missed.is_empty() {
        let before = written_before(client, worker, &missed).await?;
        for (done, answer) in batch.iter().zip(&mut answers) {
            let found = before.get(&start_of(done)).copied();
            *answer = answer.or_else(|| found.filter(|&state| may_follow(done.decision, state)));
        }
    }
    let answers = answers
        .into_iter()
        .map(|answer| answer.map_or(Completed::Fenced, Completed::Applied));
    Ok((answers.collect(), contended))
}

fn has_just_succeeded(done: &Completion) -> bool {
    done.decision == Decision::Succeed && done.error.is_none()
}

/// Writes what succeeded, and forgets the claims; says how many were written, now and by this call, and for which of their places
/// somebody may be waiting.
async fn write_successes(
    client: &impl Prepares,
    days: &Days,
    worker: WorkerId,
    succeeded: &[&Completion],
    released: &[ClaimId],
) -> Result<(usize, Vec<i64>)> {
    let worker = worker.as_uuid();
    let released: Vec<Uuid> = released.iter().copied().map(ClaimId::as_uuid).collect();
    if succeeded.is_empty() {
        if !released.is_empty() {
            let sql = include_str!("../queries/claims_forget.sql");
            let forgotten = execute(client, sql, &[&released]).await;
            forgotten.map_err(|e| error::hot(DOING, e))?;
        }
        return Ok((0, Vec::new()));
    }
    let id: Vec<Uuid> = succeeded.iter().map(|done| done.id.as_uuid()).collect();
    let fence: Vec<i32> = succeeded.iter().map(|done| int(done.fence)).collect();
    let result: Vec<Option<&str>> = succeeded.iter().map(|done| result(done)).collect();
    let log: Vec<Option<Cow<'_, str>>> = succeeded.iter().map(|done| log(done)).collect();
    let params: Params<'_> = &[&worker, &id, &fence, &result, &log, &released];
    if succeeded.iter().any(|done| done.limited) {
        let sql = include_str!("../queries/tasks_succeed_limited.sql");
        let rows = days.query(client, sql, &id, params).await;
        let rows = rows.map_err(|e| error::hot(DOING, e))?;
        let row = rows
            .first()
            .ok_or_else(|| error::corrupt("a count without a result"))?;
        let written: i64 = column(row, "written")?;
        return Ok((
            usize::try_from(written).unwrap_or(usize::MAX),
            column(row, "contended")?,
        ));
    }
    let sql = include_str!("../queries/tasks_succeed.sql");
    let written = days.execute(client, sql, &id, params).await;
    let written = written.map_err(|e| error::hot(DOING, e))?;
    Ok((usize::try_from(written).unwrap_or(usize::MAX), Vec::new()))
}

async fn write(
    client: &impl Prepares,
    days: &Days,
    worker: WorkerId,
    sorted: &[&Completion],
) -> Result<HashMap<Start, State>> {
    let mut c = Columns::default();
    for done in sorted {
        c.push(done);
    }
    let params: Params<'_> = &[
        &worker.as_uuid(),
        &c.id,
        &c.fence,
        &c.attempt,
        &c.outcome,
        &c.state,
        &c.charged,
        &c.delay_us,
        &c.result,
        &c.error,
        &c.log,
    ];
    let sql = include_str!("../queries/tasks_complete.sql");
    let rows = days.query(client, sql, &c.id, params).await;
    let rows = rows.map_err(|e| error::hot(DOING, e))?;
    rows.iter().map(start_and_state).collect()
}

/// Where starts stand that are still the current ones of this worker, but do not run.
async fn written_before(
    client: &impl Prepares,
    worker: WorkerId,
    missed: &[&Completion],
) -> Result<HashMap<Start, State>> {
    let starts: HashSet<Start> = missed.iter().map(|done| start_of(done)).collect();
    let (ids, fences): (Vec<Uuid>, Vec<i32>) = starts
        .into_iter()
        .map(|(id, fence)| (id.as_uuid(), int(fence)))
        .unzip();
    let sql = include_str!("../queries/tasks_completed.sql");
    let rows = query(client, DOING, sql, &[&worker.as_uuid(), &ids, &fences]).await?;
    rows.iter().map(start_and_state).collect()
}

/// Whether a task that stands in `state` may have got there by `decision`: what ended otherwise was taken from us.
fn may_follow(decision: Decision, state: State) -> bool {
    let (written, _, _) = written_as(decision);
    match written {
        // Dispatched since, or cancelled at once or since.
        State::Retrying => matches!(state, State::Retrying | State::Queued | State::Cancelled),
        written => written == state,
    }
}

fn start_and_state(row: &Row) -> Result<(Start, State)> {
    let id = TaskId::from(column::<Uuid>(row, "id")?);
    let start = (id, count(column(row, "fence")?)?);
    Ok((start, word(column(row, "state")?)?))
}
