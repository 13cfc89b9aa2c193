//! Ends the process in good order at the first signal, and at once at the second.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What a shell reports of a process that SIGINT or SIGTERM ended.
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

/// Cancels `stop` at the first SIGTERM or SIGINT; a second one exits at once, whatever is unfinished. What was
/// accepted is durable either way.
///
/// # Errors
/// Where the system refuses signal handlers.
pub fn on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
    };
    tokio::spawn(async move {
        signals.next().await;
        info!("told to stop: finishing what runs; a second signal stops at once");
        stop.cancel();
        let code = signals.next().await;
        warn!("told to stop again: stopping at once");
        std::process::exit(code);
    });
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Waits for one, and returns the exit code that goes with it.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => EXIT_INTERRUPTED,
            _ = self.terminate.recv() => EXIT_TERMINATED,
        }
    }
}
