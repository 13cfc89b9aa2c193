//! The end of a worker that ends by itself: once it has run as many tasks as it may, or once nothing is ready for it.
//!
//! That nothing is ready is believed only after each lane has answered with nothing while nothing runs here, no lane is
//! being asked any more (so that no message is on its way to us), and the broker then counts nothing that waits in them.
//! What arrives meanwhile is run, and everything begins anew.
//!
//! What others hold unacknowledged does not keep it, though the scaling signal calls that ready, too: a Job must end, and
//! another worker claims what it holds within milliseconds, or gives it back within seconds where its kind has no room.
//! Where it gives it back, or dies, it waits again and is ready to the signal, so that whoever starts Jobs by that starts
//! the next. To wait for it instead would keep idle pods for as long as a broker waits for a dead worker's answer (half a
//! minute on NATS), and RabbitMQ does not say what others hold.

use std::{sync::Arc, time::Duration};

use forebay_core::Lane;
use tokio::{task::JoinSet, time::Instant};
use tracing::info;

use super::{Executor, pauses, unpanicked};
use crate::shared::{BROKER_CALL_MAX, Shared, chain};

/// How many tasks wait in the lanes, or why that is not known.
type Count = Result<u64, String>;

/// How far the look for what is ready has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Something runs here: what lanes answer does not count.
    Working,
    /// Lanes are asked.
    Asking,
    /// All have answered with nothing. None is asked again; some may still be answering.
    Closing,
    /// The broker is being asked how much is in them.
    Counting,
    /// Nothing is.
    Over,
}

/// The look of a worker that ends once nothing is ready.
pub(super) struct Once {
    stage: Stage,
    /// Since when nothing runs here, and it is not known whether anything is ready.
    since: Instant,
    patience: Duration,
    counts: JoinSet<Count>,
    /// Why it is not known yet.
    problem: Option<String>,
}

impl Once {
    pub(super) fn of(options: &crate::WorkerOptions) -> Option<Self> {
        options.once.then(|| Self {
            stage: Stage::Asking,
            since: Instant::now(),
            patience: options.look_patience,
            counts: JoinSet::new(),
            problem: None,
        })
    }

    /// There is something to do.
    fn begin_anew(&mut self) {
        self.stage = Stage::Working;
        self.since = Instant::now();
        self.counts.abort_all();
        self.problem = None;
    }
}

/// The next answer of the broker; `None` where it is not being asked.
pub(super) async fn counted(once: &mut Option<Once>) -> Option<Count> {
    let counts = &mut once.as_mut()?.counts;
    loop {
        match counts.join_next().await? {
            Ok(count) => return Some(count),
            Err(aborted) if aborted.is_cancelled() => {}
            panicked => return unpanicked(panicked).ok(),
        }
    }
}

impl Executor {
    /// Whether the worker has come to its own end, and how.
    pub(super) fn is_over(&mut self) -> Option<anyhow::Result<()>> {
        if self.slots.total() == 0 {
            info!("as many tasks have run as should: the worker ends");
            return Some(Ok(()));
        }
        let is_idle = self.once.is_some() && self.is_idle();
        let once = self.once.as_mut()?;
        if !is_idle {
            once.begin_anew();
            return None;
        }
        if once.stage == Stage::Working {
            once.stage = Stage::Asking;
            self.intake.doubt();
        }
        if once.stage == Stage::Over {
            info!("nothing is ready: the worker ends");
            return Some(Ok(()));
        }
        if once.since.elapsed() >= once.patience {
            let patience = once.patience;
            return Some(Err(anyhow::anyhow!(
                "could not find out within {patience:?} whether anything is ready: {}",
                self.why_unknown()
            )));
        }
        self.look_further();
        None
    }

    /// Whether lanes are to be asked for more.
    pub(super) fn is_asking(&self) -> bool {
        let once = self.once.as_ref();
        once.is_none_or(|once| matches!(once.stage, Stage::Working | Stage::Asking))
    }

    /// The broker has counted what is in the lanes.
    pub(super) fn heed_count(&mut self, count: Count) {
        let Some(once) = self.once.as_mut().filter(|once| once.stage == Stage::Counting) else {
            return;
        };
        once.problem = match count {
            Ok(0) => {
                once.stage = Stage::Over;
                return;
            }
            Ok(count) => Some(format!(
                "{count} tasks wait in its lanes, and the broker hands out none"
            )),
            Err(problem) => Some(problem),
        };
        once.stage = Stage::Asking;
        self.intake.doubt();
    }

    fn look_further(&mut self) {
        let Some(stage) = self.once.as_ref().map(|once| once.stage) else {
            return;
        };
        let is_empty = self.intake.found_empty(|lane| !self.is_gated(lane));
        let next = match stage {
            Stage::Asking if is_empty => Stage::Closing,
            Stage::Closing if !is_empty => Stage::Asking,
            Stage::Closing if self.intake.is_idle() => Stage::Counting,
            same => same,
        };
        let lanes = self.shared.options.lanes().into_iter();
        let lanes: Vec<Lane> = lanes.filter(|lane| !self.is_gated(lane)).collect();
        let Some(once) = &mut self.once else { return };
        if next == Stage::Counting && stage != next {
            once.counts.spawn(count(Arc::clone(&self.shared), lanes));
        }
        once.stage = next;
    }

    /// Whether nothing runs here, or is about to.
    fn is_idle(&self) -> bool {
        let is_held = !self.held.is_empty() || !self.parked.is_empty();
        let is_claimed = !self.waiting.is_empty() || !self.claims.is_empty() || self.running.len() > 0;
        !is_held && !is_claimed && self.started.is_empty()
    }

    /// Whether nothing of this lane may be run at present, so that there is no reason to wait for it.
    fn is_gated(&self, lane: &Lane) -> bool {
        let paused = self.paused.as_ref();
        paused.is_some_and(|paused| paused.contains(&lane.queue))
    }

    fn why_unknown(&self) -> String {
        let problem = self.once.as_ref().and_then(|once| once.problem.clone());
        if self.life.id().is_none() {
            return "the store has not registered this worker".to_owned();
        }
        let mut problems = self.shared.health.problems();
        if self.paused.is_none() {
            // No lane is asked before these are known.
            problems.sort_by_key(|(component, _)| component != pauses::COMPONENT);
        }
        let unhealthy = problems.into_iter().next();
        problem
            .or_else(|| unhealthy.map(|(component, problem)| format!("{component}: {problem}")))
            .unwrap_or_else(|| "the lanes have not answered".to_owned())
    }
}

/// How many tasks wait in these lanes, without those that others hold.
async fn count(shared: Arc<Shared>, lanes: Vec<Lane>) -> Count {
    let mut waiting = 0_u64;
    for lane in &lanes {
        let depth = tokio::time::timeout(BROKER_CALL_MAX, shared.broker.depth(lane)).await;
        let depth = depth.map_err(|_| format!("the broker does not say how much is in {lane}"))?;
        waiting += depth.map_err(|error| chain(&error))?.waiting;
    }
    Ok(waiting)
}
