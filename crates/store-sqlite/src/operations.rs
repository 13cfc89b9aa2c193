//! Operations on many tasks. A pass is one transaction.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use forebay_core::{
    Action, Operation, OperationFilter, OperationId, OperationPlan, OperationProgress, State, TaskId,
    Timestamp,
};
use forebay_store::{
    COUNTED_MAX, COUNTING_TIME_MAX, Done, HeldOperation, KEY_KEPT, Matching, MovedOn, OPERATIONS_KEPT,
    OPERATIONS_MAX, OperationPass, Operations, Result, STRETCH, StoreError, Stretch,
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{
    SqliteStore,
    backlog::count,
    dispatch::bounded,
    error::failed,
    operate::{Command, obey},
    row::{Fields, micros_of, to_json},
};

const BEGIN: &str = include_str!("../queries/operation_begin.sql");
const FORGET: &str = include_str!("../queries/operations_forget.sql");
const ONE: &str = include_str!("../queries/operation.sql");
const LIST: &str = include_str!("../queries/operations_list.sql");
const ABORT: &str = include_str!("../queries/operation_abort.sql");
const NEXT: &str = include_str!("../queries/operations_next.sql");
const DUE: &str = include_str!("../queries/operations_due.sql");
const MOVE: &str = include_str!("../queries/operation_move.sql");
const WALK: &str = include_str!("../queries/operation_walk.sql");
const TASK: &str = include_str!("../queries/task_event.sql");
const DELETE: &str = include_str!("../queries/delete_task.sql");
const PASSING: &str = "carry out an operation";

#[async_trait]
impl Operations for SqliteStore {
    async fn matching(&self, plan: &OperationPlan, sample: usize) -> Result<Matching> {
        let now = self.clock_now();
        let (mut from, until) = plan.ids(now);
        let (began, mut matching) = (Instant::now(), Matching::default());
        let mut reader = self.reader("count the tasks of an operation").await?;
        loop {
            let stretch = walk(&mut reader, plan, now, (from, until), STRETCH).await?;
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
        let (first, _) = plan.ids(Timestamp::MAX);
        let mut tx = self.begin(DOING).await?;
        sqlx::query(BEGIN)
            .bind(id.as_uuid())
            .bind(plan.action.as_str())
            .bind(to_json(&plan.filter)?)
            .bind(plan.rate_per_second)
            .bind(plan.max.map(long))
            .bind(long(expected.count))
            .bind(expected.is_exact)
            .bind(first)
            .bind(micros_of(self.clock_now()))
            .bind(OPERATIONS_MAX)
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        sqlx::query(FORGET)
            .bind(OPERATIONS_KEPT)
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        let begun = get(&mut tx, DOING, id).await?;
        tx.commit().await?;
        Ok(begun)
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        const DOING: &str = "read an operation";
        get(&mut *self.reader(DOING).await?, DOING, id).await
    }

    async fn operations(&self, page_size: usize, after: Option<OperationId>) -> Result<Vec<Operation>> {
        const DOING: &str = "list operations";
        let rows = sqlx::query(LIST)
            .bind(after.map(OperationId::as_uuid))
            .bind(bounded(page_size))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        rows.iter().map(operation).collect()
    }

    async fn abort_operation(&self, id: OperationId) -> Result<Option<Operation>> {
        const DOING: &str = "abort an operation";
        let mut tx = self.begin(DOING).await?;
        sqlx::query(ABORT)
            .bind(id.as_uuid())
            .bind(micros_of(self.clock_now()))
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        let aborted = get(&mut tx, DOING, id).await?;
        tx.commit().await?;
        Ok(aborted)
    }

    async fn pass_operation(&self) -> Result<OperationPass> {
        let next: Option<i64> = sqlx::query_scalar(NEXT)
            .fetch_one(&mut *self.reader(PASSING).await?)
            .await
            .map_err(failed(PASSING))?;
        let Some(next) = next else {
            return Ok(OperationPass::default());
        };
        if let Ok(next_in @ 1..) = u64::try_from(next - micros_of(self.clock_now())) {
            return Ok(OperationPass {
                next_in: Some(Duration::from_micros(next_in)),
                ..OperationPass::default()
            });
        }
        match self.pass(None).await {
            // One of the tasks is at fault: they are gone through one by one, and that one is passed over.
            Err(StoreError::Refused { .. } | StoreError::Corrupt(_)) => {
                match self.pass(Some(Careful::OneByOne)).await {
                    Err(StoreError::Refused { .. } | StoreError::Corrupt(_)) => {
                        self.pass(Some(Careful::PassOver)).await
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

impl SqliteStore {
    async fn pass(&self, careful: Option<Careful>) -> Result<OperationPass> {
        let mut tx = self.begin(PASSING).await?;
        let now = self.clock_now();
        let row = sqlx::query(DUE)
            .bind(micros_of(now))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(PASSING))?;
        let Some(row) = row else {
            tx.commit().await?;
            return Ok(OperationPass::default());
        };
        let held = HeldOperation {
            operation: operation(&row)?,
            walked_to: TaskId::from(Fields(&row).get::<Uuid>("walked_to")?),
            now,
        };
        let asked = match careful {
            None => held.share(),
            Some(_) => held.share().min(1),
        };
        let plan = held.operation.plan.clone();
        let began = held.operation.created_at;
        let (_, until) = plan.ids(began);
        let stretch = walk(&mut tx, &plan, began, (held.walked_to.as_uuid(), until), asked).await?;
        let done = match careful {
            Some(Careful::PassOver) => Done {
                failed: u64::try_from(stretch.ids.len()).unwrap_or(0),
                ..Done::default()
            },
            _ => change(&mut tx, &plan, &stretch.ids, now).await?,
        };
        let moved = held.moved_on(&stretch, asked, &done);
        move_on(&mut tx, &moved).await?;
        tx.commit().await?;
        Ok(moved.told(done, now))
    }
}

/// The next stretch of the tasks between two ids, of those that were created before `began`.
async fn walk(
    connection: &mut SqliteConnection,
    plan: &OperationPlan,
    began: Timestamp,
    (from, until): (Uuid, Uuid),
    asked: u32,
) -> Result<Stretch> {
    let states: Vec<&str> = plan.states().into_iter().map(State::as_str).collect();
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
    let row = sqlx::query(WALK)
        .bind(from)
        .bind(until)
        .bind(STRETCH)
        .bind(asked)
        .bind(to_json(&states)?)
        .bind(micros_of(began))
        .bind(created_after.map(micros_of))
        .bind(created_before.map(micros_of))
        .bind(project.as_ref().map(|name| name.as_str()))
        .bind(queue.as_ref().map(|name| name.as_str()))
        .bind(kind.as_ref().map(|name| name.as_str()))
        .bind(tag)
        .bind(batch.map(|batch| batch.to_string()))
        .bind(error_contains)
        .fetch_one(connection)
        .await
        .map_err(failed(PASSING))?;
    let fields = Fields(&row);
    let ids: Vec<Uuid> = fields.list("ids")?;
    Ok(Stretch {
        ids: ids.into_iter().map(TaskId::from).collect(),
        last: fields.get::<Option<Uuid>>("last")?.map(TaskId::from),
        length: fields.get("length")?,
    })
}

/// Does it to these tasks.
async fn change(
    tx: &mut SqliteConnection,
    plan: &OperationPlan,
    ids: &[TaskId],
    now: Timestamp,
) -> Result<Done> {
    let mut done = Done::default();
    let key_kept = now.saturating_sub(KEY_KEPT).unwrap_or(Timestamp::MIN);
    for &id in ids {
        let row = sqlx::query(TASK)
            .bind(id.as_uuid())
            .fetch_one(&mut *tx)
            .await
            .map_err(failed(PASSING))?;
        let before = Fields(&row).event(now)?;
        let is_done = match plan.action {
            Action::Retry => obey(tx, PASSING, Command::Retry, id, now).await?,
            Action::Cancel => obey(tx, PASSING, Command::Cancel, id, now).await?,
            Action::Delete => {
                let deleted = sqlx::query(DELETE)
                    .bind(id.as_uuid())
                    .bind(micros_of(key_kept))
                    .execute(&mut *tx)
                    .await
                    .map_err(failed(PASSING))?;
                deleted.rows_affected() > 0
            }
        };
        done.note(plan.action, before, is_done);
    }
    Ok(done)
}

async fn move_on(tx: &mut SqliteConnection, moved: &MovedOn) -> Result<()> {
    let operation = &moved.operation;
    let OperationProgress {
        matched,
        done,
        skipped,
        failed: faulty,
    } = operation.progress;
    sqlx::query(MOVE)
        .bind(operation.id.as_uuid())
        .bind(moved.walked_to.as_uuid())
        .bind(moved.look_at.map(micros_of))
        .bind(operation.state.as_str())
        .bind(micros_of(operation.updated_at))
        .bind(operation.finished_at.map(micros_of))
        .bind(long(matched))
        .bind(long(done))
        .bind(long(skipped))
        .bind(long(faulty))
        .execute(tx)
        .await
        .map_err(failed(PASSING))?;
    Ok(())
}

fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn get(
    connection: &mut SqliteConnection,
    doing: &'static str,
    id: OperationId,
) -> Result<Option<Operation>> {
    let row = sqlx::query(ONE)
        .bind(id.as_uuid())
        .fetch_optional(connection)
        .await
        .map_err(failed(doing))?;
    row.as_ref().map(operation).transpose()
}

fn operation(row: &SqliteRow) -> Result<Operation> {
    let fields = Fields(row);
    let max = fields.get::<Option<i64>>("max")?;
    Ok(Operation {
        id: OperationId::from(fields.get::<Uuid>("id")?),
        plan: OperationPlan {
            action: fields.text("action")?,
            filter: fields.list("filter")?,
            rate_per_second: fields.get("rate")?,
            max: max.map(i64::unsigned_abs),
        },
        state: fields.text("state")?,
        expected: count(row, "expected")?,
        expected_is_exact: fields.get("expected_is_exact")?,
        progress: OperationProgress {
            matched: count(row, "matched")?,
            done: count(row, "done")?,
            skipped: count(row, "skipped")?,
            failed: count(row, "failed")?,
        },
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
        finished_at: fields.maybe_time("finished_at")?,
    })
}
