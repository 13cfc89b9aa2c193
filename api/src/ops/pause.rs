//! An operator's commands to a queue.

use std::sync::Arc;

use forebay_core::{QueueName, Signal};
use tokio::time::Instant;

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{
        ask,
        queues::{Count, QueueFigures, counted_since},
        read,
    },
};

/// Pauses a queue or resumes it, and returns it as it is now. Saying it twice changes nothing, so it may be tried again.
/// A queue may be paused before its first task, and is known from then on; it can't be resumed before it is known.
pub(crate) async fn set_paused(
    app: &App,
    name: &QueueName,
    paused: bool,
) -> Result<(QueueFigures, Arc<Count>)> {
    let is_new = read(app, || app.store.set_paused(name, paused)).await?;
    let said = Instant::now();
    if is_new {
        tracing::info!(queue = %name, paused, "a queue was paused or resumed");
    }
    // Best effort, and also where it is nothing new, since the signal may have been lost: workers ask every second.
    if ask(app, app.broker.signal(Signal::QueuesChanged)).await.is_err() {
        tracing::debug!(queue = %name, paused, "the workers were not told at once");
    }
    let counted = counted_since(app, said).await;
    let mut queue = match counted.queue(name) {
        Some(queue) => queue.clone(),
        // It was made known just now, and is not counted yet.
        None if paused || is_new => QueueFigures::unknown(name.clone()),
        None if counted.from_store => {
            let detail = format!("no task was ever submitted to the queue {name}, and it was never paused");
            return Err(ApiError::new(Code::QueueNotFound, detail));
        }
        None => return Err(ApiError::of(Code::StoreUnavailable)),
    };
    queue.paused = Some(paused);
    Ok((queue, counted))
}
