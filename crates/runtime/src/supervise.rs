//! Long-running parts of a process: each has an owner, a name, and is started again when it fails.

use std::{future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

/// The longest wait before something is started again. Attempts are cheap: circuits refuse them at once while what
/// they need is away, so that a short wait only means that its return is soon noticed.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(2);

/// Runs `start` again and again until it returns `Ok` or `stop` is cancelled: for loops that depend on something
/// that may go away. Waits with backoff and jitter in between; a run of over a minute resets the backoff.
pub async fn keep_running<F, Fut>(name: &'static str, stop: &CancellationToken, mut start: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        match start().await {
            Ok(()) => return,
            Err(problem) => warn!(
                component = name,
                error = format!("{problem:#}"),
                "failed, and is started again"
            ),
        }
        if began.elapsed() > Duration::from_secs(60) {
            backoff = Backoff::default();
        }
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
        let inner = tokio::spawn(part.instrument(tracing::info_span!("part", name)));
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

/// A random number, uniform in `0.0..1.0`.
#[must_use]
pub fn random_unit() -> f64 {
    rand::random()
}
