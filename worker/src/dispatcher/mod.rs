//! The dispatcher: submits what schedules say, makes ready what became due, takes back what dead workers held, publishes
//! again what the broker has lost, and keeps house. Any number of dispatchers may run at once.
//!
//! Each of these is a [`Chore`] with a loop of its own. An error never ends a loop: it is reported, and tried again
//! after a while.

mod due;
mod house;
mod republish;
mod schedules;
mod sight;
mod sink;
mod take_back;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_runtime::{health::Reporter, supervise::Backoff};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::sight::Sight;
use crate::shared::Shared;

/// One thing that is done again and again.
#[async_trait]
trait Chore: Send {
    /// What it is called in logs and in health.
    fn name(&self) -> &'static str;

    /// The longest time between two passes when all is well.
    fn interval(&self) -> Duration;

    /// Does it once; says after how long it wants to be done again.
    async fn pass(&mut self) -> anyhow::Result<Duration>;
}

/// A chore, and where its loop reports.
struct Loop {
    chore: Box<dyn Chore>,
    reporter: Reporter,
}

pub(crate) struct Dispatcher {
    loops: Vec<Loop>,
}

impl Dispatcher {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let sight = Arc::new(Sight::new(shared.options.lease));
        let chores: [Box<dyn Chore>; 6] = [
            Box::new(due::Due::new(Arc::clone(shared), Arc::clone(&sight))),
            Box::new(schedules::Schedules::new(Arc::clone(shared), Arc::clone(&sight))),
            Box::new(take_back::TakeBack::new(Arc::clone(shared), sight)),
            Box::new(republish::Republish::new(Arc::clone(shared))),
            Box::new(house::Trim::new(Arc::clone(shared))),
            Box::new(house::Maintain::new(Arc::clone(shared))),
        ];
        let begin = |chore: Box<dyn Chore>| {
            let ttl = shared.options.intake.health_ttl + 3 * chore.interval();
            let reporter = shared
                .health
                .component(&format!("dispatcher {}", chore.name()), ttl);
            Loop { chore, reporter }
        };
        Self {
            loops: chores.into_iter().map(begin).collect(),
        }
    }

    /// Dispatches until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        join_all(self.loops.into_iter().map(|each| each.run(&stop))).await;
        Ok(())
    }
}

impl Loop {
    async fn run(self, stop: &CancellationToken) {
        let Self { mut chore, reporter } = self;
        let name = chore.name();
        let mut backoff = Backoff::default();
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            let passed = tokio::select! {
                passed = chore.pass() => passed,
                () = stop.cancelled() => break,
            };
            let wait = match passed {
                Ok(wait) => {
                    reporter.ok();
                    backoff = Backoff::default();
                    failures = 0;
                    wait
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    reporter.failing(&error);
                    // The first of a row is for a person to see.
                    match failures {
                        0 => warn!(chore = name, error, "failed, and is tried again"),
                        _ => debug!(chore = name, error, "failed again"),
                    }
                    failures = failures.saturating_add(1);
                    backoff.next()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
        reporter.retire();
    }
}
