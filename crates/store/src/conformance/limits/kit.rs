//! What the cases of limits have in common.

use forebay_core::{
    Decision, LimitRequest, LimitRule, RateRequest, State, Submission, TaskId, Terms, WorkerId,
};

use super::super::support::{Sink, claim_id, complete, ended, get, record, task, wants_new};
use crate::{Claimed, Completed, LimitUse, PutLimit, Store};

/// A rule of this name.
pub(super) fn rule(name: &str, request: LimitRequest) -> LimitRule {
    request.accept(name.parse().expect("a name")).expect("a limit")
}

/// So many tasks at a time.
pub(super) fn at_a_time(concurrency: i64) -> LimitRequest {
    LimitRequest {
        concurrency: Some(concurrency),
        ..LimitRequest::default()
    }
}

/// So many tasks of each key at a time.
pub(super) fn of_each_key(concurrency: i64) -> LimitRequest {
    LimitRequest {
        by_key: true,
        ..at_a_time(concurrency)
    }
}

/// So many starts a second, so many of them at once.
pub(super) fn a_second(count: i64, burst: i64) -> LimitRequest {
    LimitRequest {
        rate: Some(RateRequest {
            count,
            per_seconds: 1.0,
            burst: Some(burst),
        }),
        ..LimitRequest::default()
    }
}

pub(super) async fn put(store: &dyn Store, name: &str, request: LimitRequest) {
    let put = store.put_limit(&rule(name, request)).await.expect("put a limit");
    assert_ne!(put, PutLimit::TooMany);
}

pub(super) async fn usage(store: &dyn Store, name: &str) -> LimitUse {
    let name = name.parse().expect("a name");
    store.limit_use(&name).await.expect("read how a limit is used")
}

/// Recorded tasks with this key, one after the other.
pub(super) async fn keyed(store: &dyn Store, key: &str, count: usize) -> Vec<Submission> {
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        let terms = Terms {
            limit_key: key.parse().ok(),
            ..Terms::default()
        };
        let task = Submission {
            terms: (!key.is_empty()).then(|| Box::new(terms)),
            ..task(store).await
        };
        record(store, &task).await;
        tasks.push(task);
    }
    tasks
}

pub(super) async fn claim_all(
    store: &dyn Store,
    worker: WorkerId,
    tasks: &[Submission],
) -> Vec<Option<Claimed>> {
    let requests: Vec<_> = tasks.iter().map(wants_new).collect();
    store
        .claim(worker, claim_id(), &requests)
        .await
        .expect("claim tasks")
}

/// Which of them were granted, by their places.
pub(super) fn granted(answers: &[Option<Claimed>]) -> Vec<usize> {
    let is_granted = |at: &usize| answers[*at].is_some();
    (0..answers.len()).filter(is_granted).collect()
}

/// Makes ready what is due, and says what that was.
pub(super) async fn dispatch(store: &dyn Store) -> Vec<TaskId> {
    let sink = Sink::open();
    store.dispatch_due(1_000, &sink).await.expect("dispatch");
    sink.ids()
}

pub(super) async fn succeed(store: &dyn Store, worker: WorkerId, claimed: &Claimed) {
    let answer = complete(store, worker, ended(claimed, Decision::Succeed)).await;
    assert_eq!(answer, Completed::Applied(State::Succeeded));
}

pub(super) async fn release(store: &dyn Store) -> u64 {
    let released = store.release_throttled(None, 100).await;
    released.expect("release what waits").count
}

pub(super) async fn state(store: &dyn Store, task: &Submission) -> State {
    get(store, task.id).await.state
}

pub(super) async fn nothing_to_mend(store: &dyn Store) {
    let mended = store.mend_limits().await.expect("mend");
    assert_eq!(mended.counters, 0, "a counter was not what it counts");
}
