//! Accepts tasks.

use std::time::Duration;

use forebay_broker::PublishError;
use forebay_core::{Submission, SubmitRequest, Task, TaskId, Violation};
use forebay_runtime::supervise::random_bytes;
use tokio::time::timeout;

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::recent::Known,
    task::accepted,
};

/// A request as a door read it: what it asks for, and what the door already found wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) request: SubmitRequest,
    pub(crate) violations: Vec<Violation>,
}

/// A task that is durable.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) task: Task,
    /// Whether an earlier request with the same idempotency key made it.
    pub(crate) replayed: bool,
}

/// What to do when the line in front of the broker is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Refuse at once: a single request.
    None,
    /// Wait for a place: one of many, whose sender is held back meanwhile.
    Some,
}

/// Accepts a task. When this returns `Ok`, the task is durable.
pub(crate) async fn submit(app: &App, asked: Asked, patience: Patience) -> Result<Accepted> {
    let submission = check(app, asked)?;
    if app.stop.is_cancelled() {
        return Err(ApiError::of(Code::ShuttingDown));
    }
    if submission.fingerprint.is_some()
        && let Some(task) = find_same(app, &submission).await?
    {
        return Ok(Accepted { task, replayed: true });
    }
    let task = accepted(&submission);
    app.recent.about_to_submit(&submission);
    let published = publish(app, submission, patience).await;
    if let Err(PublishError::Full | PublishError::Conflict | PublishError::Away { .. }) = &published {
        app.recent.not_submitted(&task);
    }
    published?;
    app.recent.submitted(&task);
    app.metrics.task_submitted(&task.queue, 1);
    app.announcer.announce(&task, task.created_at);
    Ok(Accepted {
        task,
        replayed: false,
    })
}

fn check(app: &App, asked: Asked) -> Result<Submission> {
    let Asked {
        request,
        mut violations,
    } = asked;
    match request.accept(app.clock.now(), &random_bytes()) {
        Ok(submission) if violations.is_empty() => Ok(submission),
        Ok(_) => Err(ApiError::violations(violations)),
        Err(more) => {
            violations.extend(more);
            Err(ApiError::violations(violations))
        }
    }
}

async fn publish(
    app: &App,
    submission: Submission,
    patience: Patience,
) -> std::result::Result<(), PublishError> {
    let late = |within: Duration| PublishError::Unavailable(format!("nothing was heard for {within:?}"));
    match patience {
        Patience::None => {
            let within = app.bounds.submit;
            let submitted = timeout(within, app.submitter.submit(submission)).await;
            submitted.unwrap_or_else(|_| Err(late(within)))
        }
        Patience::Some => {
            let within = app.bounds.submit_patient;
            let submitted = timeout(within, app.submitter.submit_patiently(submission)).await;
            submitted.unwrap_or_else(|_| Err(late(within)))
        }
    }
}

/// The task that the submission's key already names, where that is known in time.
async fn find_same(app: &App, submission: &Submission) -> Result<Option<Task>> {
    match app.recent.find(submission) {
        Known::Same(task) => return Ok(Some(*task)),
        Known::Other => return Err(reused(submission.id)),
        Known::Unsure => {}
    }
    let Some(task) = look_up(app, submission.id).await else {
        return Ok(None);
    };
    if task.fingerprint == submission.fingerprint {
        Ok(Some(task))
    } else {
        Err(reused(task.id))
    }
}

/// Looks in the store; skipped where the store does not answer in time, since acceptance depends on the broker
/// alone, and the recorder refuses a second request under the key in any case.
async fn look_up(app: &App, id: TaskId) -> Option<Task> {
    let look = async {
        let _place = app.places.lookups.acquire().await.ok()?;
        match app.store.get(id).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = %error, "an idempotency key was not looked up");
                None
            }
        }
    };
    timeout(app.bounds.lookup, look).await.ok().flatten()
}

fn reused(id: TaskId) -> ApiError {
    ApiError::new(
        Code::IdempotencyKeyReused,
        format!("the idempotency key names task {id}, which was submitted with another request"),
    )
}
