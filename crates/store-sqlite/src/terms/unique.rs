//! Tasks that must be the only one of something. Which of several is that, is decided as they are recorded, and here all
//! that is recorded waits in one line.

use forebay_core::{AttemptError, Outcome, Project, Submission, Task, TaskId, Timestamp, Unique, UniqueMark};
use forebay_store::{Entry, Result, UniqueHolder, enter, replaced_by};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::Standing;
use crate::{
    SqliteStore,
    error::failed,
    limits, read,
    record::known_fingerprint,
    row::{Fields, micros_of, to_json},
};

const HOLDER: &str = include_str!("../../queries/unique_keys_holder.sql");
const REPLACE: &str = include_str!("../../queries/replace.sql");
const TAKE: &str = include_str!("../../queries/unique_keys_take.sql");
const STRETCH: &str = include_str!("../../queries/unique_keys_stretch.sql");
const FORGET: &str = include_str!("../../queries/unique_keys_forget.sql");
const DOING: &str = "record a unique task";

/// How many marks maintenance looks at in one transaction.
const FORGOTTEN_AT_ONCE: i64 = 5_000;

fn unique(task: &Submission) -> Option<&Unique> {
    task.terms.as_ref()?.unique.as_ref()
}

/// What was decided of a task that may have to be the only one of something.
pub(super) enum Decided {
    /// Nothing is in its way.
    Free,
    /// It is over before it began.
    TurnedAway(Standing),
    /// Nothing is in its way any more: this one was cancelled.
    Replaced(TaskId),
}

/// Decides who may stand beside whom. What a task replaces is cancelled.
pub(super) async fn decide(tx: &mut SqliteConnection, task: &Submission, now: Timestamp) -> Result<Decided> {
    let Some(unique) = unique(task) else {
        return Ok(Decided::Free);
    };
    // What is known already has had its turn, and may be replaced by now.
    if known_fingerprint(tx, task.id).await?.is_some() {
        return Ok(Decided::Free);
    }
    let holder = holder(tx, &task.project, unique.mark).await?;
    match enter(unique, task.created_at, holder.as_ref(), now) {
        Entry::Free => Ok(Decided::Free),
        Entry::TurnedAway(error) => Ok(Decided::TurnedAway(Standing::cancelled(error))),
        Entry::Replaces(other) => {
            replace(tx, other, task.id, now).await?;
            Ok(Decided::Replaced(other))
        }
    }
}

/// Gives the mark to a recorded task, unless it is over already.
pub(super) async fn note(tx: &mut SqliteConnection, task: &Submission, standing: &Standing) -> Result<()> {
    if let Some(unique) = unique(task).filter(|_| !standing.state.is_final()) {
        sqlx::query(TAKE)
            .bind(task.project.as_str())
            .bind(unique.mark.as_uuid())
            .bind(task.id.as_uuid())
            .bind(unique.until.map(micros_of))
            .execute(tx)
            .await
            .map_err(failed(DOING))?;
    }
    Ok(())
}

/// Who took a mark last, if it is still there.
async fn holder(
    connection: &mut SqliteConnection,
    project: &Project,
    mark: UniqueMark,
) -> Result<Option<UniqueHolder>> {
    let row = sqlx::query(HOLDER)
        .bind(project.as_str())
        .bind(mark.as_uuid())
        .fetch_optional(connection)
        .await
        .map_err(failed(DOING))?;
    let read = |row: &SqliteRow| {
        let fields = Fields(row);
        Ok(UniqueHolder {
            task: fields.task_id()?,
            state: fields.text("state")?,
            created_at: fields.time("created_at")?,
            until: fields.maybe_time("until")?,
        })
    };
    row.as_ref().map(read).transpose()
}

async fn replace(tx: &mut SqliteConnection, other: TaskId, by: TaskId, now: Timestamp) -> Result<()> {
    let error = AttemptError::new(0, Outcome::Cancelled, &replaced_by(by), now);
    sqlx::query(REPLACE)
        .bind(other.as_uuid())
        .bind(micros_of(now))
        .bind(to_json(&error)?)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    limits::leave(tx, other, now).await
}

/// The task that a submission with this mark would be in conflict with.
pub(crate) async fn in_the_way(
    store: &SqliteStore,
    project: &Project,
    mark: UniqueMark,
) -> Result<Option<Task>> {
    let mut reader = store.reader("look for a unique task").await?;
    let now = store.clock_now();
    match holder(&mut reader, project, mark).await? {
        Some(holder) if holder.is_in_the_way(now) => read::get(&mut reader, holder.task).await,
        _ => Ok(None),
    }
}

/// Forgets the marks of tasks that are finished, stretch by stretch, so that others need not wait long.
pub(crate) async fn forget_finished(store: &SqliteStore) -> Result<()> {
    const DOING: &str = "forget the marks of finished tasks";
    let mut place = Some((String::new(), Uuid::nil()));
    while let Some((project, mark)) = place {
        let mut tx = store.begin(DOING).await?;
        let end: Option<(String, Uuid)> = sqlx::query_as(STRETCH)
            .bind(&project)
            .bind(mark)
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        sqlx::query(FORGET)
            .bind(micros_of(store.clock_now()))
            .bind(&project)
            .bind(mark)
            .bind(end.as_ref().map(|(project, _)| project))
            .bind(end.as_ref().map(|(_, mark)| *mark))
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        place = end;
    }
    Ok(())
}
