//! Reads a task. What was accepted is never "not found", however far behind the recorder is.

use std::{future::Future, time::Duration};

use forebay_core::{Task, TaskId};
use tokio::time::{Instant, sleep};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{ask, read},
};

/// Between two looks at a task that may not be recorded yet: at first, and at most.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Reads a task.
pub(crate) async fn get(app: &App, id: TaskId) -> Result<Task> {
    recorded(app, id, || read(app, move || app.store.get(id))).await
}

/// Parses a task's id as a door received it.
pub(crate) fn parse_id(text: &str) -> Result<TaskId> {
    text.parse()
        .map_err(|_| ApiError::at(Code::InvalidParameter, "/id", "must be a UUID"))
}

/// Puts a question about a task to the store until it knows the task, or until the task certainly does not exist.
/// Bounded: past [`crate::Bounds::recording`] the answer is to try again.
pub(crate) async fn recorded<T, Q, A>(app: &App, id: TaskId, question: Q) -> Result<T>
where
    Q: Fn() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    if let Some(found) = question().await? {
        return Ok(found);
    }
    // Only these versions are ever made here.
    if !matches!(id.as_uuid().get_version_num(), 7 | 8) {
        return Err(unknown(id));
    }
    let deadline = Instant::now() + app.bounds.recording;
    let mut pause = PAUSE;
    loop {
        // Asked before the store is: if nothing was unrecorded then, the store knows all that was accepted before.
        let unrecorded = ask(app, app.broker.unrecorded()).await?;
        if let Some(found) = question().await? {
            return Ok(found);
        }
        if unrecorded == 0 {
            return Err(unknown(id));
        }
        if Instant::now() + pause >= deadline || app.stop.is_cancelled() {
            return Err(ApiError::of(Code::NotYetRecorded));
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn unknown(id: TaskId) -> ApiError {
    ApiError::new(Code::TaskNotFound, format!("there is no task {id}"))
}
