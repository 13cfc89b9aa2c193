use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use async_trait::async_trait;

use super::{Chore, sight::Sight, sink::Sink};
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// How many tasks are made ready together.
const BATCH_MAX: usize = 500;

/// For how long it is not woken after a look: where many tell that something is due, it does not look all the time.
const REST: Duration = Duration::from_millis(2);

/// Makes ready what became due.
pub(super) struct Due {
    shared: Arc<Shared>,
    sight: Arc<Sight>,
}

impl Due {
    pub(super) fn new(shared: Arc<Shared>, sight: Arc<Sight>) -> Self {
        Self { shared, sight }
    }
}

#[async_trait]
impl Chore for Due {
    fn name(&self) -> &'static str {
        "due"
    }

    fn interval(&self) -> Duration {
        self.shared.options.dispatcher.due_interval
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let count = dispatch(&self.shared, &self.sight).await?;
        // A full batch: there is more.
        Ok(if count < BATCH_MAX {
            self.interval()
        } else {
            Duration::ZERO
        })
    }

    /// Somebody has ended who held a place of a limit, and the next may go on at once.
    async fn woken(&self) {
        tokio::time::sleep(REST).await;
        self.shared.due.rung().await;
    }
}

/// Makes ready a batch of what is due at this moment, and says how many tasks these are.
pub(super) async fn dispatch(shared: &Shared, sight: &Sight) -> anyhow::Result<usize> {
    let began = Instant::now();
    let sink = Sink::new(shared);
    let dispatched = shared.store.dispatch_due(BATCH_MAX, &sink);
    let events = match within(STORE_CALL_MAX, "dispatch what is due", dispatched).await {
        Ok(events) => events,
        Err(error) => {
            sight.lost();
            return Err(anyhow!(chain(&error)));
        }
    };
    sight.seen();
    let count = events.len();
    if count > 0 {
        shared.metrics.persisted("dispatch", began.elapsed());
    }
    shared.tell(events);
    if let (_, Some(problem)) = sink.into_notes() {
        bail!("what is due could not be published: {problem}");
    }
    Ok(count)
}
