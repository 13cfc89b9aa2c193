//! How long the first of what is ready in a queue has been so.

use std::{collections::BTreeMap, time::Duration};

use forebay_core::{QueueName, Timestamp};
use forebay_store::{Read, ReadyWalk};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::QueueFigures;

/// How far a walk begins before the time after which everything that waits was published: so late a recorder may be.
const LAG_MAX: Duration = Duration::from_secs(30);
/// How long all walks of a count may take together. Queues that were not come to are the first of the next count.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// So often in a row a walk may come to its end without what waits: then it began too late, and begins anew.
const MISSES_MAX: u32 = 10;

/// How far each queue has been walked.
#[derive(Debug, Default)]
pub(crate) struct Oldest {
    walks: BTreeMap<QueueName, Walk>,
    /// Where the next count begins.
    next: Option<QueueName>,
}

#[derive(Debug, Default)]
struct Walk {
    walk: ReadyWalk,
    misses: u32,
}

impl Oldest {
    /// Fills in the ages of queues in which something is ready, as far as there is time. `now` is when it was counted that
    /// nothing waits in the others.
    pub(crate) async fn look(
        &mut self,
        store: &dyn Read,
        queues: &mut [QueueFigures],
        now: Timestamp,
        patience: Duration,
    ) {
        for queue in queues
            .iter()
            .filter(|queue| queue.gated.is_some() && queue.waiting() == Some(0))
        {
            let walk = self.walks.entry(queue.name.clone()).or_default();
            walk.walk.from = walk.walk.from.max(now.checked_sub(LAG_MAX).ok());
            walk.misses = 0;
        }
        let began = Instant::now();
        let start = self.next.take();
        let (before, after): (Vec<_>, Vec<_>) = queues
            .iter_mut()
            .filter(|queue| queue.ready.is_some_and(|ready| ready > 0))
            .partition(|queue| start.as_ref().is_some_and(|start| queue.name < *start));
        for queue in after.into_iter().chain(before) {
            if began.elapsed() > LOOK_MAX.min(patience) {
                self.next = Some(queue.name.clone());
                return;
            }
            let walk = self.walks.entry(queue.name.clone()).or_default();
            match timeout(patience, store.oldest_ready(&queue.name, walk.walk)).await {
                Ok(Ok(found)) => {
                    queue.oldest_ready_age = found.age;
                    walk.walk = found.walk;
                    walk.note(found.age.is_none() && found.is_complete);
                }
                Ok(Err(error)) => {
                    debug!(error = %error, "the oldest ready task could not be looked for");
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

impl Walk {
    fn note(&mut self, missed: bool) {
        self.misses = if missed { self.misses + 1 } else { 0 };
        if self.misses >= MISSES_MAX {
            *self = Self::default();
        }
    }
}
