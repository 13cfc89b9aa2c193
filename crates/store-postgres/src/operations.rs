//! Operations on many tasks. A pass is one transaction: the operation's row is held, then what is due of its tasks, then
//! these themselves, each in the order of their ids.

use std::time::{Duration, Instant as Began};

use async_trait::async_trait;
use forebay_core::{
    Action, Operation, OperationFilter, OperationId, OperationPlan, OperationProgress, TaskEvent, TaskId,
    Timestamp,
};
use forebay_store::{
    COUNTED_MAX, COUNTING_TIME_MAX, Dispatch, Done, HeldOperation, KEY_KEPT, Matching, MovedOn,
    OPERATIONS_KEPT, OPERATIONS_MAX, OperationPass, Operations, Result, STRETCH, StoreError, Stretch,
};
use sqlx::{PgConnection, PgPool, postgres::PgRow};
use uuid::Uuid;

use crate::{
    PostgresStore, error,
    hot::bounded,
    operate::{Command, obey},
    read::field,
    values::{Instant, count, duration_us, int, word},
};

const PASSING: &str = "carry out an operation";

#[async_trait]
impl Operations for PostgresStore {
    async fn matching(&self, plan: &OperationPlan, sample: usize) -> Result<Matching> {
        const DOING: &str = "count the tasks of an operation";
        let now = self.now().await?;
        let (mut from, until) = plan.ids(now);
        let (began, mut matching) = (Began::now(), Matching::default());
        loop {
            let mut connection = self.reads.acquire().await.map_err(|e| error::read(DOING, e))?;
            let walk = walk(&mut connection, plan, now, (from, until), STRETCH);
            let stretch = bounded(DOING, walk).await?;
            matching.count += u64::try_from(stretch.ids.len()).unwrap_or(0);
            let room = sample.saturating_sub(matching.sample.len());
            matching.sample.extend(stretch.ids.iter().take(room));
            match stretch.next(STRETCH) {
                None => matching.is_exact = true,
                Some(_) if matching.count >= COUNTED_MAX || began.elapsed() >= COUNTING_TIME_MAX => {}
                Some(next) => {
                    from = next.as_uuid();
                    continue;
                }
            }
            return Ok(matching);
        }
    }

    async fn begin_operation(
        &self,
        id: OperationId,
        plan: &OperationPlan,
        expected: &Matching,
    ) -> Result<Option<Operation>> {
        const DOING: &str = "begin an operation";
        let filter = serde_json::to_string(&plan.filter).map_err(error::corrupt)?;
        let (first, _) = plan.ids(Timestamp::MAX);
        let begin = sqlx::query(include_str!("../queries/operations_begin.sql"))
            .bind(id.as_uuid())
            .bind(plan.action.as_str())
            .bind(filter)
            .bind(int(plan.rate_per_second))
            .bind(plan.max.map(long))
            .bind(long(expected.count))
            .bind(expected.is_exact)
            .bind(first)
            .bind(i64::from(OPERATIONS_MAX))
            .execute(&self.reads);
        bounded(DOING, async { begin.await.map_err(|e| error::read(DOING, e)) }).await?;
        let forget = sqlx::query(include_str!("../queries/operations_forget.sql"))
            .bind(i64::from(OPERATIONS_KEPT))
            .execute(&self.reads);
        bounded(DOING, async { forget.await.map_err(|e| error::read(DOING, e)) }).await?;
        self.operation(id).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        const DOING: &str = "read an operation";
        let row = sqlx::query(include_str!("../queries/operations_get.sql"))
            .bind(id.as_uuid())
            .fetch_optional(&self.reads);
        let row = bounded(DOING, async { row.await.map_err(|e| error::read(DOING, e)) }).await?;
        row.as_ref().map(operation).transpose()
    }

    async fn operations(&self, page_size: usize, after: Option<OperationId>) -> Result<Vec<Operation>> {
        const DOING: &str = "list operations";
        let rows = sqlx::query(include_str!("../queries/operations_list.sql"))
            .bind(after.map(OperationId::as_uuid))
            .bind(i64::try_from(page_size).unwrap_or(i64::MAX))
            .fetch_all(&self.reads);
        let rows = bounded(DOING, async { rows.await.map_err(|e| error::read(DOING, e)) }).await?;
        rows.iter().map(operation).collect()
    }

    async fn abort_operation(&self, id: OperationId) -> Result<Option<Operation>> {
        const DOING: &str = "abort an operation";
        let abort = sqlx::query(include_str!("../queries/operations_abort.sql"))
            .bind(id.as_uuid())
            .execute(&self.reads);
        bounded(DOING, async { abort.await.map_err(|e| error::read(DOING, e)) }).await?;
        self.operation(id).await
    }

    /// A look costs one statement while there is nothing to do.
    async fn pass_operation(&self) -> Result<OperationPass> {
        let next_in = bounded(PASSING, next_in(&self.reads)).await?;
        if next_in != Some(Duration::ZERO) {
            return Ok(OperationPass {
                next_in,
                ..OperationPass::default()
            });
        }
        match bounded(PASSING, self.pass(None)).await {
            // One of the tasks is at fault: they are gone through one by one, and that one is passed over.
            Err(StoreError::Refused { .. } | StoreError::Corrupt(_)) => {
                match bounded(PASSING, self.pass(Some(Careful::OneByOne))).await {
                    Err(StoreError::Refused { .. } | StoreError::Corrupt(_)) => {
                        bounded(PASSING, self.pass(Some(Careful::PassOver))).await
                    }
                    passed => passed,
                }
            }
            passed => passed,
        }
    }
}

/// What is done where a task is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Careful {
    OneByOne,
    PassOver,
}

impl PostgresStore {
    async fn pass(&self, careful: Option<Careful>) -> Result<OperationPass> {
        let failed = |e| error::read(PASSING, e);
        let mut transaction = self.reads.begin().await.map_err(failed)?;
        let held = sqlx::query(include_str!("../queries/operations_lock.sql"))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
        // Others may be at it.
        let Some(held) = held.as_ref().map(hold).transpose()? else {
            return Ok(OperationPass::default());
        };
        let asked = match careful {
            None => held.share(),
            Some(_) => held.share().min(1),
        };
        let plan = held.operation.plan.clone();
        let (began, now) = (held.operation.created_at, held.now);
        let (_, until) = plan.ids(began);
        let stretch = walk(
            &mut transaction,
            &plan,
            began,
            (held.walked_to.as_uuid(), until),
            asked,
        )
        .await?;
        let done = match careful {
            Some(Careful::PassOver) => Done {
                failed: u64::try_from(stretch.ids.len()).unwrap_or(0),
                ..Done::default()
            },
            _ => change(&mut transaction, &plan, &stretch.ids, now).await?,
        };
        let moved = held.moved_on(&stretch, asked, &done);
        move_on(&mut transaction, &moved).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(moved.told(done, now))
    }
}

/// How long it is until an operation has something to do.
async fn next_in(pool: &PgPool) -> Result<Option<Duration>> {
    let in_us: Option<i64> = sqlx::query_scalar(include_str!("../queries/operations_next.sql"))
        .fetch_optional(pool)
        .await
        .map_err(|e| error::read(PASSING, e))?;
    Ok(in_us.map(|in_us| Duration::from_micros(u64::try_from(in_us).unwrap_or(0))))
}

/// The next stretch of the tasks between two ids, of those that were created before `began`.
async fn walk(
    connection: &mut PgConnection,
    plan: &OperationPlan,
    began: Timestamp,
    (from, until): (Uuid, Uuid),
    asked: u32,
) -> Result<Stretch> {
    let states = plan.states();
    let sql = match states.as_slice() {
        [forebay_core::State::Failed] => include_str!("../queries/operations_walk_failed.sql"),
        _ => include_str!("../queries/operations_walk.sql"),
    };
    let states: Vec<&str> = states.into_iter().map(forebay_core::State::as_str).collect();
    let OperationFilter {
        project,
        queue,
        kind,
        tag,
        batch,
        created_after,
        created_before,
        error_contains,
        state: _,
    } = &plan.filter;
    let row = sqlx::query(sql)
        .bind(from)
        .bind(until)
        .bind(int(STRETCH))
        .bind(int(asked))
        .bind(states)
        .bind(Instant(began))
        .bind(created_after.map(Instant))
        .bind(created_before.map(Instant))
        .bind(project.as_ref().map(|name| name.as_str()))
        .bind(queue.as_ref().map(|name| name.as_str()))
        .bind(kind.as_ref().map(|name| name.as_str()))
        .bind(tag)
        .bind(batch.map(|batch| batch.to_string()))
        .bind(error_contains)
        .fetch_one(connection)
        .await
        .map_err(|e| error::read(PASSING, e))?;
    Ok(Stretch {
        ids: field::<Vec<Uuid>>(&row, "ids")?
            .into_iter()
            .map(TaskId::from)
            .collect(),
        last: field::<Option<Uuid>>(&row, "last")?.map(TaskId::from),
        length: count(field(&row, "length")?)?,
    })
}

/// Does it to these tasks.
async fn change(
    connection: &mut PgConnection,
    plan: &OperationPlan,
    ids: &[TaskId],
    now: Timestamp,
) -> Result<Done> {
    let mut done = Done::default();
    if ids.is_empty() {
        return Ok(done);
    }
    let held = hold_tasks(connection, ids, now).await?;
    done.skipped += u64::try_from(ids.len() - held.len()).unwrap_or(0);
    let states = plan.states();
    let (meant, changed): (Vec<TaskEvent>, Vec<TaskEvent>) =
        held.into_iter().partition(|task| states.contains(&task.state));
    done.skipped += u64::try_from(changed.len()).unwrap_or(0);
    if plan.action == Action::Delete {
        let deleted = delete(connection, &meant).await?;
        for task in meant {
            let is_gone = deleted.contains(&task.id);
            done.note(plan.action, task, is_gone);
        }
        return Ok(done);
    }
    let command = match plan.action {
        Action::Cancel => Command::Cancel,
        _ => Command::Retry,
    };
    for task in meant {
        let is_done = obey(connection, PASSING, command, task.id).await?;
        done.note(plan.action, task, is_done);
    }
    Ok(done)
}

async fn hold_tasks(connection: &mut PgConnection, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskEvent>> {
    let failed = |e| error::read(PASSING, e);
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    sqlx::query(include_str!("../queries/due_hold_all.sql"))
        .bind(&ids)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    let rows = sqlx::query(include_str!("../queries/tasks_hold_all.sql"))
        .bind(&ids)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let event = |row: &PgRow| {
        Ok(TaskEvent {
            id: TaskId::from(field::<Uuid>(row, "id")?),
            kind: word(field(row, "kind")?)?,
            queue: word(field(row, "queue")?)?,
            state: word(field(row, "state")?)?,
            attempt: count(field(row, "attempt")?)?,
            at: now,
        })
    };
    rows.iter().map(event).collect()
}

async fn delete(connection: &mut PgConnection, tasks: &[TaskEvent]) -> Result<Vec<TaskId>> {
    let ids: Vec<Uuid> = tasks.iter().map(|task| task.id.as_uuid()).collect();
    let gone: Vec<Uuid> = sqlx::query_scalar(include_str!("../queries/tasks_delete.sql"))
        .bind(&ids)
        .bind(duration_us(KEY_KEPT))
        .fetch_all(connection)
        .await
        .map_err(|e| error::read(PASSING, e))?;
    Ok(gone.into_iter().map(TaskId::from).collect())
}

async fn move_on(connection: &mut PgConnection, moved: &MovedOn) -> Result<()> {
    let operation = &moved.operation;
    let OperationProgress {
        matched,
        done,
        skipped,
        failed,
    } = operation.progress;
    sqlx::query(include_str!("../queries/operations_move.sql"))
        .bind(operation.id.as_uuid())
        .bind(moved.walked_to.as_uuid())
        .bind(moved.look_at.map(Instant))
        .bind(operation.state.as_str())
        .bind(Instant(operation.updated_at))
        .bind(operation.finished_at.map(Instant))
        .bind(long(matched))
        .bind(long(done))
        .bind(long(skipped))
        .bind(long(failed))
        .execute(connection)
        .await
        .map_err(|e| error::read(PASSING, e))?;
    Ok(())
}

/// A count as a `bigint`.
fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn hold(row: &PgRow) -> Result<HeldOperation> {
    Ok(HeldOperation {
        operation: operation(row)?,
        walked_to: TaskId::from(field::<Uuid>(row, "walked_to")?),
        now: field::<Instant>(row, "now")?.0,
    })
}

fn operation(row: &PgRow) -> Result<Operation> {
    let number = |name: &str| field::<i64>(row, name).map(i64::unsigned_abs);
    Ok(Operation {
        id: OperationId::from(field::<Uuid>(row, "id")?),
        plan: OperationPlan {
            action: word(field(row, "action")?)?,
            filter: serde_json::from_str(field(row, "filter")?).map_err(error::corrupt)?,
            rate_per_second: count(field(row, "rate")?)?,
            max: field::<Option<i64>>(row, "max")?.map(i64::unsigned_abs),
        },
        state: word(field(row, "state")?)?,
        expected: number("expected")?,
        expected_is_exact: field(row, "expected_is_exact")?,
        progress: OperationProgress {
            matched: number("matched")?,
            done: number("done")?,
            skipped: number("skipped")?,
            failed: number("failed")?,
        },
        created_at: field::<Instant>(row, "created_at")?.0,
        updated_at: field::<Instant>(row, "updated_at")?.0,
        finished_at: field::<Option<Instant>>(row, "finished_at")?.map(|at| at.0),
    })
}
