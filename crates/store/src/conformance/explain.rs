//! What only an explanation asks for.

use std::sync::Arc;

use forebay_core::{Decision, Submission};

use super::support::*;
use crate::Store;

/// How many are ahead of a task, where it has a place.
async fn ahead(store: &dyn Store, task: &Submission) -> Option<u64> {
    let place = store.place(task.id).await.expect("look for its place");
    place.map(|place| {
        assert!(place.is_exact, "there are only a few");
        place.ahead
    })
}

async fn in_lane(store: &dyn Store, name: &str) -> Submission {
    let task = Submission {
        lane: lane(name),
        ..task(store).await
    };
    record(store, &task).await;
    now_after(store, now(store).await).await;
    task
}

/// Only what is ready in the same lane and was so before is ahead, and only as long as it waits.
pub async fn the_place_in_a_lane_is_counted(store: Arc<dyn Store>) {
    let mut tasks = Vec::new();
    for name in ["a.default", "a.high", "b.default", "a.default", "a.default"] {
        tasks.push(in_lane(&*store, name).await);
    }
    for (task, place) in tasks.iter().zip([0, 0, 0, 1, 2]) {
        assert_eq!(ahead(&*store, task).await, Some(place));
    }
    let worker = worker(&*store).await;
    let claimed = claim(&*store, worker, wants_new(&tasks[0]))
        .await
        .expect("granted");
    assert_eq!(ahead(&*store, &tasks[0]).await, None, "it runs");
    assert_eq!(ahead(&*store, &tasks[4]).await, Some(1));
    complete(&*store, worker, ended(&claimed, Decision::Succeed)).await;
    store.cancel(tasks[3].id).await.expect("cancel");
    assert_eq!(ahead(&*store, &tasks[4]).await, Some(0));
    assert_eq!(ahead(&*store, &tasks[3]).await, None, "it has ended");
}

/// What waits for a time is not in line; once it is dispatched, it is at the end.
pub async fn what_becomes_due_lines_up_at_the_end(store: Arc<dyn Store>) {
    let due = parked(&*store, -5).await;
    record(&*store, &due).await;
    let first = recorded(&*store).await;
    assert_eq!(ahead(&*store, &due).await, None);
    assert_eq!(ahead(&*store, &first).await, Some(0));
    now_after(&*store, now(&*store).await).await;
    store.dispatch_due(10, &Sink::open()).await.expect("dispatch");
    assert_eq!(ahead(&*store, &due).await, Some(1));
    assert_eq!(ahead(&*store, &first).await, Some(0));
    now_after(&*store, now(&*store).await).await;
    let last = recorded(&*store).await;
    assert_eq!(ahead(&*store, &last).await, Some(2));
    let unknown = task(&*store).await;
    assert_eq!(ahead(&*store, &unknown).await, None);
}
