use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A handler that ends in less than this, without waiting for anything, was quick.
const QUICK: Duration = Duration::from_micros(200);
/// So many attempts in a row make a kind quick.
const PROVEN: u32 = 32;

/// Whether the attempts of a kind end as soon as they are begun. Those of a quick kind are begun one after the other on
/// one task. All others have a task of their own, so that they can't keep each other, nor us from watching them.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    quick_in_a_row: AtomicU32,
}

impl Pace {
    /// Whether the latest attempts were all quick.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick_in_a_row.load(Ordering::Relaxed) >= PROVEN
    }

    /// An attempt ran for so long until it ended or waited for the first time.
    pub(crate) fn note(&self, ended: bool, ran: Duration) {
        if !ended || ran >= QUICK {
            self.quick_in_a_row.store(0, Ordering::Relaxed);
        } else if !self.is_quick() {
            self.quick_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_is_who_was_quick_for_a_while() {
        let pace = Pace::default();
        let quick = || pace.note(true, Duration::from_micros(5));
        for slow in [(true, QUICK), (false, Duration::ZERO)] {
            for _ in 0..PROVEN {
                assert!(!pace.is_quick());
                quick();
            }
            assert!(pace.is_quick());
            pace.note(slow.0, slow.1);
            assert!(!pace.is_quick(), "{slow:?}");
        }
    }
}
