//! Tasks that expire unless they are started in time.

use std::{sync::Arc, time::Duration};

use forebay_core::{Decision, LimitRequest, State, Submission, TaskId, Terms, Timestamp};

use super::support::*;
use crate::Store;

/// A task that expires `millis` from now; it waits for `run_at`, where that is said, in seconds from now.
async fn expiring(store: &dyn Store, millis: u64, run_at: Option<i64>) -> Submission {
    let at = now(store).await;
    let expires_at = at
        .saturating_add(Duration::from_millis(millis))
        .unwrap_or(Timestamp::MAX);
    Submission {
        terms: Some(Box::new(Terms {
            expires_at: Some(expires_at),
            ..Terms::default()
        })),
        run_at: run_at.map(|seconds| plus(at, seconds)),
        ..task_at(at)
    }
}

fn expires_at(task: &Submission) -> Timestamp {
    let terms = task.terms.as_ref().expect("it has terms");
    terms.expires_at.expect("it expires")
}

/// Ends what has expired, and says what that was.
async fn expire(store: &dyn Store) -> Vec<TaskId> {
    let events = store.expire_due(100).await.expect("end what has expired").events;
    for event in &events {
        assert_eq!((event.state, event.attempt), (State::Expired, 0));
    }
    events.into_iter().map(|event| event.id).collect()
}

/// Nothing starts it any more, from that very moment on, and then it is ended.
pub async fn what_is_late_is_not_started_and_then_ended(store: Arc<dyn Store>) {
    let (task, worker) = (expiring(&*store, 300, None).await, worker(&*store).await);
    record(&*store, &task).await;
    assert_eq!(expire(&*store).await, [], "it is in time");
    now_after(&*store, expires_at(&task)).await;
    assert_eq!(claim(&*store, worker, wants_new(&task)).await, None);
    assert_eq!(get(&*store, task.id).await.state, State::Queued);
    assert_eq!(expire(&*store).await, [task.id]);
    let ended = get(&*store, task.id).await;
    assert_eq!((ended.state, ended.attempt, ended.fence), (State::Expired, 0, 0));
    assert!(ended.finished_at.is_some_and(|at| at >= expires_at(&task)));
    assert_eq!(ended.terms, task.terms);
    assert_eq!(claim(&*store, worker, wants_new(&task)).await, None);
    assert_eq!(expire(&*store).await, [], "it is ended once");
}

/// What was started in time goes on, whatever becomes of that start.
pub async fn what_was_started_in_time_goes_on(store: Arc<dyn Store>) {
    let (task, worker) = (expiring(&*store, 2_000, None).await, worker(&*store).await);
    record(&*store, &task).await;
    let claimed = claim(&*store, worker, wants_new(&task)).await.expect("in time");
    assert_eq!(claimed.terms, task.terms);
    now_after(&*store, expires_at(&task)).await;
    assert_eq!(expire(&*store).await, []);
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    let again = claim_ready(&*store, worker, &task, 1).await.expect("granted");
    assert_eq!((again.fence, again.attempt), (2, 2));
    assert_eq!(get(&*store, task.id).await.state, State::Running);
}

/// What waits for its time may expire before it, and is not dispatched afterwards.
pub async fn what_is_scheduled_expires_too(store: Arc<dyn Store>) {
    let late = expiring(&*store, 1, Some(-5)).await;
    let waits = expiring(&*store, 1, Some(3_600)).await;
    let in_time = expiring(&*store, 60_000, Some(-5)).await;
    for task in [&late, &waits, &in_time] {
        record(&*store, task).await;
    }
    now_after(&*store, expires_at(&waits).max(expires_at(&late))).await;
    assert_eq!(sorted(expire(&*store).await), sorted([late.id, waits.id]));
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), [in_time.id]);
    assert_eq!(get(&*store, waits.id).await.run_at, None);
}

/// Those of the longest past come first, and no more than are asked for.
pub async fn no_more_expire_than_the_limit(store: Arc<dyn Store>) {
    let mut tasks = Vec::new();
    for millis in [30, 10, 20] {
        let task = expiring(&*store, millis, None).await;
        record(&*store, &task).await;
        tasks.push(task);
    }
    tasks.sort_by_key(expires_at);
    now_after(&*store, expires_at(&tasks[2])).await;
    let first = store.expire_due(2).await.expect("end what has expired");
    assert_eq!(first.looked_at, 2);
    let first = first.events.into_iter().map(|event| event.id);
    assert_eq!(sorted(first), sorted([tasks[0].id, tasks[1].id]));
    assert_eq!(expire(&*store).await, [tasks[2].id]);
}

/// What was cancelled stays so.
pub async fn what_is_final_does_not_expire(store: Arc<dyn Store>) {
    let task = expiring(&*store, 200, None).await;
    record(&*store, &task).await;
    store.cancel(task.id).await.expect("cancel");
    now_after(&*store, expires_at(&task)).await;
    assert_eq!(expire(&*store).await, []);
    assert_eq!(get(&*store, task.id).await.state, State::Cancelled);
}

/// Who brings a task back wants it run.
pub async fn what_an_operator_brings_back_does_not_expire(store: Arc<dyn Store>) {
    let expired = expiring(&*store, 1, None).await;
    let cancelled = expiring(&*store, 300, None).await;
    for task in [&expired, &cancelled] {
        record(&*store, task).await;
    }
    now_after(&*store, expires_at(&expired)).await;
    assert_eq!(expire(&*store).await, [expired.id]);
    store.cancel(cancelled.id).await.expect("cancel");
    for task in [&expired, &cancelled] {
        store.retry(task.id).await.expect("retry");
    }
    now_after(&*store, expires_at(&cancelled)).await;
    assert_eq!(expire(&*store).await, []);
    let worker = worker(&*store).await;
    for task in [&expired, &cancelled] {
        let back = get(&*store, task.id).await;
        assert_eq!(back.state, State::Retrying);
        assert_eq!(back.terms.and_then(|terms| terms.expires_at), None);
        let claimed = claim(&*store, worker, wants_new(task)).await;
        assert_eq!(claimed.expect("granted").attempt, 1);
    }
}

/// Each is ended by one of them, and told once.
pub async fn several_dispatchers_end_each_once(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    let mut last = Timestamp::UNIX_EPOCH;
    for _ in 0..40 {
        let task = expiring(&*store, 5, None).await;
        record(&*store, &task).await;
        last = last.max(expires_at(&task));
        ids.push(task.id);
    }
    now_after(&*store, last).await;
    let sweeps = (0..4).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut ended = Vec::new();
            for _ in 0..20 {
                let expired = store.expire_due(5).await.expect("end what has expired");
                ended.extend(expired.events);
            }
            ended
        })
    });
    let mut ended = Vec::new();
    for sweep in sweeps.collect::<Vec<_>>() {
        ended.extend(sweep.await.expect("a sweep").into_iter().map(|event| event.id));
    }
    ended.extend(expire(&*store).await);
    assert_eq!(sorted(ended), sorted(ids));
}

/// What a limit holds back expires, and leaves its line; what was started in time, and stands in a line again, stays there.
pub async fn what_a_limit_holds_back_expires_too(store: Arc<dyn Store>) {
    let rule = LimitRequest {
        concurrency: Some(1),
        ..LimitRequest::default()
    };
    let rule = rule.accept("one".parse().expect("a name")).expect("a limit");
    store.put_limit(&rule).await.expect("put a limit");
    let worker = worker(&*store).await;
    let again = expiring(&*store, 1_500, None).await;
    let late = expiring(&*store, 1_500, None).await;
    let first = task(&*store).await;
    for task in [&again, &late, &first] {
        record(&*store, task).await;
    }
    let claimed = claim(&*store, worker, wants_new(&again)).await.expect("in time");
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    let holder = claim(&*store, worker, wants_new(&first)).await.expect("granted");
    assert_eq!(claim_ready(&*store, worker, &again, 1).await, None);
    assert_eq!(claim(&*store, worker, wants_new(&late)).await, None);
    for task in [&again, &late] {
        assert_eq!(get(&*store, task.id).await.state, State::Throttled);
    }
    now_after(&*store, expires_at(&again).max(expires_at(&late))).await;
    assert_eq!(expire(&*store).await, [late.id]);
    assert_eq!(get(&*store, again.id).await.state, State::Throttled);
    complete(&*store, worker, ended(&holder, Decision::Succeed)).await;
    let sink = Sink::open();
    wait_until("the one that is left goes on", || async {
        store
            .release_throttled(None, 10)
            .await
            .expect("release what waits");
        store.dispatch_due(10, &sink).await.expect("dispatch");
        !sink.ids().is_empty()
    })
    .await;
    assert_eq!(sink.ids(), [again.id]);
    assert!(claim_ready(&*store, worker, &again, 1).await.is_some());
}

/// How many are looked at now.
async fn looked_at(store: &dyn Store, limit: usize) -> (usize, usize) {
    let expired = store.expire_due(limit).await.expect("end what has expired");
    (expired.looked_at, expired.events.len())
}

/// Tasks that expire so soon: one that is started, one that is cancelled, one that waits, in this order.
async fn started_over_and_waiting(store: &dyn Store, millis: u64) -> [Submission; 3] {
    let tasks = [
        expiring(store, millis, None).await,
        expiring(store, millis, None).await,
        expiring(store, millis, None).await,
    ];
    for task in &tasks {
        record(store, task).await;
    }
    let worker = worker(store).await;
    claim(store, worker, wants_new(&tasks[0])).await.expect("in time");
    store.cancel(tasks[1].id).await.expect("cancel");
    tasks
}

/// Those that cannot expire count as looked at, so that whoever asks knows that there is more, and are not met again.
pub async fn what_cannot_expire_any_more_is_looked_at_once(store: Arc<dyn Store>) {
    let tasks = started_over_and_waiting(&*store, 1_500).await;
    now_after(&*store, expires_at(&tasks[2])).await;
    assert_eq!(looked_at(&*store, 2).await, (2, 0));
    assert_eq!(looked_at(&*store, 2).await, (1, 1));
    assert_eq!(looked_at(&*store, 2).await, (0, 0));
}

/// So the sweep does not meet all that was started in time.
pub async fn maintenance_forgets_what_cannot_expire(store: Arc<dyn Store>) {
    let tasks = started_over_and_waiting(&*store, 1_500).await;
    store.maintain(None).await.expect("maintain");
    now_after(&*store, expires_at(&tasks[2])).await;
    assert_eq!(looked_at(&*store, 10).await, (1, 1));
    assert_eq!(get(&*store, tasks[2].id).await.state, State::Expired);
}
