//! An operator's commands to one task.

use forebay_core::{Refused, Signal, State, Task, TaskEvent, TaskId};
use forebay_store::Changed;

use crate::{
    App,
    error::{ApiError, Code, FieldError, Result},
    ops::{ask, get::recorded, once},
};

/// Cancels a task. One that runs is marked, and its worker is told at once.
pub(crate) async fn cancel(app: &App, id: TaskId) -> Result<Task> {
    let changed = recorded(app, id, || once(app, known(app.store.cancel(id)))).await?;
    let task = settle(app, "cancelled", changed)?;
    if task.state == State::Running {
        // Best effort: the worker hears of it with its next heartbeat in any case.
        let told = ask(app, app.broker.signal(Signal::Cancel(vec![task.id]))).await;
        if told.is_err() {
            tracing::debug!(task = %task.id, "the worker was not told at once of a cancellation");
        }
    }
    Ok(task)
}

/// Brings a task back that failed, or was cancelled, or expired.
pub(crate) async fn retry(app: &App, id: TaskId) -> Result<Task> {
    let changed = recorded(app, id, || once(app, known(app.store.retry(id)))).await?;
    settle(app, "retried", changed)
}

async fn known(
    answer: impl Future<Output = forebay_store::Result<Changed>>,
) -> forebay_store::Result<Option<Changed>> {
    let changed = answer.await?;
    Ok(Some(changed).filter(|changed| *changed != Changed::NotFound))
}

fn settle(app: &App, doing: &str, changed: Changed) -> Result<Task> {
    match changed {
        Changed::Done(task) => {
            tell(app, &task);
            Ok(*task)
        }
        Changed::Refused(task, refused) => Err(conflict(&task, doing, refused)),
        Changed::NotFound => Err(ApiError::of(Code::TaskNotFound)),
    }
}

/// Tells whoever listens how a task stands that was just changed.
pub(crate) fn tell(app: &App, task: &Task) {
    app.announcer.announce(|| TaskEvent {
        id: task.id,
        kind: task.kind.clone(),
        queue: task.queue.clone(),
        state: task.state,
        attempt: task.attempt,
        at: app.clock.now(),
    });
}

fn conflict(task: &Task, doing: &str, refused: Refused) -> ApiError {
    let state = task.state;
    ApiError {
        errors: vec![FieldError {
            pointer: "/state".to_owned(),
            detail: refused.to_string(),
        }],
        state: Some(state),
        ..ApiError::new(
            Code::StateConflict,
            format!("a task that is {state} can't be {doing}"),
        )
    }
}
