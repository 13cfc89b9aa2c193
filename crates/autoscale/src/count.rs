//! One count of all queues.

use std::{collections::BTreeMap, time::Duration};

use forebay_core::{QueueName, Timestamp};
use forebay_runtime::metrics::{Metrics, QueueGauges};
use tokio::time::Instant;

use crate::{QueueSample, Unknown};

/// What is known of a queue. What is not known is `None`, never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// Its name.
    pub name: QueueName,
    /// What waits in its lanes for a worker.
    pub ready: Option<u64>,
    /// What runs.
    pub running: Option<u64>,
    /// What would be ready and may not run: all that waits in its lanes while the queue is paused, and what a limit holds back.
    pub gated: Option<u64>,
    /// What waits for a time.
    pub scheduled: Option<u64>,
    /// Whether it is paused.
    pub paused: Option<bool>,
    /// How long the first of what is ready has been so; `None` where nothing is ready, too.
    pub oldest_ready_age: Option<Duration>,
    /// How many workers it takes.
    pub desired_workers: Option<u64>,
    /// Of what is gated, what a limit holds back: it waits in no lane.
    pub(crate) throttled: u64,
    /// Whether there is a worker for it.
    pub(crate) is_served: bool,
}

impl QueueFigures {
    /// A queue of which nothing is known.
    #[must_use]
    pub fn unknown(name: QueueName) -> Self {
        Self {
            name,
            ready: None,
            running: None,
            gated: None,
            scheduled: None,
            paused: None,
            oldest_ready_age: None,
            desired_workers: None,
            throttled: 0,
            is_served: false,
        }
    }

    /// A queue in which nothing is.
    pub(crate) fn nothing(name: QueueName) -> Self {
        Self {
            ready: Some(0),
            running: Some(0),
            gated: Some(0),
            scheduled: Some(0),
            paused: Some(false),
            desired_workers: Some(0),
            ..Self::unknown(name)
        }
    }

    /// The queue as a sample, if all of it is known.
    pub(crate) fn sample(&self, at: Timestamp) -> Option<QueueSample> {
        Some(QueueSample {
            queue: self.name.clone(),
            ready: self.ready?,
            running: self.running?,
            gated: self.gated?,
            scheduled: self.scheduled?,
            oldest_ready_age: self.oldest_ready_age,
            desired_workers: self.desired_workers?,
            at,
        })
    }

    /// All that waits in its lanes, gated or not.
    #[must_use]
    pub fn waiting(&self) -> Option<u64> {
        self.ready
            .map(|ready| ready.saturating_add(self.gated_in_lanes()))
    }

    /// Whether it is no use to look out for its next task: it has some, or is paused, or has workers that take it.
    pub(crate) fn is_awake(&self) -> bool {
        self.is_busy() || self.is_served || self.gated_in_lanes() > 0
    }

    fn gated_in_lanes(&self) -> u64 {
        self.gated.unwrap_or(0).saturating_sub(self.throttled)
    }

    /// Whether there is something to do, as far as is known.
    pub(crate) fn is_busy(&self) -> bool {
        self.ready.unwrap_or(0) + self.running.unwrap_or(0) > 0
    }
}

/// What was known of all queues at one moment.
#[derive(Debug, Clone)]
pub struct Count {
    /// The queues, by name.
    pub queues: Vec<QueueFigures>,
    /// When the count began.
    pub at: Timestamp,
    /// Which figures are missing, and since when.
    pub unknown: Option<Unknown>,
    /// Whether the store was there. Where it was not, `queues` has those of the count before.
    pub from_store: bool,
    pub(crate) began: Instant,
    pub(crate) taken: Instant,
}

impl Count {
    /// When it began: everything that it says was true after this.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// When it was complete.
    #[must_use]
    pub fn taken(&self) -> Instant {
        self.taken
    }

    /// What is known of a queue; `None` where it was not seen.
    #[must_use]
    pub fn queue(&self, name: &QueueName) -> Option<&QueueFigures> {
        let at = self.queues.binary_search_by(|queue| queue.name.cmp(name)).ok()?;
        self.queues.get(at)
    }

    /// The queues that have something to do, and had nothing by `former`, which has seen them or did see the store.
    pub(crate) fn woken_since<'a>(&'a self, former: &Self) -> impl Iterator<Item = &'a QueueName> {
        let idle: BTreeMap<&QueueName, bool> = former
            .queues
            .iter()
            .map(|queue| (&queue.name, !queue.is_busy()))
            .collect();
        let was_idle = move |name: &QueueName| idle.get(name).copied().unwrap_or(true);
        self.queues
            .iter()
            .filter(move |queue| queue.is_busy() && was_idle(&queue.name))
            .map(|queue| &queue.name)
    }

    /// Shows what is known. Only a whole count moves the timestamp, which says since when the others are old.
    pub(crate) fn publish(&self, metrics: &Metrics) {
        let gauges: Vec<(QueueName, QueueGauges)> = self
            .queues
            .iter()
            .map(|queue| {
                let age = match queue.ready {
                    Some(0) => Some(Duration::ZERO),
                    _ => queue.oldest_ready_age,
                };
                let gauges = QueueGauges {
                    ready: queue.ready,
                    running: queue.running,
                    gated: queue.gated,
                    scheduled: queue.scheduled,
                    oldest_ready_age: age,
                    desired_workers: queue.desired_workers,
                };
                (queue.name.clone(), gauges)
            })
            .collect();
        metrics.queues(&gauges);
        if self.unknown.is_none() {
            metrics.queues_counted(self.at.as_second());
        }
    }
}
