use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// When an attempt was last heard of. Attempts that may be silent for as long as they like keep none, which costs nothing.
/// Cheap to clone; all clones are of the same attempt.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Option<Arc<Beat>>);

struct Beat {
    began: Instant,
    /// After `began`, in microseconds.
    last_us: AtomicU64,
}

impl Pulse {
    /// One that is kept from now on.
    pub(crate) fn kept() -> Self {
        Self(Some(Arc::new(Beat {
            began: Instant::now(),
            last_us: AtomicU64::new(0),
        })))
    }

    /// The attempt was heard of.
    pub(crate) fn beat(&self) {
        if let Some(beat) = &self.0 {
            let now = u64::try_from(beat.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            beat.last_us.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Waits until nothing was heard for so long. Never returns where none is kept.
    pub(crate) async fn silent_for(&self, silence: Duration) {
        let Some(beat) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            let last = Duration::from_micros(beat.last_us.load(Ordering::Relaxed));
            let due = beat.began + last + silence;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_word() {
        let (began, pulse) = (Instant::now(), Pulse::kept());
        advance(SECOND).await;
        pulse.clone().beat();
        pulse.silent_for(3 * SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 4);
        pulse.silent_for(3 * SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 4, "it is silent still");
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_while_it_is_waited_for_counts() {
        let (began, pulse) = (Instant::now(), Pulse::kept());
        let speaks = async {
            for _ in 0..5 {
                tokio::time::sleep(2 * SECOND).await;
                pulse.beat();
            }
        };
        tokio::join!(speaks, pulse.silent_for(3 * SECOND));
        assert_eq!(began.elapsed().as_secs(), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn who_need_not_speak_is_never_silent() {
        let pulse = Pulse::default();
        pulse.beat();
        assert!(timeout(1_000 * SECOND, pulse.silent_for(SECOND)).await.is_err());
    }
}
