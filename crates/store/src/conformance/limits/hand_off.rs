//! The hand-off: what is started as it is recorded counts as what is claimed.

use std::{collections::HashSet, sync::Arc};

use forebay_core::{State, Submission, TaskId, Terms, WorkerId};

use super::super::support::{claim_id, get, task, wants_new, worker};
use super::kit::{at_a_time, dispatch, nothing_to_mend, of_each_key, put, succeed, usage};
use crate::{Claimed, LimitUse, Recorded, StartRequest, Store};

/// Submissions that nobody has recorded, with these keys; without one where it is empty.
async fn fresh(store: &dyn Store, keys: &[&str]) -> Vec<Submission> {
    let mut tasks = Vec::with_capacity(keys.len());
    for key in keys {
        let terms = Terms {
            limit_key: key.parse().ok(),
            ..Terms::default()
        };
        tasks.push(Submission {
            terms: (!key.is_empty()).then(|| Box::new(terms)),
            ..task(store).await
        });
    }
    tasks
}

/// Hands them over, all new, and says which were started.
async fn hand_over(store: &dyn Store, worker: WorkerId, tasks: &[Submission]) -> Vec<Option<Claimed>> {
    let request = |task: &Submission| {
        let wants = wants_new(task);
        StartRequest {
            task: task.clone(),
            max_attempts: wants.max_attempts,
            timeout: wants.timeout,
        }
    };
    let batch: Vec<StartRequest> = tasks.iter().map(request).collect();
    let answers = store.record_and_claim(worker, claim_id(), &batch).await;
    let answers = answers.expect("start");
    assert!(answers.iter().all(|(recorded, _)| *recorded == Recorded::New));
    answers.into_iter().map(|(_, claimed)| claimed).collect()
}

fn number_of(answers: &[Option<Claimed>]) -> usize {
    answers.iter().flatten().count()
}

/// What a recorder would start itself waits as any other; the first time, and when the limit is known already.
pub async fn the_hand_off_is_held_back_too(store: Arc<dyn Store>) {
    put(&*store, "three", at_a_time(3)).await;
    let worker = worker(&*store).await;
    let first = hand_over(&*store, worker, &fresh(&*store, &["", ""]).await).await;
    let third = hand_over(&*store, worker, &fresh(&*store, &[""]).await).await;
    let running: Vec<&Claimed> = first.iter().chain(&third).flatten().collect();
    assert_eq!(running.len(), 3);
    assert!(running.iter().all(|it| it.limited));
    assert_eq!(
        usage(&*store, "three").await,
        LimitUse {
            running: 3,
            waiting: 0
        }
    );
    let late = fresh(&*store, &["", ""]).await;
    assert_eq!(number_of(&hand_over(&*store, worker, &late).await), 0);
    assert_eq!(
        usage(&*store, "three").await,
        LimitUse {
            running: 3,
            waiting: 2
        }
    );
    // A place is free again, but it belongs to who waits.
    succeed(&*store, worker, running[0]).await;
    let last = fresh(&*store, &[""]).await;
    assert_eq!(number_of(&hand_over(&*store, worker, &last).await), 0);
    assert_eq!(dispatch(&*store).await, [late[0].id]);
    nothing_to_mend(&*store).await;
}

/// Of a batch, what may run is started, whatever holds back the others; and all of it is noted as the worker's.
pub async fn a_mixed_hand_off_starts_what_may_run(store: Arc<dyn Store>) {
    put(&*store, "each", of_each_key(2)).await;
    let worker = worker(&*store).await;
    let known = hand_over(&*store, worker, &fresh(&*store, &["a", "b"]).await).await;
    assert_eq!(number_of(&known), 2);
    let tasks = fresh(&*store, &["a", "", "a", "b", "c"]).await;
    let answers = hand_over(&*store, worker, &tasks).await;
    let started: Vec<bool> = answers.iter().map(Option::is_some).collect();
    assert_eq!(started, [true, true, false, true, true], "a has one place left");
    let limited: Vec<bool> = answers.iter().flatten().map(|it| it.limited).collect();
    assert_eq!(limited, [true, false, true, true]);
    for (task, answer) in tasks.iter().zip(&answers) {
        let found = get(&*store, task.id).await;
        let state = if answer.is_some() {
            State::Running
        } else {
            State::Throttled
        };
        assert_eq!((found.state, &found.terms), (state, &task.terms));
        assert!(answer.as_ref().is_none_or(|it| it.terms == task.terms));
    }
    assert_eq!(
        usage(&*store, "each").await,
        LimitUse {
            running: 5,
            waiting: 1
        }
    );
    nothing_to_mend(&*store).await;
    let events = store.abandon(worker, 3).await.expect("abandon");
    let lost: HashSet<TaskId> = events.iter().map(|it| it.id).collect();
    let ran: HashSet<TaskId> = known.iter().chain(&answers).flatten().map(|it| it.id).collect();
    assert_eq!(lost, ran);
    nothing_to_mend(&*store).await;
    assert_eq!(usage(&*store, "each").await.running, 0);
}
