//! Tasks that wait for others.

use forebay_core::{State, Submission, TaskId, Timestamp};
use forebay_store::{Result, StandsAfter};
use sqlx::SqliteConnection;

use super::Standing;
use crate::{
    error::failed,
    row::{Fields, micros_of},
};

const DOING: &str = "record a task that waits for others";
const STATE: &str = "SELECT state FROM tasks WHERE id = ?1";
const WATCH: &str = "UPDATE tasks SET watched = 1 WHERE id = ?1 AND NOT watched";
const ADD: &str = "INSERT INTO blockers (on_id, task_id, known, since, asked_at) VALUES (?1, ?2, ?3, ?4, ?4)
    ON CONFLICT (on_id, task_id) DO UPDATE SET known = known OR excluded.known";

/// Where a task stands that waits for others; `None` of any other.
pub(super) async fn standing(
    tx: &mut SqliteConnection,
    task: &Submission,
    now: Timestamp,
) -> Result<Option<Standing>> {
    Ok(stands(tx, task).await?.map(|stands| match stands {
        // Nobody publishes what says that it is ready, so it is left to the dispatcher.
        StandsAfter::Free => Standing {
            state: State::Scheduled,
            run_at: task.run_at.or(Some(now)),
            error: None,
        },
        StandsAfter::Waits(_) => Standing {
            state: State::Blocked,
            run_at: task.run_at,
            error: None,
        },
        StandsAfter::Cancelled(error) => Standing::cancelled(error),
    }))
}

async fn stands(tx: &mut SqliteConnection, task: &Submission) -> Result<Option<StandsAfter>> {
    let Some(after) = task.terms.as_ref().and_then(|terms| terms.after.as_ref()) else {
        return Ok(None);
    };
    let mut found = Vec::with_capacity(after.tasks.len());
    for &id in &after.tasks {
        found.push((id, find(tx, id).await?));
    }
    let known = |asked: TaskId| {
        found
            .iter()
            .find(|(id, _)| *id == asked)
            .and_then(|(_, found)| *found)
    };
    Ok(Some(StandsAfter::judge(after, known)))
}

/// Notes what a new task waits for. Nothing has changed since it was said where it stands.
pub(super) async fn note(
    tx: &mut SqliteConnection,
    task: &Submission,
    standing: &Standing,
    now: Timestamp,
) -> Result<()> {
    if standing.state != State::Blocked {
        return Ok(());
    }
    if let Some(StandsAfter::Waits(blockers)) = stands(tx, task).await? {
        for blocker in blockers {
            if blocker.known {
                watch(tx, blocker.on).await?;
            }
            add(tx, blocker.on, task.id, blocker.known, now).await?;
        }
    }
    Ok(())
}

/// How a task stands, by its id, or by that of its key in the window before or after.
pub(crate) async fn find(tx: &mut SqliteConnection, id: TaskId) -> Result<Option<(TaskId, State)>> {
    for id in std::iter::once(id).chain(id.adjacent_windows()) {
        let row = sqlx::query(STATE)
            .bind(id.as_uuid())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        if let Some(row) = row {
            return Ok(Some((id, Fields(&row).text("state")?)));
        }
    }
    Ok(None)
}

/// From now on its end is told of.
pub(crate) async fn watch(tx: &mut SqliteConnection, id: TaskId) -> Result<()> {
    sqlx::query(WATCH)
        .bind(id.as_uuid())
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

/// Notes that one waits for another.
pub(crate) async fn add(
    tx: &mut SqliteConnection,
    on: TaskId,
    task: TaskId,
    known: bool,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(ADD)
        .bind(on.as_uuid())
        .bind(task.as_uuid())
        .bind(known)
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}
