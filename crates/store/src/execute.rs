use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{
    ClaimId, Decision, Json, Kind, Lane, Outcome, Project, Ready, State, Submission, TaskEvent, TaskId,
    Terms, Timestamp, TraceParent, WorkerId, WorkerInfo,
};

use crate::{Record, Recorded, Result};

/// A task that a worker was told is ready and wants to run, with what its handler says where the task does not.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimRequest {
    /// What the lane delivered.
    pub ready: Ready,
    /// The handler's number of attempts; written where the task has none.
    pub max_attempts: u32,
    /// The handler's timeout; written where the task has none.
    pub timeout: Duration,
}

/// A submission that a worker wants to run as soon as it is recorded, with what its handler says where it does not.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRequest {
    /// What was accepted.
    pub task: Submission,
    /// The handler's number of attempts; written where the task has none.
    pub max_attempts: u32,
    /// The handler's timeout; written where the task has none.
    pub timeout: Duration,
}

impl StartRequest {
    /// The claim of it, once it is recorded.
    #[must_use]
    pub fn claim(&self) -> ClaimRequest {
        ClaimRequest {
            ready: self.task.clone().into_ready(),
            max_attempts: self.max_attempts,
            timeout: self.timeout,
        }
    }

    /// Its first start, where it was recorded and started at `now`.
    #[must_use]
    pub fn started(&self, now: Timestamp) -> Claimed {
        let Submission {
            id,
            project,
            kind,
            lane,
            payload,
            traceparent,
            terms,
            ..
        } = self.task.clone();
        Claimed {
            id,
            fence: 1,
            attempt: 1,
            max_attempts: self.task.max_attempts.unwrap_or(self.max_attempts),
            timeout: self.task.timeout.unwrap_or(self.timeout),
            project,
            kind,
            lane,
            payload,
            queued_at: now,
            traceparent,
            terms,
            limited: false,
        }
    }
}

/// A task that a worker may now run.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Which task.
    pub id: TaskId,
    /// The fencing token to name when completing it.
    pub fence: u32,
    /// The number of this attempt.
    pub attempt: u32,
    /// How many it may have.
    pub max_attempts: u32,
    /// How long this one may take.
    pub timeout: Duration,
    /// Its project.
    pub project: Project,
    /// Its kind.
    pub kind: Kind,
    /// Its lane.
    pub lane: Lane,
    /// The handler's input.
    pub payload: Json,
    /// When it became ready.
    pub queued_at: Timestamp,
    /// The trace of the request that submitted it.
    pub traceparent: Option<TraceParent>,
    /// What it asks for beyond being run.
    pub terms: Option<Box<Terms>>,
    /// Whether it may hold a place of a limit, which its [`Completion`] gives back.
    pub limited: bool,
}

/// How an attempt ended, and what is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Which task.
    pub id: TaskId,
    /// The fencing token that the claim gave.
    pub fence: u32,
    /// The number of the attempt.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What is to be done.
    pub decision: Decision,
    /// What the handler returned, where it succeeded.
    pub result: Option<Json>,
    /// What went wrong, where it did not; becomes an [`forebay_core::AttemptError`].
    pub error: Option<String>,
    /// The tail of its log.
    pub log: Option<String>,
    /// Whether it may hold a place of a limit: [`Claimed::limited`], as it was said.
    pub limited: bool,
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// It was written, now or by an earlier call whose answer was lost; the task is in this state since.
    Applied(State),
    /// The attempt was not the current one, or the task was taken away: nothing was written.
    Fenced,
}

/// How far an attempt is, by its own word.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressNote {
    /// Which task.
    pub id: TaskId,
    /// The fencing token that the claim gave.
    pub fence: u32,
    /// How much is done: a [`forebay_core::TaskProgress::fraction`].
    pub fraction: f64,
    /// What it is at: a [`forebay_core::TaskProgress::message`].
    pub message: String,
}

/// What a worker says of itself every few seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// The worker; `heartbeat_at` is ignored, the store's clock counts.
    pub worker: WorkerInfo,
    /// For each lane it reads, the publishing time of the newest message it has received.
    pub watermarks: Vec<(Lane, Timestamp)>,
    /// How far tasks are that it runs; only those that have said so since the heartbeat before. What names a start that is
    /// not the current one, or does not run on this worker, is passed over.
    pub progress: Vec<ProgressNote>,
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeartbeatReply {
    /// Tasks that it runs and should end.
    pub cancel: Vec<TaskId>,
}

/// What the executor needs. A worker never has more tasks running than it said that it has slots: a slot is taken before a task is
/// claimed, and free again once its outcome is stored. Stores rely on that.
#[async_trait]
pub trait Execute: Record {
    /// Makes a worker known. It must heartbeat from now on.
    async fn register(&self, beat: &Heartbeat) -> Result<()>;

    /// Renews a worker's life.
    ///
    /// # Errors
    /// [`crate::StoreError::WorkerGone`] where the worker was declared dead or never registered.
    async fn heartbeat(&self, beat: &Heartbeat) -> Result<HeartbeatReply>;

    /// Claims a batch as [`forebay_core::Lifecycle::claim`] does, atomically with a note of who runs it. One
    /// answer for each request, in order; `None` where it was turned away. Waits for rows that others hold.
    /// A call whose answer was lost may be made again with the same `claim`. The batch may hold an id twice.
    /// A task that is not recorded is turned away: what a lane delivers was recorded before it was published.
    ///
    /// # Errors
    /// [`crate::StoreError::WorkerGone`] where the worker was declared dead: nothing was claimed.
    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[ClaimRequest],
    ) -> Result<Vec<Option<Claimed>>>;

    /// Records a batch as [`Record::record`] does and claims it as [`Self::claim`] does: what a recorder calls for tasks
    /// that its own process starts at once. One answer for each, in order. A call whose answer was lost may be made
    /// again with the same `claim`. It may also be made again in parts, one after the other, each under a claim of its
    /// own except for the last: the first claim may be the only note of all, so it is released last. Where it fails, some
    /// may be recorded and not claimed.
    ///
    /// # Errors
    /// [`crate::StoreError::WorkerGone`] where the worker was declared dead: nothing was claimed.
    async fn record_and_claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        batch: &[StartRequest],
    ) -> Result<Vec<(Recorded, Option<Claimed>)>>;

    /// Writes outcomes as [`forebay_core::Lifecycle::complete`] does; one answer for each, in order. `released`
    /// are the claims whose last task is among these or before them: their notes are forgotten.
    async fn complete(
        &self,
        worker: WorkerId,
        batch: &[Completion],
        released: &[ClaimId],
    ) -> Result<Vec<Completed>>;

    /// Forgets a worker that has stopped. Tasks it still holds are handed back at once, and cost no attempt.
    async fn deregister(&self, worker: WorkerId) -> Result<()>;

    /// Forgets a worker of which its own process says that it has died: takes its tasks back as
    /// [`crate::Dispatch::take_back`] does, without waiting for the lease. Returns what happened to them. Of a worker
    /// that is not known there is nothing to take back.
    async fn abandon(&self, worker: WorkerId, lost_max: u32) -> Result<Vec<TaskEvent>>;
}

/// [`Execute::record_and_claim`] as the two calls that it stands for, of which `claim` makes the second.
///
/// # Errors
/// As each of them.
pub async fn record_then_claim<
    S: Record + ?Sized,
    F: Future<Output = Result<Vec<Option<Claimed>>>> + Send,
>(
    store: &S,
    batch: &[&StartRequest],
    claim: impl FnOnce(Vec<ClaimRequest>) -> F + Send,
) -> Result<Vec<(Recorded, Option<Claimed>)>> {
    let tasks: Vec<Submission> = batch.iter().map(|request| request.task.clone()).collect();
    let recorded = store.record(&tasks).await?;
    // The task of a conflicting key is another one.
    let (places, requests): (Vec<usize>, Vec<ClaimRequest>) = batch
        .iter()
        .zip(&recorded)
        .enumerate()
        .filter(|(_, (_, recorded))| **recorded != Recorded::Conflict)
        .map(|(place, (request, _))| (place, request.claim()))
        .unzip();
    let claimed = claim(requests).await?;
    let mut answers: Vec<_> = recorded.into_iter().map(|recorded| (recorded, None)).collect();
    for (place, claimed) in places.into_iter().zip(claimed) {
        answers[place].1 = claimed;
    }
    Ok(answers)
}
