//! A store in memory. It does what [`Lifecycle`] says, and fails as it is told to.

mod compose;
mod faults;
mod kinds;
mod limits;
mod operations;
mod schedules;
mod webhooks;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use forebay_core::{
    AttemptError, ClaimId, Clock, Decision, Lane, Lifecycle, QueueName, Ready, Refused, ScheduleName,
    Submission, SystemClock, Task, TaskEvent, TaskId, TaskProgress, Timestamp, WorkerId, WorkerInfo,
};
use forebay_store::{
    Admin, Changed, ClaimRequest, Claimed, Completed, Completion, Dispatch, Execute, Heartbeat,
    HeartbeatReply, OldestReady, Operate, Page, PageToken, ProgressNote, QueueCounts, Read, ReadySink,
    ReadyWalk, Record, Recorded, Recording, Reject, Rejects, Republished, Result, StartRequest, StoreError,
    TaskFilter, record_then_claim,
};
use tokio::sync::watch;

use self::faults::Faults;

struct Row {
    task: Submission,
    lifecycle: Lifecycle,
    max_attempts: u32,
    timeout: Duration,
    queued_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    result: Option<forebay_core::Json>,
    errors: Vec<AttemptError>,
    log: Option<String>,
    progress: Option<(u32, TaskProgress)>,
}

struct Worker {
    info: WorkerInfo,
    heard: Instant,
    watermarks: Vec<(Lane, Timestamp)>,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<TaskId, Row>,
    workers: BTreeMap<WorkerId, Worker>,
    claims: BTreeMap<ClaimId, WorkerId>,
    rejects: Vec<Reject>,
    paused: BTreeSet<QueueName>,
    schedules: BTreeMap<ScheduleName, schedules::Kept>,
    /// Tasks that no statement may contain.
    poison: HashSet<TaskId>,
    composed: compose::Composed,
    fenced: usize,
    heartbeats: usize,
    /// How often it was said how far a task is.
    progress_notes: usize,
    /// Outcomes that were handed in, whatever became of them.
    completions: usize,
}

/// A connection to the store: all clones by [`MemoryStore::connection`] share the data, each fails by itself.
#[derive(Default)]
pub(crate) struct MemoryStore {
    state: Arc<Mutex<State>>,
    faults: Mutex<Faults>,
    /// Registrations are obeyed, and answered later.
    slow_to_register: watch::Sender<bool>,
}

fn unavailable(doing: &'static str) -> StoreError {
    StoreError::Unavailable {
        doing,
        source: "the test says so".into(),
    }
}

fn refused(doing: &'static str) -> StoreError {
    StoreError::Refused {
        doing,
        source: "a poisoned row".into(),
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

impl MemoryStore {
    /// Another way to the same data.
    pub(crate) fn connection(&self) -> Arc<Self> {
        Arc::new(Self {
            state: Arc::clone(&self.state),
            ..Self::default()
        })
    }

    pub(crate) fn set_slow_to_register(&self, slow: bool) {
        self.slow_to_register.send_replace(slow);
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.state().heartbeats
    }

    /// How often it was heard how far a task is, whatever became of it.
    pub(crate) fn progress_notes(&self) -> usize {
        self.state().progress_notes
    }

    /// What the workers say of themselves.
    pub(crate) fn infos(&self) -> Vec<WorkerInfo> {
        let state = self.state();
        state.workers.values().map(|worker| worker.info.clone()).collect()
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.state().workers.len()
    }

    pub(crate) fn poison(&self, id: TaskId) {
        self.state().poison.insert(id);
    }

    pub(crate) fn heal(&self, id: TaskId) {
        self.state().poison.remove(&id);
    }

    pub(crate) fn rejects(&self) -> Vec<Reject> {
        self.state().rejects.clone()
    }

    pub(crate) fn claims_held(&self) -> usize {
        self.state().claims.len()
    }

    pub(crate) fn fenced(&self) -> usize {
        self.state().fenced
    }

    pub(crate) fn completions(&self) -> usize {
        self.state().completions
    }

    /// Declares all workers dead.
    pub(crate) fn forget_workers(&self) {
        take_back(&mut self.state(), |_| true, 3);
    }

    pub(crate) fn task(&self, id: TaskId) -> Option<Task> {
        self.state().tasks.get(&id).map(task_of)
    }

    pub(crate) fn lost(&self, id: TaskId) -> u32 {
        self.state().tasks.get(&id).map_or(0, |row| row.lifecycle.lost)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Does it, unless this connection is down; perhaps without telling.
    fn call<T>(&self, doing: &'static str, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        {
            let mut faults = self.faults.lock().unwrap();
            if faults.away {
                faults.refused += 1;
                return Err(unavailable(doing));
            }
        }
        let answer = work(&mut self.state());
        let mut faults = self.faults.lock().unwrap();
        if faults.lost_answers > 0 {
            faults.lost_answers -= 1;
            return Err(unavailable(doing));
        }
        if faults.lost_claims && doing == "claim" && answer.is_ok() {
            return Err(unavailable(doing));
        }
        faults.refused += usize::from(answer.is_err());
        answer
    }
}

fn task_of(row: &Row) -> Task {
    let Row { task, lifecycle, .. } = row;
    Task {
        id: task.id,
        project: task.project.clone(),
        kind: task.kind.clone(),
        queue: task.lane.queue.clone(),
        priority: task.lane.priority,
        state: lifecycle.state,
        payload: task.payload.clone(),
        result: row.result.clone(),
        attempt: lifecycle.attempt,
        fence: lifecycle.fence,
        max_attempts: Some(row.max_attempts),
        timeout: Some(row.timeout),
        tags: task.tags.clone(),
        run_at: lifecycle.run_at,
        created_at: task.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        worker: lifecycle.worker,
        cancel_requested: lifecycle.cancel_requested,
        errors: row.errors.clone(),
        log: row.log.clone(),
        progress: row
            .progress
            .clone()
            .filter(|(fence, _)| *fence == lifecycle.fence)
            .map(|(_, progress)| progress),
        traceparent: task.traceparent.clone(),
        fingerprint: task.fingerprint,
        terms: None,
    }
}

fn event_of(row: &Row) -> TaskEvent {
    TaskEvent {
        id: row.task.id,
        kind: row.task.kind.clone(),
        queue: row.task.lane.queue.clone(),
        state: row.lifecycle.state,
        attempt: row.lifecycle.attempt,
        at: now(),
    }
}

fn ready_of(row: &Row) -> Ready {
    Ready {
        id: row.task.id,
        kind: row.task.kind.clone(),
        lane: row.task.lane.clone(),
        fence: row.lifecycle.fence,
        lost: row.lifecycle.lost,
    }
}

fn insert(state: &mut State, task: &Submission) -> Recorded {
    if let Some(known) = state.tasks.get(&task.id) {
        return match known.task.fingerprint == task.fingerprint {
            true => Recorded::Duplicate,
            false => Recorded::Conflict,
        };
    }
    let row = Row {
        task: task.clone(),
        lifecycle: Lifecycle::accepted(task.run_at),
        max_attempts: task.max_attempts.unwrap_or(0),
        timeout: task.timeout.unwrap_or_default(),
        queued_at: now(),
        started_at: None,
        finished_at: None,
        result: None,
        errors: Vec::new(),
        log: None,
        progress: None,
    };
    state.tasks.insert(task.id, row);
    Recorded::New
}

fn note_progress(state: &mut State, worker: WorkerId, note: &ProgressNote) {
    state.progress_notes += 1;
    let Some(row) = state.tasks.get_mut(&note.id) else {
        return;
    };
    let life = &row.lifecycle;
    if life.state == forebay_core::State::Running && life.worker == Some(worker) && life.fence == note.fence {
        let progress = TaskProgress {
            fraction: note.fraction,
            message: note.message.clone(),
            at: now(),
        };
        row.progress = Some((note.fence, progress));
    }
}

fn take_back(state: &mut State, dead: impl Fn(&Worker) -> bool, lost_max: u32) -> Vec<TaskEvent> {
    let ids: Vec<WorkerId> = state
        .workers
        .iter()
        .filter(|(_, worker)| dead(worker))
        .map(|(id, _)| *id)
        .collect();
    let mut events = Vec::new();
    for id in ids {
        state.workers.remove(&id);
        state.claims.retain(|_, worker| *worker != id);
        for row in state.tasks.values_mut() {
            if row.lifecycle.take_back(id, lost_max, now()).is_ok() {
                events.push(event_of(row));
            }
        }
    }
    events
}

#[async_trait]
impl Record for MemoryStore {
    async fn record_and_tell(&self, batch: &[Submission]) -> Result<Recording> {
        self.call("record", |state| {
            if batch.iter().any(|task| state.poison.contains(&task.id)) {
                return Err(refused("record"));
            }
            Ok(compose::record(state, batch))
        })
    }

    async fn set_aside(&self, rejects: &[Reject]) -> Result<()> {
        self.call("set aside", |state| {
            state.rejects.extend_from_slice(rejects);
            Ok(())
        })
    }
}

#[async_trait]
impl Execute for MemoryStore {
    async fn register(&self, beat: &Heartbeat) -> Result<()> {
        self.call("register", |state| {
            let worker = Worker {
                info: beat.worker.clone(),
                heard: Instant::now(),
                watermarks: beat.watermarks.clone(),
            };
            state.workers.insert(beat.worker.id, worker);
            Ok(())
        })?;
        let mut slow = self.slow_to_register.subscribe();
        slow.wait_for(|slow| !slow).await.expect("the store is there");
        Ok(())
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<HeartbeatReply> {
        {
            let mut faults = self.faults.lock().unwrap();
            faults.unheard += usize::from(faults.away) * beat.progress.len();
        }
        self.call("heartbeat", |state| {
            let Some(worker) = state.workers.get_mut(&beat.worker.id) else {
                return Err(StoreError::WorkerGone);
            };
            worker.info = beat.worker.clone();
            worker.heard = Instant::now();
            state.heartbeats += 1;
            worker.watermarks.clone_from(&beat.watermarks);
            let mine = |row: &&Row| {
                let lifecycle = &row.lifecycle;
                lifecycle.cancel_requested
                    && lifecycle.state == forebay_core::State::Running
                    && lifecycle.worker == Some(beat.worker.id)
            };
            let cancel = state.tasks.values().filter(mine).map(|row| row.task.id).collect();
            for note in &beat.progress {
                note_progress(state, beat.worker.id, note);
            }
            Ok(HeartbeatReply { cancel })
        })
    }

    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[ClaimRequest],
    ) -> Result<Vec<Option<Claimed>>> {
        self.call("claim", |state| {
            if !state.workers.contains_key(&worker) {
                return Err(StoreError::WorkerGone);
            }
            if batch
                .iter()
                .any(|request| state.poison.contains(&request.ready.id))
            {
                return Err(refused("claim"));
            }
            let answers: Vec<_> = batch
                .iter()
                .map(|request| claim_one(state, worker, request))
                .collect();
            if answers.iter().any(Option::is_some) {
                state.claims.insert(claim, worker);
            }
            Ok(answers)
        })
    }

    async fn record_and_claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>> {
        let requests: Vec<&StartRequest> = batch.iter().collect();
        let claim =
            move |requests: Vec<ClaimRequest>| async move { self.claim(worker, claim, &requests).await };
        record_then_claim(self, &requests, claim).await
    }

    async fn complete(
        &self,
        worker: WorkerId,
        batch: &[Completion],
        released: &[ClaimId],
    ) -> Result<Vec<Completed>> {
        self.call("complete", |state| {
            state.completions += batch.len();
            for claim in released {
                state.claims.remove(claim);
            }
            Ok(batch
                .iter()
                .map(|completion| complete_one(state, worker, completion))
                .collect())
        })
    }

    async fn abandon(&self, worker: WorkerId, lost_max: u32) -> Result<Vec<TaskEvent>> {
        self.call("abandon", |state| {
            Ok(take_back(state, |it| it.info.id == worker, lost_max))
        })
    }

    async fn deregister(&self, worker: WorkerId) -> Result<()> {
        self.call("deregister", |state| {
            state.workers.remove(&worker);
            for row in state.tasks.values_mut() {
                let fence = row.lifecycle.fence;
                let decision = Decision::HandBack {
                    delay: Duration::ZERO,
                };
                // Turned away unless it runs there.
                let _ = row.lifecycle.complete(fence, worker, decision, now());
            }
            Ok(())
        })
    }
}

fn claim_one(state: &mut State, worker: WorkerId, request: &ClaimRequest) -> Option<Claimed> {
    let row = state.tasks.get_mut(&request.ready.id)?;
    let expires_at = row.task.terms.as_ref().and_then(|terms| terms.expires_at);
    if row.lifecycle.fence == 0 && expires_at.is_some_and(|at| at <= now()) {
        return None;
    }
    row.lifecycle.claim(request.ready.fence, worker, now()).ok()?;
    row.started_at = Some(now());
    if row.max_attempts == 0 {
        row.max_attempts = request.max_attempts;
    }
    if row.timeout.is_zero() {
        row.timeout = request.timeout;
    }
    Some(Claimed {
        id: row.task.id,
        fence: row.lifecycle.fence,
        attempt: row.lifecycle.attempt,
        max_attempts: row.max_attempts,
        timeout: row.timeout,
        project: row.task.project.clone(),
        kind: row.task.kind.clone(),
        lane: row.task.lane.clone(),
        payload: row.task.payload.clone(),
        queued_at: row.queued_at,
        traceparent: row.task.traceparent.clone(),
        terms: row.task.terms.clone(),
        limited: false,
    })
}

fn complete_one(state: &mut State, worker: WorkerId, completion: &Completion) -> Completed {
    let Some(row) = state.tasks.get_mut(&completion.id) else {
        return Completed::Fenced;
    };
    match row
        .lifecycle
        .complete(completion.fence, worker, completion.decision, now())
    {
        Ok(()) => {}
        // An earlier call, whose answer was lost.
        Err(Refused::State(state)) if row.lifecycle.fence == completion.fence => {
            return Completed::Applied(state);
        }
        Err(_) => {
            state.fenced += 1;
            return Completed::Fenced;
        }
    }
    row.result.clone_from(&completion.result);
    row.log.clone_from(&completion.log);
    if let Some(message) = &completion.error {
        let error = AttemptError::new(completion.attempt, completion.outcome, message, now());
        row.errors.push(error);
    }
    if row.lifecycle.state.is_final() {
        row.finished_at = Some(now());
    }
    Completed::Applied(row.lifecycle.state)
}

#[async_trait]
impl Dispatch for MemoryStore {
    async fn dispatch_due(&self, limit: usize, sink: &dyn ReadySink) -> Result<Vec<TaskEvent>> {
        let due: Vec<Ready> = self.call("find what is due", |state| {
            let is_due = |row: &&Row| {
                let waits = matches!(
                    row.lifecycle.state,
                    forebay_core::State::Scheduled | forebay_core::State::Retrying
                );
                waits && row.lifecycle.run_at.is_some_and(|due| due <= now())
            };
            Ok(state
                .tasks
                .values()
                .filter(is_due)
                .take(limit)
                .map(ready_of)
                .collect())
        })?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let confirmed = sink.publish(&due).await;
        self.call("dispatch", |state| {
            let mut events = Vec::new();
            for (ready, _) in due.iter().zip(confirmed).filter(|(_, confirmed)| *confirmed) {
                let Some(row) = state.tasks.get_mut(&ready.id) else {
                    continue;
                };
                // Turned away where it was claimed meanwhile.
                if row.lifecycle.dispatch(now()).is_ok() {
                    row.queued_at = now();
                    events.push(event_of(row));
                }
            }
            Ok(events)
        })
    }

    async fn take_back(&self, lease: Duration, lost_max: u32) -> Result<Vec<TaskEvent>> {
        self.call("take back", |state| {
            Ok(take_back(
                state,
                |worker| worker.heard.elapsed() > lease,
                lost_max,
            ))
        })
    }

    async fn republish_lost(
        &self,
        horizons: &[(Lane, Timestamp)],
        floor: Timestamp,
        limit: usize,
        sink: &dyn ReadySink,
    ) -> Result<Republished> {
        let lost: Vec<Ready> = self.call("find what is lost", |state| {
            let is_lost = |row: &&Row| {
                row.lifecycle.state == forebay_core::State::Queued
                    && horizons
                        .iter()
                        .any(|(lane, at)| *lane == row.task.lane && row.queued_at < *at)
            };
            Ok(state
                .tasks
                .values()
                .filter(is_lost)
                .take(limit)
                .map(ready_of)
                .collect())
        })?;
        let confirmed = if lost.is_empty() {
            Vec::new()
        } else {
            sink.publish(&lost).await
        };
        self.call("note what was lost", |state| {
            for (ready, _) in lost.iter().zip(confirmed).filter(|(_, confirmed)| *confirmed) {
                if let Some(row) = state.tasks.get_mut(&ready.id) {
                    row.queued_at = now();
                }
            }
            Ok(Republished {
                count: lost.len(),
                floor,
            })
        })
    }

    async fn expire_due(&self, limit: usize) -> Result<forebay_store::Expired> {
        self.call("expire", |state| {
            let is_late = |row: &&mut Row| {
                let terms = row.task.terms.as_ref();
                terms.is_some_and(|terms| terms.expires_at.is_some_and(|at| at <= now()))
            };
            let late = state.tasks.values_mut().filter(is_late);
            let expired = late.filter_map(|row| {
                row.lifecycle.expire().ok()?;
                row.finished_at = Some(now());
                Some(event_of(row))
            });
            let events: Vec<TaskEvent> = expired.take(limit).collect();
            Ok(forebay_store::Expired {
                looked_at: events.len(),
                events,
            })
        })
    }

    async fn watermarks(&self) -> Result<Vec<(Lane, Timestamp)>> {
        self.call("read watermarks", |state| {
            let mut newest: BTreeMap<Lane, Timestamp> = BTreeMap::new();
            for (lane, at) in state.workers.values().flat_map(|worker| &worker.watermarks) {
                let known = newest.entry(lane.clone()).or_insert(*at);
                *known = (*known).max(*at);
            }
            Ok(newest.into_iter().collect())
        })
    }

    async fn now(&self) -> Result<Timestamp> {
        self.call("read the time", |_| Ok(now()))
    }

    async fn maintain(&self, _retention: Option<Duration>) -> Result<()> {
        self.call("maintain", |_| Ok(()))
    }
}

#[async_trait]
impl Read for MemoryStore {
    async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        self.call("get", |state| Ok(state.tasks.get(&id).map(task_of)))
    }

    async fn unique_holder(
        &self,
        _: &forebay_core::Project,
        _: forebay_core::UniqueMark,
    ) -> Result<Option<Task>> {
        Ok(None)
    }

    async fn list(&self, _filter: &TaskFilter, page_size: usize, _page: Option<PageToken>) -> Result<Page> {
        self.call("list", |state| {
            Ok(Page {
                tasks: state.tasks.values().take(page_size).map(task_of).collect(),
                next: None,
            })
        })
    }

    async fn queues(&self) -> Result<Vec<QueueCounts>> {
        self.call("list queues", |state| {
            let mut names: Vec<QueueName> = state
                .tasks
                .values()
                .map(|row| row.task.lane.queue.clone())
                .collect();
            names.extend(state.paused.iter().cloned());
            names.sort();
            names.dedup();
            let counts = |name| QueueCounts {
                paused: state.paused.contains(&name),
                name,
                running: 0,
                scheduled: 0,
                throttled: 0,
            };
            Ok(names.into_iter().map(counts).collect())
        })
    }

    async fn paused_queues(&self) -> Result<Vec<QueueName>> {
        if self.faults.lock().unwrap().hidden_pauses {
            return Err(unavailable("list paused queues"));
        }
        self.call("list paused queues", |state| {
            Ok(state.paused.iter().cloned().collect())
        })
    }

    async fn oldest_ready(&self, _: &QueueName, _: ReadyWalk) -> Result<OldestReady> {
        Ok(OldestReady::default())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.call("list workers", |state| {
            Ok(state.workers.values().map(|worker| worker.info.clone()).collect())
        })
    }

    async fn rejects(&self, _: usize, _: usize) -> Result<Rejects> {
        Err(StoreError::Corrupt(
            "the worker does not read what it set aside".into(),
        ))
    }
}

#[async_trait]
impl forebay_store::Explain for MemoryStore {
    async fn place(&self, _: TaskId) -> Result<Option<forebay_store::Place>> {
        Err(StoreError::Corrupt("the worker explains nothing".into()))
    }
}

#[async_trait]
impl Operate for MemoryStore {
    async fn cancel(&self, id: TaskId) -> Result<Changed> {
        self.call("cancel", |state| Ok(change(state, id, Lifecycle::cancel)))
    }

    async fn retry(&self, id: TaskId) -> Result<Changed> {
        self.call("retry", |state| {
            Ok(change(state, id, |lifecycle| lifecycle.retry(now())))
        })
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<bool> {
        self.call("pause or resume a queue", |state| {
            Ok(match paused {
                true => state.paused.insert(queue.clone()),
                false => state.paused.remove(queue),
            })
        })
    }
}

fn change(
    state: &mut State,
    id: TaskId,
    transition: impl FnOnce(&mut Lifecycle) -> std::result::Result<(), Refused>,
) -> Changed {
    let Some(row) = state.tasks.get_mut(&id) else {
        return Changed::NotFound;
    };
    match transition(&mut row.lifecycle) {
        Ok(()) => Changed::Done(Box::new(task_of(row))),
        Err(refused) => Changed::Refused(Box::new(task_of(row)), refused),
    }
}

#[async_trait]
impl Admin for MemoryStore {
    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.call("check", |_| Ok(()))
    }
}
