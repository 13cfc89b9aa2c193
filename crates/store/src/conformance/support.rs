//! What the cases share: making tasks, workers and sinks, and the usual steps in one word.

use std::{
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use forebay_core::{
    ClaimId, Decision, Fingerprint, Json, Lane, Outcome, Project, Ready, Submission, Task, TaskId, Timestamp,
    WorkerId, WorkerInfo,
};

use crate::{ClaimRequest, Claimed, Completed, Completion, Heartbeat, ReadySink, Store, TaskFilter};

/// How long a condition may take to come true.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often it is asked for.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// What a handler says in these cases, unless a case says otherwise.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// As [`MAX_ATTEMPTS`].
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Asks until `condition` holds.
pub(super) async fn wait_until<F, R>(what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < WAIT_MAX, "waited in vain until {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Ten bytes that were never returned before.
fn unique() -> [u8; 10] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

/// `at`, moved by whole seconds.
pub(super) fn plus(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond() + seconds * 1_000_000).expect("near the present")
}

/// The store's time.
pub(super) async fn now(store: &dyn Store) -> Timestamp {
    store.now().await.expect("read the store's clock")
}

/// The store's time, once it is later than `than`.
pub(super) async fn now_after(store: &dyn Store, than: Timestamp) -> Timestamp {
    wait_until("the clock has moved", || async { now(store).await > than }).await;
    now(store).await
}

/// A JSON value.
pub(super) fn json(text: &str) -> Json {
    Json::parse(text.as_bytes()).expect("valid JSON")
}

/// A lane, as `queue.priority`.
pub(super) fn lane(name: &str) -> Lane {
    name.parse().expect("a valid lane")
}

/// A task accepted at `at`, ready, and with no wishes.
pub(super) fn task_at(at: Timestamp) -> Submission {
    Submission {
        id: TaskId::new(at, &unique()),
        project: Project::default(),
        kind: "echo".parse().expect("a valid kind"),
        lane: lane("default.default"),
        payload: json("null"),
        tags: Vec::new(),
        run_at: None,
        max_attempts: None,
        timeout: None,
        created_at: at,
        fingerprint: None,
        traceparent: None,
        terms: None,
    }
}

/// A task accepted just now.
pub(super) async fn task(store: &dyn Store) -> Submission {
    task_at(now(store).await)
}

/// A task due `seconds` from now, or that many seconds ago.
pub(super) async fn parked(store: &dyn Store, seconds: i64) -> Submission {
    let at = now(store).await;
    Submission {
        run_at: Some(plus(at, seconds)),
        ..task_at(at)
    }
}

/// A task with an idempotency key, accepted at `at`; `body` makes its fingerprint and its payload.
pub(super) fn keyed_at(at: Timestamp, key: &str, body: u8) -> Submission {
    let key = forebay_core::IdempotencyKey::parse(key).expect("a valid key");
    Submission {
        id: TaskId::keyed(at, &Project::default(), &key),
        payload: json(&body.to_string()),
        fingerprint: Some(Fingerprint([body; 16])),
        ..task_at(at)
    }
}

/// Records one task, which must be new.
pub(super) async fn record(store: &dyn Store, task: &Submission) {
    let answer = store
        .record(std::slice::from_ref(task))
        .await
        .expect("record a task");
    assert_eq!(answer, [crate::Recorded::New]);
}

/// A task that was recorded.
pub(super) async fn recorded(store: &dyn Store) -> Submission {
    let task = task(store).await;
    record(store, &task).await;
    task
}

/// Reads a task, which must exist.
pub(super) async fn get(store: &dyn Store, id: TaskId) -> Task {
    store
        .get(id)
        .await
        .expect("read a task")
        .expect("the task exists")
}

/// How many tasks there are.
pub(super) async fn count(store: &dyn Store) -> usize {
    let page = store
        .list(&TaskFilter::default(), 1_000, None)
        .await
        .expect("list the tasks");
    page.tasks.len()
}

/// What a worker that just started says.
pub(super) fn beat(id: WorkerId, started_at: Timestamp) -> Heartbeat {
    Heartbeat {
        worker: WorkerInfo {
            id,
            name: "host-1".to_owned(),
            queues: vec!["default".parse().expect("a valid queue")],
            slots: 8,
            busy: Vec::new(),
            finished: Vec::new(),
            draining: false,
            started_at,
            heartbeat_at: started_at,
        },
        watermarks: Vec::new(),
        progress: Vec::new(),
    }
}

/// A worker that is registered.
pub(super) async fn worker(store: &dyn Store) -> WorkerId {
    let at = now(store).await;
    let id = WorkerId::new(at, &unique());
    store.register(&beat(id, at)).await.expect("register a worker");
    id
}

/// A worker that nobody knows.
pub(super) fn stranger() -> WorkerId {
    WorkerId::new(Timestamp::UNIX_EPOCH, &unique())
}

/// The name of a new claim.
pub(super) fn claim_id() -> ClaimId {
    ClaimId::new(Timestamp::UNIX_EPOCH, &unique())
}

/// Wants to run what became ready.
pub(super) fn wants(ready: Ready) -> ClaimRequest {
    ClaimRequest {
        ready,
        max_attempts: MAX_ATTEMPTS,
        timeout: TIMEOUT,
    }
}

/// Wants to run a task that was never started.
pub(super) fn wants_new(task: &Submission) -> ClaimRequest {
    wants(ready(task, 0))
}

/// The message of a task that became ready when it had been started `fence` times.
pub(super) fn ready(task: &Submission, fence: u32) -> Ready {
    Ready {
        id: task.id,
        kind: task.kind.clone(),
        lane: task.lane.clone(),
        fence,
        lost: 0,
    }
}

/// Claims one delivery.
pub(super) async fn claim(store: &dyn Store, worker: WorkerId, request: ClaimRequest) -> Option<Claimed> {
    let mut answers = store
        .claim(worker, claim_id(), &[request])
        .await
        .expect("claim a task");
    assert_eq!(answers.len(), 1, "one answer for each request");
    answers.pop().flatten()
}

/// Claims a task by the message that it is ready.
pub(super) async fn claim_ready(
    store: &dyn Store,
    worker: WorkerId,
    task: &Submission,
    fence: u32,
) -> Option<Claimed> {
    claim(store, worker, wants(ready(task, fence))).await
}

/// A recorded task that runs on a worker.
pub(super) async fn running(store: &dyn Store) -> (Submission, WorkerId, Claimed) {
    let (task, worker) = (recorded(store).await, worker(store).await);
    let claimed = claim(store, worker, wants_new(&task))
        .await
        .expect("a queued task is granted");
    (task, worker, claimed)
}

/// How the attempt of `claimed` ended.
pub(super) fn ended(claimed: &Claimed, decision: Decision) -> Completion {
    let outcome = match decision {
        Decision::Succeed => Outcome::Succeeded,
        Decision::Cancel => Outcome::Cancelled,
        Decision::HandBack { .. } => Outcome::Interrupted,
        Decision::Fail | Decision::Retry { .. } => Outcome::Failed,
    };
    Completion {
        id: claimed.id,
        fence: claimed.fence,
        attempt: claimed.attempt,
        outcome,
        decision,
        result: None,
        error: None,
        log: None,
        limited: claimed.limited,
    }
}

/// Writes one outcome.
pub(super) async fn complete(store: &dyn Store, worker: WorkerId, completion: Completion) -> Completed {
    let answers = store
        .complete(worker, &[completion], &[])
        .await
        .expect("complete a task");
    assert_eq!(answers.len(), 1, "one answer for each completion");
    answers[0]
}

/// A decision for another attempt, at once.
pub(super) const RETRY_NOW: Decision = Decision::Retry {
    delay: Duration::ZERO,
};
/// A decision for another attempt, in an hour.
pub(super) const RETRY_LATER: Decision = Decision::Retry {
    delay: Duration::from_secs(3_600),
};
/// A decision for another start, at once.
pub(super) const HAND_BACK: Decision = Decision::HandBack {
    delay: Duration::ZERO,
};

/// Declares every worker dead that is registered now, and returns the events.
pub(super) async fn bury_all(store: &dyn Store, lost_max: u32) -> Vec<forebay_core::TaskEvent> {
    let events = Mutex::new(Vec::new());
    wait_until("all workers are dead", || async {
        let taken = store
            .take_back(Duration::ZERO, lost_max)
            .await
            .expect("take back the tasks of the dead");
        lock(&events).extend(taken);
        store.workers().await.expect("list the workers").is_empty()
    })
    .await;
    events.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Locks, also after a panic elsewhere.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink that remembers what it was given, and confirms what it is told to.
pub(super) struct Sink {
    published: Mutex<Vec<Ready>>,
    confirms: fn(&Ready) -> bool,
}

impl Sink {
    /// Confirms all.
    pub(super) fn open() -> Self {
        Self::confirming(|_| true)
    }

    /// Confirms nothing.
    pub(super) fn closed() -> Self {
        Self::confirming(|_| false)
    }

    /// Confirms what `confirms` says.
    pub(super) fn confirming(confirms: fn(&Ready) -> bool) -> Self {
        Self {
            published: Mutex::default(),
            confirms,
        }
    }

    /// What was published, in order, whether confirmed or not.
    pub(super) fn published(&self) -> Vec<Ready> {
        lock(&self.published).clone()
    }

    /// The ids of what was published, in order.
    pub(super) fn ids(&self) -> Vec<TaskId> {
        lock(&self.published).iter().map(|task| task.id).collect()
    }
}

#[async_trait]
impl ReadySink for Sink {
    async fn publish(&self, batch: &[Ready]) -> Vec<bool> {
        lock(&self.published).extend_from_slice(batch);
        batch.iter().map(self.confirms).collect()
    }
}

/// The ids, sorted, to compare without regard to order.
pub(super) fn sorted(ids: impl IntoIterator<Item = TaskId>) -> Vec<TaskId> {
    let mut ids: Vec<TaskId> = ids.into_iter().collect();
    ids.sort_unstable();
    ids
}
