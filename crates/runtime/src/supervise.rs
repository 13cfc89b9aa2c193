//! Long-running parts of a process: each has an owner, a name, and is started again when it fails.

use std::{future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};

/// The longest wait before something is started again. Attempts are cheap: circuits refuse them at once while what
/// they need is away, so that a short wait only means that its return is soon noticed.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(2);
/// What has run for so long works: longer than any attempt waits for an answer.
const WORKS_AFTER: Duration = Duration::from_secs(15);

/// Runs `start` again and again until it returns `Ok` or `stop` is cancelled: for loops that depend on something
/// that may go away. Waits with backoff and jitter in between. The first failure of a row is a warning, and the others
/// are for those who debug; a run of fifteen seconds ends the row, and resets the backoff.
pub async fn keep_running<F, Fut>(name: &'static str, stop: &CancellationToken, mut start: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut backoff = Backoff::default();
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let mut run = std::pin::pin!(start());
        let ended = match tokio::time::timeout(WORKS_AFTER, &mut run).await {
            Ok(ended) => ended,
            Err(_) => {
                if failures > 0 {
                    info!(component = name, failures, "works again");
                }
                (failures, backoff) = (0, Backoff::default());
                run.await
            }
        };
        let Err(problem) = ended else { return };
        let error = format!("{problem:#}");
        match failures {
            0 => warn!(component = name, error, "failed, and is started again"),
            _ => debug!(component = name, error, "failed again"),
        }
        failures = failures.saturating_add(1);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

/// Spawns a part of the process under a name. Its panic is logged, and stops the process in good order: a
/// process that goes on without one of its parts is worse than one that is started anew.
pub fn spawn<F>(
    tracker: &tokio_util::task::TaskTracker,
    stop: &CancellationToken,
    name: &'static str,
    part: F,
) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = stop.clone();
    let guarded = async move {
        let inner = tokio::spawn(part.instrument(tracing::info_span!("part", part = name)));
        match inner.await {
            Ok(()) => info!(part = name, "ended"),
            Err(panic) => {
                error!(part = name, error = %panic, "panicked, the process stops");
                stop.cancel();
            }
        }
    };
    tracker.spawn(guarded)
}

/// Exponential backoff with full jitter: up to 100 ms first, up to 2 s in the end.
#[derive(Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// How long to wait now.
    // Not an iterator: it never ends and is used as a counter.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Duration {
        self.attempt = self.attempt.saturating_add(1);
        let policy = forebay_core::RetryPolicy {
            base: Duration::from_millis(100),
            cap: RESTART_WAIT_MAX,
            ..forebay_core::RetryPolicy::default()
        };
        policy.ceiling(self.attempt).mul_f64(0.5) + policy.delay(self.attempt, random_unit()).mul_f64(0.5)
    }
}

/// Ten random bytes, as ids want them.
#[must_use]
pub fn random_bytes() -> [u8; 10] {
    rand::random()
}

/// Bytes that nobody can guess, as secrets want them.
#[must_use]
pub fn secret_bytes() -> [u8; 32] {
    rand::random()
}

/// A random number, uniform in `0.0..1.0`.
#[must_use]
pub fn random_unit() -> f64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::{
        Layer,
        layer::{Context, SubscriberExt},
    };

    use super::*;

    /// The levels of what is logged.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_a_warning_once_and_its_end_is_told() {
        let levels = Levels::default();
        let subscriber = tracing_subscriber::registry().with(levels.clone());
        let _logging = tracing::subscriber::set_default(subscriber);
        let stop = CancellationToken::new();
        let mut runs = [0, 3, 0, 40, 0].into_iter();
        keep_running("test", &stop, || {
            let run = runs.next();
            async move {
                match run {
                    None => Ok(()),
                    Some(seconds) => {
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                        anyhow::bail!("the test goes on")
                    }
                }
            }
        })
        .await;
        let (warn, info, debug) = (Level::WARN, Level::INFO, Level::DEBUG);
        let told = levels.0.lock().unwrap().clone();
        assert_eq!(told, [warn, debug, debug, info, warn, debug]);
    }
}
