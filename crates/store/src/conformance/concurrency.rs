//! Several at once.

use std::{sync::Arc, time::Duration};

use forebay_core::{Decision, State, Submission, TaskId};
use tokio::task::JoinSet;

use super::support::*;
use crate::{Completed, Completion, Recorded, Store};

const TASKS: usize = 500;
const WORKERS: usize = 8;
const BATCH: usize = 50;

async fn many(store: &dyn Store) -> Vec<Submission> {
    let at = now(store).await;
    (0..TASKS).map(|_| task_at(at)).collect()
}

/// Claims all tasks in batches, beginning at another place than the others do; returns what it was granted.
async fn claim_all(store: Arc<dyn Store>, tasks: Arc<Vec<Submission>>, begin: usize) -> Vec<TaskId> {
    let worker = worker(&*store).await;
    let mut order: Vec<&Submission> = tasks.iter().collect();
    order.rotate_left(begin);
    if begin % 2 == 1 {
        order.reverse();
    }
    let mut granted = Vec::new();
    for chunk in order.chunks(BATCH) {
        let requests: Vec<_> = chunk.iter().map(|task| wants_new(task)).collect();
        let answers = store.claim(worker, claim_id(), &requests).await.expect("claim");
        granted.extend(answers.into_iter().flatten().map(|it| it.id));
    }
    granted
}

/// Every task is granted to one worker only, while a recorder is given the same tasks again.
pub async fn eight_workers_grant_each_task_once(store: Arc<dyn Store>) {
    let tasks = Arc::new(many(&*store).await);
    store.record(&tasks).await.expect("record");
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let begin = number * (TASKS / WORKERS) + number % 2;
        workers.spawn(claim_all(Arc::clone(&store), Arc::clone(&tasks), begin));
    }
    for chunk in tasks.chunks(BATCH) {
        let answers = store.record(chunk).await.expect("record beside the claims");
        assert!(answers.iter().all(|&answer| answer == Recorded::Duplicate));
    }
    let granted = workers.join_all().await.concat();
    assert_eq!(sorted(granted), sorted(tasks.iter().map(|task| task.id)));
    for task in tasks.iter() {
        let found = get(&*store, task.id).await;
        assert_eq!((found.state, found.fence, found.attempt), (State::Running, 1, 1));
    }
}

/// Every task is new for one recorder only.
pub async fn several_recorders_insert_each_task_once(store: Arc<dyn Store>) {
    let tasks = Arc::new(many(&*store).await);
    let mut recorders = JoinSet::new();
    for number in 0..4 {
        let (store, tasks) = (Arc::clone(&store), Arc::clone(&tasks));
        recorders.spawn(async move {
            let mut order = tasks.to_vec();
            order.rotate_left(number * 77);
            let mut new = 0;
            for chunk in order.chunks(BATCH) {
                let answers = store.record(chunk).await.expect("record");
                new += answers.iter().filter(|&&it| it == Recorded::New).count();
            }
            new
        });
    }
    assert_eq!(recorders.join_all().await.iter().sum::<usize>(), TASKS);
    assert_eq!(count(&*store).await, TASKS);
}

/// A worker that is declared dead while it writes its outcomes: each task has what its answer says.
pub async fn completion_and_take_back_agree_on_one_outcome(store: Arc<dyn Store>) {
    let (worker, tasks) = (worker(&*store).await, many(&*store).await);
    store.record(&tasks).await.expect("record");
    let requests: Vec<_> = tasks.iter().map(wants_new).collect();
    let claimed = store.claim(worker, claim_id(), &requests).await.expect("claim");
    let completions: Vec<Completion> = claimed
        .iter()
        .flatten()
        .map(|it| ended(it, Decision::Succeed))
        .collect();
    assert_eq!(completions.len(), TASKS);
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        let mut answers = Vec::new();
        for chunk in completions.chunks(20) {
            answers.extend(writer.complete(worker, chunk, &[]).await.expect("complete"));
        }
        answers
    });
    wait_until("a task is completed", || async {
        writing.is_finished() || get(&*store, tasks[0].id).await.state.is_final()
    })
    .await;
    store.take_back(Duration::ZERO, 3).await.expect("take back");
    let answers = writing.await.expect("the writer did not panic");
    bury_all(&*store, 3).await;
    assert_eq!(answers.len(), TASKS);
    for (task, answer) in tasks.iter().zip(answers) {
        let state = get(&*store, task.id).await.state;
        match answer {
            Completed::Applied(applied) => assert_eq!((applied, state), (State::Succeeded, State::Succeeded)),
            Completed::Fenced => assert_eq!(state, State::Retrying),
        }
    }
}
