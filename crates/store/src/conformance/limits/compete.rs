//! Many workers at once, some of which die.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_core::{Decision, Ready, State, Submission, TaskId};

use super::super::support::{Sink, claim_id, ended, lock, wants, wants_new, worker};
use super::kit::{keyed, nothing_to_mend, of_each_key, put, usage};
use crate::{Claimed, Completed, LimitUse, Store};

/// No two of a key at a time, and all of them run.
pub async fn workers_that_compete_and_die_keep_to_it(store: Arc<dyn Store>) {
    compete(store, (6, 12), 1, async || ()).await;
}

/// As many of a key at a time as may, which is fewer than the workers have slots: what some have in advance is taken back for others
/// again and again. `again` sees to it that it is given again at once. Not a case of the suite, which knows no such means.
pub async fn workers_that_compete_keep_to_what_they_have_in_advance(
    store: Arc<dyn Store>,
    again: impl AsyncFn(),
) {
    compete(store, (2, 400), 24, again).await;
}

struct Board {
    deliveries: Mutex<Vec<Ready>>,
    running: Mutex<HashMap<String, usize>>,
    /// How many of a key may run at a time.
    most: usize,
    done: Mutex<HashSet<TaskId>>,
    keys: HashMap<TaskId, String>,
}

fn key_of(task: &Submission) -> String {
    let terms = task.terms.as_ref().expect("it has terms");
    terms.limit_key.as_ref().expect("a key").to_string()
}

/// Four workers run so many tasks of each of so many keys, of which so many may run at a time.
async fn compete(
    store: Arc<dyn Store>,
    (keys, of_each): (usize, usize),
    most: usize,
    meanwhile: impl AsyncFn(),
) {
    let concurrency = i64::try_from(most).expect("a small number");
    put(&*store, "each", of_each_key(concurrency)).await;
    let mut tasks = Vec::new();
    for key in 0..keys {
        tasks.extend(keyed(&*store, &format!("key {key}"), of_each).await);
    }
    let all = tasks.len();
    let board = Arc::new(Board {
        deliveries: Mutex::new(tasks.iter().map(wants_new).map(|it| it.ready).collect()),
        running: Mutex::default(),
        most,
        done: Mutex::default(),
        keys: tasks.iter().map(|it| (it.id, key_of(it))).collect(),
    });
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..4 {
        workers.spawn(work(Arc::clone(&store), Arc::clone(&board), number, all));
    }
    while lock(&board.done).len() < all {
        while let Some(worker) = workers.try_join_next() {
            worker.expect("no worker panics");
        }
        let sink = Sink::open();
        // A deadlock that was broken, or a row that was locked: it is tried again, as everywhere.
        if store.dispatch_due(100, &sink).await.is_ok() {
            lock(&board.deliveries).extend(sink.published());
        }
        let _ = store.release_throttled(None, 100).await;
        meanwhile().await;
        tokio::task::yield_now().await;
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no worker panics");
    }
    nothing_to_mend(&*store).await;
    assert_eq!(usage(&*store, "each").await, LimitUse::default());
}

/// Runs up to eight at a time, as many as a worker has slots here.
async fn work(store: Arc<dyn Store>, board: Arc<Board>, number: usize, all: usize) {
    let mut me = worker(&*store).await;
    let mut round = number;
    while lock(&board.done).len() < all {
        round += 1;
        let batch: Vec<_> = {
            let mut waiting = lock(&board.deliveries);
            let count = waiting.len().min(1 + round % 8);
            waiting.drain(..count).map(wants).collect()
        };
        if batch.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let claim = claim_id();
        let answers = loop {
            match store.claim(me, claim, &batch).await {
                Ok(answers) => break answers,
                Err(error) => assert!(error.is_unavailable(), "{error:?}"),
            }
        };
        let claimed: Vec<Claimed> = answers.into_iter().flatten().collect();
        for it in &claimed {
            let mut running = lock(&board.running);
            let of_key = running.entry(board.keys[&it.id].clone()).or_default();
            *of_key += 1;
            assert!(*of_key <= board.most, "{of_key} of a key at a time");
        }
        // They run for a moment, so that others meet them.
        tokio::time::sleep(Duration::from_millis(3)).await;
        for it in &claimed {
            *lock(&board.running)
                .get_mut(&board.keys[&it.id])
                .expect("it runs") -= 1;
        }
        if round.is_multiple_of(7) {
            // What it ran comes again under the next fence.
            while let Err(error) = store.abandon(me, 1_000).await {
                assert!(error.is_unavailable(), "{error:?}");
            }
            me = worker(&*store).await;
            continue;
        }
        let outcomes: Vec<_> = claimed.iter().map(|it| ended(it, Decision::Succeed)).collect();
        let answers = loop {
            match store.complete(me, &outcomes, &[claim]).await {
                Ok(answers) => break answers,
                Err(error) => assert!(error.is_unavailable(), "{error:?}"),
            }
        };
        assert!(
            answers
                .iter()
                .all(|it| *it == Completed::Applied(State::Succeeded))
        );
        lock(&board.done).extend(claimed.iter().map(|it| it.id));
    }
}
