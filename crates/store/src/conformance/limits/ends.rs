//! Ends: whoever ends gives back what it held, once, and the next goes on.

use std::sync::Arc;

use forebay_core::{Decision, LimitRequest, State};

use super::super::support::{
    HAND_BACK, RETRY_LATER, Sink, claim_id, claim_ready, complete, ended, wait_until, wants, worker,
};
use super::kit::{
    a_second, at_a_time, claim_all, dispatch, keyed, nothing_to_mend, of_each_key, put, release, state,
    succeed, usage,
};
use crate::{Changed, LimitUse, Store};

/// A place that is given back goes to who waits longest.
pub async fn the_next_goes_on_when_one_ends(store: Arc<dyn Store>) {
    put(&*store, "one", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 3).await;
    let mut running = claim_all(&*store, worker, &tasks).await[0]
        .clone()
        .expect("granted");
    for next in &tasks[1..] {
        assert_eq!(dispatch(&*store).await, [], "nobody may go on");
        succeed(&*store, worker, &running).await;
        assert_eq!(dispatch(&*store).await, [next.id]);
        assert_eq!(state(&*store, next).await, State::Queued);
        assert_eq!(store.held_by(next.id).await.expect("read"), None);
        running = claim_ready(&*store, worker, next, 0)
            .await
            .expect("it was let go on");
        assert_eq!((running.attempt, running.fence), (1, 1));
    }
    succeed(&*store, worker, &running).await;
    assert_eq!(usage(&*store, "one").await, LimitUse::default());
    nothing_to_mend(&*store).await;
}

/// Each way in which an attempt may end lets the next go on.
pub async fn every_end_gives_the_place_back(store: Arc<dyn Store>) {
    put(&*store, "each", of_each_key(1)).await;
    for way in [
        "fail",
        "cancel",
        "retry",
        "hand back",
        "abandon",
        "deregister",
        "take back",
    ] {
        let (lost, heir) = (worker(&*store).await, worker(&*store).await);
        let tasks = keyed(&*store, way, 2).await;
        let running = claim_all(&*store, lost, &tasks).await[0]
            .clone()
            .expect("granted");
        let decision = match way {
            "fail" => Some(Decision::Fail),
            "cancel" => Some(Decision::Cancel),
            "retry" => Some(RETRY_LATER),
            "hand back" => Some(HAND_BACK),
            _ => None,
        };
        match decision {
            Some(decision) => {
                complete(&*store, lost, ended(&running, decision)).await;
            }
            None if way == "abandon" => {
                store.abandon(lost, 3).await.expect("abandon");
            }
            None if way == "deregister" => store.deregister(lost).await.expect("deregister"),
            None => {
                super::super::support::bury_all(&*store, 3).await;
            }
        }
        let heir = if way == "take back" {
            worker(&*store).await
        } else {
            heir
        };
        let sink = Sink::open();
        store.dispatch_due(100, &sink).await.expect("dispatch");
        let published = sink.published();
        assert!(
            published.iter().any(|it| it.id == tasks[1].id),
            "{way}: the next did not go on"
        );
        let next = claim_ready(&*store, heir, &tasks[1], 0).await;
        let next = next.unwrap_or_else(|| panic!("{way}: the next was not granted"));
        // What went back waits for its place, as all do.
        if let Some(back) = published.into_iter().find(|it| it.id == tasks[0].id) {
            let answers = store
                .claim(heir, claim_id(), &[wants(back)])
                .await
                .expect("claim");
            assert_eq!(answers, [None], "{way}");
        }
        succeed(&*store, heir, &next).await;
    }
    nothing_to_mend(&*store).await;
}

/// Who is cancelled in line does not come up.
pub async fn who_is_cancelled_leaves_the_line(store: Arc<dyn Store>) {
    put(&*store, "one", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 4).await;
    let running = claim_all(&*store, worker, &tasks).await[0]
        .clone()
        .expect("granted");
    let changed = store.cancel(tasks[1].id).await.expect("cancel");
    assert!(matches!(changed, Changed::Done(task) if task.state == State::Cancelled));
    succeed(&*store, worker, &running).await;
    assert_eq!(dispatch(&*store).await, [tasks[2].id]);
    // Who was let go on, and is cancelled on the way, keeps no place.
    store.cancel(tasks[2].id).await.expect("cancel");
    release(&*store).await;
    wait_until("the last goes on", || async {
        release(&*store).await;
        dispatch(&*store).await;
        state(&*store, &tasks[3]).await == State::Queued
    })
    .await;
    assert!(claim_ready(&*store, worker, &tasks[3], 0).await.is_some());
    assert_eq!(claim_ready(&*store, worker, &tasks[2], 0).await, None);
    nothing_to_mend(&*store).await;
}

/// Who has places for its turn, and runs by the time that it is cancelled, gives them back once: when it ends.
pub async fn who_is_cancelled_while_it_runs_gives_back_once(store: Arc<dyn Store>) {
    let both = LimitRequest {
        concurrency: Some(1),
        ..a_second(5, 1)
    };
    put(&*store, "both", both.clone()).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 2).await;
    let first = claim_ready(&*store, worker, &tasks[0], 0).await.expect("granted");
    succeed(&*store, worker, &first).await;
    assert_eq!(
        claim_ready(&*store, worker, &tasks[1], 0).await,
        None,
        "its turn comes"
    );
    // From now on nothing of this queue counts to it.
    let elsewhere = LimitRequest {
        queue: Some("elsewhere".into()),
        ..both
    };
    put(&*store, "both", elsewhere).await;
    wait_until("its turn has come", || async {
        dispatch(&*store).await;
        state(&*store, &tasks[1]).await == State::Queued
    })
    .await;
    let running = claim_ready(&*store, worker, &tasks[1], 0)
        .await
        .expect("no limit holds it");
    assert!(running.limited, "it has its place still");
    store.cancel(running.id).await.expect("cancel");
    assert_eq!(state(&*store, &tasks[1]).await, State::Running);
    assert_eq!(usage(&*store, "both").await.running, 1, "it runs");
    complete(&*store, worker, ended(&running, Decision::Cancel)).await;
    assert_eq!(usage(&*store, "both").await.running, 0);
    nothing_to_mend(&*store).await;
}

/// A store knows whether writing an outcome has let anybody go on.
pub async fn a_completion_says_whether_it_let_anybody_go_on(store: Arc<dyn Store>) {
    put(&*store, "one", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 2).await;
    let first = claim_ready(&*store, worker, &tasks[0], 0).await.expect("granted");
    assert_eq!(claim_ready(&*store, worker, &tasks[1], 0).await, None);
    store.has_released();
    succeed(&*store, worker, &first).await;
    assert!(store.has_released(), "the second goes on");
    assert!(!store.has_released(), "it was said");
    dispatch(&*store).await;
    let second = claim_ready(&*store, worker, &tasks[1], 0).await.expect("granted");
    succeed(&*store, worker, &second).await;
    assert!(!store.has_released(), "nobody waits");
}
