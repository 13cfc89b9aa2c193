//! Schedules: what is submitted at which ticks of the clock, and which ticks are left out. Pure code: a store
//! locks a schedule, asks [`plan`] what is to be done, and writes tasks and schedule in one transaction.
//!
//! A tick is an instant, [`Cron::next`] says which; jitter moves the time of its task, not the tick itself. The id
//! of its task is made of the schedule's name and the tick, so that a tick is one task whoever fires it.

mod cron;
mod plan;
mod request;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, time::Duration};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{Json, Kind, Lane, Project, ScheduleName, Submission, TaskId, Terms, Timestamp};

pub use cron::{Cron, InvalidCron, TimeZone, UnknownTimeZone};
pub use plan::{Missed, Plan, plan};
pub use request::{CATCH_UP_MAX, JITTER_MAX, ScheduleRequest};

/// What happens at a tick while the task of the tick before is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Nothing: the tick is left out.
    #[default]
    Skip,
    /// The tick waits until that task is finished; of several that wait, the latest stays.
    Queue,
    /// The tick is fired all the same.
    Allow,
}

/// The text names no [`Overlap`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be skip, queue or allow")]
pub struct UnknownOverlap;

impl Overlap {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Allow => "allow",
        }
    }
}

impl FromStr for Overlap {
    type Err = UnknownOverlap;

    fn from_str(text: &str) -> Result<Self, UnknownOverlap> {
        [Self::Skip, Self::Queue, Self::Allow]
            .into_iter()
            .find(|overlap| overlap.as_str() == text)
            .ok_or(UnknownOverlap)
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a schedule submits at each tick.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduledTask {
    /// Whose it is.
    pub project: Project,
    /// What it does.
    pub kind: Kind,
    /// Where it goes.
    pub lane: Lane,
    /// The input of its handler.
    pub payload: Json,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// How many attempts it may have; the handler's setting unless said.
    pub max_attempts: Option<u32>,
    /// How long an attempt may take; the handler's setting unless said.
    pub timeout: Option<Duration>,
    /// What it asks for beyond being run: nothing that is a time, or goes by other tasks.
    pub terms: Option<Box<Terms>>,
}

/// One tick of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The instant that the schedule names.
    pub at: Timestamp,
    /// When its task is due: the tick, moved by its jitter.
    pub run_at: Timestamp,
}

/// A schedule as it stands in the store, and as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Names it.
    pub name: ScheduleName,
    /// At which times of the wall clock.
    pub cron: Cron,
    /// Of which wall clock.
    pub time_zone: TimeZone,
    /// What is submitted at each tick.
    pub task: ScheduledTask,
    /// What happens while the task of the tick before is unfinished.
    pub overlap: Overlap,
    /// How late the task of a tick may still be submitted.
    pub catch_up: Duration,
    /// By how much the task of a tick is moved at most.
    pub jitter: Duration,
    /// Whether it rests.
    pub paused: bool,
    /// The first tick that was not looked at yet; `None` while it is paused.
    pub next_tick: Option<Timestamp>,
    /// The tick that waits for the last one's task to finish; only with [`Overlap::Queue`].
    pub waiting: Option<Timestamp>,
    /// The last tick that was fired, and its task.
    pub last_tick: Option<(Timestamp, TaskId)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was said anew what it does.
    pub updated_at: Timestamp,
}

impl Schedule {
    /// The next `count` ticks after `after`, the earliest first; none while it is paused.
    #[must_use]
    pub fn upcoming(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        if self.paused {
            return Vec::new();
        }
        let next = |&tick: &Timestamp| self.cron.next(&self.time_zone, tick);
        std::iter::successors(next(&after), next).take(count).collect()
    }

    /// Whether both say the same: when, what, and how.
    fn says_the_same(&self, other: &Self) -> bool {
        let said = |schedule: &Self| {
            (
                schedule.overlap,
                schedule.catch_up,
                schedule.jitter,
                schedule.paused,
            )
        };
        said(self) == said(other)
            && self.cron == other.cron
            && self.time_zone == other.time_zone
            && self.task == other.task
    }

    /// What a store keeps when this is put in the place of `old`, at `now` by the store's clock: `old` itself where both
    /// say the same.
    ///
    /// Ticks that have passed are not fired again. Where the ticks are the same as before, one that has come and was not
    /// fired yet is not forgotten, so that it does no harm to put a schedule again and again.
    #[must_use]
    pub fn replacing(self, old: Option<&Self>, now: Timestamp) -> Self {
        if let Some(same) = old.filter(|old| self.says_the_same(old)) {
            return same.clone();
        }
        let last_tick = old.and_then(|old| old.last_tick);
        let pending = old
            .filter(|old| old.cron == self.cron && old.time_zone == self.time_zone)
            .and_then(|old| old.next_tick);
        // Should the store's clock have been set back, the ticks since then have been fired already.
        let after = last_tick.map_or(now, |(tick, _)| tick.max(now));
        let next_tick = pending.or_else(|| self.cron.next(&self.time_zone, after));
        let waiting = old
            .and_then(|old| old.waiting)
            .filter(|_| self.overlap == Overlap::Queue && !self.paused);
        Self {
            next_tick: next_tick.filter(|_| !self.paused),
            waiting,
            last_tick,
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: now,
            ..self
        }
    }

    /// What a store keeps when this rests from `now` on by the store's clock, or goes on.
    #[must_use]
    pub fn resting(&self, paused: bool, now: Timestamp) -> Self {
        let asked = Self {
            paused,
            ..self.clone()
        };
        asked.replacing(Some(self), now)
    }

    /// Whether it matters to [`plan`] if the task of the last tick is finished.
    #[must_use]
    pub fn minds_overlap(&self) -> bool {
        self.overlap != Overlap::Allow || self.waiting.is_some()
    }

    /// The schedule after `plan` was carried out.
    #[must_use]
    pub fn after(self, plan: &Plan) -> Self {
        let last_tick = plan
            .fire
            .last()
            .map(|tick| (tick.at, TaskId::of_tick(&self.name, tick.at)));
        Self {
            next_tick: plan.next_tick,
            waiting: plan.waiting,
            last_tick: last_tick.or(self.last_tick),
            ..self
        }
    }

    /// When a dispatcher is to look at it next. What waits for another task is looked at again and again, the more
    /// seldom the longer it has waited.
    #[must_use]
    pub fn look_at(&self, now: Timestamp) -> Option<Timestamp> {
        const SOONEST: Duration = Duration::from_millis(200);
        const LATEST: Duration = Duration::from_secs(5);
        let again = self.waiting.and_then(|since| {
            let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            now.saturating_add((waited / 4).clamp(SOONEST, LATEST)).ok()
        });
        self.next_tick.into_iter().chain(again).min()
    }

    /// A tick of it, with the time of its task. The same tick is always moved by the same.
    #[must_use]
    pub fn tick(&self, at: Timestamp) -> Tick {
        let run_at = at.saturating_add(self.moved_by(at)).unwrap_or(at);
        Tick { at, run_at }
    }

    fn moved_by(&self, tick: Timestamp) -> Duration {
        let jitter_us = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        if jitter_us == 0 {
            return Duration::ZERO;
        }
        let mut hasher = Sha256::new();
        hasher.update(tick.as_microsecond().to_be_bytes());
        hasher.update(self.name.as_str());
        let digest = hasher.finalize();
        let mut number = [0_u8; 8];
        number.copy_from_slice(&digest[..8]);
        Duration::from_micros(u64::from_be_bytes(number) % jitter_us.saturating_add(1))
    }

    /// The task of a tick, accepted at `now`.
    #[must_use]
    pub fn submission(&self, tick: Tick, now: Timestamp) -> Submission {
        let task = self.task.clone();
        Submission {
            id: TaskId::of_tick(&self.name, tick.at),
            project: task.project,
            kind: task.kind,
            lane: task.lane,
            payload: task.payload,
            tags: task.tags,
            run_at: Some(tick.run_at),
            max_attempts: task.max_attempts,
            timeout: task.timeout,
            created_at: now,
            fingerprint: None,
            traceparent: None,
            terms: task.terms,
        }
    }
}
