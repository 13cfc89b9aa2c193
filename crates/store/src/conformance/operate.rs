//! Operators' commands.

use std::sync::Arc;

use forebay_core::{Decision, QueueName, Refused, State, Submission, Task};

use super::support::*;
use crate::{Changed, Store};

/// A task in each state that exists so far, with the state.
async fn one_in_each_state(store: &dyn Store) -> Vec<(Submission, State)> {
    let scheduled = parked(store, 3_600).await;
    record(store, &scheduled).await;
    let mut tasks = vec![
        (scheduled, State::Scheduled),
        (recorded(store).await, State::Queued),
        (running(store).await.0, State::Running),
    ];
    for (decision, state) in [
        (RETRY_LATER, State::Retrying),
        (Decision::Succeed, State::Succeeded),
        (Decision::Fail, State::Failed),
        (Decision::Cancel, State::Cancelled),
    ] {
        let (task, worker, claimed) = running(store).await;
        complete(store, worker, ended(&claimed, decision)).await;
        tasks.push((task, state));
    }
    tasks
}

fn done(answer: crate::Result<Changed>) -> Task {
    match answer {
        Ok(Changed::Done(task)) => *task,
        other => panic!("it was not done: {other:?}"),
    }
}

/// Refused, and nothing changed.
async fn assert_refused(store: &dyn Store, answer: crate::Result<Changed>, before: Task) {
    let Ok(Changed::Refused(task, why)) = answer else {
        panic!("it was not refused: {answer:?}");
    };
    assert_eq!(why, Refused::State(before.state));
    assert_eq!(*task, before);
    assert_eq!(get(store, before.id).await, before);
}

/// What no worker runs is cancelled by the command itself, and stays so.
pub async fn what_waits_is_cancelled_at_once(store: Arc<dyn Store>) {
    for (task, state) in one_in_each_state(&*store).await {
        if !matches!(state, State::Scheduled | State::Queued | State::Retrying) {
            continue;
        }
        let cancelled = done(store.cancel(task.id).await);
        assert_eq!((cancelled.id, cancelled.state), (task.id, State::Cancelled));
        assert!(cancelled.finished_at.is_some());
        assert_eq!(cancelled, get(&*store, task.id).await);
        assert_refused(&*store, store.cancel(task.id).await, cancelled).await;
    }
}

/// What runs is for its worker to end; asking twice is no mistake.
pub async fn what_runs_is_marked_for_cancellation(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    for _ in 0..2 {
        let marked = done(store.cancel(task.id).await);
        assert_eq!((marked.state, marked.cancel_requested), (State::Running, true));
        assert_eq!((marked.worker, marked.finished_at), (Some(worker), None));
    }
    assert!(get(&*store, task.id).await.cancel_requested);
    complete(&*store, worker, ended(&claimed, Decision::Cancel)).await;
    assert_eq!(get(&*store, task.id).await.state, State::Cancelled);
}

/// What is final stays as it is.
pub async fn what_is_final_refuses_cancellation(store: Arc<dyn Store>) {
    for (task, state) in one_in_each_state(&*store).await {
        if state.is_final() {
            let before = get(&*store, task.id).await;
            assert_eq!(before.state, state);
            assert_refused(&*store, store.cancel(task.id).await, before).await;
        }
    }
}

/// A dead letter comes back with all its attempts, and runs.
pub async fn what_failed_or_was_cancelled_is_retried(store: Arc<dyn Store>) {
    for (task, state) in one_in_each_state(&*store).await {
        if !matches!(state, State::Failed | State::Cancelled) {
            continue;
        }
        let back = done(store.retry(task.id).await);
        assert_eq!((back.state, back.attempt, back.fence), (State::Retrying, 0, 1));
        assert_eq!((back.finished_at, back.cancel_requested), (None, false));
        assert_eq!(back, get(&*store, task.id).await);
        let sink = Sink::open();
        store.dispatch_due(10, &sink).await.expect("dispatch");
        assert_eq!(sink.published(), [ready(&task, 1)]);
        let worker = worker(&*store).await;
        let claimed = claim_ready(&*store, worker, &task, 1).await.expect("granted");
        assert_eq!((claimed.attempt, claimed.fence), (1, 2));
    }
}

/// What has not ended, or ended well, is not retried.
pub async fn anything_else_refuses_retry(store: Arc<dyn Store>) {
    for (task, state) in one_in_each_state(&*store).await {
        if !matches!(state, State::Failed | State::Cancelled) {
            let before = get(&*store, task.id).await;
            assert_eq!(before.state, state);
            assert_refused(&*store, store.retry(task.id).await, before).await;
        }
    }
}

/// There is no such task.
pub async fn an_unknown_task_is_not_found(store: Arc<dyn Store>) {
    let id = task(&*store).await.id;
    assert_eq!(store.cancel(id).await.expect("cancel"), Changed::NotFound);
    assert_eq!(store.retry(id).await.expect("retry"), Changed::NotFound);
}

/// Today's id of a key that was used yesterday was given out with a 202, so commands find its task.
pub async fn the_window_before_is_found(store: Arc<dyn Store>) {
    let today = now(&*store).await;
    let old = keyed_at(plus(today, -24 * 3_600), "k", 1);
    record(&*store, &old).await;
    let id = keyed_at(today, "k", 1).id;
    assert_eq!(done(store.cancel(id).await).id, old.id);
    assert_eq!(get(&*store, old.id).await.state, State::Cancelled);
    assert_eq!(done(store.retry(id).await).id, old.id);
}

/// What was cancelled while it waited is not published any more.
pub async fn a_cancelled_task_is_not_dispatched(store: Arc<dyn Store>) {
    let task = parked(&*store, -5).await;
    record(&*store, &task).await;
    done(store.cancel(task.id).await);
    let sink = Sink::open();
    assert_eq!(store.dispatch_due(10, &sink).await.expect("dispatch"), []);
    assert_eq!(sink.ids(), []);
    let worker = worker(&*store).await;
    assert_eq!(claim_ready(&*store, worker, &task, 0).await, None);
}

/// The queues that are known, each with whether it is paused; the short list says the same.
async fn pauses(store: &dyn Store) -> Vec<(String, bool)> {
    let queues = store.queues().await.expect("list the queues");
    let paused: Vec<QueueName> = queues
        .iter()
        .filter(|queue| queue.paused)
        .map(|queue| queue.name.clone())
        .collect();
    assert_eq!(
        store.paused_queues().await.expect("list the paused queues"),
        paused
    );
    queues
        .into_iter()
        .map(|queue| (queue.name.to_string(), queue.paused))
        .collect()
}

/// Said twice is said once, and one queue's pause is no other's.
pub async fn a_queue_is_paused_and_resumed(store: Arc<dyn Store>) {
    for name in ["a.default", "b.default"] {
        let task = task(&*store).await;
        record(
            &*store,
            &Submission {
                lane: lane(name),
                ..task
            },
        )
        .await;
    }
    let queue: QueueName = "a".parse().expect("a valid queue");
    for (paused, new) in [
        (false, false),
        (true, true),
        (true, false),
        (false, true),
        (false, false),
        (true, true),
    ] {
        let changed = store.set_paused(&queue, paused).await.expect("pause or resume");
        assert_eq!(changed, new, "paused: {paused}");
        assert_eq!(pauses(&*store).await, [("a".into(), paused), ("b".into(), false)]);
    }
}

/// A pause makes a queue known, and what is recorded later changes nothing of it; resuming what nobody knows does not.
pub async fn a_queue_may_be_paused_before_its_first_task(store: Arc<dyn Store>) {
    let queue: QueueName = "default".parse().expect("a valid queue");
    assert!(!store.set_paused(&queue, false).await.expect("resume"));
    assert_eq!(pauses(&*store).await, []);
    assert!(store.set_paused(&queue, true).await.expect("pause"));
    assert_eq!(pauses(&*store).await, [("default".into(), true)]);
    recorded(&*store).await;
    assert_eq!(pauses(&*store).await, [("default".into(), true)]);
}

/// It is workers that obey a pause. The store grants what is claimed, ends what runs, cancels and dispatches as ever.
pub async fn a_pause_holds_nothing_back_in_the_store(store: Arc<dyn Store>) {
    let (_, worker, before) = running(&*store).await;
    let queue: QueueName = "default".parse().expect("a valid queue");
    store.set_paused(&queue, true).await.expect("pause");
    complete(&*store, worker, ended(&before, Decision::Succeed)).await;
    let waits = recorded(&*store).await;
    assert!(claim_ready(&*store, worker, &waits, 0).await.is_some());
    let cancelled = recorded(&*store).await;
    done(store.cancel(cancelled.id).await);
    let due = parked(&*store, -5).await;
    record(&*store, &due).await;
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.published(), [ready(&due, 0)]);
}
