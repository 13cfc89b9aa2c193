//! Reading tasks, lists and queues.

use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{Priority, Project, QueueName, State, Task, TaskId, UniqueMark, WorkerInfo};
use forebay_store::{
    OldestReady, Page, PageToken, QueueCounts, Read, ReadyWalk, Rejects, Result, SetAside, TaskFilter,
};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::{
    SqliteStore,
    backlog::count,
    error::failed,
    row::{Fields, micros_of},
    terms, workers,
};

const ONE_TASK: &str = concat!(include_str!("../queries/task.sql"), "t.id = ?1");
const TASKS: &str = include_str!("../queries/task.sql");
const QUEUES: &str = include_str!("../queries/queues.sql");
const PAUSED_QUEUES: &str = include_str!("../queries/paused_queues.sql");
const OLDEST_READY: &str = include_str!("../queries/oldest_ready.sql");
const REJECTS: &str = include_str!("../queries/rejects.sql");

/// How many messages that were set aside are listed at most, and how much of a body is shown.
const REJECTS_MAX: usize = 1_000;
const EXCERPT_BYTES_MAX: usize = 64 * 1024;

#[async_trait]
impl Read for SqliteStore {
    async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        get(&mut *self.reader("read a task").await?, id).await
    }

    async fn unique_holder(&self, project: &Project, mark: UniqueMark) -> Result<Option<Task>> {
        terms::unique::in_the_way(self, project, mark).await
    }

    async fn list(&self, filter: &TaskFilter, page_size: usize, page: Option<PageToken>) -> Result<Page> {
        const DOING: &str = "list tasks";
        let mut query = listing(filter, page_size, page);
        let rows = query
            .build()
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let is_last = rows.len() <= page_size;
        let tasks = rows
            .iter()
            .take(page_size)
            .map(|row| Fields(row).task())
            .collect::<Result<Vec<Task>>>()?;
        let next = tasks.last().filter(|_| !is_last).map(|task| PageToken {
            created_at: task.created_at,
            id: task.id,
        });
        Ok(Page { tasks, next })
    }

    async fn queues(&self) -> Result<Vec<QueueCounts>> {
        const DOING: &str = "list the queues";
        let mut reader = self.reader(DOING).await?;
        let running = workers::busy(&mut reader).await?;
        let rows = sqlx::query(QUEUES)
            .fetch_all(&mut *reader)
            .await
            .map_err(failed(DOING))?;
        rows.iter()
            .map(|row| {
                let name = Fields(row).text("name")?;
                Ok(QueueCounts {
                    running: running.get(&name).copied().unwrap_or(0),
                    scheduled: count(row, "scheduled")?,
                    throttled: count(row, "throttled")?,
                    paused: Fields(row).get("paused")?,
                    name,
                })
            })
            .collect()
    }

    async fn paused_queues(&self) -> Result<Vec<QueueName>> {
        const DOING: &str = "list paused queues";
        let rows = sqlx::query(PAUSED_QUEUES)
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        rows.iter().map(|row| Fields(row).text("name")).collect()
    }

    async fn oldest_ready(&self, queue: &QueueName, walk: ReadyWalk) -> Result<OldestReady> {
        const DOING: &str = "look for the oldest ready task";
        let row = sqlx::query(OLDEST_READY)
            .bind(queue.as_str())
            .fetch_one(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let mut times = Vec::with_capacity(Priority::ALL.len());
        for priority in Priority::ALL {
            times.extend(Fields(&row).get::<Option<i64>>(priority.as_str())?);
        }
        let age = times.into_iter().min().map(|since| {
            let micros = micros_of(self.clock_now()).saturating_sub(since);
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        });
        // The index has the answer: there is no walk.
        Ok(OldestReady {
            age,
            walk,
            is_complete: true,
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        workers::workers(self).await
    }

    async fn rejects(&self, limit: usize, excerpt_bytes: usize) -> Result<Rejects> {
        const DOING: &str = "list messages that were set aside";
        let rows = sqlx::query(REJECTS)
            .bind(i64::try_from(limit.clamp(1, REJECTS_MAX)).unwrap_or(1))
            .bind(i64::try_from(excerpt_bytes.min(EXCERPT_BYTES_MAX)).unwrap_or(0))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let total = rows.first().map(|row| count(row, "count")).transpose()?;
        let reject = |row| {
            let fields = Fields(row);
            Ok(SetAside {
                rejected_at: fields.time("at")?,
                subject: fields.get("subject")?,
                reason: fields.get("reason")?,
                bytes: count(row, "bytes")?,
                excerpt: fields.get::<Vec<u8>>("excerpt")?.into(),
            })
        };
        Ok(Rejects {
            count: total.unwrap_or(0),
            latest: rows.iter().map(reject).collect::<Result<_>>()?,
        })
    }
}

/// Reads a task, or that of its key's window before or after.
pub(crate) async fn get(reader: &mut SqliteConnection, id: TaskId) -> Result<Option<Task>> {
    for id in std::iter::once(id).chain(id.adjacent_windows()) {
        let row = sqlx::query(ONE_TASK)
            .bind(id.as_uuid())
            .fetch_optional(&mut *reader)
            .await
            .map_err(failed("read a task"))?;
        if let Some(row) = row {
            return Fields(&row).task().map(Some);
        }
    }
    Ok(None)
}

/// The states as conditions: literals, since a partial index is not used for a parameter.
fn in_state(state: State) -> &'static str {
    match state {
        State::Scheduled => "t.state = 'scheduled' AND t.state IN ('scheduled', 'throttled', 'retrying')",
        State::Blocked => "t.state = 'blocked'",
        State::Throttled => "t.state = 'throttled'",
        State::Queued => "t.state = 'queued'",
        State::Running => "t.state = 'running'",
        State::Retrying => "t.state = 'retrying' AND t.state IN ('scheduled', 'throttled', 'retrying')",
        State::Succeeded => "t.state = 'succeeded'",
        State::Failed => "t.state = 'failed' AND t.state IN ('failed', 'cancelled', 'expired')",
        State::Cancelled => "t.state = 'cancelled' AND t.state IN ('failed', 'cancelled', 'expired')",
        State::Expired => "t.state = 'expired' AND t.state IN ('failed', 'cancelled', 'expired')",
    }
}

/// One more than a page is asked for, to know whether there is another.
pub(crate) fn listing(
    filter: &TaskFilter,
    page_size: usize,
    page: Option<PageToken>,
) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(TASKS);
    let mut all = query.separated(" AND ");
    all.push("TRUE");
    if let Some(page) = page {
        all.push("(t.created_at, t.id) < (");
        all.push_bind_unseparated(micros_of(page.created_at));
        all.push_unseparated(", ");
        all.push_bind_unseparated(page.id.as_uuid());
        all.push_unseparated(")");
    }
    if let Some(state) = filter.state {
        all.push(in_state(state));
    }
    if let Some(project) = &filter.project {
        all.push("t.project = ")
            .push_bind_unseparated(project.to_string());
    }
    if let Some(queue) = &filter.queue {
        all.push("t.queue = ").push_bind_unseparated(queue.to_string());
    }
    if let Some(kind) = &filter.kind {
        all.push("t.kind = ").push_bind_unseparated(kind.to_string());
    }
    if let Some(tag) = &filter.tag {
        all.push("EXISTS (SELECT 1 FROM json_each(t.tags) AS tag WHERE tag.value = ");
        all.push_bind_unseparated(tag.clone());
        all.push_unseparated(")");
    }
    if let Some(after) = filter.created_after {
        all.push("t.created_at > ")
            .push_bind_unseparated(micros_of(after));
    }
    if let Some(before) = filter.created_before {
        all.push("t.created_at < ")
            .push_bind_unseparated(micros_of(before));
    }
    let limit = i64::try_from(page_size).unwrap_or(i64::MAX).saturating_add(1);
    query
        .push(" ORDER BY t.created_at DESC, t.id DESC LIMIT ")
        .push_bind(limit);
    query
}
