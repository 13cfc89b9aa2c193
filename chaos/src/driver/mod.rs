//! The submitters: they send at a steady rate, whatever becomes of it, and write down what they are told.

mod recipe;
mod submit;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock, Semaphore},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

pub(crate) use self::recipe::Draft;
use self::recipe::Recipe;
use crate::{ledger::Ledger, watch::Watch};

/// How many submissions may be under way; what would be more is not sent, and counted.
const FLIGHTS_MAX: u32 = 400;
/// How often a task that must be sent is sent again.
const TRIES_MAX: u64 = 20;
/// How long is waited in between.
const TRY_WAIT: Duration = Duration::from_millis(300);
/// How many problems are kept; more would say the same.
const PROBLEMS_MAX: usize = 20;

/// The submitters, until they are stopped or dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    stop: CancellationToken,
    ticker: AbortOnDropHandle<()>,
}

/// What all submissions share.
#[derive(Debug)]
struct Shared {
    watch: Watch,
    ledger: Arc<Ledger>,
    client: reqwest::Client,
    /// The replicas of the API.
    doors: Vec<String>,
    /// Held for reading by every request, and for writing while there must be none.
    gate: Arc<RwLock<()>>,
    /// How many APIs' clocks are wrong at the moment, so that a delay would begin at a wrong time.
    leaping: AtomicU32,
    flights: Arc<Semaphore>,
    next: AtomicU64,
    /// Answers that nobody should get.
    problems: Mutex<Vec<String>>,
}

impl Driver {
    /// Begins to send `rate` submissions a second.
    pub(crate) fn start(doors: Vec<String>, ledger: Arc<Ledger>, watch: Watch, seed: u64, rate: u32) -> Self {
        let driver = Self::idle(doors, ledger, watch);
        let (shared, stop) = (Arc::clone(&driver.shared), driver.stop.clone());
        let ticker = tokio::spawn(async move {
            let mut tick = interval(Duration::from_secs(1) / rate.max(1));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut rng = StdRng::seed_from_u64(seed);
            // Keys of one run must not be those of another, also where their seeds are the same.
            let run = rand::random();
            while !stop.is_cancelled() {
                tick.tick().await;
                let number = shared.next.fetch_add(1, Ordering::Relaxed);
                let recipe = Recipe::make(&mut rng, run, number);
                shared.launch(recipe, number, stop.clone());
            }
        });
        Self {
            ticker: AbortOnDropHandle::new(ticker),
            ..driver
        }
    }

    /// Submitters that send only what they are asked to.
    pub(crate) fn idle(doors: Vec<String>, ledger: Arc<Ledger>, watch: Watch) -> Self {
        let shared = Shared {
            watch,
            ledger,
            client: reqwest::Client::new(),
            doors,
            gate: Arc::default(),
            leaping: AtomicU32::new(0),
            flights: Arc::new(Semaphore::new(FLIGHTS_MAX as usize)),
            next: AtomicU64::new(0),
            problems: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            stop: CancellationToken::new(),
            ticker: AbortOnDropHandle::new(tokio::spawn(async {})),
        }
    }

    /// No request is under way, and none begins, until the guard is dropped.
    pub(crate) async fn quiet(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.gate).write_owned().await
    }

    /// Says that one more API's clock is wrong, or one less. Call it while it is [`Self::quiet`].
    pub(crate) fn set_leaping(&self, leaping: bool) {
        if leaping {
            self.shared.leaping.fetch_add(1, Ordering::AcqRel);
        } else {
            self.shared.leaping.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Sends one plain task, once, to any replica; `None` where it was not accepted.
    pub(crate) async fn probe(&self) -> Option<Uuid> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.single(&Recipe::probe(number), number).await
    }

    /// Sends one plain task to each lane, each a few times where it is refused.
    pub(crate) async fn touch_all_lanes(&self) {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        for recipe in Recipe::everywhere(number) {
            for turn in 0..TRIES_MAX {
                if self.shared.single(&recipe, number + turn).await.is_some() {
                    break;
                }
                sleep(TRY_WAIT).await;
            }
        }
    }

    /// Sends a stream of plain tasks, and returns how many were accepted.
    pub(crate) async fn stream(&self, count: usize) -> usize {
        let from = self.shared.next.fetch_add(count as u64, Ordering::Relaxed);
        let drafts: Vec<Draft> = (from..).take(count).map(Draft::plain).collect();
        self.shared.lines(&drafts, from).await
    }

    /// Sends no more, and waits for the answers to what was sent.
    ///
    /// # Errors
    /// Where some are not there in time; each request has its own bound, so that is a fault of the suite.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.stop.cancel();
        self.ticker.abort();
        let all = self.shared.flights.acquire_many(FLIGHTS_MAX);
        if timeout(submit::KEYED_MAX, all).await.is_err() {
            bail!("submissions do not end");
        }
        Ok(())
    }

    /// Answers that nobody should get.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = self.shared.problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn launch(self: &Arc<Self>, recipe: Recipe, number: u64, stop: CancellationToken) {
        let Ok(place) = Arc::clone(&self.flights).try_acquire_owned() else {
            self.ledger.refuse("not sent: too many under way");
            return;
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            shared.send(&recipe, number, &stop).await;
            drop(place);
        });
    }

    fn problem(&self, problem: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        }
    }
}
