//! Moving what became due over to the broker.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use forebay_core::{Decision, Ready, State, Submission, TaskId, WorkerId};
use tokio::task::{JoinHandle, JoinSet};

use super::support::*;
use crate::{Claimed, ReadySink, Store};

/// Tasks that became due the given numbers of seconds ago.
async fn due(store: &dyn Store, seconds_ago: &[i64]) -> Vec<Submission> {
    let at = now(store).await;
    let tasks: Vec<Submission> = seconds_ago
        .iter()
        .map(|&ago| Submission {
            run_at: Some(plus(at, -ago)),
            ..task_at(at)
        })
        .collect();
    store.record(&tasks).await.expect("record");
    tasks
}

/// Oldest first, all that the message needs, and nothing that is ready or not due.
pub async fn only_what_is_due_in_order_of_time(store: Arc<dyn Store>) {
    let tasks = due(&*store, &[3, 9, -3_600, 6]).await;
    let queued = recorded(&*store).await;
    let sink = Sink::open();
    let events = store.dispatch_due(10, &sink).await.expect("dispatch");
    let expected = [&tasks[1], &tasks[3], &tasks[0]];
    assert_eq!(sink.published(), expected.map(|task| ready(task, 0)));
    assert_eq!(sorted(events.iter().map(|event| event.id)), sorted(sink.ids()));
    for event in events {
        assert_eq!((event.state, event.attempt), (State::Queued, 0));
        assert_eq!(
            (event.kind, event.queue),
            (queued.kind.clone(), queued.lane.queue.clone())
        );
    }
    for task in expected {
        assert_eq!(get(&*store, task.id).await.state, State::Queued);
    }
    assert_eq!(get(&*store, tasks[2].id).await.state, State::Scheduled);
}

/// What the broker did not take is still due, and is tried again.
pub async fn what_is_not_confirmed_stays(store: Arc<dyn Store>) {
    let tasks = due(&*store, &[5, 4, 3, 2]).await;
    let events = store.dispatch_due(10, &Sink::closed()).await.expect("dispatch");
    assert_eq!(events, []);
    let before = get(&*store, tasks[0].id).await;
    assert_eq!((before.state, before.run_at), (State::Scheduled, tasks[0].run_at));
    let odd = Sink::confirming(odd_id);
    let events = store.dispatch_due(10, &odd).await.expect("dispatch the odd ones");
    let confirmed = odd.published().into_iter().filter(odd_id).map(|task| task.id);
    assert_eq!(sorted(events.iter().map(|event| event.id)), sorted(confirmed));
    let rest = Sink::open();
    store.dispatch_due(10, &rest).await.expect("dispatch the rest");
    assert!(rest.published().iter().all(|task| !odd_id(task)));
    for task in tasks {
        assert_eq!(get(&*store, task.id).await.state, State::Queued);
    }
}

fn odd_id(task: &Ready) -> bool {
    task.id.as_uuid().as_bytes()[15] % 2 == 1
}

/// Batches are bounded, and the next takes up where the last ended.
pub async fn no_more_than_the_limit(store: Arc<dyn Store>) {
    let tasks = due(&*store, &[7, 6, 5, 4, 3]).await;
    let mut seen = Vec::new();
    for expected in [2, 2, 1, 0] {
        let sink = Sink::open();
        let events = store.dispatch_due(2, &sink).await.expect("dispatch");
        assert_eq!((events.len(), sink.ids().len()), (expected, expected));
        seen.extend(sink.ids());
    }
    assert_eq!(seen, tasks.iter().map(|task| task.id).collect::<Vec<_>>());
}

/// Once it is in the broker, that is where it waits.
pub async fn a_dispatched_task_is_not_dispatched_again(store: Arc<dyn Store>) {
    due(&*store, &[5]).await;
    let sink = Sink::open();
    for _ in 0..3 {
        store.dispatch_due(10, &sink).await.expect("dispatch");
    }
    assert_eq!(sink.ids().len(), 1);
}

/// The message of a retry is told apart from those before it.
pub async fn a_retrying_task_carries_its_fence(store: Arc<dyn Store>) {
    let (task, worker, claimed) = running(&*store).await;
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    let sink = Sink::open();
    let events = store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.published(), [ready(&task, 1)]);
    assert_eq!(events[0].attempt, 1);
    let claimed = claim_ready(&*store, worker, &task, 1).await.expect("granted");
    assert_eq!((claimed.fence, claimed.attempt), (2, 2));
}

/// A worker that got its messages, and will say what it was granted.
type Working = JoinHandle<Vec<Claimed>>;

/// A sink whose messages reach a worker before the dispatcher commits.
struct QuickWorker {
    store: Arc<dyn Store>,
    worker: WorkerId,
    /// What it does at once with what it was granted; `None` where it goes on running.
    decision: Option<Decision>,
    working: Mutex<Vec<Working>>,
}

impl QuickWorker {
    fn new(store: &Arc<dyn Store>, worker: WorkerId, decision: Option<Decision>) -> Self {
        Self {
            store: Arc::clone(store),
            worker,
            decision,
            working: Mutex::default(),
        }
    }

    /// What it was granted in the end.
    async fn granted(self) -> Vec<Claimed> {
        let working = self.working.into_inner().expect("nobody panicked");
        let mut granted = Vec::new();
        for work in working {
            granted.extend(work.await.expect("the worker did not panic"));
        }
        granted
    }
}

async fn work(
    store: Arc<dyn Store>,
    worker: WorkerId,
    batch: Vec<Ready>,
    decision: Option<Decision>,
) -> Vec<Claimed> {
    let requests: Vec<_> = batch.into_iter().map(wants).collect();
    let answers = store.claim(worker, claim_id(), &requests).await.expect("claim");
    let granted: Vec<Claimed> = answers.into_iter().flatten().collect();
    if let Some(decision) = decision {
        let outcomes: Vec<_> = granted.iter().map(|it| ended(it, decision)).collect();
        store.complete(worker, &outcomes, &[]).await.expect("complete");
    }
    granted
}

#[async_trait]
impl ReadySink for QuickWorker {
    async fn publish(&self, batch: &[Ready]) -> Vec<bool> {
        let mut working = tokio::spawn(work(
            Arc::clone(&self.store),
            self.worker,
            batch.to_vec(),
            self.decision,
        ));
        // A store may let the claim wait for the commit, so this must not wait for the worker; but it gives it time
        // to come first.
        if let Ok(granted) = tokio::time::timeout(Duration::from_millis(300), &mut working).await {
            working = tokio::spawn(async move { granted.expect("the worker did not panic") });
        }
        lock(&self.working).push(working);
        vec![true; batch.len()]
    }
}

/// The message is quicker than the commit: the claim waits or wins, and nobody else gets the task.
pub async fn a_claim_before_the_commit_wins_once(store: Arc<dyn Store>) {
    let mut tasks = due(&*store, &[5, 4, 3]).await;
    let (retrying, worker, claimed) = running(&*store).await;
    complete(&*store, worker, ended(&claimed, RETRY_NOW)).await;
    tasks.push(retrying);
    let sink = QuickWorker::new(&store, worker, None);
    store.dispatch_due(10, &sink).await.expect("dispatch");
    let granted = sink.granted().await.into_iter().map(|it| it.id);
    assert_eq!(sorted(granted), sorted(tasks.iter().map(|task| task.id)));
    let late = super::support::worker(&*store).await;
    for (index, task) in tasks.iter().enumerate() {
        let fence = u32::from(index == 3);
        assert_eq!(claim_ready(&*store, late, task, fence).await, None);
        let found = get(&*store, task.id).await;
        assert_eq!(
            (found.state, found.worker, found.fence),
            (State::Running, Some(worker), fence + 1)
        );
    }
    let again = Sink::open();
    store.dispatch_due(10, &again).await.expect("dispatch");
    assert_eq!(again.ids(), [], "what runs is not due");
    let done = ended(&claimed, Decision::Succeed);
    let done = crate::Completion { fence: 2, ..done };
    complete(&*store, worker, done).await;
    assert_eq!(get(&*store, tasks[3].id).await.state, State::Succeeded);
}

/// The worker is so quick that the task is due for its next attempt already: that needs a message of its own.
pub async fn a_retry_before_the_commit_is_dispatched_anew(store: Arc<dyn Store>) {
    let tasks = due(&*store, &[5, 4]).await;
    let worker = worker(&*store).await;
    let sink = QuickWorker::new(&store, worker, Some(RETRY_NOW));
    store.dispatch_due(10, &sink).await.expect("dispatch");
    assert_eq!(sink.granted().await.len(), 2);
    for task in &tasks {
        let found = get(&*store, task.id).await;
        assert_eq!((found.state, found.fence), (State::Retrying, 1));
    }
    let next = Sink::open();
    store.dispatch_due(10, &next).await.expect("dispatch");
    let mut published = next.published();
    published.sort_by_key(|task| task.id);
    let mut expected: Vec<Ready> = tasks.iter().map(|task| ready(task, 1)).collect();
    expected.sort_by_key(|task| task.id);
    assert_eq!(published, expected);
}

/// Several at once: every task becomes queued, and each is reported once.
pub async fn several_dispatchers_miss_nothing(store: Arc<dyn Store>) {
    let tasks = due(&*store, &[5; 200]).await;
    let mut dispatchers = JoinSet::new();
    for _ in 0..4 {
        dispatchers.spawn(dispatch_all(Arc::clone(&store)));
    }
    let mut reported = dispatchers.join_all().await.concat();
    // One that found everything locked may have ended before the last was committed.
    reported.extend(dispatch_all(Arc::clone(&store)).await);
    assert_eq!(sorted(reported), sorted(tasks.iter().map(|task| task.id)));
    for task in tasks {
        assert_eq!(get(&*store, task.id).await.state, State::Queued);
    }
}

/// Dispatches until nothing is due; returns what was reported as queued, which must have been published.
async fn dispatch_all(store: Arc<dyn Store>) -> Vec<TaskId> {
    let (sink, mut reported) = (Sink::open(), Vec::new());
    loop {
        let events = store.dispatch_due(30, &sink).await.expect("dispatch");
        if events.is_empty() {
            let published = sink.ids();
            assert!(
                reported.iter().all(|id| published.contains(id)),
                "one was not published"
            );
            return reported;
        }
        reported.extend(events.iter().map(|event| event.id));
    }
}
