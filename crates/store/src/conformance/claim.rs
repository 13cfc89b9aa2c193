//! Claiming deliveries.

use std::{sync::Arc, time::Duration};

use forebay_core::{Decision, State, Submission, TaskId, TraceParent};

use super::support::*;
use crate::{ClaimRequest, Recorded, Store, StoreError};

/// The usual way: recorded, then claimed; the claim says all that the worker needs.
pub async fn a_queued_task_is_granted(store: Arc<dyn Store>) {
    let task = Submission {
        project: "shop".parse().expect("a valid project"),
        lane: lane("billing.low"),
        payload: json("[1]"),
        traceparent: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ..task(&*store).await
    };
    record(&*store, &task).await;
    let worker = worker(&*store).await;
    let claimed = claim(&*store, worker, wants_new(&task)).await.expect("granted");
    assert_eq!((claimed.id, claimed.fence, claimed.attempt), (task.id, 1, 1));
    assert_eq!(
        (claimed.project, claimed.kind, claimed.lane),
        (task.project, task.kind, task.lane)
    );
    assert_eq!(
        (claimed.payload, claimed.traceparent),
        (task.payload, task.traceparent)
    );
    let found = get(&*store, task.id).await;
    assert_eq!((found.state, found.worker), (State::Running, Some(worker)));
    assert_eq!((found.fence, found.attempt), (1, 1));
    assert!(found.started_at.is_some() && found.finished_at.is_none());
}

/// The dispatcher may have crashed between publishing and committing.
pub async fn a_due_task_is_granted_before_it_is_dispatched(store: Arc<dyn Store>) {
    let task = parked(&*store, -5).await;
    record(&*store, &task).await;
    let worker = worker(&*store).await;
    assert!(claim_ready(&*store, worker, &task, 0).await.is_some());
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), [], "what runs is not due");
    assert_eq!(get(&*store, task.id).await.state, State::Running);
}

/// Nothing starts before its time.
pub async fn a_task_that_is_not_due_is_turned_away(store: Arc<dyn Store>) {
    let task = parked(&*store, 3_600).await;
    record(&*store, &task).await;
    let worker = worker(&*store).await;
    assert_eq!(claim_ready(&*store, worker, &task, 0).await, None);
    assert_eq!(get(&*store, task.id).await.state, State::Scheduled);
}

/// Two workers, one task.
pub async fn a_task_that_runs_elsewhere_is_turned_away(store: Arc<dyn Store>) {
    let (task, holder, _) = running(&*store).await;
    let other = worker(&*store).await;
    assert_eq!(claim(&*store, other, wants_new(&task)).await, None);
    assert_eq!(claim_ready(&*store, other, &task, 1).await, None);
    assert_eq!(get(&*store, task.id).await.worker, Some(holder));
}

/// A final task stays final, whatever is delivered late.
pub async fn a_final_task_is_turned_away(store: Arc<dyn Store>) {
    for decision in [Decision::Succeed, Decision::Fail, Decision::Cancel] {
        let (task, worker, claimed) = running(&*store).await;
        complete(&*store, worker, ended(&claimed, decision)).await;
        let before = get(&*store, task.id).await;
        assert!(before.state.is_final());
        assert_eq!(claim(&*store, worker, wants_new(&task)).await, None);
        assert_eq!(claim_ready(&*store, worker, &task, 1).await, None);
        assert_eq!(get(&*store, task.id).await, before);
    }
    let task = recorded(&*store).await;
    store.cancel(task.id).await.expect("cancel");
    let worker = worker(&*store).await;
    assert_eq!(claim(&*store, worker, wants_new(&task)).await, None);
}

/// Only the message of the current start counts.
pub async fn another_fence_is_turned_away(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    store.dispatch_due(10, &Sink::open()).await.expect("dispatch");
    assert_eq!(get(&*store, task.id).await.state, State::Queued);
    assert_eq!(
        claim(&*store, worker, wants_new(&task)).await,
        None,
        "fence 0 is past"
    );
    assert_eq!(
        claim_ready(&*store, worker, &task, 2).await,
        None,
        "fence 2 is to come"
    );
    assert!(claim_ready(&*store, worker, &task, 1).await.is_some());
}

/// A message about a task that is not there: lost with the database's last seconds, or not recorded yet. It is turned
/// away every time, leaves nothing behind, and does not stand in the way of the task once it is recorded.
pub async fn an_unknown_task_is_turned_away(store: Arc<dyn Store>) {
    let (task, worker) = (task(&*store).await, worker(&*store).await);
    assert_eq!(claim_ready(&*store, worker, &task, 0).await, None);
    assert_eq!(claim_ready(&*store, worker, &task, 1).await, None);
    assert_eq!(store.get(task.id).await.expect("read"), None);
    assert_eq!(store.queues().await.expect("list the queues"), []);
    record(&*store, &task).await;
    assert!(claim_ready(&*store, worker, &task, 0).await.is_some());
}

/// A message that was delivered twice is run once.
pub async fn a_batch_may_hold_an_id_twice(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let (first, second) = (recorded(&*store).await, recorded(&*store).await);
    let batch = [
        wants_new(&first),
        wants_new(&first),
        wants_new(&second),
        wants_new(&second),
    ];
    let id = claim_id();
    for call in ["first", "repeated"] {
        let answers = store.claim(worker, id, &batch).await.expect("claim");
        assert_eq!(answers.len(), 4);
        for pair in answers.chunks(2) {
            assert_eq!(
                pair.iter().flatten().count(),
                1,
                "the {call} call granted {pair:?}"
            );
        }
    }
    assert_eq!(get(&*store, first.id).await.fence, 1);
    assert_eq!(get(&*store, second.id).await.fence, 1);
}

/// The answer was lost, so the worker asks again and learns what it holds.
pub async fn a_repeated_claim_is_granted_again(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let (known, due) = (recorded(&*store).await, parked(&*store, -5).await);
    record(&*store, &due).await;
    let batch = [wants_new(&known), wants(ready(&due, 0))];
    let id = claim_id();
    let first = store.claim(worker, id, &batch).await.expect("claim");
    assert_eq!(first.iter().flatten().count(), 2);
    let again = store.claim(worker, id, &batch).await.expect("claim again");
    assert_eq!(first, again);
    for task in [known, due] {
        let found = get(&*store, task.id).await;
        assert_eq!((found.fence, found.attempt), (1, 1));
    }
}

/// Where the submitter said nothing, the handler decides, and the task remembers.
pub async fn what_the_handler_says_fills_the_gaps(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let task = recorded(&*store).await;
    let request = |fence, max_attempts, millis| ClaimRequest {
        ready: ready(&task, fence),
        max_attempts,
        timeout: Duration::from_millis(millis),
    };
    let first = claim(&*store, worker, request(0, 7, 1_500))
        .await
        .expect("granted");
    assert_eq!(
        (first.max_attempts, first.timeout),
        (7, Duration::from_millis(1_500))
    );
    let found = get(&*store, task.id).await;
    assert_eq!(
        (found.max_attempts, found.timeout),
        (Some(7), Some(Duration::from_millis(1_500)))
    );
    complete(&*store, worker, ended(&first, RETRY_NOW)).await;
    let second = claim(&*store, worker, request(1, 1, 1)).await.expect("granted");
    assert_eq!(
        (second.max_attempts, second.timeout),
        (7, Duration::from_millis(1_500))
    );
}

/// Where the submitter said something, that counts.
pub async fn what_the_submitter_says_is_kept(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let task = Submission {
        max_attempts: Some(2),
        timeout: Some(Duration::from_millis(250)),
        ..task(&*store).await
    };
    record(&*store, &task).await;
    let claimed = claim(&*store, worker, wants_new(&task)).await.expect("granted");
    assert_eq!(
        (claimed.max_attempts, claimed.timeout),
        (2, Duration::from_millis(250))
    );
}

/// A second submission under a key, with another body, has no part in what is run.
pub async fn the_recorded_payload_of_a_key_counts(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    record(&*store, &keyed_at(at, "k", 1)).await;
    let other = keyed_at(at, "k", 2);
    let answer = store.record(std::slice::from_ref(&other)).await.expect("record");
    assert_eq!(answer, [Recorded::Conflict]);
    let worker = worker(&*store).await;
    let claimed = claim(&*store, worker, wants_new(&other)).await.expect("granted");
    assert_eq!((claimed.payload, claimed.fence), (json("1"), 1));
}

/// A key that was used yesterday is not run again today.
pub async fn a_task_of_the_window_before_turns_a_key_away(store: Arc<dyn Store>) {
    let today = now(&*store).await;
    let old = keyed_at(plus(today, -24 * 3_600), "k", 1);
    record(&*store, &old).await;
    let new = keyed_at(today, "k", 1);
    let answer = store.record(std::slice::from_ref(&new)).await.expect("record");
    assert_eq!(answer, [Recorded::Duplicate]);
    let worker = worker(&*store).await;
    assert_eq!(claim(&*store, worker, wants_new(&new)).await, None);
    assert_eq!(count(&*store).await, 1);
    assert_eq!(get(&*store, old.id).await.state, State::Queued);
    assert!(claim(&*store, worker, wants_new(&old)).await.is_some());
}

/// A request that is repeated across midnight comes in one batch with the first, and so do their messages.
pub async fn a_batch_with_a_key_on_both_sides_of_midnight_grants_one(store: Arc<dyn Store>) {
    let today = now(&*store).await;
    let old = keyed_at(plus(today, -24 * 3_600), "k", 1);
    let new = keyed_at(today, "k", 1);
    store
        .record(&[new.clone(), old.clone()])
        .await
        .expect("record both");
    let worker = worker(&*store).await;
    let batch = [wants_new(&old), wants_new(&new)];
    let answers = store.claim(worker, claim_id(), &batch).await.expect("claim");
    let granted: Vec<TaskId> = answers.iter().flatten().map(|claimed| claimed.id).collect();
    assert_eq!((granted.len(), count(&*store).await), (1, 1), "{granted:?}");
}

/// Granted and turned away, mixed; and nothing at all for a worker that is not known.
pub async fn answers_come_in_order(store: Arc<dyn Store>) {
    let (taken, _, _) = running(&*store).await;
    let (first, second, third) = (
        recorded(&*store).await,
        recorded(&*store).await,
        recorded(&*store).await,
    );
    let unknown = task(&*store).await;
    let batch = [
        wants_new(&third),
        wants_new(&taken),
        wants_new(&second),
        wants_new(&unknown),
        wants_new(&first),
    ];
    let nobody = store.claim(stranger(), claim_id(), &batch).await;
    assert!(matches!(nobody, Err(StoreError::WorkerGone)), "{nobody:?}");
    assert_eq!(get(&*store, first.id).await.state, State::Queued);
    let worker = worker(&*store).await;
    let answers = store.claim(worker, claim_id(), &batch).await.expect("claim");
    let ids: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|it| it.id))
        .collect();
    assert_eq!(ids, [Some(third.id), None, Some(second.id), None, Some(first.id)]);
}

/// From attempt to attempt, fence and attempt count up and the times move.
pub async fn a_claim_leads_to_the_next_attempt(store: Arc<dyn Store>) {
    let (task, worker, mut claimed) = running(&*store).await;
    for number in 2..5 {
        let before = get(&*store, task.id).await;
        complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
        store.dispatch_due(10, &Sink::open()).await.expect("dispatch");
        claimed = claim_ready(&*store, worker, &task, number - 1)
            .await
            .expect("granted");
        assert_eq!((claimed.fence, claimed.attempt), (number, number));
        let after = get(&*store, task.id).await;
        assert!(after.started_at >= before.started_at);
        assert_eq!((after.state, after.finished_at), (State::Running, None));
    }
}
