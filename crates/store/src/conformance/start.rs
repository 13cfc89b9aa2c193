//! What is recorded and claimed in one call.

use std::{sync::Arc, time::Duration};

use forebay_core::{ClaimId, Decision, State, Submission, WorkerId};

use super::support::*;
use crate::{Claimed, Completed, Recorded, StartRequest, Store, StoreError};

fn wants_start(task: &Submission) -> StartRequest {
    StartRequest {
        task: task.clone(),
        max_attempts: MAX_ATTEMPTS,
        timeout: TIMEOUT,
    }
}

async fn start(
    store: &dyn Store,
    worker: WorkerId,
    claim: ClaimId,
    tasks: &[&Submission],
) -> Vec<(Recorded, Option<Claimed>)> {
    let batch: Vec<StartRequest> = tasks.iter().map(|task| wants_start(task)).collect();
    let answers = store.record_and_claim(worker, claim, &batch).await;
    let answers = answers.expect("record and claim");
    assert_eq!(answers.len(), tasks.len(), "one answer for each request");
    answers
}

/// From its first moment on, and all that is said of it is as with a claim.
pub async fn a_new_submission_runs_at_once(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let mut tasks = [task(&*store).await, task(&*store).await];
    tasks[0].payload = json("{\"a\":1}");
    tasks[0].lane = lane("mail.high");
    tasks[1].max_attempts = Some(2);
    tasks[1].timeout = Some(Duration::from_millis(250));
    // Not in the order of their ids.
    let asked = [&tasks[1], &tasks[0]];
    let answers = start(&*store, worker, claim_id(), &asked).await;
    for (task, (recorded, claimed)) in asked.into_iter().zip(&answers) {
        let claimed = claimed.as_ref().expect("granted");
        assert_eq!(
            (*recorded, claimed.id, claimed.fence, claimed.attempt),
            (Recorded::New, task.id, 1, 1)
        );
        assert_eq!((&claimed.payload, &claimed.lane), (&task.payload, &task.lane));
        let said = (task.max_attempts, task.timeout);
        let expected = (said.0.unwrap_or(MAX_ATTEMPTS), said.1.unwrap_or(TIMEOUT));
        assert_eq!((claimed.max_attempts, claimed.timeout), expected);
        let found = get(&*store, task.id).await;
        assert_eq!(
            (found.state, found.fence, found.attempt, found.worker),
            (State::Running, 1, 1, Some(worker))
        );
        assert_eq!(
            (found.max_attempts, found.timeout),
            (Some(expected.0), Some(expected.1))
        );
        assert!(found.started_at.is_some());
        let completed = complete(&*store, worker, ended(claimed, Decision::Succeed)).await;
        assert_eq!(completed, Completed::Applied(State::Succeeded));
    }
    let queues = store.queues().await.expect("list the queues");
    let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["default", "mail"]);
}

/// The answer was lost: asked again as a whole or in parts, the worker learns what it holds.
pub async fn a_repeated_start_is_granted_again(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let (a, b) = (task(&*store).await, task(&*store).await);
    let id = claim_id();
    let first = start(&*store, worker, id, &[&a, &b]).await;
    let again = start(&*store, worker, id, &[&a, &b]).await;
    let claims = |answers: &[(Recorded, Option<Claimed>)]| -> Vec<_> {
        answers.iter().map(|(_, claimed)| claimed.clone()).collect()
    };
    assert_eq!(claims(&first), claims(&again));
    assert_eq!(first.len(), first.iter().flat_map(|it| &it.1).count());
    for (task, expected) in [(&a, &first[0]), (&b, &first[1])] {
        let part = start(&*store, worker, claim_id(), &[task]).await;
        assert_eq!(part[0], (Recorded::Duplicate, expected.1.clone()));
        let found = get(&*store, task.id).await;
        assert_eq!((found.fence, found.attempt), (1, 1));
    }
}

/// One that is known is judged as it would be by a claim, and does not keep its neighbours from running.
pub async fn what_is_known_is_judged_as_by_a_claim(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let (elsewhere, _, _) = running(&*store).await;
    let (ended_one, its_worker, claimed) = running(&*store).await;
    complete(&*store, its_worker, ended(&claimed, Decision::Succeed)).await;
    let (waiting, new) = (recorded(&*store).await, task(&*store).await);
    let later = parked(&*store, 3_600).await;
    record(&*store, &keyed_at(at, "key", 1)).await;
    let conflict = keyed_at(at, "key", 2);
    let asked = [&elsewhere, &ended_one, &waiting, &new, &later, &conflict];
    let worker = worker(&*store).await;
    let answers = start(&*store, worker, claim_id(), &asked).await;
    let told: Vec<_> = answers
        .iter()
        .map(|(it, claimed)| (*it, claimed.is_some()))
        .collect();
    use Recorded::{Conflict, Duplicate, New};
    let expected = [
        (Duplicate, false),
        (Duplicate, false),
        (Duplicate, true),
        (New, true),
        (New, false),
        (Conflict, false),
    ];
    assert_eq!(told, expected);
    assert_eq!(get(&*store, later.id).await.state, State::Scheduled);
    assert_eq!(get(&*store, conflict.id).await.state, State::Queued);
}

/// Named twice in a batch, it starts once.
pub async fn a_batch_may_hold_an_id_twice(store: Arc<dyn Store>) {
    let (worker, task) = (worker(&*store).await, task(&*store).await);
    let answers = start(&*store, worker, claim_id(), &[&task, &task]).await;
    assert_eq!(answers.iter().filter(|it| it.0 == Recorded::New).count(), 1);
    assert_eq!(answers.iter().flat_map(|it| &it.1).count(), 1);
    assert_eq!(get(&*store, task.id).await.fence, 1);
}

/// In the name of a worker that nobody knows nothing runs.
pub async fn a_dead_worker_starts_nothing(store: Arc<dyn Store>) {
    let task = task(&*store).await;
    let refused = store
        .record_and_claim(stranger(), claim_id(), &[wants_start(&task)])
        .await;
    assert!(matches!(refused, Err(StoreError::WorkerGone)), "{refused:?}");
    store.record(std::slice::from_ref(&task)).await.expect("record");
    assert_eq!(get(&*store, task.id).await.state, State::Queued);
}

/// Its worker dies: it is taken back like any other, with all that it holds.
pub async fn what_was_started_is_taken_back(store: Arc<dyn Store>) {
    let (worker, a, b) = (worker(&*store).await, task(&*store).await, task(&*store).await);
    start(&*store, worker, claim_id(), &[&a, &b]).await;
    let events = bury_all(&*store, 5).await;
    assert_eq!(events.len(), 2);
    for task in [&a, &b] {
        let found = get(&*store, task.id).await;
        assert_eq!((found.state, found.attempt, found.fence), (State::Retrying, 0, 1));
    }
}

/// The answer was lost, and a part was asked for again and has ended: the rest is still known to be the worker's.
pub async fn what_was_asked_again_in_parts_is_taken_back(store: Arc<dyn Store>) {
    let (worker, a, b) = (worker(&*store).await, task(&*store).await, task(&*store).await);
    start(&*store, worker, claim_id(), &[&a, &b]).await;
    let part = claim_id();
    let again = start(&*store, worker, part, &[&a]).await;
    let claimed = again[0].1.as_ref().expect("granted again");
    let outcome = [ended(claimed, Decision::Succeed)];
    let written = store.complete(worker, &outcome, &[part]).await.expect("complete");
    assert_eq!(written, [Completed::Applied(State::Succeeded)]);
    let events = bury_all(&*store, 5).await;
    assert_eq!(events.iter().map(|it| it.id).collect::<Vec<_>>(), [b.id]);
    assert_eq!(get(&*store, b.id).await.state, State::Retrying);
}

/// Its worker stops: it goes back at no cost.
pub async fn what_was_started_is_handed_back(store: Arc<dyn Store>) {
    let (worker, task) = (worker(&*store).await, task(&*store).await);
    start(&*store, worker, claim_id(), &[&task]).await;
    store.deregister(worker).await.expect("deregister");
    let found = get(&*store, task.id).await;
    assert_eq!((found.attempt, found.fence), (0, 1));
    assert_ne!(found.state, State::Running);
}
