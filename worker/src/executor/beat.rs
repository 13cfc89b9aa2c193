//! Keeps the worker alive in the eyes of the store, and hears what it should cancel.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_core::{Lane, QueueName, Timestamp, WorkerId, WorkerInfo};
use forebay_runtime::{
    health::Reporter,
    supervise::{Backoff, random_bytes},
};
use forebay_store::{Heartbeat, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{life::Life, running::Running, slots::Slots};
use crate::shared::{Shared, chain, within};

/// For each lane, the publishing time of the newest message whose claim was answered.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    newest: Mutex<BTreeMap<Lane, Timestamp>>,
}

impl Watermarks {
    pub(super) fn raise<'a>(&self, seen: impl Iterator<Item = (&'a Lane, Timestamp)>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for (lane, published_at) in seen {
            match newest.get_mut(lane) {
                Some(known) => *known = published_at.max(*known),
                None => {
                    newest.insert(lane.clone(), published_at);
                }
            }
        }
    }

    fn all(&self) -> Vec<(Lane, Timestamp)> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().map(|(lane, at)| (lane.clone(), *at)).collect()
    }
}

/// At least so long after an early heartbeat comes the next early one, where there is something new to say. It is what
/// bounds the age of what is said to run. What happens first after any other heartbeat is said at once.
const EARLIEST: Duration = Duration::from_secs(1);
/// How long is waited for more of the same before it is said: tasks start and end in batches.
const GATHER: Duration = Duration::from_millis(20);
/// Of how many tasks a heartbeat says how far they are. The others' turn is the next one's, which comes a second later:
/// what handlers say must not make a heartbeat take long.
const PROGRESS_MAX: usize = 1_000;

pub(super) struct Beat {
    pub(super) shared: Arc<Shared>,
    pub(super) life: Arc<Life>,
    pub(super) running: Arc<Running>,
    pub(super) watermarks: Arc<Watermarks>,
    pub(super) slots: Arc<Slots>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) started_at: Timestamp,
    pub(super) reporter: Reporter,
}

/// What of a heartbeat changes as tasks come and go.
#[derive(Debug, PartialEq, Eq)]
struct News {
    busy: Vec<(QueueName, u32)>,
    finished: Vec<(QueueName, u64)>,
    draining: bool,
}

impl Beat {
    /// Registers, then beats until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.beat_forever()).await;
        self.reporter.retire();
    }

    async fn beat_forever(&self) {
        let interval = self.shared.options.heartbeat_interval();
        let mut backoff = Backoff::default();
        let mut heard = Instant::now();
        let mut early = None;
        loop {
            if self.life.id().is_none() {
                // Before it is looked at, so that this is no news in the new life.
                self.running.news.forget();
            }
            let said = self.news();
            let wait = match self.beat().await {
                Ok(()) => {
                    heard = Instant::now();
                    backoff = Backoff::default();
                    self.reporter.ok();
                    interval
                }
                Err(error) => {
                    let silent = heard.elapsed();
                    debug!(error = chain(&error), ?silent, "a heartbeat failed");
                    if silent > self.shared.options.lease {
                        self.reporter
                            .failing(format_args!("no heartbeat for {:.0} s", silent.as_secs_f64()));
                    }
                    backoff.next().min(interval)
                }
            };
            tokio::select! {
                biased;
                () = self.life.questioned() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.more_to_say(&said, early), if wait > EARLIEST => early = Some(Instant::now()),
            }
        }
    }

    /// What of a heartbeat changes as tasks come and go.
    fn news(&self) -> News {
        News {
            busy: self.running.busy(),
            finished: self.running.news.all_finished(),
            draining: self.draining.load(Ordering::Acquire),
        }
    }

    /// Waits until a heartbeat would say something else than the one before; but not before it may come, after the last
    /// `early` one. Where nothing happens, nothing is looked at.
    async fn more_to_say(&self, said: &News, early: Option<Instant>) {
        let gathered = Instant::now() + GATHER;
        let may_come = early.map_or(gathered, |early| gathered.max(early + EARLIEST));
        tokio::time::sleep_until(may_come).await;
        while self.shared.progress.is_empty() && self.news() == *said {
            tokio::select! {
                () = self.running.news.wait() => {}
                () = self.shared.progress.wait() => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// One heartbeat, or the registration of a new life.
    async fn beat(&self) -> forebay_store::Result<()> {
        let limit = (self.shared.options.lease / 2).max(Duration::from_millis(100));
        let Some(id) = self.life.id() else {
            let id = WorkerId::new(self.shared.clock.now(), &random_bytes());
            let beat = self.heartbeat(id);
            within(limit, "register the worker", self.shared.store.register(&beat)).await?;
            info!(worker = %id, "registered");
            self.life.set(Some(id));
            return Ok(());
        };
        let mut beat = self.heartbeat(id);
        beat.progress = self.shared.progress.take(PROGRESS_MAX);
        match within(
            limit,
            "renew the worker's life",
            self.shared.store.heartbeat(&beat),
        )
        .await
        {
            Ok(reply) => {
                self.running.cancel(&reply.cancel);
                self.shared.events.send_progress(&beat.progress);
                Ok(())
            }
            Err(StoreError::WorkerGone) => {
                warn!(worker = %id, "declared dead: what runs is abandoned, and a new life begins");
                // In this order: nothing is completed in the name of the old life from now on.
                self.life.set(None);
                self.running.stop_all();
                self.shared.progress.clear();
                self.life.question();
                Ok(())
            }
            Err(error) => {
                // What was refused would be refused again.
                if error.is_unavailable() {
                    self.shared.progress.put_back(beat.progress);
                }
                Err(error)
            }
        }
    }

    fn heartbeat(&self, id: WorkerId) -> Heartbeat {
        let options = &self.shared.options;
        Heartbeat {
            worker: WorkerInfo {
                id,
                name: options.name.clone(),
                queues: options.distinct_queues().into_iter().collect(),
                slots: u32::try_from(self.slots.total()).unwrap_or(u32::MAX),
                busy: self.running.busy(),
                finished: self.running.news.all_finished(),
                draining: self.draining.load(Ordering::Acquire),
                started_at: self.started_at,
                heartbeat_at: self.shared.clock.now(),
            },
            watermarks: self.watermarks.all(),
            progress: Vec::new(),
        }
    }
}
