//! Waits for a task to end.

use std::time::Duration;

use forebay_core::Task;
use tokio::time::{Instant, timeout_at};

use crate::{App, ops::follow::Follow};

/// Waits up to `wait` for the task to end. Returns it as it is then, or, where it has not ended, as it was; `None`
/// where there is no place to wait.
pub(crate) async fn wait(app: &App, task: &Task, wait: Duration) -> Option<Option<Task>> {
    let _place = app.places.waits.try_acquire().ok()?;
    if task.state.is_final() {
        return Some(Some(task.clone()));
    }
    let deadline = Instant::now() + wait.min(app.bounds.wait);
    let mut follow = Follow::accepted(app, task);
    while let Ok(Some(step)) = timeout_at(deadline, follow.next()).await {
        if step.cursor.state.is_final() {
            return Some(step.task.map(|task| *task));
        }
    }
    Some(None)
}
