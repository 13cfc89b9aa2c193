//! Recording accepted tasks.

use std::collections::HashSet;

use async_trait::async_trait;
use forebay_core::{Fingerprint, QueueName, Submission, TaskId, Timestamp};
use forebay_store::{Record, Recorded, Recording, Reject, Result, queues_of};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{
    SqliteStore, compose,
    error::failed,
    row::{Fields, hex, micros_of, micros_of_duration, to_json},
    terms::{self, Standing},
};

const INSERT_TASKS: &str = include_str!("../queries/insert_tasks.sql");
const INSERT_PAYLOADS: &str = include_str!("../queries/insert_payloads.sql");
const INSERT_TASK: &str = include_str!("../queries/insert_task.sql");
const INSERT_PAYLOAD: &str = include_str!("../queries/insert_payload.sql");
const FINGERPRINT: &str = include_str!("../queries/fingerprint.sql");
const NOTE_QUEUE: &str = include_str!("../queries/note_queue.sql");
const INSERT_REJECT: &str = include_str!("../queries/insert_reject.sql");
const DOING: &str = "record tasks";

#[async_trait]
impl Record for SqliteStore {
    async fn record_and_tell(&self, batch: &[Submission]) -> Result<Recording> {
        if batch.is_empty() {
            return Ok(Recording::default());
        }
        let mut tx = self.begin(DOING).await?;
        let now = self.clock_now();
        let recording = if batch.iter().all(looks_new) {
            Recording::of(record_new(&mut tx, batch, now).await?)
        } else {
            record_keyed(&mut tx, batch, now).await?
        };
        note_queues(&mut tx, &queues_of(batch), now).await?;
        tx.commit().await?;
        Ok(recording)
    }

    async fn set_aside(&self, rejects: &[Reject]) -> Result<()> {
        const DOING: &str = "keep undecodable messages";
        let mut tx = self.begin(DOING).await?;
        let now = self.clock_now();
        for reject in rejects {
            sqlx::query(INSERT_REJECT)
                .bind(&reject.subject)
                .bind(reject.body.as_ref())
                .bind(&reject.reason)
                .bind(micros_of(now))
                .execute(&mut *tx)
                .await
                .map_err(failed(DOING))?;
        }
        tx.commit().await
    }
}

/// Whether the submission is known only if it was delivered before: it has no key.
fn looks_new(task: &Submission) -> bool {
    task.fingerprint.is_none() && task.terms.is_none() && task.id.previous_window().is_none()
}

async fn record_new(
    tx: &mut SqliteConnection,
    batch: &[Submission],
    now: Timestamp,
) -> Result<Vec<Recorded>> {
    let mut new = insert_all(tx, batch, now).await?;
    let mut answers = Vec::with_capacity(batch.len());
    for task in batch {
        // The first of an id is the one that was inserted.
        answers.push(match new.remove(&task.id) {
            true => Recorded::New,
            false => judge(task, known_fingerprint(tx, task.id).await?.flatten()),
        });
    }
    Ok(answers)
}

/// One by one and the oldest first, since what a key named in the window before may be in the same batch.
async fn record_keyed(tx: &mut SqliteConnection, batch: &[Submission], now: Timestamp) -> Result<Recording> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    // What is on terms comes last, as it was submitted: it may have to do with what comes before.
    order.sort_by_key(|&index| match &batch[index].terms {
        None => (false, Some(batch[index].id)),
        Some(_) => (true, None),
    });
    let mut recording = Recording::of(vec![Recorded::New; batch.len()]);
    let mut ended = Vec::new();
    for index in order {
        recording.answers[index] = record_one(tx, &batch[index], now, &mut ended).await?;
    }
    for task in ended {
        recording.ended.extend(compose::event(tx, task, now).await?);
    }
    Ok(recording)
}

/// Inserts those of a batch that are not known, and says which they were. None of them has a key.
pub(crate) async fn insert_unkeyed(
    tx: &mut SqliteConnection,
    batch: &[Submission],
    now: Timestamp,
) -> Result<HashSet<TaskId>> {
    let (on_terms, plain): (Vec<_>, Vec<_>) = batch.iter().cloned().partition(|task| task.terms.is_some());
    let mut new = insert_all(tx, &plain, now).await?;
    for task in &on_terms {
        let (standing, _) = terms::standing(tx, task, now).await?;
        if insert(tx, task, &standing, now).await? {
            terms::note(tx, task, &standing, now).await?;
            new.insert(task.id);
        }
    }
    Ok(new)
}

/// Inserts those of a batch that are not known, in two statements, and says which they were.
async fn insert_all(
    tx: &mut SqliteConnection,
    batch: &[Submission],
    now: Timestamp,
) -> Result<HashSet<TaskId>> {
    let (mut tasks, mut payloads) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for task in batch {
        let id = hex(task.id);
        payloads.push(json!([id, task.payload.as_str()]));
        tasks.push(json!([
            id,
            task.project.as_str(),
            task.kind.as_str(),
            task.lane.queue.as_str(),
            task.lane.priority.as_str(),
            task.max_attempts,
            task.timeout.map(micros_of_duration),
            task.run_at.map(micros_of),
            micros_of(task.created_at),
            to_json(&task.tags)?,
            task.traceparent.as_ref().map(|trace| trace.as_str()),
        ]));
    }
    let rows = sqlx::query(INSERT_TASKS)
        .bind(to_json(&tasks)?)
        .bind(micros_of(now))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    sqlx::query(INSERT_PAYLOADS)
        .bind(to_json(&payloads)?)
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    rows.iter().map(|row| Fields(row).task_id()).collect()
}

/// `ended` gets what ended by it.
async fn record_one(
    tx: &mut SqliteConnection,
    task: &Submission,
    now: Timestamp,
    ended: &mut Vec<TaskId>,
) -> Result<Recorded> {
    for id in task.id.adjacent_windows() {
        if let Some(known) = known_fingerprint(tx, id).await? {
            return Ok(judge(task, known));
        }
    }
    let (standing, replaced) = terms::standing(tx, task, now).await?;
    ended.extend(replaced);
    if insert(tx, task, &standing, now).await? {
        terms::note(tx, task, &standing, now).await?;
        ended.extend(standing.state.is_final().then_some(task.id));
        return Ok(Recorded::New);
    }
    let known = known_fingerprint(tx, task.id).await?.flatten();
    Ok(judge(task, known))
}

fn judge(task: &Submission, known: Option<Fingerprint>) -> Recorded {
    if task.fingerprint == known {
        Recorded::Duplicate
    } else {
        Recorded::Conflict
    }
}

/// Whether there is a task of this id, and what its key's request was.
pub(crate) async fn known_fingerprint(
    tx: &mut SqliteConnection,
    id: TaskId,
) -> Result<Option<Option<Fingerprint>>> {
    let row = sqlx::query(FINGERPRINT)
        .bind(id.as_uuid())
        .fetch_optional(tx)
        .await
        .map_err(failed(DOING))?;
    row.map(|row| Fields(&row).fingerprint()).transpose()
}

/// Inserts a task unless its id is known; says whether it did.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    task: &Submission,
    standing: &Standing,
    now: Timestamp,
) -> Result<bool> {
    let seq: Option<i64> = sqlx::query_scalar(INSERT_TASK)
        .bind(task.id.as_uuid())
        .bind(task.project.as_str())
        .bind(task.kind.as_str())
        .bind(task.lane.queue.as_str())
        .bind(task.lane.priority.as_str())
        .bind(task.max_attempts)
        .bind(task.timeout.map(micros_of_duration))
        .bind(standing.run_at.map(micros_of))
        .bind(micros_of(task.created_at))
        .bind(micros_of(now))
        .bind(to_json(&task.tags)?)
        .bind(task.traceparent.as_ref().map(|trace| trace.as_str()))
        .bind(task.fingerprint.as_ref().map(|print| &print.0[..]))
        .bind(standing.state.as_str())
        .bind(task.terms.as_ref().map(|terms| terms.to_json()))
        .bind(task.terms.as_ref().is_some_and(|terms| terms.is_watched()))
        .bind(standing.errors(now)?)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let Some(seq) = seq else {
        return Ok(false);
    };
    sqlx::query(INSERT_PAYLOAD)
        .bind(seq)
        .bind(task.payload.as_str())
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(true)
}

/// Makes queues known that were not.
pub(crate) async fn note_queues(
    tx: &mut SqliteConnection,
    queues: &[QueueName],
    now: Timestamp,
) -> Result<()> {
    for queue in queues {
        sqlx::query(NOTE_QUEUE)
            .bind(queue.as_str())
            .bind(micros_of(now))
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
    }
    Ok(())
}
