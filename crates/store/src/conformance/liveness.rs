//! Workers that live, stop and die.

use std::{sync::Arc, time::Duration};

use forebay_core::{Decision, QueueName, State, Submission, Timestamp, WorkerId, WorkerInfo};

use super::support::*;
use crate::{Claimed, Completed, Heartbeat, ReadyWalk, Store, StoreError};

/// Long enough for a heartbeat and a look at the workers on a slow machine, short enough to wait for.
const LEASE: Duration = Duration::from_secs(5);

/// The silent one loses its task, the other goes on.
pub async fn a_silent_worker_is_taken_back_and_a_lively_one_is_not(store: Arc<dyn Store>) {
    let (lost, silent, _) = running(&*store).await;
    let (kept, lively, _) = running(&*store).await;
    let events = std::sync::Mutex::new(Vec::new());
    wait_until("the silent worker is dead", || async {
        let at = now(&*store).await;
        store
            .heartbeat(&beat(lively, at))
            .await
            .expect("the lively one lives");
        let taken = store.take_back(LEASE, 5).await.expect("take back");
        lock(&events).extend(taken);
        !lock(&events).is_empty()
    })
    .await;
    let events = std::mem::take(&mut *lock(&events));
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].id, events[0].state, events[0].attempt),
        (lost.id, State::Retrying, 0)
    );
    assert_eq!(get(&*store, kept.id).await.state, State::Running);
    let workers = store.workers().await.expect("list the workers");
    assert_eq!(workers.iter().map(|it| it.id).collect::<Vec<_>>(), [lively]);
    let found = get(&*store, lost.id).await;
    assert_eq!((found.state, found.attempt, found.fence), (State::Retrying, 0, 1));
    let silent_again = store.heartbeat(&beat(silent, now(&*store).await)).await;
    assert!(matches!(silent_again, Err(StoreError::WorkerGone)));
    assert!(
        claim_ready(&*store, lively, &lost, 1).await.is_some(),
        "it is due at once"
    );
}

/// A task that kills its workers fails in the end, and says why.
pub async fn being_lost_costs_no_attempt_but_has_a_cap(store: Arc<dyn Store>) {
    let task = recorded(&*store).await;
    for lost in 1..=3 {
        let worker = worker(&*store).await;
        let claimed = claim_ready(&*store, worker, &task, lost - 1)
            .await
            .expect("granted");
        assert_eq!((claimed.attempt, claimed.fence), (1, lost));
        let events = bury_all(&*store, 3).await;
        let found = get(&*store, task.id).await;
        let expected = if lost < 3 { State::Retrying } else { State::Failed };
        assert_eq!(
            events.iter().map(|it| (it.id, it.state)).collect::<Vec<_>>(),
            [(task.id, expected)]
        );
        assert_eq!(found.state, expected);
        assert_eq!(found.attempt, u32::from(lost == 3));
        assert_eq!(found.finished_at.is_some(), lost == 3);
        let last = found.errors.last().expect("an attempt that was lost is an error");
        assert_eq!(
            (found.errors.len(), last.outcome.as_str()),
            (lost as usize, "lost")
        );
        let said = if lost < 3 {
            "worker_lost: the worker died while it ran this task"
        } else {
            "worker_lost: the worker died 3 times while it ran this task"
        };
        assert_eq!(last.message, said);
        if lost < 3 {
            let sink = Sink::open();
            store.dispatch_due(10, &sink).await.expect("dispatch");
            let published: Vec<_> = sink
                .published()
                .iter()
                .map(|task| (task.id, task.fence, task.lost))
                .collect();
            assert_eq!(
                published,
                [(task.id, lost, lost)],
                "its message says that it is suspect"
            );
        }
    }
    store.retry(task.id).await.expect("retry");
    let worker = worker(&*store).await;
    assert!(claim_ready(&*store, worker, &task, 3).await.is_some());
    bury_all(&*store, 3).await;
    assert_eq!(
        get(&*store, task.id).await.state,
        State::Retrying,
        "the cap counts anew"
    );
}

/// A cancellation outlives the worker that should have obeyed it.
pub async fn a_lost_task_with_a_cancellation_is_cancelled(store: Arc<dyn Store>) {
    for lost_max in [5, 1] {
        let (task, _, _) = running(&*store).await;
        store.cancel(task.id).await.expect("cancel");
        let events = bury_all(&*store, lost_max).await;
        assert_eq!((events.len(), events[0].state), (1, State::Cancelled));
        let found = get(&*store, task.id).await;
        assert_eq!((found.state, found.attempt), (State::Cancelled, 0));
        assert!(found.finished_at.is_some());
    }
}

/// Whatever a dead worker asks, it learns that it is dead.
pub async fn a_dead_worker_is_told_so(store: Arc<dyn Store>) {
    let (dead, task) = (worker(&*store).await, recorded(&*store).await);
    assert_eq!(bury_all(&*store, 3).await, []);
    let at = now(&*store).await;
    for nobody in [dead, stranger()] {
        let answer = store.heartbeat(&beat(nobody, at)).await;
        assert!(matches!(answer, Err(StoreError::WorkerGone)), "{answer:?}");
        let answer = store.claim(nobody, claim_id(), &[wants_new(&task)]).await;
        assert!(matches!(answer, Err(StoreError::WorkerGone)), "{answer:?}");
    }
    assert_eq!(get(&*store, task.id).await.state, State::Queued);
}

/// What was taken back is no longer the dead worker's to end, though its start is still the latest: until the next claim,
/// when it has failed by that, when it was cancelled meanwhile, and when an operator has brought it back.
pub async fn a_dead_workers_completion_is_fenced(store: Arc<dyn Store>) {
    for (lost_max, cancelled, revived) in [
        (1, false, false),
        (1, false, true),
        (3, true, false),
        (3, true, true),
    ] {
        let (task, dead, claimed) = running(&*store).await;
        bury_all(&*store, lost_max).await;
        if cancelled {
            store.cancel(task.id).await.expect("cancel");
        }
        if revived {
            store.retry(task.id).await.expect("retry");
        }
        refuses_all_of(&*store, dead, &claimed).await;
    }
    let (task, dead, claimed) = running(&*store).await;
    bury_all(&*store, 3).await;
    refuses_all_of(&*store, dead, &claimed).await;
    let other = worker(&*store).await;
    assert!(claim_ready(&*store, other, &task, 1).await.is_some());
    assert_eq!(
        complete(&*store, dead, ended(&claimed, Decision::Succeed)).await,
        Completed::Fenced
    );
    assert_eq!(get(&*store, task.id).await.state, State::Running);
}

async fn refuses_all_of(store: &dyn Store, dead: WorkerId, claimed: &Claimed) {
    let before = get(store, claimed.id).await;
    for decision in [
        Decision::Succeed,
        Decision::Fail,
        Decision::Cancel,
        RETRY_NOW,
        HAND_BACK,
    ] {
        assert_eq!(
            complete(store, dead, ended(claimed, decision)).await,
            Completed::Fenced
        );
    }
    assert_eq!(get(store, claimed.id).await, before);
}

/// A worker that stops in good order gives back what it could not end.
pub async fn deregistering_hands_back_at_no_cost(store: Arc<dyn Store>) {
    let (held, leaving, claimed) = running(&*store).await;
    let cancelled = recorded(&*store).await;
    assert!(claim(&*store, leaving, wants_new(&cancelled)).await.is_some());
    store.cancel(cancelled.id).await.expect("cancel");
    let (other, _, _) = running(&*store).await;
    store.deregister(leaving).await.expect("deregister");
    store.deregister(leaving).await.expect("deregister again");
    let found = get(&*store, held.id).await;
    assert_eq!((found.state, found.attempt, found.fence), (State::Retrying, 0, 1));
    assert_eq!(get(&*store, cancelled.id).await.state, State::Cancelled);
    assert_eq!(get(&*store, other.id).await.state, State::Running);
    let answer = store.heartbeat(&beat(leaving, now(&*store).await)).await;
    assert!(matches!(answer, Err(StoreError::WorkerGone)), "{answer:?}");
    assert_eq!(
        complete(&*store, leaving, ended(&claimed, Decision::Succeed)).await,
        Completed::Fenced
    );
    let sink = Sink::open();
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.published(), [ready(&held, 1)]);
}

/// The answer was lost, so it registers again.
pub async fn registering_again_is_allowed(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    let at = now(&*store).await;
    store.register(&beat(worker, at)).await.expect("register again");
    assert_eq!(store.workers().await.expect("list the workers").len(), 1);
}

/// A worker hears of cancellations of what it runs, for as long as it runs.
pub async fn a_heartbeat_delivers_cancellations(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    let (_, other, _) = running(&*store).await;
    let at = now(&*store).await;
    let reply = store.heartbeat(&beat(worker, at)).await.expect("heartbeat");
    assert_eq!(reply.cancel, []);
    store.cancel(task.id).await.expect("cancel");
    for _ in 0..2 {
        let reply = store.heartbeat(&beat(worker, at)).await.expect("heartbeat");
        assert_eq!(reply.cancel, [task.id]);
        let reply = store
            .heartbeat(&beat(other, at))
            .await
            .expect("heartbeat of the other");
        assert_eq!(reply.cancel, []);
    }
    complete(&*store, worker, ended(&claimed, Decision::Cancel)).await;
    let reply = store.heartbeat(&beat(worker, at)).await.expect("heartbeat");
    assert_eq!(reply.cancel, []);
}

/// The longest running first, each as its latest heartbeat described it.
pub async fn workers_are_listed_as_they_say(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let queue = |name: &str| name.parse::<QueueName>().expect("a valid queue");
    let (young, old) = (stranger(), stranger());
    store
        .register(&beat(young, plus(at, -10)))
        .await
        .expect("register the young");
    store
        .register(&beat(old, plus(at, -20)))
        .await
        .expect("register the old");
    let says = WorkerInfo {
        name: "höst\"2\"".to_owned(),
        queues: vec![queue("b"), queue("a")],
        slots: 3,
        busy: vec![(queue("b"), 2), (queue("a"), 1)],
        finished: vec![(queue("a"), u64::from(u32::MAX) + 7)],
        draining: true,
        heartbeat_at: plus(at, -1_000),
        ..beat(young, plus(at, -10)).worker
    };
    let heartbeat = Heartbeat {
        worker: says.clone(),
        watermarks: Vec::new(),
        progress: Vec::new(),
    };
    store.heartbeat(&heartbeat).await.expect("heartbeat");
    let workers = store.workers().await.expect("list the workers");
    assert_eq!(workers.iter().map(|it| it.id).collect::<Vec<_>>(), [old, young]);
    assert!(
        workers.iter().all(|it| it.heartbeat_at >= at),
        "the store's clock counts"
    );
    let listed = WorkerInfo {
        heartbeat_at: says.heartbeat_at,
        ..workers[1].clone()
    };
    assert_eq!(listed, says);
}

/// The newest message that anyone has received; a worker that is gone has no say.
pub async fn watermarks_are_the_newest_of_each_lane(store: Arc<dyn Store>) {
    let at = now(&*store).await;
    let (one, other) = (worker(&*store).await, worker(&*store).await);
    assert_eq!(store.watermarks().await.expect("read the watermarks"), []);
    let says = |worker, marks: &[(&str, i64)]| Heartbeat {
        watermarks: marks
            .iter()
            .map(|&(name, ago)| (lane(name), plus(at, -ago)))
            .collect(),
        ..beat(worker, at)
    };
    store
        .heartbeat(&says(one, &[("a.high", 9), ("a.low", 5)]))
        .await
        .expect("heartbeat");
    store
        .heartbeat(&says(other, &[("a.low", 7), ("b.default", 3)]))
        .await
        .expect("heartbeat");
    let read = || async {
        let mut marks = store.watermarks().await.expect("read the watermarks");
        marks.sort_unstable();
        marks
    };
    let expected = |marks: &[(&str, i64)]| says(one, marks).watermarks;
    assert_eq!(
        read().await,
        expected(&[("a.high", 9), ("a.low", 5), ("b.default", 3)])
    );
    store
        .heartbeat(&says(other, &[("a.low", 4)]))
        .await
        .expect("heartbeat");
    assert_eq!(read().await, expected(&[("a.high", 9), ("a.low", 4)]));
    store.deregister(one).await.expect("deregister");
    assert_eq!(read().await, expected(&[("a.low", 4)]));
}

/// The longest wait is told, of each queue for itself, whether a task was accepted or came to be due; and none where
/// nothing is ready.
pub async fn the_oldest_ready_task_is_found(store: Arc<dyn Store>) {
    let queue = |name: &str| name.parse::<QueueName>().expect("a valid queue");
    let of = |lane_name: &str, at| Submission {
        lane: lane(lane_name),
        ..task_at(at)
    };
    let mut walk = ReadyWalk::default();
    let none = store.oldest_ready(&queue("a"), walk).await.expect("look");
    assert_eq!((none.age, none.is_complete), (None, true));
    walk = none.walk;
    let begin = now(&*store).await;
    let first = of("a.low", begin);
    record(&*store, &first).await;
    let recorded_by = now(&*store).await;
    let between = now_after(&*store, recorded_by).await;
    let second = of("a.high", between);
    record(&*store, &second).await;
    record(&*store, &of("b.default", between)).await;
    let since = |age: Option<Duration>, now: Timestamp| {
        let age = age.expect("something is ready");
        now.checked_sub(age).expect("not so long ago")
    };
    let before = now(&*store).await;
    let found = store.oldest_ready(&queue("a"), walk).await.expect("look");
    assert!(
        found.is_complete && since(found.age, before) < between,
        "{found:?}"
    );
    assert!(since(found.age, now(&*store).await) >= begin, "{found:?}");
    // Once it runs it is the second's turn, for a walk that goes on and for one that begins anew.
    let id = worker(&*store).await;
    assert!(claim(&*store, id, wants_new(&first)).await.is_some());
    for walk in [found.walk, ReadyWalk::default()] {
        let found = store.oldest_ready(&queue("a"), walk).await.expect("look");
        let since = since(found.age, now(&*store).await);
        assert!(since >= between, "{since} is before {between}");
    }
    assert!(claim(&*store, id, wants_new(&second)).await.is_some());
    let none = store.oldest_ready(&queue("a"), found.walk).await.expect("look");
    assert_eq!((none.age, none.is_complete), (None, true));
    assert!(none.walk.from >= found.walk.from, "the walk does not turn back");
}

/// What was created long ago and is due now has not been ready for long.
pub async fn what_became_due_is_ready_since_then(store: Arc<dyn Store>) {
    let begin = now(&*store).await;
    let due = Submission {
        run_at: Some(plus(begin, -5)),
        ..task_at(plus(begin, -3_600))
    };
    record(&*store, &due).await;
    let queue = due.lane.queue.clone();
    let look = || async {
        store
            .oldest_ready(&queue, ReadyWalk::default())
            .await
            .expect("look")
    };
    assert_eq!(look().await.age, None, "it is not dispatched");
    let events = store.dispatch_due(10, &Sink::open()).await.expect("dispatch");
    assert_eq!(events.len(), 1);
    let age = look().await.age.expect("it is ready");
    let waited = Duration::try_from(now(&*store).await.duration_since(begin)).expect("forward");
    assert!(age <= waited, "{age:?} of {waited:?}");
}

/// A walk that has passed goes back for what is recorded long after it was accepted.
pub async fn a_late_record_is_found_behind_the_walk(store: Arc<dyn Store>) {
    let first = recorded(&*store).await;
    let queue = &first.lane.queue;
    let found = store.oldest_ready(queue, ReadyWalk::default()).await;
    let walk = found.expect("look").walk;
    let id = worker(&*store).await;
    assert!(claim(&*store, id, wants_new(&first)).await.is_some());
    record(&*store, &task_at(plus(first.created_at, -3_600))).await;
    let late = store.oldest_ready(queue, walk).await.expect("look");
    assert!(late.age.is_some() && late.is_complete, "{late:?}");
    let again = store.oldest_ready(queue, late.walk).await.expect("look");
    assert!(again.age >= late.age, "{again:?} after {late:?}");
}
