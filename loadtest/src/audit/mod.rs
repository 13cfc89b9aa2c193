//! Looks up what became of every accepted task, and waits until all are final: over the public API, or in the database.

mod api;
mod database;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{ledger::Ledger, live::Live, server::Server};

/// Between two looks at what is not final.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the count of waiting tasks may stand still before the tasks themselves are looked at.
const STILL: Duration = Duration::from_secs(5);

/// By what tasks are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Check {
    /// By listing them over HTTP
    Api,
    /// By one query to the database, which also knows how often each task was started
    Database,
}

/// What the audit needs to know of the run.
pub(crate) struct Scope<'a> {
    /// The server.
    pub(crate) server: &'a Server,
    /// The queue.
    pub(crate) queue: &'a str,
    /// The tag of the run's tasks.
    pub(crate) tag: Option<&'a str>,
    /// The database.
    pub(crate) database_url: Option<&'a str>,
    /// How to look tasks up.
    pub(crate) check: Check,
}

/// Waits until all tasks are final, or `end` has come, or `stop` says to wait no longer. In any case every task is
/// looked at once.
pub(crate) async fn audit(
    scope: &Scope<'_>,
    ledger: &mut Ledger,
    end: Instant,
    (live, stop): (&Live, &CancellationToken),
) -> Result<()> {
    live.phase("waiting for the workers", ledger.ids().len() as u64);
    wait_for_queue(scope, ledger.ids().len() as u64, end, (live, stop)).await;
    live.phase("looking at every task", ledger.ids().len() as u64);
    loop {
        let passed = match scope.check {
            Check::Api => api::pass(scope, ledger, live).await,
            Check::Database => database::pass(scope, ledger, live).await,
        };
        if Instant::now() >= end || stop.is_cancelled() {
            return passed;
        }
        match passed {
            Ok(()) if ledger.open() == 0 => return Ok(()),
            Ok(()) => {}
            // It may be back before the time is up.
            Err(error) => live.note(&format!("{error:#}")),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Cheap, and only a hint: other tasks may be in the queue, too.
async fn wait_for_queue(
    scope: &Scope<'_>,
    accepted: u64,
    end: Instant,
    (live, stop): (&Live, &CancellationToken),
) {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    while Instant::now() < end && !stop.is_cancelled() && since.elapsed() < STILL {
        if let Some(depth) = scope.server.depth(scope.queue).await {
            let left = depth.sum();
            live.progress(accepted.saturating_sub(left));
            if left == 0 {
                return;
            }
            if left < least {
                (least, since) = (left, Instant::now());
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
