//! Limits: named rules for how many tasks run, or start, at a time. They are enforced where tasks are claimed, which is the
//! one door to running; what is held back there waits in the store, `throttled`.

mod decide;
mod line;

use std::time::Duration;

use async_trait::async_trait;
use forebay_core::{LimitName, LimitRule, TaskId, Timestamp};

pub use decide::{Candidate, Held, Rule, Rules, UseState, Verdict, decide};
pub use line::{Head, OLDEST_EVERY, next_in_line};

use crate::{Result, compose::in_words};

/// How long a store goes by the rules that it has read: a rule holds this long after it was put at the latest.
pub const RULES_AGE_MAX: Duration = Duration::from_secs(1);

/// How long a place is kept for a task that was released and is on its way through its lane. Then the next in line is
/// released, too, and whoever comes too late waits again, in its old place.
pub const RESERVATION: Duration = Duration::from_secs(10);

/// How late a task may start that had to wait for its turn by a rate: its way through the dispatcher and its lane takes a
/// moment, and what comes together after such waits need not wait again.
pub const LATE_START_MAX: Duration = Duration::from_secs(1);

/// How long a place is kept for a task whose turn has come, and that does not come itself.
pub const TURN_KEPT: Duration = Duration::from_secs(60);

/// How long what waits by an earlier revision of a limit is looked for: longer than anybody goes by that.
pub const CHANGE_KEPT: Duration = Duration::from_secs(10);

/// A limit as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What it says.
    pub rule: LimitRule,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was put last.
    pub updated_at: Timestamp,
}

/// What became of a limit that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutLimit {
    /// There was none of that name.
    New(Limit),
    /// It has taken the place of one.
    Replaced(Limit),
    /// There are [`forebay_core::LIMITS_MAX`] others already: nothing was done.
    TooMany,
}

/// How much a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitUse {
    /// How many tasks run that count to it; only where it says how many may.
    pub running: u64,
    /// How many tasks it holds back.
    pub waiting: u64,
}

/// What holds a task back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The limit.
    pub limit: LimitName,
    /// The task's key, where the limit counts by key.
    pub key: Option<String>,
    /// How many tasks run that count to the same.
    pub running: u32,
    /// How many of them may; `None` where it says nothing of that, or is no more.
    pub concurrency: Option<u32>,
    /// When it may start, where it waits for its turn by a rate.
    pub next_at: Option<Timestamp>,
    /// How many tasks are before it in line; up to [`Hold::AHEAD_MAX`] are counted.
    pub ahead: u64,
}

impl Hold {
    /// As far as a line is counted.
    pub const AHEAD_MAX: u64 = 10_000;
}

/// What a pass over what waits for limits has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Released {
    /// How many tasks may go on that nobody else had released.
    pub count: u64,
    /// Where the next pass goes on; `None` at the end.
    pub next: Option<i64>,
    /// What of the pass has failed first, while the rest was done.
    pub trouble: Option<String>,
}

impl Released {
    /// Counts what a part of the pass has released, or keeps in mind that it has failed.
    pub fn add(&mut self, part: Result<u64>) {
        match part {
            Ok(count) => self.count += count,
            Err(error) => _ = self.trouble.get_or_insert_with(|| in_words(&error)),
        }
    }
}

/// What a comparison of the counters with what runs has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mended {
    /// How many counters were wrong, and are right again.
    pub counters: u64,
    /// How many that nothing used any more were forgotten.
    pub forgotten: u64,
}

/// What limits need: their rules, and what looks after those who wait. Enforcing them is part of
/// [`crate::Execute::claim`], and so is letting the next go on of whatever ends a task's running.
#[async_trait]
pub trait Limits: Send + Sync + 'static {
    /// Makes a limit, or replaces the one of its name. It holds for what is claimed from now on, by whichever process, within
    /// [`RULES_AGE_MAX`]. Tasks that run count to it if they counted before. Where it is changed in more than how many
    /// tasks may run at a time, what waits is looked at anew.
    async fn put_limit(&self, rule: &LimitRule) -> Result<PutLimit>;

    /// Reads a limit.
    async fn limit(&self, name: &LimitName) -> Result<Option<Limit>>;

    /// Lists up to `page_size` limits by name, those that come after `after`.
    async fn limits(&self, page_size: usize, after: Option<&LimitName>) -> Result<Vec<Limit>>;

    /// Deletes a limit; says whether there was one. What it holds back may go on, within seconds.
    async fn delete_limit(&self, name: &LimitName) -> Result<bool>;

    /// How much a limit is used, over all keys. Takes as long as it has keys.
    async fn limit_use(&self, name: &LimitName) -> Result<LimitUse>;

    /// What holds a task back; `None` where no limit does.
    async fn held_by(&self, task: TaskId) -> Result<Option<Hold>>;

    /// Whether this process has let tasks go on by writing outcomes since it was asked last: a look at what is due is worth
    /// while, by a dispatcher here or elsewhere. A store that does not know says yes.
    fn has_released(&self) -> bool {
        true
    }

    /// Lets those go on that wait although there is room: a limit was raised, changed or deleted, who was released never
    /// came, or a process died between two steps. Looks at up to `limit` lines after the one that `after` names.
    /// What fails of that keeps nothing else from being done.
    async fn release_throttled(&self, after: Option<i64>, limit: usize) -> Result<Released>;

    /// Compares the counters of what runs with what runs, and mends them. They are written together with what they count, so
    /// there should be nothing to mend.
    async fn mend_limits(&self) -> Result<Mended>;
}
