//! One stream of `StreamIsActive`: when to look, and what is worth telling.
//!
//! A stream that polls and listens for itself needs nothing shared, and there are few: one for each ScaledObject.

use std::{future, sync::Arc, time::Duration};

use forebay_core::QueueName;
use forebay_runtime::supervise::random_unit;
use futures::{StreamExt, stream::Fuse};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Bounds, Figures, Wakes,
    service::{Open, ask},
};

/// The life of a stream.
pub(crate) struct Activity {
    looks: Looks,
    edges: Edges,
    ends: Instant,
    stop: CancellationToken,
    _open: Open,
}

impl Activity {
    pub(crate) fn new(
        figures: Arc<dyn Figures>,
        queues: Vec<QueueName>,
        bounds: &Bounds,
        stop: CancellationToken,
        open: Open,
    ) -> Self {
        let mut poll = interval(bounds.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            looks: Looks {
                wakes: figures.wakes().fuse(),
                figures,
                queues,
                answer: bounds.answer,
                poll,
            },
            edges: Edges {
                quiet: bounds.quiet,
                ..Edges::default()
            },
            ends: Instant::now() + age(bounds.stream_age),
            stop,
            _open: open,
        }
    }

    /// The next thing to tell. `None` is the end, and a good one: an outage only delays what is told.
    pub(crate) async fn next(&mut self) -> Option<bool> {
        loop {
            let seen = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = sleep_until(self.ends) => return None,
                seen = self.looks.next(self.edges.last != Some(true)) => seen,
            };
            let told = seen.and_then(|active| self.edges.saw(active, Instant::now()));
            if told.is_some() {
                return told;
            }
        }
    }
}

/// Give or take a tenth, so that streams which began together do not end together.
pub(crate) fn age(average: Duration) -> Duration {
    average.mul_f64(0.9 + 0.2 * random_unit())
}

/// Decides when to look: now and then, and when something was put into one of the queues.
struct Looks {
    figures: Arc<dyn Figures>,
    queues: Vec<QueueName>,
    answer: Duration,
    wakes: Fuse<Wakes>,
    poll: Interval,
}

impl Looks {
    /// Whether there is work, once it is time to look; `None` where that is not known. While there was work the last
    /// time, wakes are no news.
    async fn next(&mut self, idle: bool) -> Option<bool> {
        tokio::select! {
            _ = self.poll.tick() => {}
            () = woken(&mut self.wakes, &self.queues), if idle => {}
        }
        let demand = ask(&*self.figures, &self.queues, self.answer).await;
        demand.ok().map(|demand| demand.tasks() > 0)
    }
}

async fn woken(wakes: &mut Fuse<Wakes>, queues: &[QueueName]) {
    while let Some(queue) = wakes.next().await {
        if queues.contains(&queue) {
            return;
        }
    }
    // Nobody tells any more; polls go on.
    future::pending::<()>().await;
}

/// Decides what to tell: the first state, then each change from idle to busy, one in a while.
#[derive(Debug, Default)]
struct Edges {
    quiet: Duration,
    last: Option<bool>,
    /// A change is still to be told.
    owed: bool,
    told: Option<Instant>,
}

impl Edges {
    fn saw(&mut self, active: bool, now: Instant) -> Option<bool> {
        let before = self.last.replace(active);
        if before.is_none() {
            self.told = active.then_some(now);
            return Some(active);
        }
        // Where it is idle again, whoever was to be woken is no longer needed.
        self.owed = active && (self.owed || before == Some(false));
        let quiet = self.told.is_some_and(|told| now < told + self.quiet);
        if !self.owed || quiet {
            return None;
        }
        (self.owed, self.told) = (false, Some(now));
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(states: &[(u64, bool)]) -> Vec<(u64, bool)> {
        let mut edges = Edges {
            quiet: 5 * SECOND,
            ..Edges::default()
        };
        let began = Instant::now();
        let mut told = Vec::new();
        for &(second, active) in states {
            if let Some(answer) = edges.saw(active, began + SECOND * second as u32) {
                told.push((second, answer));
            }
        }
        told
    }

    #[test]
    fn tells_the_first_state_and_then_the_way_up_alone() {
        assert_eq!(
            told(&[
                (0, false),
                (1, false),
                (2, true),
                (3, true),
                (9, true),
                (10, false)
            ]),
            [(0, false), (2, true)]
        );
        assert_eq!(told(&[(0, true), (1, true), (20, true)]), [(0, true)]);
        assert_eq!(
            told(&[(0, true), (10, false), (11, true)]),
            [(0, true), (11, true)]
        );
    }

    #[test]
    fn one_in_five_seconds_and_a_late_one_is_told_where_it_still_holds() {
        let up_again = [(0, true), (1, false), (2, true), (4, true), (5, true), (6, true)];
        assert_eq!(told(&up_again), [(0, true), (5, true)]);
        let gone = [
            (0, true),
            (1, false),
            (2, true),
            (3, false),
            (6, false),
            (7, true),
        ];
        assert_eq!(told(&gone), [(0, true), (7, true)]);
    }
}
