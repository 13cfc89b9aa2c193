//! Why a task is where it is: the one thing that it waits for. What is known is gathered here; what follows from it is
//! decided in `explain/reason.rs`, which is pure.

mod reason;
#[cfg(test)]
mod tests;

use forebay_core::{Lane, State, Task, TaskId, WorkerInfo};

pub(crate) use reason::Explanation;
use reason::{Facts, InLane, explain as decide};

use crate::{
    App,
    error::Result,
    ops::{ask, get::get, read},
};

/// How often a task is looked at that goes on while it is explained.
const LOOKS_MAX: usize = 3;

/// Explains a task.
pub(crate) async fn explain(app: &App, id: TaskId) -> Result<Explanation> {
    let mut task = get(app, id).await?;
    for _ in 1..LOOKS_MAX {
        if let Some(facts) = facts(app, &task).await? {
            return Ok(decide(&task, &facts, app.clock.now()));
        }
        task = get(app, id).await?;
    }
    // It never stays: then what it was a moment ago will do.
    Ok(decide(&task, &Facts::Task, app.clock.now()))
}

/// What is to be known beside the task itself. `None` where it has gone on meanwhile.
async fn facts(app: &App, task: &Task) -> Result<Option<Facts>> {
    Ok(match task.state {
        State::Queued => in_lane(app, task).await?.map(Facts::Lane),
        State::Running => {
            let workers = read(app, || app.store.workers()).await?;
            let mut workers = workers.into_iter();
            let name = workers
                .find(|worker| Some(worker.id) == task.worker)
                .map(|it| it.name);
            Some(Facts::Worker(name))
        }
        State::Throttled => Some(Facts::Limit(read(app, || app.store.held_by(task.id)).await?)),
        State::Blocked => Some(blocked(app, task).await?),
        _ => Some(Facts::Task),
    })
}

async fn in_lane(app: &App, task: &Task) -> Result<Option<InLane>> {
    let Some(place) = read(app, || app.store.place(task.id)).await? else {
        return Ok(None);
    };
    let paused = read(app, || app.store.paused_queues()).await?;
    let workers = read(app, || app.store.workers()).await?;
    let serves = |worker: &WorkerInfo| worker.queues.contains(&task.queue);
    let lane = Lane::new(task.queue.clone(), task.priority);
    // What the broker says makes it clearer, and is not needed.
    let depth = ask(app, app.broker.depth(&lane)).await.ok();
    Ok(Some(InLane {
        place,
        is_paused: paused.contains(&task.queue),
        workers: workers.into_iter().filter(serves).collect(),
        depth,
    }))
}

/// What it still waits for.
async fn blocked(app: &App, task: &Task) -> Result<Facts> {
    let blocked = read(app, || app.store.blocked_on(task.id)).await?;
    Ok(Facts::Blocked {
        tasks: blocked.tasks,
        unknown: blocked.unknown,
        batch: blocked.batch,
    })
}
