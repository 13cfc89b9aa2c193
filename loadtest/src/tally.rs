//! What happened, counted by the thread that made it happen, and taken from it at every sample.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// The longest latency that is told apart: an hour, in microseconds.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// How many reasons are told apart.
const REASONS_MAX: usize = 40;

/// A task's id, in 16 bytes.
pub(crate) type Id = [u8; 16];

/// An empty histogram of microseconds, good to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("the bounds are in order")
}

/// What happened since it was last asked.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Handed out to be sent.
    pub(crate) submitted: u64,
    /// Answered with an id.
    pub(crate) accepted: u64,
    /// Answered 429 or 503, or what is the same over gRPC, for the last time.
    pub(crate) refused: u64,
    /// Answered with another error, or never sent for want of a connection: surely not accepted.
    pub(crate) failed: u64,
    /// Sent, and not answered: perhaps accepted.
    pub(crate) unanswered: u64,
    /// Refused, and sent again.
    pub(crate) retried: u64,
    /// How often the bound of unanswered tasks held the generator back.
    pub(crate) held_back: u64,
    /// From the due time to the answer, for what was accepted, and for what was not answered: to when it was given up.
    pub(crate) latency: Histogram<u64>,
    /// From the due time to when the generator handed the task out.
    pub(crate) lag: Histogram<u64>,
    /// From the due time to when a connection took the task.
    pub(crate) queued: Histogram<u64>,
    /// Why tasks were refused, failed or not answered.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Those accepted.
    pub(crate) ids: Vec<Id>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            submitted: 0,
            accepted: 0,
            refused: 0,
            failed: 0,
            unanswered: 0,
            retried: 0,
            held_back: 0,
            latency: histogram(),
            lag: histogram(),
            queued: histogram(),
            reasons: BTreeMap::new(),
            ids: Vec::new(),
        }
    }
}

impl Counts {
    /// Adds what others counted; the ids are left with them.
    pub(crate) fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.unanswered += other.unanswered;
        self.retried += other.retried;
        self.held_back += other.held_back;
        // All have the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.lag.add(&other.lag);
        let _ = self.queued.add(&other.queued);
        for (reason, count) in &other.reasons {
            self.because(reason, *count);
        }
    }

    fn because(&mut self, reason: &str, count: u64) {
        let known = self.reasons.contains_key(reason) || self.reasons.len() < REASONS_MAX;
        let reason = if known { reason } else { "other reasons" };
        *self.reasons.entry(reason.to_owned()).or_default() += count;
    }
}

/// What became of one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has this id.
    Accepted(Id),
    /// Not now; perhaps after this time.
    Refused { why: String, after: Option<Duration> },
    /// Surely not accepted.
    Failed(String),
    /// Perhaps accepted.
    Unanswered(String),
}

/// The counts of one thread.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task was handed out, so long after it was due.
    pub(crate) fn released(&self, lag: Duration) {
        let mut counts = self.counts();
        counts.submitted += 1;
        counts.lag.saturating_record(micros(lag));
    }

    /// A connection took tasks that were due at these times.
    pub(crate) fn taken(&self, due: impl Iterator<Item = Instant>) {
        let now = Instant::now();
        let mut counts = self.counts();
        for due in due {
            counts
                .queued
                .saturating_record(micros(now.saturating_duration_since(due)));
        }
    }

    /// There was no room for a task that was due.
    pub(crate) fn held_back(&self) {
        self.counts().held_back += 1;
    }

    /// So many tasks will never be settled.
    pub(crate) fn given_up(&self, count: u64) {
        if count > 0 {
            let mut counts = self.counts();
            counts.unanswered += count;
            counts.because("given up at the end of the run", count);
        }
    }

    /// A task was refused and will be sent again.
    pub(crate) fn retried(&self) {
        self.counts().retried += 1;
    }

    /// A task got its last answer, so long after it was due.
    pub(crate) fn settled(&self, answer: Answer, latency: Duration) {
        let mut counts = self.counts();
        match answer {
            Answer::Accepted(id) => {
                counts.accepted += 1;
                counts.ids.push(id);
                counts.latency.saturating_record(micros(latency));
            }
            Answer::Refused { why, .. } => {
                counts.refused += 1;
                counts.because(&why, 1);
            }
            Answer::Failed(why) => {
                counts.failed += 1;
                counts.because(&why, 1);
            }
            Answer::Unanswered(why) => {
                counts.unanswered += 1;
                counts.latency.saturating_record(micros(latency));
                counts.because(&why, 1);
            }
        }
    }

    /// Takes what was counted since the last time.
    pub(crate) fn take(&self) -> Counts {
        // Made before the lock is held.
        let fresh = Counts::default();
        std::mem::replace(&mut *self.counts(), fresh)
    }
}

/// Whole microseconds, rounded up to one: a histogram has no zero.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_answer_once_and_starts_anew_when_taken() {
        let tally = Tally::default();
        let millisecond = Duration::from_millis(1);
        tally.settled(Answer::Accepted([1; 16]), millisecond);
        let refused = Answer::Refused {
            why: "503".into(),
            after: None,
        };
        tally.settled(refused, millisecond);
        tally.settled(Answer::Failed("400".into()), millisecond);
        tally.settled(Answer::Unanswered("timeout".into()), Duration::from_secs(30));
        let counts = tally.take();
        let each = (counts.accepted, counts.refused, counts.failed, counts.unanswered);
        assert_eq!(each, (1, 1, 1, 1));
        assert_eq!(counts.ids, [[1; 16]]);
        assert_eq!(counts.latency.len(), 2, "not of those who were refused");
        assert!(
            counts.latency.max() >= 30_000_000,
            "what was not answered counts as long as it was waited for"
        );
        assert_eq!(tally.take().accepted, 0);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut counts = Counts::default();
        for number in 0..1_000 {
            counts.because(&format!("reason {number}"), 1);
        }
        assert_eq!(counts.reasons.len(), REASONS_MAX + 1);
        assert_eq!(counts.reasons.values().sum::<u64>(), 1_000);
    }
}
