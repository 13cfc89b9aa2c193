//! Recording and claiming in one statement: what a recorder starts in its own process.

use std::collections::HashSet;

use deadpool_postgres::Client;
use forebay_core::{ClaimId, Submission, TaskId, WorkerId};
use forebay_store::{Claimed, Result, StartRequest};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    day::Days,
    error,
    hot::{Params, nth_column},
    limits::{Needs, Uses, is_beaten},
    record::{Columns, terms_json},
    values::{Instant, duration_us, int},
};

const DOING: &str = "record and claim tasks";

/// A submission that looks new, and what it needs of limits.
pub(crate) type Fresh<'a> = (&'a StartRequest, Needs);

/// Starts submissions that look new. What limits may hold back is `None`, and was not even recorded; so are all where one of them is
/// known, or this claim was made before.
pub(crate) async fn start_new(
    client: &Client,
    days: &Days,
    (worker, claim, revision): (WorkerId, ClaimId, Option<i64>),
    batch: &[Fresh<'_>],
) -> Result<Vec<Option<Claimed>>> {
    let mut sorted: Vec<Fresh<'_>> = batch.to_vec();
    sorted.sort_by_key(|(request, _)| request.task.id);
    let tasks: Vec<&Submission> = sorted.iter().map(|(request, _)| &request.task).collect();
    let c = Columns::of(&tasks);
    let max_attempts: Vec<i32> = sorted
        .iter()
        .map(|(it, _)| int(it.task.max_attempts.unwrap_or(it.max_attempts)))
        .collect();
    let timeout_us: Vec<i64> = sorted
        .iter()
        .map(|(it, _)| duration_us(it.task.timeout.unwrap_or(it.timeout)))
        .collect();
    let terms: Vec<Option<String>> = tasks.iter().map(|task| terms_json(task)).collect();
    let allotted: Vec<Option<String>> = sorted.iter().map(|(_, needs)| needs.allotted()).collect();
    let revision = revision.filter(|_| allotted.iter().any(Option::is_some));
    let worker = worker.as_uuid();
    let claim = claim.as_uuid();
    let params: Params<'_> = &[
        &worker,
        &claim,
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
        &terms,
        &revision,
        &allotted,
    ];
    let uses = Uses::needed(sorted.iter().map(|(_, needs)| needs));
    let is_all_or_nothing = uses.ids.is_empty();
    let rows = if is_all_or_nothing {
        let sql = include_str!("../queries/tasks_start.sql");
        days.query(client, sql, &c.id, params).await
    } else {
        let places: Vec<Option<String>> = sorted.iter().map(|(_, needs)| needs.array()).collect();
        let more: Params<'_> = &[&places, &uses.ids, &uses.numbers, &uses.most];
        let sql = include_str!("../queries/tasks_start_limited.sql");
        days.query(client, sql, &c.id, &[params, more].concat()).await
    };
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) || is_beaten(&error) => {
            return Ok(vec![None; batch.len()]);
        }
        Err(error) => return Err(error::hot(DOING, error)),
    };
    let Some(row) = rows.first() else {
        return Ok(vec![None; batch.len()]);
    };
    let now = nth_column::<Instant>(row, 0)?.0;
    let some: Option<HashSet<TaskId>> = match is_all_or_nothing {
        true => None,
        false => {
            let ids = rows.iter().map(|row| nth_column::<Uuid>(row, 1));
            Some(ids.map(|id| id.map(TaskId::from)).collect::<Result<_>>()?)
        }
    };
    let started = |(request, needs): &Fresh<'_>| {
        let is_started = some.as_ref().is_none_or(|some| some.contains(&request.task.id));
        is_started.then(|| Claimed {
            limited: *needs != Needs::Nothing,
            ..request.started(now)
        })
    };
    Ok(batch.iter().map(started).collect())
}
