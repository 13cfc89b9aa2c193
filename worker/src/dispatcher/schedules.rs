use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use async_trait::async_trait;
use forebay_store::Fired;
use tracing::{debug, warn};

use super::{Chore, due, sight::Sight};
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// How many schedules are looked at together, and about how many tasks are submitted.
const BATCH_MAX: usize = 500;

/// Submits what schedules say is due. Between two looks it sleeps no longer than until the next tick, so that a tick is
/// fired within milliseconds; one that was put meanwhile is seen with the next look.
pub(super) struct Schedules {
    shared: Arc<Shared>,
    sight: Arc<Sight>,
}

impl Schedules {
    pub(super) fn new(shared: Arc<Shared>, sight: Arc<Sight>) -> Self {
        Self { shared, sight }
    }

    /// Says what nobody would see otherwise.
    fn note(&self, fired: &Fired) {
        let missed = fired
            .missed
            .iter()
            .map(|(_, missed)| u64::from(missed.count))
            .sum();
        let submitted = u64::try_from(fired.events.len()).unwrap_or(u64::MAX);
        for (outcome, count) in [
            ("fired", submitted),
            ("skipped", fired.skipped),
            ("missed", missed),
        ] {
            if count > 0 {
                self.shared.metrics.schedule_ticks(outcome, count);
            }
        }
        for (schedule, missed) in &fired.missed {
            let (ticks, first) = (missed.count, missed.first);
            warn!(%schedule, ticks, %first, "a schedule has missed ticks: it was too late for them");
        }
        for schedule in &fired.unreadable {
            warn!(
                schedule,
                "a schedule cannot be read here, and is looked at again in a few seconds"
            );
        }
    }
}

#[async_trait]
impl Chore for Schedules {
    fn name(&self) -> &'static str {
        "schedules"
    }

    fn interval(&self) -> Duration {
        self.shared.options.dispatcher.due_interval
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let fired = self.shared.store.fire_schedules(BATCH_MAX, None);
        let fired = within(STORE_CALL_MAX, "fire schedules", fired).await;
        let fired = fired.map_err(|error| anyhow!(chain(&error)))?;
        self.note(&fired);
        if !fired.events.is_empty() {
            self.shared.metrics.persisted("fire", began.elapsed());
            self.shared.tell(fired.events);
            // Rather than with the next look at what is due. Should it fail, that look will say why.
            if let Err(error) = due::dispatch(&self.shared, &self.sight).await {
                debug!(
                    error = format!("{error:#}"),
                    "what was fired is left to the next look at what is due"
                );
            }
        }
        Ok(fired
            .next_in
            .map_or(self.interval(), |next| next.min(self.interval())))
    }
}
