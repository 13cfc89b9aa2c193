//! Rates: starts are spaced, and turns given out.

use std::sync::Arc;

use forebay_core::{LimitRequest, RateRequest, State, Submission, Timestamp};

use super::super::support::{claim_ready, get, now, record, task, wait_until, worker};
use super::kit::{
    a_second, claim_all, dispatch, granted, keyed, nothing_to_mend, put, release, state, succeed, usage,
};
use crate::Store;

/// Turns are spaced by the store's clock, and nobody starts before.
pub async fn a_rate_spaces_starts(store: Arc<dyn Store>) {
    put(&*store, "slow", a_second(5, 2)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 5).await;
    let before = now(&*store).await;
    let answers = claim_all(&*store, worker, &tasks).await;
    assert_eq!(granted(&answers), [0, 1]);
    let mut turns: Vec<Timestamp> = Vec::new();
    for task in &tasks[2..] {
        let found = get(&*store, task.id).await;
        assert_eq!(found.state, State::Throttled);
        let turn = found.run_at.expect("it has a turn");
        let hold = store.held_by(task.id).await.expect("read").expect("it is held");
        assert_eq!((hold.next_at, hold.concurrency), (Some(turn), None));
        turns.push(turn);
    }
    for two in turns.windows(2) {
        assert_eq!(two[1].as_microsecond() - two[0].as_microsecond(), 200_000);
    }
    assert!(turns[0].as_microsecond() >= before.as_microsecond() + 200_000);
    assert_eq!(
        claim_ready(&*store, worker, &tasks[4], 0).await,
        None,
        "not its turn"
    );
    for (task, turn) in tasks[2..].iter().zip(&turns) {
        wait_until("it is dispatched", || async {
            dispatch(&*store).await;
            state(&*store, task).await == State::Queued
        })
        .await;
        assert!(now(&*store).await >= *turn);
        let claimed = claim_ready(&*store, worker, task, 0)
            .await
            .expect("its turn has come");
        assert!(!claimed.limited, "a rate has no places");
    }
    nothing_to_mend(&*store).await;
}

fn hourly() -> LimitRequest {
    LimitRequest {
        rate: Some(RateRequest {
            count: 1,
            per_seconds: 3_600.0,
            burst: None,
        }),
        ..LimitRequest::default()
    }
}

/// Who has waited by a rate that is no more need not wait for its turn.
pub async fn a_changed_rate_is_looked_at_anew(store: Arc<dyn Store>) {
    put(&*store, "slow", hourly()).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 3).await;
    assert_eq!(granted(&claim_all(&*store, worker, &tasks).await), [0]);
    put(&*store, "slow", a_second(1_000, 1_000)).await;
    wait_until("they go on", || async {
        release(&*store).await;
        dispatch(&*store).await;
        state(&*store, &tasks[1]).await == State::Queued && state(&*store, &tasks[2]).await == State::Queued
    })
    .await;
    assert_eq!(granted(&claim_all(&*store, worker, &tasks[1..]).await), [0, 1]);
}

/// Many limits are changed at once: who waits by the last of them need not wait until the first is done with.
pub async fn all_that_were_changed_are_followed(store: Arc<dyn Store>) {
    let names = ["one", "other", "third"];
    let worker = worker(&*store).await;
    let mut waiting = Vec::new();
    for name in names {
        let hourly = LimitRequest {
            kind: Some(name.to_owned()),
            ..hourly()
        };
        put(&*store, name, hourly).await;
        for _ in 0..2 {
            let task = Submission {
                kind: name.parse().expect("a kind"),
                ..task(&*store).await
            };
            record(&*store, &task).await;
            waiting.push(task);
        }
    }
    assert_eq!(granted(&claim_all(&*store, worker, &waiting).await), [0, 2, 4]);
    for name in names {
        let name = name.parse().expect("a name");
        assert!(store.delete_limit(&name).await.expect("delete"));
    }
    assert_eq!(release(&*store).await, 3);
    assert_eq!(dispatch(&*store).await.len(), 3);
}

/// Who waits for a turn has a place already.
pub async fn a_rate_and_places_together(store: Arc<dyn Store>) {
    let both = LimitRequest {
        concurrency: Some(1),
        ..a_second(10, 1)
    };
    put(&*store, "both", both).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 4).await;
    let running = claim_all(&*store, worker, &tasks).await[0]
        .clone()
        .expect("granted");
    succeed(&*store, worker, &running).await;
    let mut last = get(&*store, tasks[0].id)
        .await
        .started_at
        .expect("it was started");
    for next in &tasks[1..] {
        wait_until("the next goes on", || async {
            for other in &tasks[1..] {
                dispatch(&*store).await;
                if let Some(claimed) = claim_ready(&*store, worker, other, 0).await {
                    assert_eq!(usage(&*store, "both").await.running, 1);
                    assert_eq!(claimed.id, next.id, "in their order, one at a time");
                    return true;
                }
            }
            false
        })
        .await;
        let started = get(&*store, next.id).await.started_at.expect("it was started");
        // What was dispatched late may have started up to a second after its turn, so only the order is certain.
        assert!(started > last);
        last = started;
        let again = claim_ready(&*store, worker, next, 0)
            .await
            .expect("its answer again");
        succeed(&*store, worker, &again).await;
    }
    nothing_to_mend(&*store).await;
}

/// What is cancelled while it has a turn leaves no gap behind it that others wait for.
pub async fn turns_of_the_cancelled_are_given_out_anew(store: Arc<dyn Store>) {
    put(&*store, "slow", hourly()).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 4).await;
    assert_eq!(granted(&claim_all(&*store, worker, &tasks[..3]).await), [0]);
    let turn = get(&*store, tasks[1].id).await.run_at.expect("it has a turn");
    for task in &tasks[1..3] {
        store.cancel(task.id).await.expect("cancel");
    }
    nothing_to_mend(&*store).await;
    assert_eq!(claim_ready(&*store, worker, &tasks[3], 0).await, None);
    let next = get(&*store, tasks[3].id).await.run_at.expect("it has a turn");
    assert_eq!(next, turn, "the turns of the others are nobody's");
}
