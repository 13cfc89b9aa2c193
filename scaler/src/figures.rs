//! What the scaler must know of the queues, and the observer that knows it.

use std::{fmt, pin::Pin};

use async_trait::async_trait;
use forebay_autoscale::Observer;
use forebay_core::QueueName;
use futures::{Stream, stream};

/// What a queue has for workers to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Waits for a worker, and nothing but a worker.
    pub ready: u64,
    /// Is running.
    pub running: u64,
    /// How many workers it wants.
    pub desired_workers: u64,
}

impl Demand {
    /// What workers are needed for: those that run must not lose theirs.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.ready.saturating_add(self.running)
    }

    /// That of two queues together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            ready: self.ready.saturating_add(other.ready),
            running: self.running.saturating_add(other.running),
            desired_workers: self.desired_workers.saturating_add(other.desired_workers),
        }
    }
}

/// The demand is not known, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The queues that had nothing to do and now have something, as it is found out. May end, and may lack some.
pub type Wakes = Pin<Box<dyn Stream<Item = QueueName> + Send>>;

/// Who knows the queues.
#[async_trait]
pub trait Figures: Send + Sync + 'static {
    /// What a queue wants: as fresh as the observer has it, and not older than its latest wake.
    async fn demand(&self, queue: &QueueName) -> Result<Demand, Unknown>;

    /// The wakes from now on.
    fn wakes(&self) -> Wakes;
}

#[async_trait]
impl Figures for Observer {
    async fn demand(&self, queue: &QueueName) -> Result<Demand, Unknown> {
        let sample = self.sample(queue).await;
        let sample = sample.map_err(|unknown| Unknown(unknown.to_string()))?;
        Ok(Demand {
            ready: sample.ready,
            running: sample.running,
            desired_workers: sample.desired_workers,
        })
    }

    fn wakes(&self) -> Wakes {
        let wakes = Observer::wakes(self);
        Box::pin(stream::unfold(wakes, |mut wakes| async move {
            let queue = wakes.next().await;
            Some((queue, wakes))
        }))
    }
}
