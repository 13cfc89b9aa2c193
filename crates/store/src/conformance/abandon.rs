//! Workers of which their own process says that they have died.

use std::sync::Arc;

use forebay_core::{Decision, State};

use super::support::*;
use crate::{Completed, Store, StoreError};

/// Its task is taken back at once, counted as lost; that of another worker, however silent, is not.
pub async fn its_tasks_are_taken_back_at_once_and_no_others(store: Arc<dyn Store>) {
    let (lost, gone, _) = running(&*store).await;
    let (kept, other, _) = running(&*store).await;
    let events = store.abandon(gone, 5).await.expect("abandon");
    assert_eq!(
        events
            .iter()
            .map(|it| (it.id, it.state, it.attempt))
            .collect::<Vec<_>>(),
        [(lost.id, State::Retrying, 0)]
    );
    let found = get(&*store, lost.id).await;
    assert_eq!((found.state, found.attempt, found.fence), (State::Retrying, 0, 1));
    let error = found.errors.last().expect("an attempt that was lost is an error");
    assert_eq!(error.outcome, "lost");
    assert_eq!(
        error.message,
        "worker_lost: the worker died while it ran this task"
    );
    assert_eq!(get(&*store, kept.id).await.state, State::Running);
    let workers = store.workers().await.expect("list the workers");
    assert_eq!(workers.iter().map(|it| it.id).collect::<Vec<_>>(), [other]);
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    let published: Vec<_> = sink
        .published()
        .iter()
        .map(|it| (it.id, it.fence, it.lost))
        .collect();
    assert_eq!(published, [(lost.id, 1, 1)], "it is due at once, and suspect");
    assert!(claim_ready(&*store, other, &lost, 1).await.is_some());
}

/// A worker that is gone has nothing more to say, however often it is abandoned.
pub async fn it_is_told_so_and_has_no_say(store: Arc<dyn Store>) {
    let (task, gone, claimed) = running(&*store).await;
    let waiting = recorded(&*store).await;
    assert_eq!(store.abandon(gone, 5).await.expect("abandon").len(), 1);
    for nobody in [gone, stranger()] {
        assert_eq!(store.abandon(nobody, 5).await.expect("abandon again"), []);
        let answer = store.heartbeat(&beat(nobody, now(&*store).await)).await;
        assert!(matches!(answer, Err(StoreError::WorkerGone)), "{answer:?}");
        let answer = store.claim(nobody, claim_id(), &[wants_new(&waiting)]).await;
        assert!(matches!(answer, Err(StoreError::WorkerGone)), "{answer:?}");
    }
    let before = get(&*store, task.id).await;
    assert_eq!(
        complete(&*store, gone, ended(&claimed, Decision::Succeed)).await,
        Completed::Fenced
    );
    assert_eq!(get(&*store, task.id).await, before);
}

/// What is stored before it is abandoned stays.
pub async fn what_it_has_ended_stays(store: Arc<dyn Store>) {
    let (task, gone, claimed) = running(&*store).await;
    complete(&*store, gone, ended(&claimed, Decision::Succeed)).await;
    assert_eq!(store.abandon(gone, 5).await.expect("abandon"), []);
    assert_eq!(get(&*store, task.id).await.state, State::Succeeded);
}

/// It counts like any other loss: too many fail the task, and a cancellation is obeyed.
pub async fn it_counts_as_lost(store: Arc<dyn Store>) {
    let task = recorded(&*store).await;
    for lost in 1..=2 {
        let worker = worker(&*store).await;
        assert!(claim_ready(&*store, worker, &task, lost - 1).await.is_some());
        let events = store.abandon(worker, 2).await.expect("abandon");
        let expected = if lost < 2 { State::Retrying } else { State::Failed };
        assert_eq!(
            events.iter().map(|it| (it.id, it.state)).collect::<Vec<_>>(),
            [(task.id, expected)]
        );
    }
    let found = get(&*store, task.id).await;
    let last = found.errors.last().expect("an attempt that was lost is an error");
    assert_eq!(
        last.message,
        "worker_lost: the worker died 2 times while it ran this task"
    );
    let (cancelled, worker, _) = running(&*store).await;
    store.cancel(cancelled.id).await.expect("cancel");
    let events = store.abandon(worker, 1).await.expect("abandon");
    assert_eq!((events.len(), events[0].state), (1, State::Cancelled));
}
