//! When to stop asking a dependency that does not answer, and when to ask again: the rules alone, without clock,
//! randomness or I/O. `guard` drives them.
//!
//! There are crates for this. They count failures over a window and let a caller's request find out whether the
//! dependency is back. Here a probe of our own finds out, so that recovery needs no traffic and costs no request,
//! and a refusal says since when and until when, which `Retry-After` is made of.

use std::time::{Duration, Instant};

/// So many calls in a row that fail for want of an answer open the circuit, without waiting for a probe.
const FAILURES_MAX: u32 = 5;
/// Between two probes of an open circuit: at first, and at most. Short, so that recovery is soon found.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a closed circuit may be doubted.
const DOUBT_EVERY: Duration = Duration::from_secs(1);

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed,
    /// Calls are refused, and a probe is under way.
    HalfOpen,
    /// Calls are refused until the next probe.
    Open,
}

impl State {
    /// As the metric `forebay_circuit_state` says it.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// What an event did to a circuit, where that is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is open from now on. `again`, where it was closed by a probe alone, and no call was answered since.
    Opened {
        /// Whether that was told before.
        again: bool,
    },
    /// It is closed from now on, having been open for so long.
    Closed {
        /// From the opening to now.
        after: Duration,
        /// As the opening had it.
        again: bool,
    },
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How long ago the dependency answered last.
    pub silent: Duration,
    /// When the next probe begins; zero where one is under way.
    pub retry_in: Duration,
}

/// The circuit of one dependency.
#[derive(Debug, Clone)]
pub struct Circuit {
    state: State,
    /// Calls that failed since the latest answer.
    failures: u32,
    /// Openings and failed probes since a call was answered: what the pause grows with.
    round: u32,
    answered_at: Instant,
    opened_at: Instant,
    /// Whether no call was answered between the opening before and the latest.
    again: bool,
    probe_at: Instant,
    /// Whether a call was answered since the latest probe began.
    answered_since: bool,
    doubted_at: Option<Instant>,
}

impl Circuit {
    /// A closed circuit of a dependency that has just answered.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            round: 0,
            answered_at: now,
            opened_at: now,
            again: false,
            probe_at: now,
            answered_since: false,
            doubted_at: None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether a call may be made.
    ///
    /// # Errors
    /// Where the circuit is not closed.
    pub fn admit(&self, now: Instant) -> Result<(), Refusal> {
        match self.state {
            State::Closed => Ok(()),
            State::HalfOpen | State::Open => Err(Refusal {
                silent: now.saturating_duration_since(self.answered_at),
                retry_in: self.until_probe(now),
            }),
        }
    }

    /// A call was answered, be it with a refusal: the dependency is there.
    pub fn answered(&mut self, now: Instant) -> Option<Change> {
        self.round = 0;
        self.answered_since = true;
        self.is_there(now)
    }

    /// A call failed for want of an answer. `luck` is uniform in `0.0..1.0`.
    pub fn failed(&mut self, now: Instant, luck: f64) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        let enough = self.state == State::Closed && self.failures >= FAILURES_MAX;
        enough.then(|| self.open(now, luck))
    }

    /// Whether a probe should find out, now, if the dependency answers: a call failed, or is silent for long. Says so
    /// once in a while only.
    pub fn doubt(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < DOUBT_EVERY;
        if self.state != State::Closed || self.doubted_at.is_some_and(recently) {
            return false;
        }
        self.doubted_at = Some(now);
        true
    }

    /// Whether nothing was answered for this long.
    #[must_use]
    pub fn is_silent(&self, now: Instant, since: Duration) -> bool {
        now.saturating_duration_since(self.answered_at) >= since
    }

    /// How long until the next probe.
    #[must_use]
    pub fn until_probe(&self, now: Instant) -> Duration {
        match self.state {
            State::Open => self.probe_at.saturating_duration_since(now),
            State::Closed | State::HalfOpen => Duration::ZERO,
        }
    }

    /// A probe begins. There is one at a time.
    pub fn probe_begins(&mut self) {
        self.answered_since = false;
        if self.state == State::Open {
            self.state = State::HalfOpen;
        }
    }

    /// The probe was answered. Calls go through again; that they are answered, too, remains to be seen.
    pub fn probe_answered(&mut self, now: Instant) -> Option<Change> {
        self.is_there(now)
    }

    /// The probe was not answered. That confirms any doubt, unless a call was answered since it began: then it is
    /// the probe that waits for something, and not the dependency that is away.
    pub fn probe_failed(&mut self, now: Instant, luck: f64) -> Option<Change> {
        if self.state == State::Closed {
            return (!self.answered_since).then(|| self.open(now, luck));
        }
        self.state = State::Open;
        self.wait_longer(now, luck);
        None
    }

    fn is_there(&mut self, now: Instant) -> Option<Change> {
        self.failures = 0;
        self.answered_at = now;
        let was_open = self.state != State::Closed;
        self.state = State::Closed;
        was_open.then(|| Change::Closed {
            after: now.saturating_duration_since(self.opened_at),
            again: self.again,
        })
    }

    fn open(&mut self, now: Instant, luck: f64) -> Change {
        self.again = self.round > 0;
        self.state = State::Open;
        self.opened_at = now;
        self.wait_longer(now, luck);
        Change::Opened { again: self.again }
    }

    /// Between half the pause and all of it, so that many processes do not probe together.
    fn wait_longer(&mut self, now: Instant, luck: f64) {
        let pause = PAUSE.saturating_mul(1 << self.round.min(10)).min(PAUSE_MAX);
        self.round = self.round.saturating_add(1);
        self.probe_at = now + pause.mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0);
    }
}

#[cfg(test)]
mod tests;
