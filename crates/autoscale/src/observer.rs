//! Counts what waits and what runs in each queue: in one place, every second, for all who ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_broker::Broker;
use forebay_core::{Clock, Lane, QueueName, Timestamp, WorkerInfo};
use forebay_runtime::{guard::Away, metrics::Metrics, supervise::keep_running};
use forebay_store::{QueueCounts, Read, StoreError};
use futures::{StreamExt, stream};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Count, QueueFigures, Unknown, Wakes,
    desired::{Load, Window},
    hear::{self, Hints},
    oldest::Oldest,
};

/// How old a sample is at the most when it is asked for, where a count takes no time.
const FRESH_MAX: Duration = Duration::from_secs(1);
/// And where it takes long: older than this, no figure is any use. A count that takes more than half of it is too slow.
const FRESH_MAX_SLOW: Duration = Duration::from_secs(10);
/// A worker that was heard of so much earlier than another is not counted on to take tasks: it may be dead. Wrong about one
/// that lives, a queue is merely counted sooner.
const SILENT_MAX: Duration = Duration::from_secs(15);
/// How often all queues are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Between two counts while a queue is said to have woken and does not show it yet.
const HINT_EVERY: Duration = Duration::from_millis(100);
/// How many depths are asked for at once.
const DEPTHS_AT_ONCE: usize = 8;
/// How long one waits for a new count where there is a former one to show.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a sample is waited for.
const SAMPLE_MAX: Duration = Duration::from_secs(2);
/// A failure that comes later than this is no broken connection, and asking again would only cost more time.
const BROKEN_WITHIN: Duration = Duration::from_millis(250);

/// What is known of a queue at one moment, all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSample {
    /// Which queue.
    pub queue: QueueName,
    /// What waits in its lanes for a worker. On RabbitMQ without what other processes have been delivered and have not
    /// claimed yet, mostly for milliseconds.
    pub ready: u64,
    /// What runs, by the workers' word of a second ago at the most. What a worker that was killed ran counts until its
    /// lease ends.
    pub running: u64,
    /// What waits in its lanes and may not run, since the queue is paused: no reason for more workers.
    pub gated: u64,
    /// What waits for a time.
    pub scheduled: u64,
    /// How long the first of what is ready has been so at least, by the store's clock; `None` where nothing is ready, or
    /// it is not known yet.
    pub oldest_ready_age: Option<Duration>,
    /// How many workers it takes: see [`crate::desired`].
    pub desired_workers: u64,
    /// When the count began.
    pub at: Timestamp,
}

/// What an observer asks, and where it shows what it learns.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "ports are not Debug")]
pub struct Sources {
    /// Knows queues and workers.
    pub store: Arc<dyn Read>,
    /// Knows what waits in lanes.
    pub broker: Arc<dyn Broker>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The `forebay_queue_*` metrics are kept here.
    pub metrics: Arc<Metrics>,
}

/// How long an observer waits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For an answer of the store.
    pub store: Duration,
    /// For an answer of the broker.
    pub broker: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            store: Duration::from_secs(2),
            broker: Duration::from_secs(2),
        }
    }
}

/// Watches all queues. Cheap to clone; the clones share everything.
#[derive(Clone)]
pub struct Observer(Arc<Inner>);

struct Inner {
    sources: Sources,
    bounds: Bounds,
    latest: Mutex<Option<Arc<Count>>>,
    /// One counts at a time.
    counting: tokio::sync::Mutex<Memory>,
    /// What the count under way waits for.
    asks_broker: AtomicBool,
    hints: Mutex<Hints>,
    hinted: Notify,
    wakes: broadcast::Sender<QueueName>,
}

/// What is carried from one count to the next.
#[derive(Default)]
struct Memory {
    windows: BTreeMap<QueueName, Window>,
    oldest: Oldest,
    store_away: Option<Timestamp>,
    broker_away: Option<Timestamp>,
}

/// What waits in each queue, if it is known.
type Depths = BTreeMap<QueueName, Option<u64>>;
/// Queues and workers.
type OfStore = (Vec<QueueCounts>, Vec<WorkerInfo>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("bounds", &self.0.bounds)
            .finish_non_exhaustive()
    }
}

impl Observer {
    /// An observer. It counts by itself while [`Self::run`] runs, and else only for those who ask.
    #[must_use]
    pub fn new(sources: Sources, bounds: Bounds) -> Self {
        Self(Arc::new(Inner {
            sources,
            bounds,
            latest: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
            asks_broker: AtomicBool::new(false),
            hints: Mutex::default(),
            hinted: Notify::new(),
            wakes: broadcast::Sender::new(hear::WAKES_MAX),
        }))
    }

    /// Counts all queues once a second, and at once when an idle one is heard of, until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let hear = keep_running("queue events", &stop, || hear::hear(self, self.0.bounds.broker));
        let count = stop.run_until_cancelled(self.count_for_ever());
        tokio::select! {
            ((), _) = async { tokio::join!(hear, count) } => {}
            () = stop.cancelled() => {}
        }
    }

    async fn count_for_ever(&self) {
        let mut ticks = interval(COUNT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let woken = self.hints().is_empty();
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.hinted.notified() => {}
                () = sleep(HINT_EVERY), if !woken => {}
            }
            self.count().await;
        }
    }

    /// What is known of a queue. It is at most a second old, or as old as counts make it that take longer: a second and
    /// twice the time of a count, and never more than ten. And it is not from before the queue was last heard of by
    /// [`Self::wakes`]. A queue that the store knows nothing of is a sample of zeros.
    ///
    /// # Errors
    /// Where any of it is not known, within two seconds or so: says which dependency is away, and since when. A count that
    /// takes longer than that is only ever complete while [`Self::run`] runs.
    pub async fn sample(&self, queue: &QueueName) -> Result<QueueSample, Unknown> {
        let asked = Instant::now();
        let deadline = asked + SAMPLE_MAX;
        let fresh = |count: &Count| is_fresh(count, asked);
        let Ok(count) = timeout_at(deadline, self.count_unless(fresh)).await else {
            return Err(self.unanswered());
        };
        match count.queue(queue) {
            Some(figures) => figures.sample(count.at).ok_or_else(|| self.missing(&count)),
            None if count.unknown.is_none() => self.sample_of_new(queue, &count, deadline).await,
            None => Err(self.missing(&count)),
        }
    }

    /// The store has never seen it, and what is in a lane was recorded before. So its lanes are not asked for, which would
    /// make them on some brokers; but what a broker that is away has accepted may be about to be recorded.
    async fn sample_of_new(
        &self,
        queue: &QueueName,
        count: &Count,
        deadline: Instant,
    ) -> Result<QueueSample, Unknown> {
        let deadline = deadline.min(Instant::now() + self.0.bounds.broker);
        match timeout_at(deadline, self.broker().check()).await {
            Ok(Ok(())) => QueueFigures::nothing(queue.clone()).sample(count.at),
            Ok(Err(_)) | Err(_) => None,
        }
        .ok_or_else(|| self.missing(count))
    }

    fn missing(&self, count: &Count) -> Unknown {
        count.unknown.unwrap_or(Unknown::Broker {
            since: self.0.sources.clock.now(),
        })
    }

    /// A count takes longer than anybody waits.
    fn unanswered(&self) -> Unknown {
        let known = self.latest().and_then(|count| count.unknown);
        let since = self.0.sources.clock.now();
        known.unwrap_or(match self.0.asks_broker.load(Ordering::Relaxed) {
            true => Unknown::Broker { since },
            false => Unknown::Store { since },
        })
    }

    /// Hears of queues that had nothing to do and now have something. What is heard of is shown by a count that is
    /// complete already. While [`Self::run`] runs, a queue is heard of within a second; mostly as soon as its first task
    /// is in a lane, since brokers tell of these.
    #[must_use]
    pub fn wakes(&self) -> Wakes {
        Wakes(self.0.wakes.subscribe())
    }

    /// The latest count, however old.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Count>> {
        lock(&self.0.latest).clone()
    }

    /// A count that will do; the latest one where no such count comes within a second.
    pub async fn counted(&self, will_do: impl Fn(&Count) -> bool) -> Arc<Count> {
        let counting = self.count_unless(will_do);
        tokio::pin!(counting);
        match timeout(PATIENCE, &mut counting).await {
            Ok(counted) => counted,
            Err(_) => match self.latest() {
                Some(former) => former,
                None => counting.await,
            },
        }
    }

    /// Counts now, and keeps the result for those who ask.
    pub async fn count(&self) -> Arc<Count> {
        let mut memory = self.0.counting.lock().await;
        self.count_with(&mut memory).await
    }

    async fn count_unless(&self, will_do: impl Fn(&Count) -> bool) -> Arc<Count> {
        let recent = || self.latest().filter(|count| will_do(count));
        if let Some(count) = recent() {
            return count;
        }
        let mut memory = self.0.counting.lock().await;
        match recent() {
            Some(count) => count,
            None => self.count_with(&mut memory).await,
        }
    }

    async fn count_with(&self, memory: &mut Memory) -> Arc<Count> {
        let (began, at) = (Instant::now(), self.0.sources.clock.now());
        let former = self.latest();
        let (depths, from_store) = self.ask_both(former.as_deref()).await;
        let (known, workers) = match from_store {
            Some((rows, workers)) => (rows.into_iter().map(of_store).collect(), Some(workers)),
            None => (former.as_deref().map(forget_rows).unwrap_or_default(), None),
        };
        // A queue that came to be just now is of the next count.
        let with_depth = |queue: QueueFigures| depths.get(&queue.name).map(|depth| with_ready(queue, *depth));
        let mut queues: Vec<QueueFigures> = known.into_iter().filter_map(with_depth).collect();
        if let Some(workers) = &workers {
            memory.judge(&mut queues, workers, began);
            memory
                .oldest
                .look(&*self.0.sources.store, &mut queues, at, self.0.bounds.store)
                .await;
        }
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        let all_ready = queues.iter().all(|queue| queue.ready.is_some());
        let count = Arc::new(Count {
            queues,
            at,
            unknown: memory.note(workers.is_some(), all_ready, at),
            from_store: workers.is_some(),
            began,
            taken: Instant::now(),
        });
        self.keep(&count, former.as_deref());
        count
    }

    /// First what waits and then what runs, so that what is claimed meanwhile is counted twice rather than not at all. Which
    /// queues there are is known from the count before; where there are others, the store is asked again after them.
    async fn ask_both(&self, former: Option<&Count>) -> (Depths, Option<OfStore>) {
        let away = AtomicBool::new(false);
        let names = former.into_iter().flat_map(|former| &former.queues);
        let names = names.map(|queue| queue.name.clone()).collect();
        let mut depths = self.ask_broker(names, &away).await;
        let answer = self.ask_store().await;
        let rows = answer.iter().flat_map(|(rows, _)| rows);
        let others = rows.filter(|row| !depths.contains_key(&row.name));
        let others: Vec<QueueName> = others.map(|row| row.name.clone()).collect();
        if others.is_empty() {
            return (depths, answer);
        }
        depths.extend(self.ask_broker(others, &away).await);
        (depths, self.ask_store().await)
    }

    async fn ask_broker(&self, queues: Vec<QueueName>, away: &AtomicBool) -> Depths {
        self.0.asks_broker.store(true, Ordering::Relaxed);
        stream::iter(queues)
            .map(|queue| async {
                let waiting = self.waiting(&queue, away).await;
                (queue, waiting)
            })
            .buffered(DEPTHS_AT_ONCE)
            .collect()
            .await
    }

    fn keep(&self, count: &Arc<Count>, former: Option<&Count>) {
        count.publish(&self.0.sources.metrics);
        *lock(&self.0.latest) = Some(Arc::clone(count));
        let is_awake = |queue: &QueueName| count.queue(queue).is_some_and(QueueFigures::is_awake);
        self.hints().settle(is_awake, Instant::now());
        for queue in former.into_iter().flat_map(|former| count.woken_since(former)) {
            // Nobody listens: that is fine.
            let _ = self.0.wakes.send(queue.clone());
        }
    }

    /// Queues and workers, if both are known. Asked once more where it failed as on a broken connection: the pool may
    /// have handed one out that a restarted database had closed.
    async fn ask_store(&self) -> Option<OfStore> {
        self.0.asks_broker.store(false, Ordering::Relaxed);
        let began = Instant::now();
        let ask = || async {
            let store = &self.0.sources.store;
            tokio::try_join!(store.queues(), store.workers())
        };
        let twice = async {
            match ask().await {
                Err(error) if may_be_broken(&error) && began.elapsed() < BROKEN_WITHIN => ask().await,
                answer => answer,
            }
        };
        match timeout(self.0.bounds.store, twice).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                debug!(error = %error, "the queues could not be counted");
                None
            }
            Err(_) => {
                debug!("the queues could not be counted in time");
                None
            }
        }
    }

    /// Asks for the depth of a queue's lanes. What is delivered and not acknowledged waits as well, where the broker shows
    /// it: it is not claimed yet, and where its worker has died it comes again. RabbitMQ does not show what other processes
    /// hold, which is claimed within milliseconds, unless its kind has no room for seconds. A broker that is `away` for one queue is not asked for the others: a
    /// thousand timeouts would take longer than anybody waits.
    async fn waiting(&self, queue: &QueueName, away: &AtomicBool) -> Option<u64> {
        let mut sum = 0_u64;
        for lane in Lane::all_of(queue) {
            if away.load(Ordering::Relaxed) {
                return None;
            }
            match timeout(self.0.bounds.broker, self.0.sources.broker.depth(&lane)).await {
                Ok(Ok(depth)) => sum = sum.saturating_add(depth.waiting).saturating_add(depth.delivered),
                Ok(Err(_)) | Err(_) => {
                    away.store(true, Ordering::Relaxed);
                    return None;
                }
            }
        }
        Some(sum)
    }

    pub(crate) fn broker(&self) -> &dyn Broker {
        &*self.0.sources.broker
    }

    /// Something is said to have become ready in these. Of those that are awake anyway that is no news.
    pub(crate) fn heard<'a>(&self, queues: impl Iterator<Item = &'a QueueName>) {
        let latest = self.latest();
        let is_awake = |queue: &QueueName| {
            let figures = latest.as_deref().and_then(|count| count.queue(queue));
            figures.is_some_and(QueueFigures::is_awake)
        };
        let now = Instant::now();
        let mut news = false;
        let mut last = None;
        for queue in queues {
            if last != Some(queue) && !is_awake(queue) {
                news |= self.hints().add(queue, now);
            }
            last = Some(queue);
        }
        if news {
            self.count_soon();
        }
    }

    /// Has [`Self::run`] count at once.
    pub(crate) fn count_soon(&self) {
        self.0.hinted.notify_one();
    }

    fn hints(&self) -> MutexGuard<'_, Hints> {
        lock(&self.0.hints)
    }
}

impl Memory {
    /// Says how many workers each queue takes, of which all is known.
    fn judge(&mut self, queues: &mut [QueueFigures], workers: &[WorkerInfo], now: Instant) {
        let names: BTreeSet<&QueueName> = queues.iter().map(|queue| &queue.name).collect();
        self.windows.retain(|name, _| names.contains(name));
        // By the store's clock, as all of them: this one's may be wrong.
        let latest = workers.iter().map(|worker| worker.heartbeat_at).max();
        let is_heard = |worker: &WorkerInfo| {
            let silent = latest.map(|latest| Duration::try_from(latest.duration_since(worker.heartbeat_at)));
            matches!(silent, Some(Ok(silent)) if silent <= SILENT_MAX)
        };
        for queue in queues {
            queue.is_served = workers
                .iter()
                .any(|worker| !worker.draining && is_heard(worker) && worker.queues.contains(&queue.name));
            let window = self.windows.entry(queue.name.clone()).or_default();
            if let (Some(ready), Some(running)) = (queue.ready, queue.running) {
                window.push(now, &Load::of(&queue.name, ready, running, workers));
                queue.desired_workers = Some(window.desired());
            }
        }
    }

    fn note(&mut self, store: bool, broker: bool, now: Timestamp) -> Option<Unknown> {
        let note = |away: &mut Option<Timestamp>, is_there: bool| {
            *away = match is_there {
                true => None,
                false => Some(away.unwrap_or(now)),
            };
            *away
        };
        let store = note(&mut self.store_away, store);
        Unknown::of(store, note(&mut self.broker_away, broker))
    }
}

/// Whether a count will do for who asks at `asked`. One that takes long makes figures that are as old when it is complete,
/// and the next one is only complete that much later.
fn is_fresh(count: &Count, asked: Instant) -> bool {
    let (since, most) = match count.unknown {
        // What is not known does not get old so quickly: who asks may have waited long to hear that.
        Some(_) => (count.taken, FRESH_MAX),
        None => {
            let length = count.taken.saturating_duration_since(count.began);
            (count.began, (FRESH_MAX + length * 2).min(FRESH_MAX_SLOW))
        }
    };
    asked.saturating_duration_since(since) <= most
}

/// What waits in the lanes of a paused queue is gated, beside what a limit holds back.
fn with_ready(mut queue: QueueFigures, waiting: Option<u64>) -> QueueFigures {
    let throttled = queue.throttled;
    (queue.ready, queue.gated) = match queue.paused {
        Some(true) => (
            waiting.map(|_| 0),
            waiting.map(|waiting| waiting.saturating_add(throttled)),
        ),
        Some(false) => (waiting, waiting.map(|_| throttled)),
        None => (waiting, None),
    };
    queue
}

fn of_store(row: QueueCounts) -> QueueFigures {
    QueueFigures {
        running: Some(row.running),
        scheduled: Some(row.scheduled),
        paused: Some(row.paused),
        throttled: row.throttled,
        ..QueueFigures::unknown(row.name)
    }
}

/// The names of a former count, since names don't go away.
fn forget_rows(former: &Count) -> Vec<QueueFigures> {
    let names = former.queues.iter().map(|queue| queue.name.clone());
    names.map(QueueFigures::unknown).collect()
}

/// Not where a circuit is open: that is known better.
fn may_be_broken(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { source, .. } => !source.is::<Away>(),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
