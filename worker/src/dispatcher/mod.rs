//! The dispatcher: submits what schedules say, makes ready what became due, takes back what dead workers held, publishes
//! again what the broker has lost, and keeps house. Any number of dispatchers may run at once.
//!
//! Each of these is a [`Chore`] with a loop of its own. An error never ends a loop: it is reported, and tried again
//! after a while.

mod due;
mod expire;
mod house;
mod limits;
mod operations;
mod republish;
mod schedules;
mod settle;
mod sight;
mod sink;
mod take_back;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_core::Signal;
use forebay_runtime::{health::Reporter, supervise::Backoff};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::sight::Sight;
use crate::{executor::hear, shared::Shared};

/// One thing that is done again and again.
#[async_trait]
trait Chore: Send + Sync {
    /// What it is called in logs and in health.
    fn name(&self) -> &'static str;

    /// The longest time between two passes when all is well.
    fn interval(&self) -> Duration;

    /// Does it once; says after how long it wants to be done again.
    async fn pass(&mut self) -> anyhow::Result<Duration>;

    /// Waits until there is something to be done before that time, as far as this process knows.
    async fn woken(&self) {
        std::future::pending::<()>().await;
    }
}

/// A chore, and where its loop reports.
struct Loop {
    chore: Box<dyn Chore>,
    reporter: Reporter,
}

pub(crate) struct Dispatcher {
    loops: Vec<Loop>,
    shared: Arc<Shared>,
}

impl Dispatcher {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let sight = Arc::new(Sight::new(shared.options.lease));
        let chores: [Box<dyn Chore>; 10] = [
            Box::new(due::Due::new(Arc::clone(shared), Arc::clone(&sight))),
            Box::new(schedules::Schedules::new(Arc::clone(shared), Arc::clone(&sight))),
            Box::new(settle::Settle::new(Arc::clone(shared), Arc::clone(&sight))),
            Box::new(take_back::TakeBack::new(Arc::clone(shared), sight)),
            Box::new(republish::Republish::new(Arc::clone(shared))),
            Box::new(operations::Operations::new(Arc::clone(shared))),
            Box::new(expire::Expire::new(Arc::clone(shared))),
            Box::new(limits::Limits::new(Arc::clone(shared))),
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
            shared: Arc::clone(shared),
        }
    }

    /// Dispatches until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { loops, shared } = self;
        shared.due.attend();
        tokio::join!(
            join_all(loops.into_iter().map(|each| each.run(&stop))),
            stop.run_until_cancelled(listen(&shared))
        );
        shared.due.leave();
        Ok(())
    }
}

/// Looks as soon as another process says that something is due. Where there is an executor, that listens already.
async fn listen(shared: &Shared) {
    if shared.options.roles.executor {
        return;
    }
    let heed = |signal| {
        if signal == Signal::Due {
            shared.due.heard();
        }
    };
    hear(&*shared.broker, heed).await;
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
                // What fails is not to be tried more often where somebody rings.
                () = chore.woken(), if failures == 0 => {}
                () = stop.cancelled() => {}
            }
        }
        reporter.retire();
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use forebay_runtime::health::Health;
    use tokio::time::Instant;

    use super::*;

    /// Is always woken, and fails until it has been tried for the fifth time.
    struct Failing {
        passes: Vec<Instant>,
        stop: CancellationToken,
    }

    #[async_trait]
    impl Chore for Failing {
        fn name(&self) -> &'static str {
            "failing"
        }

        fn interval(&self) -> Duration {
            Duration::from_secs(3_600)
        }

        async fn pass(&mut self) -> anyhow::Result<Duration> {
            self.passes.push(Instant::now());
            match self.passes.len() {
                ..5 => bail!("not yet"),
                5..9 => Ok(self.interval()),
                _ => {
                    self.stop.cancel();
                    let waits: Vec<bool> = self.passes.windows(2).map(|at| at[1] > at[0]).collect();
                    assert_eq!(waits, [true, true, true, true, false, false, false, false]);
                    Ok(self.interval())
                }
            }
        }

        async fn woken(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_not_woken() {
        let stop = CancellationToken::new();
        let failing = Loop {
            chore: Box::new(Failing {
                passes: Vec::new(),
                stop: stop.clone(),
            }),
            reporter: Health::default().component("failing", Duration::MAX),
        };
        failing.run(&stop).await;
        assert!(stop.is_cancelled());
    }
}
