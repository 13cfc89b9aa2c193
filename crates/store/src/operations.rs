use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{
    Action, Operation, OperationId, OperationPlan, OperationState, State, TaskEvent, TaskId, Timestamp,
};

use crate::Result;

/// How many operations may run at once.
pub const OPERATIONS_MAX: u32 = 100;

/// How many operations that have ended are kept, the latest.
pub const OPERATIONS_KEPT: u32 = 1_000;

/// How many tasks one pass changes at most.
pub const PASS_MAX: u32 = 250;

/// How many tasks one pass looks at, whether the filter means them or not.
pub const STRETCH: u32 = 5_000;

/// How many tasks are counted before the count is no longer exact.
pub const COUNTED_MAX: u64 = 100_000;

/// How long they are counted.
pub const COUNTING_TIME_MAX: Duration = Duration::from_secs(2);

/// A pass of an operation is for this share of a second.
const PASSES_PER_SECOND: u32 = 4;

/// How long a task is kept, that an idempotency key names, whatever is to be deleted: its key names it for its day and the
/// next.
pub const KEY_KEPT: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Tasks that a filter means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matching {
    /// How many.
    pub count: u64,
    /// Whether these are all; where not, there are more.
    pub is_exact: bool,
    /// The ids of some, the oldest first.
    pub sample: Vec<TaskId>,
}

/// What one pass of operations did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OperationPass {
    /// The operation, as it is now; `None` where none had anything to do, or others are at it.
    pub operation: Option<Operation>,
    /// What became of its tasks.
    pub events: Vec<TaskEvent>,
    /// Tasks that run and are to be cancelled.
    pub cancelling: Vec<TaskId>,
    /// How long it is until an operation has something to do. `None` where nothing is known of any.
    pub next_in: Option<Duration>,
}

/// What one stretch of the walk over the tasks has found. All stores ask here what follows from it, so that they do the
/// same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The tasks that the filter means, by id: no more than were asked for.
    pub ids: Vec<TaskId>,
    /// The last id that was looked at, and how many were.
    pub last: Option<TaskId>,
    /// See `last`.
    pub length: u32,
}

impl Stretch {
    /// Where the next one begins. `None` where there is nothing more. Where as many were found as were `asked` for, there
    /// may be more right behind the last of them.
    #[must_use]
    pub fn next(&self, asked: u32) -> Option<TaskId> {
        if u64::try_from(self.ids.len()).is_ok_and(|found| found >= u64::from(asked)) {
            return self.ids.last().copied();
        }
        self.last.filter(|_| self.length >= STRETCH)
    }
}

/// What a pass has done to the tasks of a stretch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// See [`OperationPass::events`].
    pub events: Vec<TaskEvent>,
    /// See [`OperationPass::cancelling`].
    pub cancelling: Vec<TaskId>,
    /// How many it was done to.
    pub done: u64,
    /// How many were left as they are.
    pub skipped: u64,
    /// How many could not be changed.
    pub failed: u64,
}

impl Done {
    /// Notes what became of one task. `before` is the task as it was before, at the present time.
    pub fn note(&mut self, action: Action, before: TaskEvent, is_done: bool) {
        if !is_done {
            self.skipped += 1;
            return;
        }
        self.done += 1;
        match (action, before.state) {
            (Action::Delete, _) => {}
            (Action::Cancel, State::Running) => self.cancelling.push(before.id),
            (Action::Cancel, _) => self.events.push(TaskEvent {
                state: State::Cancelled,
                ..before
            }),
            (Action::Retry, _) => self.events.push(TaskEvent {
                state: State::Retrying,
                attempt: 0,
                ..before
            }),
        }
    }
}

/// An operation that is held, and what a pass may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOperation {
    /// As it was found.
    pub operation: Operation,
    /// The id up to which it has come.
    pub walked_to: TaskId,
    /// The store's time.
    pub now: Timestamp,
}

/// What is to be kept of an operation after a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedOn {
    /// As it is now.
    pub operation: Operation,
    /// The id up to which it has come.
    pub walked_to: TaskId,
    /// When it is to go on; `None` where it has ended.
    pub look_at: Option<Timestamp>,
}

impl HeldOperation {
    /// How many tasks this pass may change.
    #[must_use]
    pub fn share(&self) -> u32 {
        let plan = &self.operation.plan;
        let left = plan.max.map_or(u64::from(PASS_MAX), |max| {
            max.saturating_sub(self.operation.progress.matched)
        });
        let share = plan
            .rate_per_second
            .div_ceil(PASSES_PER_SECOND)
            .clamp(1, PASS_MAX);
        u32::try_from(left.min(u64::from(share))).unwrap_or(share)
    }

    /// What it has come to by this.
    #[must_use]
    pub fn moved_on(mut self, stretch: &Stretch, asked: u32, done: &Done) -> MovedOn {
        let next = stretch.next(asked);
        let progress = &mut self.operation.progress;
        let matched = u64::try_from(stretch.ids.len()).unwrap_or(0);
        progress.matched += matched;
        progress.done += done.done;
        progress.skipped += done.skipped;
        progress.failed += done.failed;
        let is_full = self.operation.plan.max.is_some_and(|max| progress.matched >= max);
        let rest = Duration::from_secs(matched) / self.operation.plan.rate_per_second.max(1);
        let look_at = self.now.saturating_add(rest).unwrap_or(self.now);
        let look_at = Some(look_at).filter(|_| next.is_some() && !is_full);
        self.operation.updated_at = self.now;
        if look_at.is_none() {
            self.operation.state = OperationState::Completed;
            self.operation.finished_at = Some(self.now);
        }
        MovedOn {
            walked_to: next.unwrap_or(self.walked_to),
            operation: self.operation,
            look_at,
        }
    }
}

impl MovedOn {
    /// What is told of it, once it is written.
    #[must_use]
    pub fn told(self, done: Done, now: Timestamp) -> OperationPass {
        let rest = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        OperationPass {
            operation: Some(self.operation),
            events: done.events,
            cancelling: done.cancelling,
            // Another operation may have something to do now.
            next_in: Some(self.look_at.map_or(Duration::ZERO, rest)),
        }
    }
}

/// Operations on many tasks: what is kept of them, and carrying them out.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Counts the tasks that an operation would be about if it began now, up to [`COUNTED_MAX`] of them and for no longer
    /// than [`COUNTING_TIME_MAX`]. `sample` is how many to name.
    async fn matching(&self, plan: &OperationPlan, sample: usize) -> Result<Matching>;

    /// Begins an operation, which dispatchers carry out. `None` where [`OPERATIONS_MAX`] run already. To begin the same id
    /// again changes nothing. Of those that have ended, [`OPERATIONS_KEPT`] are kept.
    async fn begin_operation(
        &self,
        id: OperationId,
        plan: &OperationPlan,
        expected: &Matching,
    ) -> Result<Option<Operation>>;

    /// Reads an operation.
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>>;

    /// Lists up to `page_size` operations, the latest first, those that come after `after`.
    async fn operations(&self, page_size: usize, after: Option<OperationId>) -> Result<Vec<Operation>>;

    /// Ends an operation that runs, once the pass that is under way has ended; what was done stays. One that has ended
    /// stays as it is. `None` where there is no such operation.
    async fn abort_operation(&self, id: OperationId) -> Result<Option<Operation>>;

    /// Carries out a share of the operation that has waited longest, in one transaction: what becomes of its tasks, and how
    /// far it is, are written together. So whatever dies in the middle has done nothing, and each task is come to once,
    /// however many dispatchers call this at once. It goes by the ids of the tasks, and leaves alone what was created
    /// after the operation began. Each task is changed as by [`crate::Operate`]; a task that is to be deleted must be final,
    /// must have nobody who has yet to hear of its end, and is kept for [`KEY_KEPT`] where an idempotency key names it.
    async fn pass_operation(&self) -> Result<OperationPass>;
}

#[cfg(test)]
mod tests {
    use forebay_core::{FilterRequest, OperationProgress, OperationRequest};

    use super::*;

    fn held(rate: i64, max: Option<i64>, matched: u64) -> HeldOperation {
        let now = Timestamp::UNIX_EPOCH;
        let request = OperationRequest {
            action: "retry".into(),
            filter: FilterRequest {
                state: Some("failed".into()),
                ..FilterRequest::default()
            },
            rate_per_second: Some(rate),
            max,
        };
        let operation = Operation {
            id: OperationId::new(now, &[1; 10]),
            plan: request.accept().expect("a plan"),
            state: OperationState::Running,
            expected: 10,
            expected_is_exact: true,
            progress: OperationProgress {
                matched,
                ..OperationProgress::default()
            },
            created_at: now,
            updated_at: now,
            finished_at: None,
        };
        HeldOperation {
            operation,
            walked_to: TaskId::from_bytes([0; 16]),
            now,
        }
    }

    fn stretch(found: u8, length: u32) -> Stretch {
        let id = |n| TaskId::from_bytes([n; 16]);
        Stretch {
            ids: (1..=found).map(id).collect(),
            last: (length > 0).then(|| id(200)),
            length,
        }
    }

    #[test]
    fn a_pass_is_for_a_quarter_of_a_second_and_no_more_than_is_left() {
        for (rate, max, matched, share) in [
            (100, None, 0, 25),
            (1, None, 0, 1),
            (1_000, None, 0, PASS_MAX),
            (100, Some(30), 0, 25),
            (100, Some(30), 25, 5),
            (100, Some(30), 30, 0),
        ] {
            assert_eq!(
                held(rate, max, matched).share(),
                share,
                "{rate} {max:?} {matched}"
            );
        }
    }

    #[test]
    fn it_goes_on_behind_the_last_that_it_came_to_at_the_pace_that_was_asked_for() {
        let done = Done {
            done: 24,
            skipped: 1,
            ..Done::default()
        };
        let moved = held(100, None, 0).moved_on(&stretch(25, STRETCH), 25, &done);
        assert_eq!(
            moved.walked_to,
            TaskId::from_bytes([25; 16]),
            "there may be more behind it"
        );
        assert_eq!(moved.look_at, Timestamp::from_millisecond(250).ok());
        let progress = moved.operation.progress;
        assert_eq!((progress.matched, progress.done, progress.skipped), (25, 24, 1));
        let moved = held(100, None, 0).moved_on(&stretch(0, STRETCH), 25, &Done::default());
        assert_eq!(moved.walked_to, TaskId::from_bytes([200; 16]));
        assert_eq!(
            moved.look_at,
            Some(Timestamp::UNIX_EPOCH),
            "nothing was done: on it goes"
        );
    }

    #[test]
    fn it_ends_where_nothing_is_left_or_nothing_more_is_wanted() {
        let done = Done {
            done: 5,
            ..Done::default()
        };
        for (max, found) in [
            (None, stretch(5, 70)),
            (None, stretch(0, 0)),
            (Some(5), stretch(5, STRETCH)),
        ] {
            let held = held(100, max, 0);
            let asked = held.share();
            let moved = held.moved_on(&found, asked, &done);
            assert_eq!(
                (moved.look_at, moved.operation.state),
                (None, OperationState::Completed)
            );
            assert_eq!(moved.operation.finished_at, Some(Timestamp::UNIX_EPOCH));
        }
    }

    #[test]
    fn what_runs_is_told_to_stop_and_what_is_deleted_is_not_told_of() {
        let before = |state| TaskEvent {
            id: TaskId::from_bytes([1; 16]),
            kind: "echo".parse().expect("a kind"),
            queue: "default".parse().expect("a queue"),
            state,
            attempt: 3,
            at: Timestamp::UNIX_EPOCH,
        };
        let mut done = Done::default();
        done.note(Action::Cancel, before(State::Running), true);
        done.note(Action::Cancel, before(State::Queued), true);
        done.note(Action::Retry, before(State::Failed), true);
        done.note(Action::Retry, before(State::Failed), false);
        done.note(Action::Delete, before(State::Failed), true);
        let told: Vec<(State, u32)> = done
            .events
            .iter()
            .map(|event| (event.state, event.attempt))
            .collect();
        assert_eq!(told, [(State::Cancelled, 3), (State::Retrying, 0)]);
        assert_eq!((done.cancelling.len(), done.done, done.skipped), (1, 4, 1));
    }
}
