//! What has to do with more than one task: those that wait for others, and batches.

mod cancel;
mod rows;
mod settle;

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient, Transaction};
use forebay_core::{BatchId, Fingerprint, Project, Task, TaskId};
use forebay_store::{
    BATCH_TASKS_MAX, Batch, BatchCounts, BatchPage, BatchPart, BlockedOn, Compose, Grown, NewBatch, Opened,
    Result, Settled,
};
use sqlx::{Postgres, QueryBuilder};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    PostgresStore, error,
    hot::{Params, bounded, column, query},
    read, terms,
    values::{Instant, word},
};

const OPENING: &str = "open a batch";
const GROWING: &str = "add to a batch";
const READING: &str = "read a batch";

/// How many of the tasks that one waits for are told.
const BLOCKERS_SHOWN: i64 = 100;

#[async_trait]
impl Compose for PostgresStore {
    async fn unknown(&self, ids: &[TaskId]) -> Result<Vec<TaskId>> {
        const DOING: &str = "look for tasks";
        let asked: Vec<Uuid> = ids
            .iter()
            .flat_map(|id| std::iter::once(*id).chain(id.adjacent_windows()))
            .map(TaskId::as_uuid)
            .collect();
        let sql = include_str!("../queries/tasks_known.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&asked])).await;
        let rows = connection.settle(outcome)?;
        let known: std::collections::HashSet<TaskId> = rows
            .iter()
            .map(|row| column::<Uuid>(row, "id").map(TaskId::from))
            .collect::<Result<_>>()?;
        let is_known = |id: &TaskId| {
            std::iter::once(*id)
                .chain(id.adjacent_windows())
                .any(|id| known.contains(&id))
        };
        Ok(ids.iter().copied().filter(|id| !is_known(id)).collect())
    }

    async fn blocked_on(&self, id: TaskId) -> Result<BlockedOn> {
        const DOING: &str = "look what a task waits for";
        let work = async |client: &Client| {
            let sql = include_str!("../queries/blocked_on.sql");
            let tasks = query(client, DOING, sql, &[&id.as_uuid(), &BLOCKERS_SHOWN]).await?;
            let sql = include_str!("../queries/batches_completed_by.sql");
            let batches = query(client, DOING, sql, &[&id.as_uuid()]).await?;
            let batch = batches.first().map(|row| column::<Uuid>(row, "id")).transpose()?;
            let mut blocked = BlockedOn {
                batch: batch.map(BatchId::from),
                ..BlockedOn::default()
            };
            for row in &tasks {
                let on: Uuid = column(row, "on_id")?;
                let since: Instant = column(row, "since")?;
                blocked.add(on.into(), column(row, "known")?, since.0);
            }
            Ok(blocked)
        };
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, work(connection.client())).await;
        connection.settle(outcome)
    }

    async fn open_batch(&self, batch: &NewBatch) -> Result<Opened> {
        let mut connection = self.hot.get(OPENING).await?;
        let work = async {
            self.note_queues(connection.client(), &batch.completion).await?;
            open(connection.client(), batch).await
        };
        let outcome = bounded(OPENING, work).await;
        connection.settle(outcome)
    }

    async fn grow_batch(&self, id: BatchId, part: &BatchPart) -> Result<Grown> {
        let mut connection = self.hot.get(GROWING).await?;
        let outcome = bounded(GROWING, grow(connection.client(), id, part)).await;
        connection.settle(outcome)
    }

    async fn knows_part(&self, id: BatchId, part: Fingerprint) -> Result<bool> {
        let work = async {
            let found = sqlx::query(include_str!("../queries/batches_part.sql"))
                .bind(id.as_uuid())
                .bind(uuid_of(part))
                .fetch_optional(&self.reads)
                .await;
            Ok(found.map_err(|e| error::read(READING, e))?.is_some())
        };
        bounded(READING, work).await
    }

    async fn close_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        const DOING: &str = "close a batch";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, close(connection.client(), DOING, id)).await;
        connection.settle(outcome)
    }

    async fn cancel_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        const DOING: &str = "cancel a batch";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, cancel::cancel(connection.client(), DOING, id)).await;
        connection.settle(outcome)
    }

    async fn batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let ids = windows(id);
        let row = sqlx::query(include_str!("../queries/batches_get.sql")).bind(&ids);
        let row = row.fetch_optional(&self.reads);
        let row = bounded(READING, async { row.await.map_err(|e| error::read(READING, e)) }).await?;
        row.as_ref().map(rows::batch).transpose()
    }

    async fn batch_counts(&self, id: BatchId) -> Result<BatchCounts> {
        const DOING: &str = "count the tasks of a batch";
        let rows = sqlx::query(include_str!("../queries/batches_counts.sql")).bind(id.as_uuid());
        let rows = rows.fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        rows::counts(&rows)
    }

    async fn batches(
        &self,
        project: Option<&Project>,
        page_size: usize,
        after: Option<BatchPage>,
    ) -> Result<Vec<Batch>> {
        const DOING: &str = "list batches";
        let rows = sqlx::query(include_str!("../queries/batches_list.sql"))
            .bind(project.map(Project::as_str))
            .bind(after.map(|page| Instant(page.created_at)))
            .bind(after.map(|page| page.id.as_uuid()))
            .bind(i64::try_from(page_size).unwrap_or(i64::MAX))
            .fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        rows.iter().map(rows::batch).collect()
    }

    async fn batch_tasks(&self, id: BatchId, page_size: usize, after: Option<TaskId>) -> Result<Vec<Task>> {
        const DOING: &str = "list the tasks of a batch";
        let after = after.map_or_else(Uuid::nil, TaskId::as_uuid);
        let mut select = QueryBuilder::<Postgres>::new(include_str!("../queries/tasks_list.sql"));
        select
            // Those that are no longer kept don't count: a page is full unless it is the last.
            .push(" AND t.id IN (SELECT m.task_id FROM batch_members m")
            // Looked up one by one, whatever the planner believes of the batch: a join may read all tasks that there are.
            .push(" WHERE (SELECT true FROM tasks k WHERE k.id = m.task_id) AND m.batch_id = ")
            .push_bind(id.as_uuid())
            .push(" AND m.task_id > ")
            .push_bind(after)
            .push(" ORDER BY m.task_id LIMIT ")
            .push_bind(i64::try_from(page_size).unwrap_or(i64::MAX))
            .push(") ORDER BY t.id");
        let rows = async {
            select
                .build()
                .fetch_all(&self.reads)
                .await
                .map_err(|e| error::read(DOING, e))
        };
        let rows = bounded(DOING, rows).await?;
        rows.iter().map(read::task).collect()
    }

    async fn settle(&self, limit: usize) -> Result<Settled> {
        settle::settle(self, limit).await
    }
}

/// The ids under which a batch may be found.
fn windows(id: BatchId) -> Vec<Uuid> {
    std::iter::once(id)
        .chain(id.adjacent_windows())
        .map(BatchId::as_uuid)
        .collect()
}

fn uuid_of(fingerprint: Fingerprint) -> Uuid {
    Uuid::from_bytes(fingerprint.0)
}

async fn open(client: &mut Client, batch: &NewBatch) -> Result<Opened> {
    let transaction = client.transaction().await.map_err(|e| error::hot(OPENING, e))?;
    let known = include_str!("../queries/batches_get.sql");
    if let Some(row) = query(&transaction, OPENING, known, &[&windows(batch.id)])
        .await?
        .first()
    {
        return judge(row, batch);
    }
    let params: Params<'_> = &[
        &batch.id.as_uuid(),
        &batch.project.as_str(),
        &batch.name,
        &batch.fingerprint.map(uuid_of),
        &i64::try_from(batch.total).unwrap_or(i64::MAX),
        &Instant(batch.created_at),
        &batch.is_open,
        &batch.completion.as_ref().map(|task| task.id.as_uuid()),
    ];
    let added = query(
        &transaction,
        OPENING,
        include_str!("../queries/batches_add.sql"),
        params,
    )
    .await?;
    if !added.is_empty() {
        if let Some(task) = &batch.completion {
            terms::record_blocked(&transaction, task).await?;
        }
        settle::complete(&transaction, &[batch.id.as_uuid()]).await?;
    }
    let rows = query(&transaction, OPENING, known, &[&windows(batch.id)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| error::unavailable(OPENING, "it came and went"))?;
    let opened = match added.is_empty() {
        true => judge(row, batch)?,
        false => Opened::New(read(row)?),
    };
    transaction.commit().await.map_err(|e| error::hot(OPENING, e))?;
    Ok(opened)
}

/// Whether a batch that is there was opened by this request.
fn judge(row: &Row, asked: &NewBatch) -> Result<Opened> {
    let found = read(row)?;
    Ok(match found.fingerprint == asked.fingerprint {
        true => Opened::Known(found),
        false => Opened::Conflict(found.id),
    })
}

async fn grow(client: &mut Client, id: BatchId, part: &BatchPart) -> Result<Grown> {
    let transaction = client.transaction().await.map_err(|e| error::hot(GROWING, e))?;
    let Some(batch) = held(&transaction, GROWING, id).await? else {
        return Ok(Grown::NotFound);
    };
    let id = batch.id.as_uuid();
    let (key, fingerprint) = (uuid_of(part.part), uuid_of(part.fingerprint));
    let used = query(
        &transaction,
        GROWING,
        include_str!("../queries/batches_part.sql"),
        &[&id, &key],
    )
    .await?;
    if let Some(row) = used.first() {
        return Ok(match column::<Uuid>(row, "fingerprint")? == fingerprint {
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
    let count = i64::try_from(part.count).unwrap_or(i64::MAX);
    let sql = include_str!("../queries/batches_part_add.sql");
    query(&transaction, GROWING, sql, &[&id, &key, &fingerprint]).await?;
    query(
        &transaction,
        GROWING,
        include_str!("../queries/batches_grow.sql"),
        &[&id, &count],
    )
    .await?;
    transaction.commit().await.map_err(|e| error::hot(GROWING, e))?;
    Ok(Grown::Done(Batch {
        total: batch.total + part.count,
        ..batch
    }))
}

async fn close(client: &mut Client, doing: &'static str, id: BatchId) -> Result<Option<Batch>> {
    let transaction = client.transaction().await.map_err(|e| error::hot(doing, e))?;
    let Some(batch) = held(&transaction, doing, id).await? else {
        return Ok(None);
    };
    let id = batch.id.as_uuid();
    query(
        &transaction,
        doing,
        include_str!("../queries/batches_close.sql"),
        &[&id],
    )
    .await?;
    settle::complete(&transaction, &[id]).await?;
    let closed = held(&transaction, doing, batch.id).await?;
    transaction.commit().await.map_err(|e| error::hot(doing, e))?;
    Ok(closed)
}

/// A batch, held.
async fn held(transaction: &Transaction<'_>, doing: &'static str, id: BatchId) -> Result<Option<Batch>> {
    let sql = include_str!("../queries/batches_hold.sql");
    let rows = query(transaction, doing, sql, &[&id.as_uuid()]).await?;
    rows.first().map(read).transpose()
}

fn read(row: &Row) -> Result<Batch> {
    let time = |name: &str| Ok(column::<Option<Instant>>(row, name)?.map(|at| at.0));
    let count = |name: &str| column::<i64>(row, name).map(i64::unsigned_abs);
    let fingerprint: Option<Uuid> = column(row, "fingerprint")?;
    Ok(Batch {
        id: column::<Uuid>(row, "id")?.into(),
        project: word(column(row, "project")?)?,
        name: column(row, "name")?,
        fingerprint: fingerprint.map(|uuid| Fingerprint(uuid.into_bytes())),
        total: count("total")?,
        ended: count("ended")?,
        completion: column::<Option<Uuid>>(row, "completion_task")?.map(TaskId::from),
        created_at: column::<Instant>(row, "created_at")?.0,
        closed_at: time("closed_at")?,
        cancelled_at: time("cancelled_at")?,
        completed_at: time("completed_at")?,
    })
}

/// As [`query`], of statements that answer with nothing of interest.
async fn run(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &'static str,
    params: Params<'_>,
) -> Result<()> {
    query(client, doing, sql, params).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_store::conformance::{
        batches::a_day_later_it_makes_do_with_what_there_is,
        compose::{an_end_that_fails_for_ever_is_set_aside, what_never_comes_is_given_up_after_a_day},
    };

    use crate::{PostgresStore, plans::migrated};

    const PASS_A_DAY: &str = "UPDATE batches SET grown_at = grown_at - interval '25 hours'";

    async fn execute(store: &PostgresStore, statement: &'static str) {
        let mut connection = store.hot.get("test").await.expect("connect");
        let client = connection.client();
        client.batch_execute(statement).await.expect(statement);
        connection.settle(Ok(())).expect("settle");
    }

    #[tokio::test]
    async fn an_end_that_can_not_be_seen_to_is_set_aside() {
        let store = Arc::new(migrated().await);
        let corrupt = async |statement| execute(&store, statement).await;
        an_end_that_fails_for_ever_is_set_aside(store.clone(), corrupt).await;
    }

    #[tokio::test]
    async fn nobody_waits_for_what_never_comes() {
        let store = Arc::new(migrated().await);
        let pass = async |hours: u32| {
            let by = format!("interval '{hours} hours'");
            let statement = format!("UPDATE blockers SET since = since - {by}, asked_at = asked_at - {by}");
            execute(&store, Box::leak(statement.into_boxed_str())).await;
        };
        what_never_comes_is_given_up_after_a_day(store.clone(), pass).await;
    }

    #[tokio::test]
    async fn a_batch_does_not_wait_for_ever() {
        let store = Arc::new(migrated().await);
        let corrupt = async |statement| execute(&store, statement).await;
        a_day_later_it_makes_do_with_what_there_is(store.clone(), corrupt, PASS_A_DAY).await;
    }
}
