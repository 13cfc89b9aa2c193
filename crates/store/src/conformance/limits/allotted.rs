//! Places in advance: where there are many, a store may give a worker as many as it has slots, and count nothing as its tasks start
//! and end. Nobody may see that.

use std::{slice, sync::Arc, time::Duration};

use forebay_core::{Decision, LimitRequest, State, Submission, WorkerId};

use super::super::support::{claim_id, claim_ready, complete, ended, get, wants_new, worker};
use super::kit::{
    at_a_time, claim_all, dispatch, granted, keyed, nothing_to_mend, of_each_key, put, succeed, usage,
};
use crate::{Claimed, Completed, LimitUse, Store};

/// More tasks than are counted one by one before a store gives places in advance.
const MANY: usize = 40;

/// A worker that has run so many tasks of this key that it may have places in advance, and runs five more now.
pub(super) async fn busy(store: &dyn Store, key: &str) -> (WorkerId, Vec<Claimed>) {
    let me = worker(store).await;
    let running = make_busy(store, me, key).await;
    (me, running)
}

async fn make_busy(store: &dyn Store, me: WorkerId, key: &str) -> Vec<Claimed> {
    let tasks = keyed(store, key, MANY + 5).await;
    let (before, now) = tasks.split_at(MANY);
    for some in before.chunks(5) {
        for it in run(store, me, some, 5).await {
            succeed(store, me, &it).await;
        }
    }
    run(store, me, now, 5).await
}

/// Claims these, of which so many are granted.
async fn run(store: &dyn Store, worker: WorkerId, tasks: &[Submission], number: usize) -> Vec<Claimed> {
    let answers = claim_all(store, worker, tasks).await;
    assert_eq!(granted(&answers).len(), number);
    answers.into_iter().flatten().collect()
}

async fn is_used(store: &dyn Store, running: u64, waiting: u64) {
    assert_eq!(usage(store, "some").await, LimitUse { running, waiting });
    nothing_to_mend(store).await;
}

/// What a worker does not use is there for another at once, and what it does use is counted.
pub async fn places_in_advance_are_there_for_who_needs_them(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(12)).await;
    let (first, running) = busy(&*store, "").await;
    is_used(&*store, 5, 0).await;
    let second = worker(&*store).await;
    let mut tasks = keyed(&*store, "", 9).await;
    let last = tasks.pop().expect("nine");
    let others = run(&*store, second, &tasks, 7).await;
    run(&*store, worker(&*store).await, slice::from_ref(&last), 0).await;
    is_used(&*store, 12, 2).await;
    // Whoever ends, in whatever way, lets the next go on.
    succeed(&*store, first, &running[0]).await;
    assert_eq!(dispatch(&*store).await, [tasks[7].id]);
    let retry = Decision::Retry {
        delay: Duration::from_secs(3_600),
    };
    let answer = complete(&*store, first, ended(&running[1], retry)).await;
    assert_eq!(answer, Completed::Applied(State::Retrying));
    assert_eq!(dispatch(&*store).await, [last.id]);
    is_used(&*store, 10, 0).await;
    for it in &running[2..] {
        succeed(&*store, first, it).await;
    }
    for it in &others {
        succeed(&*store, second, it).await;
    }
    is_used(&*store, 0, 0).await;
}

/// What a worker had in advance for long is taken back, and what it runs is counted: `count` answers a query of the store's own, and
/// `age` makes all that was given in advance an old story. Not a case of the suite, which knows no such means.
pub async fn what_is_had_in_advance_for_long_is_taken_back(
    store: Arc<dyn Store>,
    count: impl AsyncFn(&'static str) -> i64,
    age: impl AsyncFn(),
) {
    const COUNTED: &str = "SELECT coalesce(sum(running), 0) FROM limit_uses";
    const HOLDERS: &str = "SELECT count(*) FROM tasks WHERE holds IS NOT NULL AND state = 'running'";
    let me = worker(&*store).await;
    let early = run(&*store, me, &keyed(&*store, "", 2).await, 2).await;
    put(&*store, "some", at_a_time(100)).await;
    let running = make_busy(&*store, me, "").await;
    let (ended, left) = running.split_at(2);
    let figures = async || (count(COUNTED).await, count(HOLDERS).await);
    assert_eq!(
        figures().await,
        (8, 0),
        "a worker has eight slots, and nothing is counted"
    );
    for it in ended {
        succeed(&*store, me, it).await;
    }
    assert_eq!(figures().await, (8, 0));
    is_used(&*store, 3, 0).await;
    assert_eq!(figures().await, (8, 0), "it is not old");
    age().await;
    // What ran before there was the limit does not count to it.
    is_used(&*store, 3, 0).await;
    assert_eq!(figures().await, (3, 3));
    let after = run(&*store, me, &keyed(&*store, "", 2).await, 2).await;
    is_used(&*store, 5, 0).await;
    for it in left.iter().chain(&after).chain(&early) {
        succeed(&*store, me, it).await;
    }
    is_used(&*store, 0, 0).await;
    assert_eq!(figures().await, (0, 0));
}

/// A claim whose answer was lost is answered as it was, also after its worker's places were taken back.
pub async fn a_repeated_claim_keeps_its_place_in_advance(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(12)).await;
    let (first, _) = busy(&*store, "").await;
    let late = keyed(&*store, "", 2).await;
    let requests: Vec<_> = late.iter().map(wants_new).collect();
    let claim = claim_id();
    let answers = store.claim(first, claim, &requests).await.expect("claim");
    assert_eq!(granted(&answers), [0, 1]);
    let again = store.claim(first, claim, &requests).await.expect("claim again");
    assert_eq!(again, answers);
    let second = worker(&*store).await;
    let tasks = keyed(&*store, "", 8).await;
    run(&*store, second, &tasks, 5).await;
    is_used(&*store, 12, 3).await;
    let again = store.claim(first, claim, &requests).await.expect("claim again");
    assert_eq!(again, answers);
    is_used(&*store, 12, 3).await;
    for it in again.iter().flatten() {
        succeed(&*store, first, it).await;
    }
    assert_eq!(dispatch(&*store).await, [tasks[5].id, tasks[6].id]);
    is_used(&*store, 10, 1).await;
}

/// A worker that dies takes no places with it, and what it ran may run elsewhere.
pub async fn who_dies_takes_no_places_in_advance_along(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(8)).await;
    let (first, running) = busy(&*store, "").await;
    store.abandon(first, 100).await.expect("abandon");
    is_used(&*store, 0, 0).await;
    let second = worker(&*store).await;
    run(&*store, second, &keyed(&*store, "", 8).await, 8).await;
    let third = worker(&*store).await;
    run(&*store, third, &keyed(&*store, "", 1).await, 0).await;
    is_used(&*store, 8, 1).await;
    let late = complete(&*store, first, ended(&running[0], Decision::Succeed)).await;
    assert_eq!(late, Completed::Fenced);
    assert_eq!(get(&*store, running[0].id).await.state, State::Retrying);
    is_used(&*store, 8, 1).await;
}

/// A worker that stops hands back what it runs, and its places.
pub async fn who_stops_gives_places_in_advance_back(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(9)).await;
    let (first, _) = busy(&*store, "").await;
    store.deregister(first).await.expect("deregister");
    is_used(&*store, 0, 0).await;
    let second = worker(&*store).await;
    run(&*store, second, &keyed(&*store, "", 8).await, 8).await;
    let third = worker(&*store).await;
    run(&*store, third, &keyed(&*store, "", 2).await, 1).await;
    is_used(&*store, 9, 1).await;
}

/// A limit that is lowered holds for who has places in advance, too, within as long as a rule takes to hold.
pub async fn a_lowered_limit_holds_for_places_in_advance(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(20)).await;
    let (first, running) = busy(&*store, "").await;
    // By this store at once.
    put(&*store, "some", at_a_time(4)).await;
    let late = keyed(&*store, "", 2).await;
    run(&*store, first, &late, 0).await;
    is_used(&*store, 5, 2).await;
    succeed(&*store, first, &running[0]).await;
    assert_eq!(dispatch(&*store).await, [], "four run, as many as may");
    succeed(&*store, first, &running[1]).await;
    assert_eq!(dispatch(&*store).await, [late[0].id]);
    assert!(claim_ready(&*store, first, &late[0], 0).await.is_some());
    is_used(&*store, 4, 1).await;
}

/// What counted to a limit before it was moved counts to it until it ends.
pub async fn what_has_a_place_in_advance_counts_on(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(8)).await;
    let (first, running) = busy(&*store, "").await;
    let elsewhere = LimitRequest {
        kind: Some("other".into()),
        ..at_a_time(8)
    };
    put(&*store, "some", elsewhere).await;
    is_used(&*store, 5, 0).await;
    succeed(&*store, first, &running[0]).await;
    is_used(&*store, 4, 0).await;
    // It does not count what starts now.
    let late = run(&*store, first, &keyed(&*store, "", 2).await, 2).await;
    is_used(&*store, 4, 0).await;
    put(&*store, "some", at_a_time(8)).await;
    let second = worker(&*store).await;
    run(&*store, second, &keyed(&*store, "", 6).await, 4).await;
    is_used(&*store, 8, 2).await;
    for it in running[1..].iter().chain(&late) {
        succeed(&*store, first, it).await;
    }
    assert_eq!(dispatch(&*store).await.len(), 2);
    is_used(&*store, 4, 0).await;
}

/// Where two limits count a task, each counts it once.
pub async fn two_limits_give_places_in_advance_together(store: Arc<dyn Store>) {
    put(&*store, "some", at_a_time(20)).await;
    put(&*store, "each", of_each_key(9)).await;
    let (first, running) = busy(&*store, "a").await;
    let each = usage(&*store, "each").await;
    assert_eq!((each.running, each.waiting), (5, 0));
    let second = worker(&*store).await;
    let tasks = keyed(&*store, "a", 5).await;
    run(&*store, second, &tasks, 4).await;
    let each = usage(&*store, "each").await;
    assert_eq!((each.running, each.waiting), (9, 1));
    is_used(&*store, 9, 0).await;
    succeed(&*store, first, &running[4]).await;
    assert_eq!(dispatch(&*store).await, [tasks[4].id]);
    is_used(&*store, 8, 0).await;
}
