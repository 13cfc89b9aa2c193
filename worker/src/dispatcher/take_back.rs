use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use async_trait::async_trait;
use tracing::warn;

use super::{Chore, sight::Sight};
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// Takes back the tasks of dead workers.
pub(super) struct TakeBack {
    shared: Arc<Shared>,
    sight: Arc<Sight>,
}

impl TakeBack {
    pub(super) fn new(shared: Arc<Shared>, sight: Arc<Sight>) -> Self {
        Self { shared, sight }
    }

    /// Whether the store is to be seen.
    async fn look(&self) -> anyhow::Result<()> {
        match within(STORE_CALL_MAX, "read the time", self.shared.store.now()).await {
            Ok(now) => {
                self.sight.clock(now);
                self.sight.seen();
                Ok(())
            }
            Err(error) => {
                self.sight.lost();
                Err(anyhow!(chain(&error)))
            }
        }
    }
}

#[async_trait]
impl Chore for TakeBack {
    fn name(&self) -> &'static str {
        "take-back"
    }

    fn interval(&self) -> Duration {
        let options = &self.shared.options;
        options.dispatcher.take_back_interval.unwrap_or(options.lease / 4)
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let options = &self.shared.options;
        self.look().await?;
        if self.sight.duration() < options.lease {
            return Ok(self.interval());
        }
        let taken = self.shared.store.take_back(options.lease, options.lost_max);
        match within(STORE_CALL_MAX, "take back tasks", taken).await {
            Ok(events) => {
                self.sight.seen();
                if !events.is_empty() {
                    warn!(
                        tasks = events.len(),
                        "a worker has died, its tasks were taken back"
                    );
                }
                self.shared.taken_back(events);
                Ok(self.interval())
            }
            Err(error) => {
                self.sight.lost();
                Err(anyhow!(chain(&error)))
            }
        }
    }
}
