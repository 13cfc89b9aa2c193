//! Telling dispatchers that something has become due before they would look: a place of a limit was given back, say, and who
//! waited for it may go on.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_runtime::supervise::random_unit;
use futures::FutureExt;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long after other processes were told they are not told again, by whichever process: what is rung meanwhile is told then,
/// once. After what another has told, it is up to twice as long, so that of many who wait for that the first tells for all.
const QUIET: Duration = Duration::from_millis(5);

/// Rung where something has become due. Missing it costs a task no more than the time until the next look.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    has_dispatcher: AtomicBool,
    here: Notify,
    elsewhere: Notify,
    quiet: Mutex<Quiet>,
}

#[derive(Debug, Default)]
struct Quiet {
    until: Option<Instant>,
    /// Whether what this process has told is still to come back to it.
    has_echo: bool,
}

impl Bell {
    /// This process has a dispatcher. As any of them does for all, nobody else is told any more.
    pub(crate) fn attend(&self) {
        self.has_dispatcher.store(true, Ordering::Relaxed);
    }

    /// It has none any more.
    pub(crate) fn leave(&self) {
        self.has_dispatcher.store(false, Ordering::Relaxed);
        // Perhaps it was rung, and has not looked.
        self.elsewhere.notify_one();
    }

    /// Something has become due.
    pub(crate) fn ring(&self) {
        match self.has_dispatcher.load(Ordering::Relaxed) {
            true => self.here.notify_one(),
            false => self.elsewhere.notify_one(),
        }
    }

    /// Another process has rung.
    pub(crate) fn heard(&self) {
        self.here.notify_one();
        let mut quiet = self.quiet();
        if !mem::take(&mut quiet.has_echo) {
            quiet.until = Some(Instant::now() + QUIET.mul_f64(1.0 + random_unit()));
        }
    }

    /// Waits until the dispatcher of this process is to look.
    pub(crate) async fn rung(&self) {
        self.here.notified().await;
    }

    /// Waits until other processes are to be told. Safe to be dropped: nothing is missed by it.
    pub(crate) async fn rung_for_others(&self) {
        loop {
            self.elsewhere.notified().await;
            let Some(until) = self.tell() else {
                return;
            };
            self.elsewhere.notify_one();
            sleep_until(until).await;
        }
    }

    /// Whether other processes are to be told before this one ends.
    pub(crate) fn was_rung_for_others(&self) -> bool {
        self.elsewhere.notified().now_or_never().is_some()
    }

    /// Until when they are not to be told. If they are, it has begun to be quiet.
    fn tell(&self) -> Option<Instant> {
        let mut quiet = self.quiet();
        let now = Instant::now();
        if let Some(until) = quiet.until.filter(|until| *until > now) {
            return Some(until);
        }
        *quiet = Quiet {
            until: Some(now + QUIET),
            has_echo: true,
        };
        None
    }

    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_at_once_and_then_now_and_then() {
        let bell = Bell::default();
        let mut told = Vec::new();
        for millisecond in 0..100 {
            bell.ring();
            bell.ring();
            if bell.rung_for_others().now_or_never().is_some() {
                told.push(millisecond);
            }
            advance(Duration::from_millis(1)).await;
        }
        let expected: Vec<u32> = (0..100).step_by(5).collect();
        assert_eq!(told, expected);
        advance(QUIET).await;
        assert!(
            bell.rung_for_others().now_or_never().is_some(),
            "the last of it, too"
        );
        advance(QUIET).await;
        assert!(bell.rung_for_others().now_or_never().is_none(), "that was all");
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_are_rung_few_tell() {
        let bells: Vec<Bell> = (0..50).map(|_| Bell::default()).collect();
        let (mut told, mut last) = (0, Vec::new());
        for _ in 0..1_000 {
            last = Vec::new();
            for (at, bell) in bells.iter().enumerate() {
                bell.ring();
                if bell.rung_for_others().now_or_never().is_some() {
                    last.push(at);
                }
            }
            told += last.len();
            // All hear what was told, those who told it as well, before the next moment.
            for _ in &last {
                bells.iter().for_each(Bell::heard);
            }
            advance(Duration::from_micros(100)).await;
        }
        assert!((20..200).contains(&told), "{told} in a tenth of a second");
        let waiting = (0..bells.len()).find(|at| !last.contains(at)).unwrap();
        advance(2 * QUIET).await;
        assert!(
            bells[waiting].rung_for_others().now_or_never().is_some(),
            "what was rung last is told, too"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_dispatcher_tells_nobody_else() {
        let bell = Bell::default();
        bell.attend();
        bell.ring();
        assert!(bell.rung_for_others().now_or_never().is_none());
        assert!(bell.rung().now_or_never().is_some());
        bell.heard();
        assert!(bell.rung().now_or_never().is_some(), "others are heard as well");
        bell.leave();
        advance(2 * QUIET).await;
        assert!(
            bell.rung_for_others().now_or_never().is_some(),
            "perhaps it had not looked"
        );
    }
}
