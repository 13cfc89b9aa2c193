use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use forebay_core::Timestamp;
use tokio::time::Instant;

/// Since when this process has seen the store without a break. Workers are only declared dead by a dispatcher that
/// has seen the store for as long as they had to show themselves there: else an outage of the store would look like
/// the death of them all.
#[derive(Debug)]
pub(super) struct Sight {
    /// A longer time without an answer is a break.
    break_after: Duration,
    seen: Mutex<Option<Seen>>,
    /// What the store's clock said last, and when.
    clock: Mutex<Option<(Instant, Timestamp)>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Instant,
    last: Instant,
}

impl Sight {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            break_after: lease / 2,
            seen: Mutex::new(None),
            clock: Mutex::new(None),
        }
    }

    /// The store has answered just now.
    pub(super) fn seen(&self) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = seen
            .filter(|seen| now.duration_since(seen.last) <= self.break_after)
            .map_or(now, |seen| seen.since);
        *seen = Some(Seen { since, last: now });
    }

    /// The store's clock says this. Where it has leapt forward (it was set, another server took over, or this machine
    /// slept), all workers look silent: that is a break, too.
    pub(super) fn clock(&self, says: Timestamp) {
        let now = Instant::now();
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((then, said)) = clock.replace((now, says)) else {
            return;
        };
        // A clock that went back is none that leapt forward.
        let passed = Duration::try_from(says.duration_since(said)).unwrap_or_default();
        if passed.saturating_sub(now.duration_since(then)) > self.break_after {
            self.lost();
        }
    }

    /// The store did not answer.
    pub(super) fn lost(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// For how long it has been seen. A process that was stopped for a while must look again first: the others were
    /// perhaps stopped with it.
    pub(super) fn duration(&self) -> Duration {
        let now = Instant::now();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.filter(|seen| now.duration_since(seen.last) <= self.break_after)
            .map_or(Duration::ZERO, |seen| seen.last.duration_since(seen.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leap_of_the_clock_starts_it_anew() {
        let second = Duration::from_secs(1);
        let sight = Sight::new(10 * second);
        let mut clock = Timestamp::UNIX_EPOCH;
        for (leap, seen) in [(0, 4), (2, 8), (60, 0), (0, 4), (-60, 8)] {
            sight.clock(clock);
            sight.seen();
            tokio::time::advance(4 * second).await;
            clock = Timestamp::from_second(clock.as_second() + 4 + leap).unwrap();
            sight.clock(clock);
            sight.seen();
            assert_eq!(sight.duration(), seen * second, "after a leap of {leap} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_starts_it_anew() {
        let second = Duration::from_secs(1);
        let sight = Sight::new(10 * second);
        for _ in 0..4 {
            sight.seen();
            tokio::time::advance(4 * second).await;
        }
        assert_eq!(sight.duration(), 12 * second);
        tokio::time::advance(2 * second).await;
        assert_eq!(
            sight.duration(),
            Duration::ZERO,
            "the break is seen before its end, too"
        );
        sight.seen();
        assert_eq!(sight.duration(), Duration::ZERO, "six seconds without an answer");
        tokio::time::advance(second).await;
        sight.seen();
        assert_eq!(sight.duration(), second);
        sight.lost();
        sight.seen();
        assert_eq!(sight.duration(), Duration::ZERO);
    }
}
