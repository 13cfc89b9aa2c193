//! Lines: who goes first, and what becomes of those that wait for two limits.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use forebay_core::{Priority, Submission, TaskId, Terms};

use super::super::support::{claim_ready, lane, record, task, wait_until, worker};
use super::kit::{
    at_a_time, claim_all, dispatch, granted, keyed, nothing_to_mend, of_each_key, put, release, succeed,
    usage,
};
use crate::Store;

/// The urgent go first, but each eighth is who has waited longest.
pub async fn the_urgent_go_first_but_for_each_eighth(store: Arc<dyn Store>) {
    put(&*store, "one", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let mut tasks = keyed(&*store, "", 1).await;
    let mut running = claim_all(&*store, worker, &tasks).await[0]
        .clone()
        .expect("granted");
    for priority in ["low", "default"].iter().chain(&["high"; 9]) {
        let task = Submission {
            lane: lane(&format!("default.{priority}")),
            ..task(&*store).await
        };
        record(&*store, &task).await;
        assert_eq!(claim_ready(&*store, worker, &task, 0).await, None);
        tasks.push(task);
    }
    let mut order = Vec::new();
    for _ in 0..11 {
        succeed(&*store, worker, &running).await;
        let [next] = dispatch(&*store).await[..] else {
            panic!("one goes on");
        };
        let task = tasks.iter().find(|it| it.id == next).expect("one of them");
        order.push(task.lane.priority);
        running = claim_ready(&*store, worker, task, 0).await.expect("granted");
    }
    let mut expected = vec![Priority::High; 7];
    expected.extend([Priority::Low, Priority::High, Priority::High, Priority::Default]);
    assert_eq!(order, expected);
}

/// What comes later waits behind those in line, although there is room.
pub async fn nobody_passes_the_line(store: Arc<dyn Store>) {
    put(&*store, "one", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 3).await;
    let running = claim_all(&*store, worker, &tasks[..2]).await[0]
        .clone()
        .expect("granted");
    succeed(&*store, worker, &running).await;
    assert_eq!(
        claim_ready(&*store, worker, &tasks[2], 0).await,
        None,
        "the place is kept"
    );
    dispatch(&*store).await;
    assert_eq!(granted(&claim_all(&*store, worker, &tasks[1..]).await), [0]);
}

/// A task takes all of its places, or none.
pub async fn two_limits_count_one_task(store: Arc<dyn Store>) {
    put(&*store, "all", at_a_time(2)).await;
    put(&*store, "each", of_each_key(1)).await;
    let worker = worker(&*store).await;
    let mut tasks = keyed(&*store, "a", 2).await;
    tasks.extend(keyed(&*store, "b", 1).await);
    tasks.extend(keyed(&*store, "c", 1).await);
    let answers = claim_all(&*store, worker, &tasks).await;
    assert_eq!(granted(&answers), [0, 2], "the second of a takes no place of all");
    succeed(&*store, worker, answers[0].as_ref().expect("granted")).await;
    // Both are let go on, since each line has room; one of them finds the other limit full, and waits there.
    let gone = dispatch(&*store).await;
    assert_eq!(gone.len(), 2);
    let answers = claim_all(&*store, worker, &[tasks[1].clone(), tasks[3].clone()]).await;
    assert_eq!(granted(&answers).len(), 1, "{answers:?}");
    let running = answers.iter().flatten().next().expect("one").clone();
    assert_eq!(usage(&*store, "all").await.running, 2);
    nothing_to_mend(&*store).await;
    succeed(&*store, worker, &running).await;
    let last = if running.id == tasks[1].id {
        &tasks[3]
    } else {
        &tasks[1]
    };
    wait_until("the last goes on", || async {
        release(&*store).await;
        dispatch(&*store).await;
        claim_ready(&*store, worker, last, 0).await.is_some()
    })
    .await;
}

/// Where two limits are contended, who finds the second full waits there alone: the line that it comes from stays where it is.
pub async fn who_waits_for_another_limit_pulls_no_line_along(store: Arc<dyn Store>) {
    put(&*store, "key", of_each_key(1)).await;
    put(&*store, "total", at_a_time(2)).await;
    let worker = worker(&*store).await;
    let mut tasks = keyed(&*store, "a", 3).await;
    tasks.extend(keyed(&*store, "b", 1).await);
    tasks.extend(keyed(&*store, "c", 1).await);
    let answers = claim_all(&*store, worker, &tasks).await;
    assert_eq!(granted(&answers), [0, 3]);
    succeed(&*store, worker, answers[0].as_ref().expect("granted")).await;
    assert_eq!(
        dispatch(&*store).await.len(),
        2,
        "the next of the key, and the next of all"
    );
    assert!(claim_ready(&*store, worker, &tasks[4], 0).await.is_some());
    assert_eq!(claim_ready(&*store, worker, &tasks[1], 0).await, None);
    let hold = store
        .held_by(tasks[1].id)
        .await
        .expect("read")
        .expect("it is held");
    assert_eq!(hold.limit.as_str(), "total");
    assert_eq!(
        dispatch(&*store).await,
        [],
        "the third of the key waits where it did"
    );
    nothing_to_mend(&*store).await;
    succeed(&*store, worker, answers[3].as_ref().expect("granted")).await;
    wait_until("it goes on", || async {
        release(&*store).await;
        dispatch(&*store).await;
        claim_ready(&*store, worker, &tasks[1], 0).await.is_some()
    })
    .await;
}

/// Many wait by a limit that is deleted: several dispatchers let them go on together, and none is in another's way or
/// forgets one.
pub async fn several_dispatchers_let_a_line_go(store: Arc<dyn Store>) {
    put(&*store, "one", at_a_time(1)).await;
    let worker = worker(&*store).await;
    let tasks = keyed(&*store, "", 301).await;
    assert_eq!(granted(&claim_all(&*store, worker, &tasks).await), [0]);
    let one = "one".parse().expect("a name");
    assert!(store.delete_limit(&one).await.expect("delete"));
    let gone: Arc<Mutex<BTreeSet<TaskId>>> = Arc::default();
    let dispatchers: Vec<_> = (0..3)
        .map(|_| {
            let (store, gone) = (Arc::clone(&store), Arc::clone(&gone));
            tokio::spawn(async move {
                wait_until("all go on", || async {
                    release(&*store).await;
                    let ids = dispatch(&*store).await;
                    let mut gone = gone.lock().expect("nobody panics with it");
                    gone.extend(ids);
                    gone.len() >= 300
                })
                .await;
            })
        })
        .collect();
    for dispatcher in dispatchers {
        dispatcher.await.expect("a dispatcher that does its work");
    }
    let gone = gone.lock().expect("nobody panics with it");
    let waiting: BTreeSet<TaskId> = tasks[1..].iter().map(|it| it.id).collect();
    assert_eq!(*gone, waiting);
}

/// One line fails whenever it is let go on, since `bad` made it so for tasks of the queue `bad`, by means of the store's own: the
/// others go on, and the trouble is told. Not a case of the suite, which knows no such means.
pub async fn a_bad_line_is_in_nobodys_way(
    store: Arc<dyn Store>,
    corrupt: impl AsyncFn(&'static str),
    bad: &'static str,
) {
    put(&*store, "each", of_each_key(1)).await;
    let worker = worker(&*store).await;
    let mut tasks = Vec::new();
    for key in 0..12 {
        for _ in 0..2 {
            let terms = Terms {
                limit_key: format!("key-{key}").parse().ok(),
                ..Terms::default()
            };
            let queue = if key == 3 { "bad" } else { "good" };
            let task = Submission {
                lane: lane(&format!("{queue}.default")),
                terms: Some(Box::new(terms)),
                ..task(&*store).await
            };
            record(&*store, &task).await;
            tasks.push(task);
        }
    }
    assert_eq!(granted(&claim_all(&*store, worker, &tasks).await).len(), 12);
    put(&*store, "each", of_each_key(2)).await;
    corrupt(bad).await;
    let released = store.release_throttled(None, 100).await;
    let released = released.expect("release what waits");
    assert_eq!((released.count, released.next), (11, None));
    assert!(released.trouble.is_some(), "one of them has failed");
}
