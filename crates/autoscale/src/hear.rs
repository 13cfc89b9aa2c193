//! Hears of tasks that became ready, so that a queue that was idle is counted at once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use forebay_core::{QueueName, Signal, State};
use futures::StreamExt;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, timeout},
};

use crate::Observer;

/// How many queues that woke a listener may be behind.
pub(crate) const WAKES_MAX: usize = 1_024;
/// How many queues are looked after at once that are said to have woken. Others wait for the next count.
const HINTS_MAX: usize = 1_024;
/// How long a queue that is said to have woken is looked at more often: longer than a recorder takes to bring what was
/// accepted into its lane.
const HINT_MAX: Duration = Duration::from_secs(1);

/// Hears of queues that had nothing to do and now have something.
#[derive(Debug)]
pub struct Wakes(pub(crate) broadcast::Receiver<QueueName>);

impl Wakes {
    /// The next queue that has woken. What the observer says of it from now on is not older than this. May miss some
    /// where the caller is slow, and waits for ever once the observer is gone.
    pub async fn next(&mut self) -> QueueName {
        loop {
            match self.0.recv().await {
                Ok(queue) => return queue,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Queues in which something is said to have been put, until a count shows it.
#[derive(Debug, Default)]
pub(crate) struct Hints(BTreeMap<QueueName, Instant>);

impl Hints {
    /// Something was put into `queue`. Says whether that is news.
    pub(crate) fn add(&mut self, queue: &QueueName, now: Instant) -> bool {
        if self.0.len() >= HINTS_MAX || self.0.contains_key(queue) {
            return false;
        }
        self.0.insert(queue.clone(), now).is_none()
    }

    /// Forgets those that a count has shown, and those that wait in vain.
    pub(crate) fn settle(&mut self, is_busy: impl Fn(&QueueName) -> bool, now: Instant) {
        self.0
            .retain(|queue, since| now.duration_since(*since) < HINT_MAX && !is_busy(queue));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Listens until the connection ends.
pub(crate) async fn hear(observer: &Observer, patience: Duration) -> anyhow::Result<()> {
    let signals = timeout(patience, observer.broker().signals()).await;
    let mut signals = signals
        .context("listen to signals")?
        .context("listen to signals")?;
    while let Some(signal) = signals.next().await {
        match signal {
            Signal::Events(events) => {
                let queued = events.iter().filter(|event| event.state == State::Queued);
                observer.heard(queued.map(|event| &event.queue));
            }
            // What waited in a queue that is resumed is ready now.
            Signal::QueuesChanged => observer.count_soon(),
            Signal::Cancel(_) | Signal::Progress(_) | Signal::Due => {}
        }
    }
    anyhow::bail!("the connection for signals ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hint_is_news_once_and_is_forgotten_when_shown_or_old() {
        let mut hints = Hints::default();
        let queue = QueueName::default();
        let other: QueueName = "other".parse().expect("a name");
        let now = Instant::now();
        assert!(hints.add(&queue, now) && !hints.add(&queue, now) && hints.add(&other, now));
        hints.settle(|shown| *shown == other, now);
        assert!(!hints.is_empty());
        hints.settle(|_| false, now + HINT_MAX);
        assert!(hints.is_empty());
    }
}
