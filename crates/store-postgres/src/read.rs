//! Reading: single tasks, lists, queues and workers. Bounded by the session's `statement_timeout`.

use async_trait::async_trait;
use forebay_core::{
    AttemptError, Fingerprint, Json, Project, QueueName, State, Task, TaskId, TaskProgress, TraceParent,
    UniqueMark, WorkerId, WorkerInfo,
};
use forebay_store::{
    OldestReady, Page, PageToken, QueueCounts, Read, ReadyWalk, Rejects, Result, SetAside, TaskFilter,
};
use sqlx::{PgExecutor, Postgres, QueryBuilder, Row, postgres::PgRow, types::Json as Jsonb};
use uuid::Uuid;

use crate::{
    PostgresStore, error,
    hot::bounded,
    oldest,
    values::{Instant, count, duration, terms, word},
};

/// How many tasks a page has at most, whatever was asked for.
const PAGE_SIZE_MAX: usize = 1_000;

/// How much of a body that was set aside is shown at most.
const EXCERPT_BYTES_MAX: usize = 64 * 1024;

#[async_trait]
impl Read for PostgresStore {
    async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        bounded("read a task", get(&self.reads, id)).await
    }

    async fn unique_holder(&self, project: &Project, mark: UniqueMark) -> Result<Option<Task>> {
        const DOING: &str = "look for a unique task";
        let holder = async {
            let id: Option<Uuid> = sqlx::query_scalar(include_str!("../queries/unique_keys_in_the_way.sql"))
                .bind(project.as_str())
                .bind(mark.as_uuid())
                .fetch_optional(&self.reads)
                .await
                .map_err(|e| error::read(DOING, e))?;
            match id {
                Some(id) => get(&self.reads, TaskId::from(id)).await,
                None => Ok(None),
            }
        };
        bounded(DOING, holder).await
    }

    async fn list(&self, filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> Result<Page> {
        const DOING: &str = "list tasks";
        let page_size = page_size.clamp(1, PAGE_SIZE_MAX);
        let mut query = list_query(filter, page_size, page);
        let rows = async {
            query
                .build()
                .fetch_all(&self.reads)
                .await
                .map_err(|e| error::read(DOING, e))
        };
        let rows = bounded(DOING, rows).await?;
        let tasks: Vec<Task> = rows.iter().take(page_size).map(task).collect::<Result<_>>()?;
        let next = tasks
            .last()
            .filter(|_| rows.len() > page_size)
            .map(|last| PageToken {
                created_at: last.created_at,
                id: last.id,
            });
        Ok(Page { tasks, next })
    }

    async fn queues(&self) -> Result<Vec<QueueCounts>> {
        const DOING: &str = "list queues";
        let rows = sqlx::query(include_str!("../queries/queues_list.sql")).fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        rows.iter()
            .map(|row| {
                Ok(QueueCounts {
                    name: word(field(row, "name")?)?,
                    running: field::<i64>(row, "running")?.unsigned_abs(),
                    scheduled: field::<i64>(row, "scheduled")?.unsigned_abs(),
                    throttled: field::<i64>(row, "throttled")?.unsigned_abs(),
                    paused: field(row, "paused")?,
                })
            })
            .collect()
    }

    async fn paused_queues(&self) -> Result<Vec<QueueName>> {
        const DOING: &str = "list paused queues";
        let rows = sqlx::query(include_str!("../queries/queues_paused.sql")).fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        rows.iter().map(|row| word(field(row, "name")?)).collect()
    }

    async fn oldest_ready(&self, queue: &QueueName, walk: ReadyWalk) -> Result<OldestReady> {
        const DOING: &str = "look for the oldest ready task";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, oldest::oldest_ready(connection.client(), queue, walk)).await;
        connection.settle(outcome)
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        const DOING: &str = "list workers";
        let rows = sqlx::query(include_str!("../queries/workers_list.sql")).fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        rows.iter().map(worker).collect()
    }

    async fn rejects(&self, limit: usize, excerpt_bytes: usize) -> Result<Rejects> {
        const DOING: &str = "list messages that were set aside";
        let rows = sqlx::query(include_str!("../queries/rejects_list.sql"))
            .bind(i64::try_from(limit.clamp(1, PAGE_SIZE_MAX)).unwrap_or(1))
            .bind(i32::try_from(excerpt_bytes.min(EXCERPT_BYTES_MAX)).unwrap_or(0))
            .fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        let count = rows.first().map(|row| field::<i64>(row, "count")).transpose()?;
        let reject = |row| {
            Ok(SetAside {
                rejected_at: field::<Instant>(row, "rejected_at")?.0,
                subject: field(row, "subject")?,
                reason: field(row, "reason")?,
                bytes: field::<i64>(row, "bytes")?.unsigned_abs(),
                excerpt: field::<Vec<u8>>(row, "excerpt")?.into(),
            })
        };
        Ok(Rejects {
            count: count.unwrap_or(0).unsigned_abs(),
            latest: rows.iter().map(reject).collect::<Result<_>>()?,
        })
    }
}

/// Reads a task by its id or, under an idempotency key, by those of the windows before and after.
pub(crate) async fn get(executor: impl PgExecutor<'_>, id: TaskId) -> Result<Option<Task>> {
    let ids: Vec<Uuid> = std::iter::once(id)
        .chain(id.adjacent_windows())
        .map(TaskId::as_uuid)
        .collect();
    let row = sqlx::query(include_str!("../queries/tasks_get.sql"))
        .bind(ids)
        .fetch_optional(executor)
        .await
        .map_err(|e| error::read("read a task", e))?;
    row.as_ref().map(task).transpose()
}

/// One row more than the page has says whether there is another.
fn list_query(filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::<Postgres>::new(include_str!("../queries/tasks_list.sql"));
    let named = [
        (
            " AND project = ",
            filter.project.as_ref().map(|name| name.as_str()),
        ),
        (" AND queue = ", filter.queue.as_ref().map(|name| name.as_str())),
        (" AND kind = ", filter.kind.as_ref().map(|name| name.as_str())),
    ];
    for (condition, name) in named {
        if let Some(name) = name {
            query.push(condition).push_bind(name.to_owned());
        }
    }
    if let Some(tag) = &filter.tag {
        query
            .push(" AND tags @> ARRAY[")
            .push_bind(forebay_core::sanitize_text(tag))
            .push("]::text[]");
    }
    if let Some(after) = filter.created_after {
        query.push(" AND created_at > ").push_bind(Instant(after));
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at < ").push_bind(Instant(before));
    }
    if let Some(state) = filter.state {
        query
            .push(" AND state = ")
            .push_bind(state.as_str())
            .push("::task_state");
        query.push(found_beside(state));
    }
    if let Some(PageToken { created_at, id }) = page {
        query
            .push(" AND (created_at, id) < (")
            .push_bind(Instant(created_at));
        query.push(", ").push_bind(id.as_uuid()).push(")");
    }
    let limit = i64::try_from(page_size + 1).unwrap_or(i64::MAX);
    query
        .push(" ORDER BY created_at DESC, id DESC LIMIT ")
        .push_bind(limit);
    query
}

/// The small table that knows the tasks of a state, where there is one: the planner may begin there.
fn found_beside(state: State) -> &'static str {
    match state {
        State::Failed => " AND id IN (SELECT task_id FROM failures)",
        State::Scheduled | State::Retrying => " AND id IN (SELECT task_id FROM due)",
        State::Running => " AND id IN (SELECT unnest(task_ids) FROM claims)",
        _ => "",
    }
}

pub(crate) fn field<'a, T>(row: &'a PgRow, name: &str) -> Result<T>
where
    T: sqlx::Decode<'a, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(name).map_err(error::corrupt)
}

fn time(row: &PgRow, name: &str) -> Result<Option<forebay_core::Timestamp>> {
    Ok(field::<Option<Instant>>(row, name)?.map(|instant| instant.0))
}

fn json(text: String) -> Result<Json> {
    Json::from_trusted(text.into()).map_err(error::corrupt)
}

pub(crate) fn task(row: &PgRow) -> Result<Task> {
    Ok(Task {
        id: TaskId::from(field::<Uuid>(row, "id")?),
        project: word(field(row, "project")?)?,
        kind: word(field(row, "kind")?)?,
        queue: word(field(row, "queue")?)?,
        priority: word(field(row, "priority")?)?,
        state: word(field(row, "state")?)?,
        payload: json(field(row, "payload")?)?,
        result: field::<Option<String>>(row, "result")?.map(json).transpose()?,
        attempt: count(field(row, "attempt")?)?,
        fence: count(field(row, "fence")?)?,
        max_attempts: field::<Option<i32>>(row, "max_attempts")?
            .map(count)
            .transpose()?,
        timeout: field::<Option<i64>>(row, "timeout_us")?.map(duration),
        tags: field(row, "tags")?,
        run_at: time(row, "run_at")?,
        created_at: field::<Instant>(row, "created_at")?.0,
        started_at: time(row, "started_at")?,
        finished_at: time(row, "finished_at")?,
        worker: field::<Option<Uuid>>(row, "worker")?.map(WorkerId::from),
        cancel_requested: field(row, "cancel_requested")?,
        errors: field::<Jsonb<Vec<AttemptError>>>(row, "errors")?.0,
        log: field(row, "log")?,
        progress: field::<Option<Jsonb<TaskProgress>>>(row, "progress")?.map(|progress| progress.0),
        traceparent: field::<Option<&str>>(row, "traceparent")?.and_then(TraceParent::parse),
        fingerprint: field::<Option<Uuid>>(row, "fingerprint")?.map(|id| Fingerprint(id.into_bytes())),
        terms: terms(field(row, "terms")?)?,
    })
}

fn worker(row: &PgRow) -> Result<WorkerInfo> {
    let queues: Vec<String> = field(row, "queues")?;
    let busy = field::<Jsonb<Vec<(String, u32)>>>(row, "busy")?.0;
    let finished = field::<Jsonb<Vec<(String, u64)>>>(row, "finished")?.0;
    Ok(WorkerInfo {
        id: WorkerId::from(field::<Uuid>(row, "id")?),
        name: field(row, "name")?,
        queues: queues.iter().map(|queue| word(queue)).collect::<Result<_>>()?,
        slots: count(field(row, "slots")?)?,
        busy: busy
            .iter()
            .map(|(queue, tasks)| Ok((word(queue)?, *tasks)))
            .collect::<Result<_>>()?,
        finished: finished
            .iter()
            .map(|(queue, attempts)| Ok((word(queue)?, *attempts)))
            .collect::<Result<_>>()?,
        draining: field(row, "draining")?,
        started_at: field::<Instant>(row, "started_at")?.0,
        heartbeat_at: field::<Instant>(row, "heartbeat_at")?.0,
    })
}
