//! What has to do with more than one task: those that wait for others, and batches.

mod cancel;
mod settle;

use async_trait::async_trait;
use forebay_core::{BatchId, Fingerprint, Project, State, Task, TaskId, Timestamp};
use forebay_store::{
    BATCH_TASKS_MAX, Batch, BatchCounts, BatchPage, BatchPart, BlockedOn, Compose, Grown, NewBatch, Opened,
    Result, Settled, StoreError,
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

pub(crate) use self::cancel::event;
use crate::{
    SqliteStore,
    backlog::count,
    dispatch::bounded,
    error::failed,
    read, record,
    row::{Fields, micros_of},
    terms::{self, Standing},
};

const OPENING: &str = "open a batch";
const GROWING: &str = "add to a batch";
const READING: &str = "read a batch";

/// How many of the tasks that one waits for are told.
const BLOCKERS_SHOWN: i64 = 100;

const BLOCKED_ON: &str =
    "SELECT on_id AS id, known, since FROM blockers WHERE task_id = ?1 ORDER BY on_id LIMIT ?2";
const COMPLETED_BY: &str = "SELECT id FROM batches WHERE completion_task = ?1 AND completed_at IS NULL";
const GET: &str = "SELECT * FROM batches WHERE id = ?1";
const COUNTS: &str = "SELECT coalesce(t.state, m.state) AS state, count(*) AS count
    FROM batch_members m LEFT JOIN tasks t ON t.id = m.task_id
    WHERE m.batch_id = ?1 GROUP BY 1";
const LIST: &str = "SELECT * FROM batches
    WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
    ORDER BY created_at DESC, id DESC LIMIT ?4";
const MEMBERS: &str = "SELECT m.task_id AS id FROM batch_members m WHERE m.batch_id = ?1 AND m.task_id > ?2
        AND EXISTS (SELECT 1 FROM tasks t WHERE t.id = m.task_id)
    ORDER BY m.task_id LIMIT ?3";
const ADD: &str = "INSERT INTO batches
    (id, project, name, fingerprint, total, created_at, closed_at, completion_task, grown_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const FORGET: [&str; 3] = [
    "DELETE FROM batch_members WHERE batch_id IN (SELECT id FROM batches
        WHERE completed_at < ?1 AND (fingerprint IS NULL OR created_at < ?2) ORDER BY created_at, id LIMIT 500)",
    "DELETE FROM batch_parts WHERE batch_id IN (SELECT id FROM batches
        WHERE completed_at < ?1 AND (fingerprint IS NULL OR created_at < ?2) ORDER BY created_at, id LIMIT 500)",
    "DELETE FROM batches WHERE id IN (SELECT id FROM batches
        WHERE completed_at < ?1 AND (fingerprint IS NULL OR created_at < ?2) ORDER BY created_at, id LIMIT 500)",
];
const PART: &str = "SELECT fingerprint FROM batch_parts WHERE batch_id = ?1 AND part = ?2";
const PART_ADD: &str = "INSERT INTO batch_parts (batch_id, part, fingerprint) VALUES (?1, ?2, ?3)";
const GROW: &str = "UPDATE batches SET total = total + ?2, grown_at = ?3 WHERE id = ?1";
const CLOSE: &str = "UPDATE batches SET closed_at = coalesce(closed_at, ?2) WHERE id = ?1";

#[async_trait]
impl Compose for SqliteStore {
    async fn unknown(&self, ids: &[TaskId]) -> Result<Vec<TaskId>> {
        let mut reader = self.reader("look for tasks").await?;
        let mut unknown = Vec::new();
        for &id in ids {
            if terms::after::find(&mut reader, id).await?.is_none() {
                unknown.push(id);
            }
        }
        Ok(unknown)
    }

    async fn blocked_on(&self, id: TaskId) -> Result<BlockedOn> {
        const DOING: &str = "look what a task waits for";
        let mut reader = self.reader(DOING).await?;
        let tasks = sqlx::query(BLOCKED_ON)
            .bind(id.as_uuid())
            .bind(BLOCKERS_SHOWN)
            .fetch_all(&mut *reader)
            .await
            .map_err(failed(DOING))?;
        let batch: Option<Uuid> = sqlx::query_scalar(COMPLETED_BY)
            .bind(id.as_uuid())
            .fetch_optional(&mut *reader)
            .await
            .map_err(failed(DOING))?;
        let mut blocked = BlockedOn {
            batch: batch.map(BatchId::from),
            ..BlockedOn::default()
        };
        for row in &tasks {
            let fields = Fields(row);
            blocked.add(fields.task_id()?, fields.get("known")?, fields.time("since")?);
        }
        Ok(blocked)
    }

    async fn open_batch(&self, batch: &NewBatch) -> Result<Opened> {
        let mut tx = self.begin(OPENING).await?;
        let opened = open(&mut tx, batch, self.clock_now()).await?;
        tx.commit().await?;
        Ok(opened)
    }

    async fn grow_batch(&self, id: BatchId, part: &BatchPart) -> Result<Grown> {
        let mut tx = self.begin(GROWING).await?;
        let grown = grow(&mut tx, id, part, self.clock_now()).await?;
        tx.commit().await?;
        Ok(grown)
    }

    async fn knows_part(&self, id: BatchId, part: Fingerprint) -> Result<bool> {
        let found = sqlx::query(PART)
            .bind(id.as_uuid())
            .bind(&part.0[..])
            .fetch_optional(&mut *self.reader(READING).await?)
            .await
            .map_err(failed(READING))?;
        Ok(found.is_some())
    }

    async fn close_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        const DOING: &str = "close a batch";
        let mut tx = self.begin(DOING).await?;
        let now = self.clock_now();
        sqlx::query(CLOSE)
            .bind(id.as_uuid())
            .bind(micros_of(now))
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        settle::complete(&mut tx, id, now).await?;
        let closed = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(closed)
    }

    async fn cancel_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let mut tx = self.begin("cancel a batch").await?;
        let cancelled = cancel::cancel(&mut tx, id, self.clock_now()).await?;
        tx.commit().await?;
        Ok(cancelled)
    }

    async fn batch(&self, id: BatchId) -> Result<Option<Batch>> {
        find(&mut *self.reader(READING).await?, id).await
    }

    async fn batch_counts(&self, id: BatchId) -> Result<BatchCounts> {
        let rows = sqlx::query(COUNTS)
            .bind(id.as_uuid())
            .fetch_all(&mut *self.reader(READING).await?)
            .await
            .map_err(failed(READING))?;
        let mut counts = BatchCounts::default();
        for row in &rows {
            // A task that is no longer kept and of which nobody noted the end is none that could be told of.
            if Fields(row).get::<Option<&str>>("state")?.is_some() {
                counts
                    .of
                    .insert(Fields(row).text::<State>("state")?, count(row, "count")?);
            }
        }
        Ok(counts)
    }

    async fn batches(
        &self,
        project: Option<&Project>,
        page_size: usize,
        after: Option<BatchPage>,
    ) -> Result<Vec<Batch>> {
        const DOING: &str = "list batches";
        let rows = sqlx::query(LIST)
            .bind(project.map(Project::as_str))
            .bind(after.map(|page| micros_of(page.created_at)))
            .bind(after.map(|page| page.id.as_uuid()))
            .bind(bounded(page_size))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        rows.iter().map(batch).collect()
    }

    async fn batch_tasks(&self, id: BatchId, page_size: usize, after: Option<TaskId>) -> Result<Vec<Task>> {
        const DOING: &str = "list the tasks of a batch";
        let mut reader = self.reader(DOING).await?;
        let rows = sqlx::query(MEMBERS)
            .bind(id.as_uuid())
            .bind(after.map_or_else(Uuid::nil, TaskId::as_uuid))
            .bind(bounded(page_size))
            .fetch_all(&mut *reader)
            .await
            .map_err(failed(DOING))?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            tasks.extend(read::get(&mut reader, Fields(row).task_id()?).await?);
        }
        Ok(tasks)
    }

    async fn settle(&self, limit: usize) -> Result<Settled> {
        settle::settle(self, limit).await
    }
}

/// Forgets batches that were completed before `past`; those that have a key only if they were opened before `key_past`.
pub(crate) async fn forget(tx: &mut SqliteConnection, past: i64, key_past: i64) -> Result<()> {
    for sql in FORGET {
        sqlx::query(sql)
            .bind(past)
            .bind(key_past)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget old batches"))?;
    }
    Ok(())
}

async fn open(tx: &mut SqliteConnection, batch: &NewBatch, now: Timestamp) -> Result<Opened> {
    if let Some(found) = find(tx, batch.id).await? {
        return Ok(match found.fingerprint == batch.fingerprint {
            true => Opened::Known(found),
            false => Opened::Conflict(found.id),
        });
    }
    sqlx::query(ADD)
        .bind(batch.id.as_uuid())
        .bind(batch.project.as_str())
        .bind(&batch.name)
        .bind(batch.fingerprint.map(|fingerprint| fingerprint.0.to_vec()))
        .bind(i64::try_from(batch.total).unwrap_or(i64::MAX))
        .bind(micros_of(batch.created_at))
        .bind((!batch.is_open).then(|| micros_of(now)))
        .bind(batch.completion.as_ref().map(|task| task.id.as_uuid()))
        .bind(micros_of(now))
        .execute(&mut *tx)
        .await
        .map_err(failed(OPENING))?;
    if let Some(task) = &batch.completion {
        let standing = Standing {
            state: State::Blocked,
            run_at: task.run_at,
            error: None,
        };
        if record::insert(tx, task, &standing, now).await? {
            terms::note(tx, task, &standing, now).await?;
        }
        record::note_queues(tx, std::slice::from_ref(&task.lane.queue), now).await?;
    }
    settle::complete(tx, batch.id, now).await?;
    let opened = get(tx, batch.id).await?;
    opened
        .map(Opened::New)
        .ok_or_else(|| StoreError::Corrupt("a batch that is not kept".into()))
}

async fn grow(tx: &mut SqliteConnection, id: BatchId, part: &BatchPart, now: Timestamp) -> Result<Grown> {
    let Some(batch) = get(tx, id).await? else {
        return Ok(Grown::NotFound);
    };
    let used: Option<Vec<u8>> = sqlx::query_scalar(PART)
        .bind(id.as_uuid())
        .bind(&part.part.0[..])
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(GROWING))?;
    if let Some(used) = used {
        return Ok(match used == part.fingerprint.0 {
            true => Grown::Done(batch),
            false => Grown::Conflict,
        });
    }
    if batch.closed_at.is_some() {
        return Ok(Grown::Closed(batch));
    }
    if batch.total.saturating_add(part.count) > BATCH_TASKS_MAX {
        return Ok(Grown::Full(batch));
    }
    sqlx::query(PART_ADD)
        .bind(id.as_uuid())
        .bind(&part.part.0[..])
        .bind(&part.fingerprint.0[..])
        .execute(&mut *tx)
        .await
        .map_err(failed(GROWING))?;
    sqlx::query(GROW)
        .bind(id.as_uuid())
        .bind(i64::try_from(part.count).unwrap_or(i64::MAX))
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed(GROWING))?;
    Ok(Grown::Done(Batch {
        total: batch.total + part.count,
        ..batch
    }))
}

/// A batch by its id, or by that of its key in the window before or after.
async fn find(connection: &mut SqliteConnection, id: BatchId) -> Result<Option<Batch>> {
    for id in std::iter::once(id).chain(id.adjacent_windows()) {
        if let Some(found) = get(connection, id).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn get(connection: &mut SqliteConnection, id: BatchId) -> Result<Option<Batch>> {
    let row = sqlx::query(GET)
        .bind(id.as_uuid())
        .fetch_optional(connection)
        .await
        .map_err(failed(READING))?;
    row.as_ref().map(batch).transpose()
}

fn batch(row: &SqliteRow) -> Result<Batch> {
    let fields = Fields(row);
    let fingerprint: Option<Fingerprint> = fields.fingerprint()?;
    Ok(Batch {
        id: fields.get::<Uuid>("id")?.into(),
        project: fields.text("project")?,
        name: fields.get("name")?,
        fingerprint,
        total: count(row, "total")?,
        ended: count(row, "ended")?,
        completion: fields.get::<Option<Uuid>>("completion_task")?.map(TaskId::from),
        created_at: fields.time("created_at")?,
        closed_at: fields.maybe_time("closed_at")?,
        cancelled_at: fields.maybe_time("cancelled_at")?,
        completed_at: fields.maybe_time("completed_at")?,
    })
}
