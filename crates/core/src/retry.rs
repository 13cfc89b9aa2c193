//! When a failed attempt is tried again.

use std::time::Duration;

/// Exponential backoff with full jitter: after the n-th attempt the wait is a random time between zero and
/// `min(cap, base · factorⁿ⁻¹)`. Full jitter spreads a crowd of failures better than a small jitter does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The longest wait after the first attempt.
    pub base: Duration,
    /// By how much the longest wait grows with each attempt; at least 1.
    pub factor: f64,
    /// No wait is longer than this.
    pub cap: Duration,
    /// After this many attempts the task has failed; at least 1.
    pub attempts_max: u32,
}

impl Default for RetryPolicy {
    /// Five attempts over about half a minute at the longest, waits of up to 2 s, 4 s, 8 s and 16 s.
    fn default() -> Self {
        Self {
            base: Duration::from_secs(2),
            factor: 2.0,
            cap: Duration::from_secs(3_600),
            attempts_max: 5,
        }
    }
}

impl RetryPolicy {
    /// The longest wait after attempt number `attempt` (the first is 1).
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(self.cap, |wait| wait.min(self.cap))
    }

    /// The wait after attempt number `attempt`. `random` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        self.ceiling(attempt).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let policy = RetryPolicy {
            cap: Duration::from_secs(10),
            ..RetryPolicy::default()
        };
        let seconds: Vec<u64> = (1..=5).map(|attempt| policy.ceiling(attempt).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 10, 10]);
    }

    proptest! {
        #[test]
        fn never_waits_longer_than_the_cap(attempt: u32, random in 0.0..1.0_f64, factor in 0.0..1e300_f64) {
            let policy = RetryPolicy { factor, ..RetryPolicy::default() };
            prop_assert!(policy.delay(attempt, random) <= policy.cap);
        }
    }
}
