//! The state machine of a task, as pure code.
//!
//! The stores carry these transitions out in SQL, each as one guarded statement; the conformance suite of the
//! stores holds them against this model. `fence` counts how often a task was started. It is the fencing token:
//! every write of a worker names the fence that its claim gave, and a write with an older one changes nothing.
//! `attempt` counts the starts that were charged to the task, so being interrupted by a shutdown costs none.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

use crate::{Timestamp, WorkerId};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Waits for its `run_at`.
    Scheduled,
    /// Waits for other tasks.
    Blocked,
    /// Held back by a concurrency or rate limit.
    Throttled,
    /// Ready: it waits in the broker for a free worker.
    Queued,
    /// A worker executes it.
    Running,
    /// Waits for its next attempt.
    Retrying,
    /// Final: its handler succeeded.
    Succeeded,
    /// Final: its attempts are used up, or its handler said that another is no use. A dead letter.
    Failed,
    /// Final: somebody asked for it.
    Cancelled,
    /// Final: it was not started in time.
    Expired,
}

/// The text names no state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "must be one of scheduled, blocked, throttled, queued, running, retrying, succeeded, failed, cancelled, expired"
)]
pub struct UnknownState;

impl State {
    /// All states.
    pub const ALL: [Self; 10] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Throttled,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The name used in the API and in the stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Throttled => "throttled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether it waits for its `run_at`, if it has one.
    #[must_use]
    pub fn waits_for_a_time(self) -> bool {
        matches!(self, Self::Scheduled | Self::Throttled | Self::Retrying)
    }

    /// Whether nothing but an operator's retry ever changes it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired
        )
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(UnknownState)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The handler returned a result.
    Succeeded,
    /// The handler returned an error.
    Failed,
    /// The handler took longer than the task's timeout.
    TimedOut,
    /// The worker died. Costs no attempt, and has a cap of its own.
    Lost,
    /// The worker was shut down. Costs no attempt.
    Interrupted,
    /// Somebody cancelled the task while it ran.
    Cancelled,
    /// The handler asked to be called again later. Costs no attempt.
    Snoozed,
}

impl Outcome {
    /// The name used in the API, in metrics and in the stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::Snoozed => "snoozed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a worker wants done with a task whose attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Final: succeeded.
    Succeed,
    /// Final: failed.
    Fail,
    /// Final: cancelled.
    Cancel,
    /// Another attempt after `delay`.
    Retry {
        /// From the moment the store writes it.
        delay: Duration,
    },
    /// Another start after `delay` that does not use up an attempt: the worker shuts down, or the handler snoozed.
    HandBack {
        /// From the moment the store writes it.
        delay: Duration,
    },
}

/// Why a transition was turned away. Turning away is normal: deliveries repeat, workers die and wake up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// The message or the write belongs to a start that is not the current one.
    #[error("belongs to another start of the task")]
    Fenced,
    /// The state does not allow it.
    #[error("not possible while the task is {0}")]
    State(State),
    /// It is not due yet.
    #[error("not due yet")]
    NotDue,
}

/// The part of a task that transitions read and write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// Where it stands.
    pub state: State,
    /// How often it was started: the fencing token.
    pub fence: u32,
    /// How many of these starts were charged to it.
    pub attempt: u32,
    /// How many workers died while they ran it.
    pub lost: u32,
    /// Who runs it, or ran it last.
    pub worker: Option<WorkerId>,
    /// When it is due, while it is not ready.
    pub run_at: Option<Timestamp>,
    /// Whether a cancellation waits for the worker to obey it.
    pub cancel_requested: bool,
}

impl Lifecycle {
    /// A task that was just accepted: scheduled where it has a `run_at`, else ready.
    #[must_use]
    pub fn accepted(run_at: Option<Timestamp>) -> Self {
        let state = if run_at.is_some() {
            State::Scheduled
        } else {
            State::Queued
        };
        Self {
            state,
            fence: 0,
            attempt: 0,
            lost: 0,
            worker: None,
            run_at,
            cancel_requested: false,
        }
    }

    /// A worker was told that the task is ready, by a message published when it had been started `fence` times, and
    /// wants to run it.
    /// Asking again for what one already holds is granted again, since the first answer may have been lost.
    ///
    /// # Errors
    /// Where the task runs elsewhere, is final, was started since, or is not due.
    pub fn claim(&mut self, fence: u32, worker: WorkerId, now: Timestamp) -> Result<(), Refused> {
        match self.state {
            State::Running if self.worker == Some(worker) && self.fence == fence + 1 => return Ok(()),
            State::Queued => {}
            state if state.waits_for_a_time() => {
                if self.run_at.is_none_or(|due| due > now) {
                    return Err(Refused::NotDue);
                }
            }
            state => return Err(Refused::State(state)),
        }
        if self.fence != fence {
            return Err(Refused::Fenced);
        }
        self.state = State::Running;
        self.fence += 1;
        self.attempt += 1;
        self.worker = Some(worker);
        self.run_at = None;
        Ok(())
    }

    /// The attempt that `fence` names ended on `worker`.
    ///
    /// # Errors
    /// Where that attempt is not the one that runs.
    pub fn complete(
        &mut self,
        fence: u32,
        worker: WorkerId,
        decision: Decision,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if self.fence != fence || self.worker != Some(worker) {
            return Err(Refused::Fenced);
        }
        if self.state != State::Running {
            return Err(Refused::State(self.state));
        }
        match decision {
            Decision::Succeed => self.state = State::Succeeded,
            Decision::Fail => self.state = State::Failed,
            Decision::Cancel => self.state = State::Cancelled,
            Decision::Retry { delay } => self.wait(delay, now),
            Decision::HandBack { delay } => {
                self.attempt -= 1;
                self.wait(delay, now);
            }
        }
        Ok(())
    }

    /// The worker that runs it was found dead.
    ///
    /// # Errors
    /// Where it does not run on that worker.
    pub fn take_back(&mut self, worker: WorkerId, lost_max: u32, now: Timestamp) -> Result<(), Refused> {
        if self.state != State::Running || self.worker != Some(worker) {
            return Err(Refused::State(self.state));
        }
        self.lost += 1;
        if self.lost >= lost_max && !self.cancel_requested {
            self.state = State::Failed;
        } else {
            self.attempt -= 1;
            self.wait(Duration::ZERO, now);
        }
        Ok(())
    }

    /// The dispatcher published it: it is ready from now on.
    ///
    /// # Errors
    /// Where it does not wait, or is not due.
    pub fn dispatch(&mut self, now: Timestamp) -> Result<(), Refused> {
        if !self.state.waits_for_a_time() {
            return Err(Refused::State(self.state));
        }
        if self.run_at.is_none_or(|due| due > now) {
            return Err(Refused::NotDue);
        }
        self.state = State::Queued;
        self.run_at = None;
        Ok(())
    }

    /// A worker wanted to start it, but a limit holds it back: until `run_at`, or, without one, until it is
    /// [released](Self::release). Its starts are what they were.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub fn throttle(&mut self, fence: u32, run_at: Option<Timestamp>, now: Timestamp) -> Result<(), Refused> {
        // A claim that could be granted is what can be held back.
        let mut granted = self.clone();
        if self.state == State::Running {
            return Err(Refused::State(self.state));
        }
        granted.claim(fence, WorkerId::from(uuid::Uuid::nil()), now)?;
        self.state = State::Throttled;
        self.run_at = run_at;
        Ok(())
    }

    /// What held it back is over: a limit has room again, or what it waited for is done. It is due at its `run_at`, or
    /// now where that is past or was never said.
    ///
    /// # Errors
    /// Where it is neither throttled nor blocked.
    pub fn release(&mut self, now: Timestamp) -> Result<(), Refused> {
        match self.state {
            State::Throttled => {}
            State::Blocked => self.state = State::Scheduled,
            state => return Err(Refused::State(state)),
        }
        self.run_at = Some(self.run_at.map_or(now, |due| due.max(now)));
        Ok(())
    }

    /// It was not started in time.
    ///
    /// # Errors
    /// Where it was started, or is final.
    pub fn expire(&mut self) -> Result<(), Refused> {
        if self.fence > 0 || self.state.is_final() {
            return Err(Refused::State(self.state));
        }
        self.state = State::Expired;
        self.run_at = None;
        Ok(())
    }

    /// Somebody wants it cancelled. What runs is only marked: its worker ends it, and says so by `complete`.
    ///
    /// # Errors
    /// Where it is final.
    pub fn cancel(&mut self) -> Result<(), Refused> {
        match self.state {
            state if state.is_final() => return Err(Refused::State(state)),
            State::Running => self.cancel_requested = true,
            _ => {
                self.state = State::Cancelled;
                self.run_at = None;
            }
        }
        Ok(())
    }

    /// An operator brings it back, with all its attempts.
    ///
    /// # Errors
    /// Where it did not fail, and was neither cancelled nor expired.
    pub fn retry(&mut self, now: Timestamp) -> Result<(), Refused> {
        match self.state {
            State::Failed | State::Cancelled | State::Expired => {
                self.attempt = 0;
                self.lost = 0;
                self.cancel_requested = false;
                self.state = State::Retrying;
                self.run_at = Some(now);
                Ok(())
            }
            state => Err(Refused::State(state)),
        }
    }

    /// A cancellation that the worker did not get to obey is obeyed here: nothing cancelled is started again.
    fn wait(&mut self, delay: Duration, now: Timestamp) {
        if self.cancel_requested {
            self.state = State::Cancelled;
            self.run_at = None;
        } else {
            self.state = State::Retrying;
            self.run_at = Some(now.saturating_add(delay).unwrap_or(Timestamp::MAX));
        }
    }
}

#[cfg(test)]
mod tests;
