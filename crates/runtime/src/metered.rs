//! Measures a broker.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use forebay_broker::{Broker, Depth, Message, PublishError, Result, Source, Subscription};
use forebay_core::{Lane, Signal};
use futures::stream::BoxStream;

use crate::metrics::Metrics;

/// A broker whose publishes are counted and timed. Everything else goes through as it is.
pub struct Metered {
    inner: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// Puts the measuring in front of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Broker>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl std::fmt::Debug for Metered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metered")
    }
}

#[async_trait]
impl Broker for Metered {
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>> {
        let (messages, began) = (batch.len(), Instant::now());
        let results = self.inner.publish(batch).await;
        self.metrics.published(messages, began.elapsed());
        results
    }

    async fn consume(&self, source: Source) -> Result<Subscription> {
        self.inner.consume(source).await
    }

    async fn depth(&self, lane: &Lane) -> Result<Depth> {
        self.inner.depth(lane).await
    }

    async fn unrecorded(&self) -> Result<u64> {
        self.inner.unrecorded().await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn signals(&self) -> Result<BoxStream<'static, Signal>> {
        self.inner.signals().await
    }

    async fn trim(&self) -> Result<()> {
        self.inner.trim().await
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }
}
