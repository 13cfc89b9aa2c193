//! Recording tasks on terms: where one stands may go by other tasks, and others may hear of its end. All of it is in
//! one transaction with the rows themselves.

pub(crate) mod after;
mod batch;
pub(crate) mod expiry;
pub(crate) mod unique;

use forebay_core::{AttemptError, Outcome, State, Submission, TaskId, Timestamp};
use forebay_store::Result;
use sqlx::SqliteConnection;

use self::unique::Decided;
use crate::{
    error::failed,
    row::{micros_of, to_json},
};

const DOING: &str = "record tasks on terms";
const SETTLE: &str = "INSERT INTO settled (task_id, state, settled_at) VALUES (?1, ?2, ?3)";

/// Where a task stands when it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    /// When it is due: now or later where it is scheduled; when it may be where it is blocked.
    pub(crate) run_at: Option<Timestamp>,
    /// Why it has ended before it began.
    pub(crate) error: Option<String>,
}

impl Standing {
    /// Ready, or waiting for its time.
    pub(crate) fn by_time(task: &Submission) -> Self {
        Self {
            state: match task.run_at {
                Some(_) => State::Scheduled,
                None => State::Queued,
            },
            run_at: task.run_at,
            error: None,
        }
    }

    /// Over before it began.
    pub(crate) fn cancelled(error: String) -> Self {
        Self {
            state: State::Cancelled,
            run_at: None,
            error: Some(error),
        }
    }

    /// Its errors, as the column has them; `None` where there are none.
    pub(crate) fn errors(&self, now: Timestamp) -> Result<Option<String>> {
        let error = self.error.as_deref();
        let error = error.map(|error| AttemptError::new(0, Outcome::Cancelled, error, now));
        error.map(|error| to_json(&[error])).transpose()
    }
}

/// Where a task stands, and which one was cancelled since this one takes its place. Most have nothing to do with others.
pub(crate) async fn standing(
    tx: &mut SqliteConnection,
    task: &Submission,
    now: Timestamp,
) -> Result<(Standing, Option<TaskId>)> {
    if let Some(standing) = batch::standing(tx, task).await? {
        return Ok((standing, None));
    }
    let after = after::standing(tx, task, now).await?;
    // What is over takes nobody's place.
    if let Some(over) = after.as_ref().filter(|after| after.state.is_final()) {
        return Ok((over.clone(), None));
    }
    let (replaced, after) = match unique::decide(tx, task, now).await? {
        Decided::TurnedAway(standing) => return Ok((standing, None)),
        // It may have been what this one waits for.
        Decided::Replaced(other) => (Some(other), after::standing(tx, task, now).await?),
        Decided::Free => (None, after),
    };
    Ok((after.unwrap_or_else(|| Standing::by_time(task)), replaced))
}

/// What is kept beside the row of a task that is new.
pub(crate) async fn note(
    tx: &mut SqliteConnection,
    task: &Submission,
    standing: &Standing,
    now: Timestamp,
) -> Result<()> {
    unique::note(tx, task, standing).await?;
    expiry::note(tx, task, standing).await?;
    after::note(tx, task, standing, now).await?;
    batch::note(tx, task).await?;
    let is_watched = task.terms.as_ref().is_some_and(|terms| terms.is_watched());
    if is_watched && standing.state.is_final() {
        sqlx::query(SETTLE)
            .bind(task.id.as_uuid())
            .bind(standing.state.as_str())
            .bind(micros_of(now))
            .execute(tx)
            .await
            .map_err(failed(DOING))?;
    }
    Ok(())
}
