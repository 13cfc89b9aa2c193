//! Housekeeping: makes the broker forget what nobody needs, and the store make room for the days to come.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use async_trait::async_trait;

use super::Chore;
use crate::shared::{Shared, chain};

/// How long trimming may take.
const TRIM_MAX: Duration = Duration::from_secs(30);

/// Has the broker forget what nobody needs.
pub(super) struct Trim {
    shared: Arc<Shared>,
}

impl Trim {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl Chore for Trim {
    fn name(&self) -> &'static str {
        "trim"
    }

    fn interval(&self) -> Duration {
        self.shared.options.dispatcher.trim_interval
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        tokio::time::timeout(TRIM_MAX, self.shared.broker.trim())
            .await
            .context("the broker does not answer")?
            .map_err(|error| anyhow!(chain(&error)))?;
        Ok(self.interval())
    }
}

/// Has the store make room for the days to come, and drop the days gone by.
pub(super) struct Maintain {
    shared: Arc<Shared>,
}

impl Maintain {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl Chore for Maintain {
    fn name(&self) -> &'static str {
        "maintain"
    }

    fn interval(&self) -> Duration {
        self.shared.options.dispatcher.maintain_interval
    }

    /// Not bounded in time: dropping a day may wait for those who read it, and nothing waits for this.
    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let maintained = self.shared.store.maintain(self.shared.options.retention).await;
        maintained.map_err(|error| anyhow!(chain(&error)))?;
        Ok(self.interval())
    }
}
