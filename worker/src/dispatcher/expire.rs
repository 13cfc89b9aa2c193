use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use async_trait::async_trait;

use super::Chore;
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// How many tasks are looked at together.
const BATCH_MAX: usize = 500;
/// How often it is looked for them. What has expired is not started meanwhile: this only says so.
const INTERVAL: Duration = Duration::from_millis(500);

/// Ends what was not started in time.
pub(super) struct Expire {
    shared: Arc<Shared>,
}

impl Expire {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl Chore for Expire {
    fn name(&self) -> &'static str {
        "expire"
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let expired = self.shared.store.expire_due(BATCH_MAX);
        let expired = within(STORE_CALL_MAX, "end what has expired", expired).await;
        let expired = expired.map_err(|error| anyhow!(chain(&error)))?;
        // A full batch: there is more, even if none of these had to be ended.
        let pause = match expired.looked_at < BATCH_MAX {
            true => self.interval(),
            false => Duration::ZERO,
        };
        self.shared.tell(expired.events);
        Ok(pause)
    }
}
