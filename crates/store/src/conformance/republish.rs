//! Publishing again what the broker has lost.

use std::sync::Arc;

use forebay_core::{Decision, State, Submission, TaskId, Timestamp};

use super::support::*;
use crate::{Republished, Store};

/// Tasks queued in a lane before the horizon that is returned.
async fn queued(store: &dyn Store, name: &str, count: usize) -> (Vec<Submission>, Timestamp) {
    let at = now(store).await;
    let tasks: Vec<Submission> = (0..count)
        .map(|_| Submission {
            lane: lane(name),
            ..task_at(at)
        })
        .collect();
    store.record(&tasks).await.expect("record");
    let recorded_by = now(store).await;
    (tasks, now_after(store, recorded_by).await)
}

async fn pass(
    store: &dyn Store,
    name: &str,
    horizon: Timestamp,
    floor: Timestamp,
    sink: &Sink,
) -> Republished {
    let horizons = [(lane(name), horizon)];
    store
        .republish_lost(&horizons, floor, 100, sink)
        .await
        .expect("publish again")
}

fn ids(tasks: &[Submission]) -> Vec<TaskId> {
    sorted(tasks.iter().map(|task| task.id))
}

/// A lost message is replaced, once: the task counts as queued anew.
pub async fn what_waits_since_before_the_horizon_is_published_once(store: Arc<dyn Store>) {
    let (lost, horizon) = queued(&*store, "a.high", 3).await;
    let (_, _) = queued(&*store, "a.high", 2).await;
    let sink = Sink::open();
    let first = pass(&*store, "a.high", horizon, Timestamp::UNIX_EPOCH, &sink).await;
    assert_eq!(first.count, 3);
    assert_eq!(sorted(sink.ids()), ids(&lost));
    assert!(
        sink.published()
            .iter()
            .all(|task| task.lane == lane("a.high") && task.fence == 0)
    );
    let second = pass(&*store, "a.high", horizon, Timestamp::UNIX_EPOCH, &sink).await;
    assert_eq!((second.count, sink.ids().len()), (0, 3));
    let worker = worker(&*store).await;
    assert!(claim_ready(&*store, worker, &lost[0], 0).await.is_some());
}

/// Where the horizon is not known, nothing is known to be lost.
pub async fn lanes_without_a_horizon_are_left_alone(store: Arc<dyn Store>) {
    let (here, _) = queued(&*store, "a.high", 1).await;
    let (there, _) = queued(&*store, "a.low", 1).await;
    let (_, horizon) = queued(&*store, "b.high", 1).await;
    let sink = Sink::open();
    let none = store.republish_lost(&[], Timestamp::UNIX_EPOCH, 100, &sink).await;
    assert_eq!(none.expect("publish nothing").count, 0);
    pass(&*store, "a.high", horizon, Timestamp::UNIX_EPOCH, &sink).await;
    assert_eq!(sink.ids(), ids(&here));
    let horizons = [(lane("a.high"), horizon), (lane("a.low"), horizon)];
    let both = Sink::open();
    let answer = store
        .republish_lost(&horizons, Timestamp::UNIX_EPOCH, 100, &both)
        .await;
    assert_eq!(answer.expect("publish again").count, 1);
    assert_eq!(both.ids(), ids(&there));
}

/// The floor may have gone past what is recorded long after it was accepted, because the recorder or the store was away.
/// Once it was started, its message is not looked for any more.
pub async fn what_was_recorded_late_is_found_below_the_floor(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let late: Vec<Submission> = (0..3).map(|ago| task_at(plus(at, -3_600 - ago))).collect();
    store.record(&late).await.expect("record");
    let worker = worker(&*store).await;
    assert!(claim(&*store, worker, wants_new(&late[2])).await.is_some());
    let recorded_by = now(&*store).await;
    let horizon = now_after(&*store, recorded_by).await;
    let sink = Sink::open();
    let first = pass(&*store, "default.default", horizon, plus(at, -60), &sink).await;
    assert_eq!((first.count, sorted(sink.ids())), (2, ids(&late[..2])));
    assert!(first.floor >= plus(at, -60), "the floor does not sink");
    let again = pass(&*store, "default.default", horizon, first.floor, &sink).await;
    assert_eq!((again.count, sink.ids().len()), (0, 2));
    assert!(claim_ready(&*store, worker, &late[0], 0).await.is_some());
    assert!(claim(&*store, worker, wants_new(&late[1])).await.is_some());
    let later = plus(now(&*store).await, 3_600);
    let last = pass(&*store, "default.default", later, first.floor, &sink).await;
    assert_eq!((last.count, sink.ids().len()), (0, 2));
}

/// The id of what comes late to a batch is as old as the batch.
pub async fn an_id_of_long_ago_is_found_too(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let of_long_ago = || Submission {
        id: task_at(plus(at, -3 * 86_400)).id,
        terms: Some(Box::default()),
        ..task_at(at)
    };
    let tasks = [of_long_ago(), of_long_ago(), of_long_ago()];
    store.record(&tasks).await.expect("record");
    // Its message is on its way, so it is not dispatched.
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.ids(), []);
    let worker = worker(&*store).await;
    assert!(claim(&*store, worker, wants_new(&tasks[0])).await.is_some());
    let recorded_by = now(&*store).await;
    let horizon = now_after(&*store, recorded_by).await;
    let answer = pass(&*store, "default.default", horizon, plus(at, -60), &sink).await;
    assert_eq!((answer.count, sorted(sink.ids())), (2, ids(&tasks[1..])));
    assert_eq!(get(&*store, tasks[1].id).await.state, State::Queued);
    let again = pass(&*store, "default.default", horizon, answer.floor, &sink).await;
    assert_eq!((again.count, sink.ids().len()), (0, 2));
    store.cancel(tasks[1].id).await.expect("cancel");
    assert!(claim(&*store, worker, wants_new(&tasks[2])).await.is_some());
    let later = plus(now(&*store).await, 3_600);
    let last = pass(&*store, "default.default", later, answer.floor, &sink).await;
    assert_eq!((last.count, sink.ids().len()), (0, 2));
}

/// What the broker did not take is found again from the floor that the pass returned.
pub async fn what_is_not_confirmed_stays_lost(store: Arc<dyn Store>) {
    let (lost, horizon) = queued(&*store, "a.high", 2).await;
    let failed = pass(&*store, "a.high", horizon, Timestamp::UNIX_EPOCH, &Sink::closed()).await;
    assert_eq!(failed.count, 0);
    let sink = Sink::open();
    assert_eq!(
        pass(&*store, "a.high", horizon, failed.floor, &sink).await.count,
        2
    );
    assert_eq!(sorted(sink.ids()), ids(&lost));
}

/// Many passes of a few find everything exactly once, each beginning where the last one said.
pub async fn the_limit_cuts_and_the_floor_goes_on(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let tasks: Vec<Submission> = (0..7).map(|ago| task_at(plus(at, ago - 10))).collect();
    store.record(&tasks).await.expect("record");
    let recorded_by = now(&*store).await;
    let horizons = [(lane("default.default"), now_after(&*store, recorded_by).await)];
    let (sink, mut floor, mut counts) = (Sink::open(), Timestamp::UNIX_EPOCH, Vec::new());
    loop {
        let answer = store
            .republish_lost(&horizons, floor, 3, &sink)
            .await
            .expect("publish again");
        assert!(answer.floor >= floor && answer.count <= 3, "{answer:?}");
        floor = answer.floor;
        counts.push(answer.count);
        assert!(
            counts.len() < 10,
            "the same are published again and again: {counts:?}"
        );
        if answer.count == 0 {
            break;
        }
    }
    assert_eq!(counts, [3, 3, 1, 0]);
    assert_eq!(sorted(sink.ids()), ids(&tasks));
}

/// What runs, waits for a time, or is final has no message to lose.
pub async fn only_what_is_queued(store: Arc<dyn Store>) {
    let (_, worker, _) = running(&*store).await;
    record(&*store, &parked(&*store, 3_600).await).await;
    record(&*store, &parked(&*store, -5).await).await;
    for decision in [Decision::Succeed, Decision::Fail, RETRY_LATER] {
        let task = recorded(&*store).await;
        let claimed = claim(&*store, worker, wants_new(&task)).await.expect("granted");
        complete(&*store, worker, ended(&claimed, decision)).await;
    }
    let cancelled = recorded(&*store).await;
    store.cancel(cancelled.id).await.expect("cancel");
    let horizon = plus(now(&*store).await, 3_600);
    let sink = Sink::open();
    let answer = pass(&*store, "default.default", horizon, Timestamp::UNIX_EPOCH, &sink).await;
    assert_eq!((answer.count, sink.ids()), (0, Vec::new()));
}

/// A message of the dispatcher can be lost like any other, and its fence is kept.
pub async fn what_was_dispatched_may_be_lost_too(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    let early = now(&*store).await;
    now_after(&*store, early).await;
    store.dispatch_due(10, &Sink::open()).await.expect("dispatch");
    let sink = Sink::open();
    let answer = pass(&*store, "default.default", early, Timestamp::UNIX_EPOCH, &sink).await;
    assert_eq!(answer.count, 0, "it was queued after {early}");
    let dispatched_by = now(&*store).await;
    let horizon = now_after(&*store, dispatched_by).await;
    let answer = pass(&*store, "default.default", horizon, Timestamp::UNIX_EPOCH, &sink).await;
    assert_eq!((answer.count, sink.published()), (1, vec![ready(&task, 1)]));
    assert!(claim_ready(&*store, worker, &task, 1).await.is_some());
}
