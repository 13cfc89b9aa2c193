//! Publishes again what the broker has lost.
//!
//! Two things show that a waiting task has lost its message: its lane is empty, or it was queued well before the newest
//! message that its lane has delivered. The first is certain, but for what other workers have in hand on RabbitMQ, which
//! does not count it; a message too many is turned away. The second is not where workers hand messages back for long,
//! because they have no handler for them, say: a lane that had to be helped because of it is left alone for a while
//! then, and longer each time, so that messages don't multiply.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use async_trait::async_trait;
use forebay_core::{Lane, Timestamp};
use futures::{StreamExt, stream};
use tracing::{debug, info};

use super::{Chore, sink::Sink};
use crate::shared::{BROKER_CALL_MAX, STORE_CALL_MAX, Shared, chain, within};

/// How many tasks are published again together.
const BATCH_MAX: usize = 500;
/// How many batches a pass may take; the next goes on.
const BATCHES_MAX: usize = 200;
/// How many lanes are looked at at once.
const LANES_AT_ONCE: usize = 8;
/// How far back tasks are looked for at first, or as far as the retention, where that is more: a day is kept for as
/// long as a task of it waits, whatever the retention.
const FLOOR_DAYS: u64 = 30;
/// A pass may use one part in so many of the time.
const SHARE: u32 = 10;
/// How long a lane is left alone at most.
const REST_MAX: Duration = Duration::from_secs(600);

/// A lane that was helped although it was not empty.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

/// Publishes again what the broker has lost.
pub(super) struct Republish {
    shared: Arc<Shared>,
    floor: Option<Timestamp>,
    rests: BTreeMap<Lane, Rest>,
}

/// Before what time the messages of a lane are known to be delivered.
struct Horizon {
    lane: Lane,
    at: Timestamp,
    empty: bool,
}

impl Republish {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            floor: None,
            rests: BTreeMap::new(),
        }
    }

    async fn horizons(&self, now: Timestamp) -> anyhow::Result<Vec<Horizon>> {
        let options = &self.shared.options.dispatcher;
        let store = &self.shared.store;
        let queues = within(STORE_CALL_MAX, "list queues", store.queues()).await;
        let queues = queues.map_err(|error| anyhow!(chain(&error)))?;
        let watermarks = within(STORE_CALL_MAX, "read watermarks", store.watermarks()).await;
        let watermarks: BTreeMap<Lane, Timestamp> = watermarks
            .map_err(|error| anyhow!(chain(&error)))?
            .into_iter()
            .collect();
        let lanes = queues.into_iter().flat_map(|queue| Lane::all_of(&queue.name));
        let looked_at = stream::iter(lanes.map(|lane| self.look_at(lane)))
            .buffer_unordered(LANES_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let horizon = |(lane, empty): (Lane, bool)| {
            let at = if empty {
                Some(before(now, options.empty_lane_lag))
            } else {
                let watermark = watermarks.get(&lane).filter(|_| !self.rests_now(&lane));
                watermark.map(|&watermark| before(watermark, options.watermark_lag))
            };
            at.map(|at| Horizon { lane, at, empty })
        };
        Ok(looked_at.into_iter().flatten().filter_map(horizon).collect())
    }

    /// Whether a lane is empty; `None` where that is not known.
    async fn look_at(&self, lane: Lane) -> Option<(Lane, bool)> {
        let depth = tokio::time::timeout(BROKER_CALL_MAX, self.shared.broker.depth(&lane)).await;
        match depth {
            Ok(Ok(depth)) => Some((lane, depth.is_empty())),
            Ok(Err(error)) => {
                debug!(%lane, error = chain(&error), "a lane's depth is not known");
                None
            }
            Err(_) => None,
        }
    }

    fn rests_now(&self, lane: &Lane) -> bool {
        self.rests
            .get(lane)
            .is_some_and(|rest| rest.until > Instant::now())
    }

    /// Lanes that were helped although they were not empty rest, each time longer; those that needed no help don't.
    fn note_rests(&mut self, horizons: &[Horizon], helped: &std::collections::BTreeSet<Lane>) {
        let now = Instant::now();
        for horizon in horizons.iter().filter(|horizon| !horizon.empty) {
            if helped.contains(&horizon.lane) {
                let first = self.shared.options.dispatcher.watermark_lag;
                let length = self
                    .rests
                    .get(&horizon.lane)
                    .map_or(first, |rest| rest.length * 2)
                    .min(REST_MAX);
                let until = now + length;
                self.rests.insert(horizon.lane.clone(), Rest { until, length });
            } else {
                self.rests.remove(&horizon.lane);
            }
        }
    }

    /// All that waits before these horizons.
    async fn republish(&mut self, horizons: &[Horizon], floor: Timestamp) -> anyhow::Result<usize> {
        let named: Vec<(Lane, Timestamp)> = horizons.iter().map(|h| (h.lane.clone(), h.at)).collect();
        let shared = Arc::clone(&self.shared);
        let sink = Sink::new(&shared);
        let mut floor = floor;
        let mut count = 0;
        for _ in 0..BATCHES_MAX {
            let republished = shared.store.republish_lost(&named, floor, BATCH_MAX, &sink);
            let republished = within(STORE_CALL_MAX, "publish again what was lost", republished).await;
            let republished = republished.map_err(|error| anyhow!(chain(&error)))?;
            floor = republished.floor;
            count += republished.count;
            if republished.count < BATCH_MAX {
                break;
            }
        }
        self.floor = Some(floor);
        let (helped, problem) = sink.into_notes();
        self.note_rests(horizons, &helped);
        if let Some(problem) = problem {
            bail!("what was lost could not be published again: {problem}");
        }
        Ok(count)
    }

    fn first_floor(&self, now: Timestamp) -> Timestamp {
        let least = Duration::from_secs(FLOOR_DAYS * 24 * 3_600);
        before(
            now,
            self.shared
                .options
                .retention
                .map_or(least, |kept| kept.max(least)),
        )
    }
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

#[async_trait]
impl Chore for Republish {
    fn name(&self) -> &'static str {
        "republish"
    }

    fn interval(&self) -> Duration {
        self.shared.options.dispatcher.republish_interval
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        // Read before the depths: what was queued by then and has no message in an empty lane has none at all.
        let now = within(STORE_CALL_MAX, "read the time", self.shared.store.now()).await;
        let now = now.map_err(|error| anyhow!(chain(&error)))?;
        let horizons = self.horizons(now).await?;
        if !horizons.is_empty() {
            let floor = self.floor.unwrap_or_else(|| self.first_floor(now));
            let count = self.republish(&horizons, floor).await?;
            if count > 0 {
                info!(
                    tasks = count,
                    "tasks that waited without a message are published again"
                );
            }
        }
        // A store that takes long for this is not asked as often.
        Ok(self.interval().max(SHARE * began.elapsed()))
    }
}
