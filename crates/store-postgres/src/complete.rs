//! Completing: the outcome of an attempt is written, once, where the attempt is the current one.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Decision, Json, State, TaskId, WorkerId, sanitize_text};
use forebay_store::{Completed, Completion, Result};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    hot::{column, query},
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
    log: Vec<Option<String>>,
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
        self.result.push(done.result.as_ref().map(Json::as_str));
        self.error.push(done.error.as_deref().map(sanitize_text));
        self.log.push(done.log.as_deref().map(sanitize_text));
    }
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
pub(crate) async fn complete(
    client: &Client,
    worker: WorkerId,
    batch: &[Completion],
    released: &[ClaimId],
) -> Result<Vec<Completed>> {
    let mut written = write(client, worker, batch, released).await?;
    let mut answers: Vec<Option<State>> = batch.iter().map(|done| written.remove(&start_of(done))).collect();
    let missed: Vec<&Completion> = batch
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_none())
        .map(|(done, _)| done)
        .collect();
    if !missed.is_empty() {
        let before = written_before(client, worker, &missed).await?;
        for (done, answer) in batch.iter().zip(&mut answers) {
            let found = before.get(&start_of(done)).copied();
            *answer = answer.or_else(|| found.filter(|&state| may_follow(done.decision, state)));
        }
    }
    Ok(answers
        .into_iter()
        .map(|answer| answer.map_or(Completed::Fenced, Completed::Applied))
        .collect())
}

async fn write(
    client: &Client,
    worker: WorkerId,
    batch: &[Completion],
    released: &[ClaimId],
) -> Result<HashMap<Start, State>> {
    let mut sorted: Vec<&Completion> = batch.iter().collect();
    sorted.sort_by_key(|done| start_of(done));
    sorted.dedup_by_key(|done| start_of(done));
    let mut c = Columns::default();
    for done in sorted {
        c.push(done);
    }
    let released: Vec<Uuid> = released.iter().copied().map(ClaimId::as_uuid).collect();
    let rows = query(
        client,
        DOING,
        include_str!("../queries/tasks_complete.sql"),
        &[
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
            &released,
        ],
    )
    .await?;
    rows.iter().map(start_and_state).collect()
}

/// Where starts stand that are still the current ones of this worker, but do not run.
async fn written_before(
    client: &Client,
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
