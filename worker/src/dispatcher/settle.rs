use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use async_trait::async_trait;
use forebay_core::{Signal, State};
use forebay_store::Settled;
use tracing::{debug, warn};

use super::{Chore, due, sight::Sight};
use crate::shared::{BROKER_CALL_MAX, STORE_CALL_MAX, Shared, chain, within};

/// How many ends are seen to together, at most. Fewer while that fails, down to one: it may have been too much at once, and one
/// that fails by itself is not to hold up the others.
const BATCH_MAX: usize = 500;
/// Between two looks: after one that found something, and at most. A chain is a task after the other, so that what follows
/// from an end is mostly another one, soon.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Sees to what follows from the ends of tasks that somebody waits for.
pub(super) struct Settle {
    shared: Arc<Shared>,
    sight: Arc<Sight>,
    pause: Duration,
    limit: usize,
    /// How many ends were given up since this process began.
    given_up: u64,
    is_failing: bool,
}

impl Settle {
    pub(super) fn new(shared: Arc<Shared>, sight: Arc<Sight>) -> Self {
        Self {
            shared,
            sight,
            pause: PAUSE_MAX,
            limit: BATCH_MAX,
            given_up: 0,
            is_failing: false,
        }
    }

    /// How many ends are seen to together next.
    fn adapt(&mut self, has_failed: bool) {
        self.limit = match has_failed {
            true => (self.limit / 2).max(1),
            false => (self.limit * 2).min(BATCH_MAX),
        };
    }

    /// Tells of what could not be done.
    fn complain(&mut self, settled: &Settled) {
        for each in &settled.given_up {
            self.given_up += 1;
            warn!(
                task = %each.task,
                error = each.why,
                given_up = self.given_up,
                "what follows from the end of a task could not be done, and is given up"
            );
        }
        if let Some(error) = settled.failed.first() {
            let limit = self.limit;
            // The first of a row is for a person to see.
            match self.is_failing {
                false => warn!(
                    error,
                    limit, "a part of what follows from ends has failed, and is tried again"
                ),
                true => debug!(error, limit, "a part of what follows from ends has failed again"),
            }
        }
        self.is_failing = !settled.failed.is_empty();
    }

    /// Tells of what was done. What is due now is made ready rather than left to the next look at what is due.
    async fn tell(&self, settled: Settled) {
        let released = settled.events.iter().any(|event| event.state == State::Scheduled);
        self.shared.tell(settled.events);
        if !settled.cancel.is_empty() {
            // Best effort: their workers hear of it with the next heartbeat in any case.
            let signal = self.shared.broker.signal(Signal::Cancel(settled.cancel));
            if !matches!(tokio::time::timeout(BROKER_CALL_MAX, signal).await, Ok(Ok(()))) {
                debug!("workers were not told at once of cancellations");
            }
        }
        if released && let Err(error) = due::dispatch(&self.shared, &self.sight).await {
            debug!(
                error = format!("{error:#}"),
                "what was released is left to the next look at what is due"
            );
        }
    }
}

#[async_trait]
impl Chore for Settle {
    fn name(&self) -> &'static str {
        "settle"
    }

    fn interval(&self) -> Duration {
        PAUSE_MAX
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let settled = self.shared.store.settle(self.limit);
        let settled = within(STORE_CALL_MAX, "see to the ends of tasks", settled).await;
        self.adapt(settled.as_ref().map_or(true, |settled| settled.ends_failed));
        let settled = settled.map_err(|error| anyhow!(chain(&error)))?;
        self.complain(&settled);
        let (more, found) = (settled.more, settled.seen > 0 || !settled.events.is_empty());
        if found {
            self.shared.metrics.persisted("settle", began.elapsed());
        }
        self.tell(settled).await;
        self.pause = match found {
            true => PAUSE,
            false => (self.pause * 2).min(PAUSE_MAX),
        };
        Ok(if more { Duration::ZERO } else { self.pause })
    }
}
