//! Sending at appointed times, more exactly than a runtime's timer does it.

use std::time::{Duration, Instant};

use super::http::{micros, unix_micros};

/// Up to here, being late is the timer's fault and nobody's wait.
const SLACK: Duration = Duration::from_millis(2);

/// Calls `send` `count` times, `rate` a second, each time with the microsecond (since 1970) from which its wait counts:
/// the time it was due, unless it is only a little late. Ends early where `send` says so.
#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own; a runtime's timer is a millisecond late"
)]
pub(crate) fn ticks(rate: u32, count: u32, mut send: impl FnMut(u64) -> bool) {
    let began = Instant::now() + Duration::from_millis(20);
    for number in 0..count {
        let due = began + Duration::from_secs(1) * number / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed();
        let counts_from = unix_micros() - if late > SLACK { micros(late) } else { 0 };
        if !send(counts_from) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_sender_does_not_hide_its_delay() {
        let mut waits = Vec::new();
        let before = unix_micros();
        ticks(100, 4, |counts_from| {
            waits.push(counts_from - before);
            if waits.len() == 1 {
                let since = Instant::now();
                while since.elapsed() < Duration::from_millis(60) {}
            }
            true
        });
        assert_eq!(waits.len(), 4);
        // The second was due 10 ms after the first, and counts from there, though it was sent 60 ms after it.
        assert!(waits[1] - waits[0] < 30_000, "{waits:?}");
    }
}
