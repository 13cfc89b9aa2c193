//! Recording accepted tasks.

use async_trait::async_trait;
use forebay_core::{Fingerprint, QueueName, Submission, TaskId, Timestamp};
use forebay_store::{Record, Recorded, Reject, Result, queues_of};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    error::failed,
    row::{Fields, micros_of, micros_of_duration, to_json},
};

const INSERT_TASK: &str = include_str!("../queries/insert_task.sql");
const INSERT_PAYLOAD: &str = include_str!("../queries/insert_payload.sql");
const FINGERPRINT: &str = include_str!("../queries/fingerprint.sql");
const NOTE_QUEUE: &str = include_str!("../queries/note_queue.sql");
const INSERT_REJECT: &str = include_str!("../queries/insert_reject.sql");
const DOING: &str = "record tasks";

#[async_trait]
impl Record for SqliteStore {
    async fn record(&self, batch: &[Submission]) -> Result<Vec<Recorded>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin(DOING).await?;
        let now = self.clock_now();
        let mut answers = Vec::with_capacity(batch.len());
        for task in batch {
            answers.push(record_one(&mut tx, task, now).await?);
        }
        note_queues(&mut tx, &queues_of(batch), now).await?;
        tx.commit().await?;
        Ok(answers)
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

async fn record_one(tx: &mut SqliteConnection, task: &Submission, now: Timestamp) -> Result<Recorded> {
    if let Some(before) = task.id.previous_window()
        && let Some(known) = known_fingerprint(tx, before).await?
    {
        return Ok(judge(task, known));
    }
    if insert(tx, task, now).await? {
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
pub(crate) async fn insert(tx: &mut SqliteConnection, task: &Submission, now: Timestamp) -> Result<bool> {
    let seq: Option<i64> = sqlx::query_scalar(INSERT_TASK)
        .bind(task.id.as_uuid())
        .bind(task.project.as_str())
        .bind(task.kind.as_str())
        .bind(task.lane.queue.as_str())
        .bind(task.lane.priority.as_str())
        .bind(task.max_attempts)
        .bind(task.timeout.map(micros_of_duration))
        .bind(task.run_at.map(micros_of))
        .bind(micros_of(task.created_at))
        .bind(micros_of(now))
        .bind(to_json(&task.tags)?)
        .bind(task.traceparent.as_ref().map(|trace| trace.as_str()))
        .bind(task.fingerprint.as_ref().map(|print| &print.0[..]))
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
