use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use forebay_core::{
    After, BatchId, Fingerprint, OnFailure, Project, State, Submission, Task, TaskEvent, TaskId, Timestamp,
};

use crate::{Result, StoreError};

/// The most tasks that a batch may have.
pub const BATCH_TASKS_MAX: u64 = 100_000;

/// For how long a task is waited for that nobody has recorded; then it counts as one that has not succeeded.
pub const UNKNOWN_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// For how long tasks are waited for that were announced to a batch and that nobody has recorded, counted from the last
/// announcement; then the batch makes do with those that are recorded.
pub const MISSING_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// Tasks that were submitted together and are looked at together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Names it for ever.
    pub id: BatchId,
    /// Whose it is.
    pub project: Project,
    /// What its submitter calls it.
    pub name: Option<String>,
    /// What its idempotency key's request was.
    pub fingerprint: Option<Fingerprint>,
    /// How many tasks it has, recorded or not.
    pub total: u64,
    /// How many of them have ended, each counted once.
    pub ended: u64,
    /// The task that runs when all have ended.
    pub completion: Option<TaskId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Since when it takes no more tasks.
    pub closed_at: Option<Timestamp>,
    /// When somebody cancelled it.
    pub cancelled_at: Option<Timestamp>,
    /// When all of its tasks had ended.
    pub completed_at: Option<Timestamp>,
}

/// A batch as it is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBatch {
    /// Its id; the same for a repeated idempotency key.
    pub id: BatchId,
    /// Whose it is.
    pub project: Project,
    /// What its submitter calls it.
    pub name: Option<String>,
    /// Present where it has an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// How many tasks will come at first.
    pub total: u64,
    /// Whether more may be added later.
    pub is_open: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// What runs when all of its tasks have ended. It is recorded with the batch, and is blocked until then.
    pub completion: Option<Submission>,
}

/// What became of a batch that was to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It is new.
    New(Batch),
    /// Its key has opened it before, today or in the window before or after.
    Known(Batch),
    /// Its key has opened this one, by another request.
    Conflict(BatchId),
}

/// Tasks that are to be added to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPart {
    /// Stands for the request's idempotency key: a repeated one is counted once.
    pub part: Fingerprint,
    /// Stands for what the request says.
    pub fingerprint: Fingerprint,
    /// How many tasks will come.
    pub count: u64,
}

/// What became of tasks that were to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grown {
    /// They are counted, now or by an earlier call.
    Done(Batch),
    /// The batch takes no more tasks.
    Closed(Batch),
    /// It would have more than [`BATCH_TASKS_MAX`].
    Full(Batch),
    /// The key was used for other tasks.
    Conflict,
    /// There is no such batch.
    NotFound,
}

/// How many of a batch's tasks are in which state at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchCounts {
    /// Those that are recorded.
    pub of: BTreeMap<State, u64>,
}

impl BatchCounts {
    /// How many are recorded.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.of.values().sum()
    }
}

/// Where a list of batches goes on: after the last that was shown, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPage {
    /// When that one was created.
    pub created_at: Timestamp,
    /// Which one it was.
    pub id: BatchId,
}

/// What a blocked task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockedOn {
    /// Tasks that have not ended; a hundred at the most.
    pub tasks: Vec<TaskId>,
    /// Those of them that are not recorded, as far as is known, each with when it is no longer waited for.
    pub unknown: Vec<(TaskId, Timestamp)>,
    /// The batch that it completes.
    pub batch: Option<BatchId>,
}

impl BlockedOn {
    /// One more task, and since when it is waited for.
    pub fn add(&mut self, on: TaskId, known: bool, since: Timestamp) {
        self.tasks.push(on);
        if !known {
            let until = since.checked_add(UNKNOWN_WAIT_MAX).unwrap_or(Timestamp::MAX);
            self.unknown.push((on, until));
        }
    }
}

/// What one pass over the ends of tasks did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// What happened to tasks because of it. What is scheduled among them is due, or will be.
    pub events: Vec<TaskEvent>,
    /// Tasks that run and should be told to end.
    pub cancel: Vec<TaskId>,
    /// How many ends were seen to.
    pub seen: usize,
    /// Whether there may be more to do at once.
    pub more: bool,
    /// Ends that could not be seen to by themselves either, so that they are not in the way of others any more.
    pub given_up: Vec<GivenUp>,
    /// What of the pass has failed, while the rest was done.
    pub failed: Vec<String>,
    /// Whether the ends are among that: fewer of them should be tried together.
    pub ends_failed: bool,
}

/// An end that nobody will see to, since it failed whenever it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// What has ended.
    pub task: TaskId,
    /// Why that could not be seen to.
    pub why: String,
}

impl GivenUp {
    /// Whether this error is the row's own and will come again. What time or an operator may mend is not.
    #[must_use]
    pub fn is_due_to(error: &StoreError) -> bool {
        matches!(error, StoreError::Refused { .. } | StoreError::Corrupt(_))
    }

    /// For this reason.
    #[must_use]
    pub fn new(task: TaskId, error: &StoreError) -> Self {
        Self {
            task,
            why: in_words(error),
        }
    }
}

/// An error and what led to it.
pub(crate) fn in_words(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Settled {
    /// Puts together what the parts of a pass did, each by itself: seeing to ends, and the others. It has failed if all of them
    /// have.
    ///
    /// # Errors
    /// The first, where nothing was done.
    pub fn of(ends: Option<Result<Self>>, others: Vec<Result<Self>>) -> Result<Self> {
        let mut whole = Self {
            ends_failed: matches!(ends, Some(Err(_))),
            ..Self::default()
        };
        let mut is_done = false;
        let mut first = None;
        for part in ends.into_iter().chain(others) {
            match part {
                Ok(part) => {
                    is_done = true;
                    whole.events.extend(part.events);
                    whole.cancel.extend(part.cancel);
                    whole.seen += part.seen;
                    whole.more |= part.more;
                    whole.given_up.extend(part.given_up);
                }
                Err(error) => {
                    whole.failed.push(in_words(&error));
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if !is_done => Err(error),
            _ => Ok(whole),
        }
    }
}

/// What has to do with more than one task: those that wait for others, and batches.
#[async_trait]
pub trait Compose: Send + Sync + 'static {
    /// Which of these tasks are not recorded. The id of an idempotency key finds the key's task of the window before
    /// or after, too.
    async fn unknown(&self, ids: &[TaskId]) -> Result<Vec<TaskId>>;

    /// What a blocked task waits for; nothing for any other.
    async fn blocked_on(&self, id: TaskId) -> Result<BlockedOn>;

    /// Opens a batch, and records the task that completes it as blocked. Its other tasks come by [`crate::Record`], and
    /// name it in their terms. One without any tasks that is not open is complete at once.
    async fn open_batch(&self, batch: &NewBatch) -> Result<Opened>;

    /// Announces that more tasks will come.
    async fn grow_batch(&self, id: BatchId, part: &BatchPart) -> Result<Grown>;

    /// Whether a part of a batch was announced before, by whatever request.
    async fn knows_part(&self, id: BatchId, part: Fingerprint) -> Result<bool>;

    /// Closes a batch: no more tasks can be added. `None` where there is no such batch. To close it again changes
    /// nothing.
    async fn close_batch(&self, id: BatchId) -> Result<Option<Batch>>;

    /// Cancels a batch: closes it, and cancels the task that completes it, unless that was released. Its other tasks are
    /// cancelled by [`Self::settle`], and those that are recorded from now on are cancelled at once. A batch that is
    /// complete stays as it is.
    async fn cancel_batch(&self, id: BatchId) -> Result<Option<Batch>>;

    /// Reads a batch. The id of an idempotency key finds the key's batch of the window before or after, too.
    async fn batch(&self, id: BatchId) -> Result<Option<Batch>>;

    /// Counts the tasks of a batch, under its own id. That reads each of them: a microsecond or three a task.
    async fn batch_counts(&self, id: BatchId) -> Result<BatchCounts>;

    /// Lists up to `page_size` batches, newest first, those that come after `after`.
    async fn batches(
        &self,
        project: Option<&Project>,
        page_size: usize,
        after: Option<BatchPage>,
    ) -> Result<Vec<Batch>>;

    /// Lists up to `page_size` recorded tasks of a batch by their ids, those that come after `after`.
    async fn batch_tasks(&self, id: BatchId, page_size: usize, after: Option<TaskId>) -> Result<Vec<Task>>;

    /// Sees to up to about `limit` ends of tasks that somebody waits for: releases or cancels those that wait for them,
    /// counts them in their batches, completes these, and submits what tells webhooks. All that follows from an end is done
    /// in one transaction with forgetting that it is to be seen to, so it is done once, however many dispatchers call
    /// this at once and whenever one of them dies. Where it can't be done for a single one (a `limit` of 1), and that is not
    /// for want of a database, this one is set aside. Looks for tasks that are waited for and were not recorded, too, goes on
    /// with cancelling batches, and completes those whose missing tasks were waited for long enough; none of these parts is
    /// kept from its work by an error of another.
    async fn settle(&self, limit: usize) -> Result<Settled>;
}

/// Where a task stands that waits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandsAfter {
    /// All of them have ended: it may run.
    Free,
    /// It waits for these.
    Waits(Vec<Blocker>),
    /// It is cancelled, and this is why.
    Cancelled(String),
}

/// A task that another waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocker {
    /// Which.
    pub on: TaskId,
    /// Whether it is recorded.
    pub known: bool,
}

impl StandsAfter {
    /// By what is known of the tasks that it waits for: under which id each was found, and how it stands. All stores ask
    /// here, so that they do the same.
    pub fn judge(after: &After, find: impl Fn(TaskId) -> Option<(TaskId, State)>) -> Self {
        let is_strict = after.on_failure == OnFailure::Cancel;
        let mut blockers = Vec::new();
        let mut seen = HashSet::new();
        for &asked in &after.tasks {
            match find(asked) {
                Some((on, state)) if state.is_final() && state != State::Succeeded && is_strict => {
                    return Self::Cancelled(not_run(on, Some(state)));
                }
                Some((_, state)) if state.is_final() => {}
                Some((on, _)) if seen.insert(on) => blockers.push(Blocker { on, known: true }),
                None if seen.insert(asked) => blockers.push(Blocker {
                    on: asked,
                    known: false,
                }),
                _ => {}
            }
        }
        match blockers.is_empty() {
            true => Self::Free,
            false => Self::Waits(blockers),
        }
    }
}

/// The error of a task that is cancelled since another did not succeed; `None` is one that was never recorded.
#[must_use]
pub fn not_run(after: TaskId, ended: Option<State>) -> String {
    let how = match ended {
        Some(State::Cancelled) => "was cancelled",
        Some(State::Expired) => "has expired",
        Some(_) => "has failed",
        None => "does not exist",
    };
    format!("it was to run after task {after}, which {how}")
}

/// The error of a task that is recorded when its batch was already cancelled.
pub const BATCH_CANCELLED: &str = "its batch was cancelled";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_takes_nothing_from_the_others() {
        let corrupt = || Err(StoreError::Corrupt("a row".to_owned()));
        let fine = || {
            Ok(Settled {
                seen: 2,
                ..Settled::default()
            })
        };
        let whole = Settled::of(Some(corrupt()), vec![fine(), fine()]).expect("some of it was done");
        assert_eq!((whole.seen, whole.ends_failed, whole.failed.len()), (4, true, 1));
        let whole = Settled::of(Some(fine()), vec![corrupt()]).expect("some of it was done");
        assert_eq!((whole.seen, whole.ends_failed, whole.failed.len()), (2, false, 1));
        assert!(Settled::of(Some(corrupt()), vec![corrupt()]).is_err());
        assert_eq!(
            Settled::of(None, Vec::new()).expect("nothing to do"),
            Settled::default()
        );
    }

    fn id(number: u8) -> TaskId {
        TaskId::from_bytes([number; 16])
    }

    fn after(on_failure: OnFailure) -> After {
        After {
            tasks: vec![id(1), id(2), id(3)],
            on_failure,
        }
    }

    #[test]
    fn it_waits_for_what_has_not_ended() {
        let find = |task: TaskId| match task {
            task if task == id(1) => Some((id(9), State::Running)),
            task if task == id(2) => Some((id(2), State::Succeeded)),
            _ => None,
        };
        let waits = vec![
            Blocker {
                on: id(9),
                known: true,
            },
            Blocker {
                on: id(3),
                known: false,
            },
        ];
        assert_eq!(
            StandsAfter::judge(&after(OnFailure::Cancel), find),
            StandsAfter::Waits(waits)
        );
    }

    #[test]
    fn what_failed_cancels_it_or_counts_as_an_end() {
        for state in [State::Failed, State::Cancelled, State::Expired] {
            let find = |task| Some((task, if task == id(2) { state } else { State::Succeeded }));
            assert_eq!(
                StandsAfter::judge(&after(OnFailure::Run), find),
                StandsAfter::Free
            );
            let StandsAfter::Cancelled(why) = StandsAfter::judge(&after(OnFailure::Cancel), find) else {
                panic!("it is cancelled");
            };
            assert!(why.contains(&id(2).to_string()), "{why}");
        }
    }
}
