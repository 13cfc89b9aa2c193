//! Counts what waits and what runs in each queue: in one place, every second or so, for the API and the metrics.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_core::{Lane, QueueName, Timestamp};
use forebay_runtime::metrics::QueueGauges;
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{ask, read},
};

/// How many depths are asked for at once.
const DEPTHS_AT_ONCE: usize = 8;
/// How often an unknown queue may cause a count.
const RECOUNT: Duration = Duration::from_millis(250);
/// A list older than this is counted anew while whoever asks waits.
const LIST_AGE: Duration = Duration::from_secs(1);
/// How long one waits for a new count where there is a former one to show.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of a queue. What is not known is `None`, never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueFigures {
    pub(crate) name: QueueName,
    pub(crate) ready: Option<u64>,
    pub(crate) running: Option<u64>,
    pub(crate) scheduled: Option<u64>,
}

/// What was known of all queues at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) queues: Vec<QueueFigures>,
    pub(crate) at: Timestamp,
    /// Which figures are missing, and why.
    pub(crate) problem: Option<&'static str>,
    began: Instant,
    taken: Instant,
    from_store: bool,
}

/// The latest count, and who counts.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    latest: Mutex<Option<Arc<Counted>>>,
    /// One counts at a time.
    counting: tokio::sync::Mutex<()>,
}

impl Observed {
    fn latest(&self) -> Option<Arc<Counted>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Counted {
    /// Whether it is older than it should be.
    pub(crate) fn is_stale(&self, app: &App) -> bool {
        self.taken.elapsed() > app.bounds.fresh
    }
}

/// The queues as counted within a second or so. "None" is only said by a count that began after it was asked for:
/// the first submission may just have been made.
pub(crate) async fn queues(app: &App) -> Result<Arc<Counted>> {
    let asked = Instant::now();
    let age = LIST_AGE.min(app.bounds.fresh);
    let counted = counted_so(app, |counted| {
        counted.taken.elapsed() <= age && (!counted.queues.is_empty() || counted.began >= asked)
    })
    .await;
    if counted.queues.is_empty() && !counted.from_store {
        return Err(ApiError::of(Code::StoreUnavailable));
    }
    Ok(counted)
}

/// One queue as counted lately.
pub(crate) async fn queue(app: &App, name: &QueueName) -> Result<(QueueFigures, Arc<Counted>)> {
    let find = |counted: &Counted| counted.queues.iter().find(|queue| queue.name == *name).cloned();
    let mut counted = counted_within(app, app.bounds.fresh).await;
    if find(&counted).is_none() {
        // It may be new.
        counted = counted_within(app, RECOUNT).await;
    }
    match find(&counted) {
        Some(queue) => Ok((queue, counted)),
        None if counted.from_store => Err(ApiError::new(
            Code::QueueNotFound,
            format!("no task was ever submitted to the queue {name}"),
        )),
        None => Err(ApiError::of(Code::StoreUnavailable)),
    }
}

async fn counted_within(app: &App, age: Duration) -> Arc<Counted> {
    counted_so(app, |counted| counted.taken.elapsed() <= age).await
}

/// A count that will do; the latest one where no such count comes soon enough.
async fn counted_so(app: &App, will_do: impl Fn(&Counted) -> bool) -> Arc<Counted> {
    let recent = || app.observed.latest().filter(|counted| will_do(counted));
    if let Some(counted) = recent() {
        return counted;
    }
    let counting = async {
        let _turn = app.observed.counting.lock().await;
        match recent() {
            Some(counted) => counted,
            None => count(app).await,
        }
    };
    tokio::pin!(counting);
    match (timeout(PATIENCE, &mut counting).await, app.observed.latest()) {
        (Ok(counted), _) | (Err(_), Some(counted)) => counted,
        (Err(_), None) => counting.await,
    }
}

/// Counts, and keeps the result for those who ask.
pub(crate) async fn collect(app: &App) -> Arc<Counted> {
    let _turn = app.observed.counting.lock().await;
    count(app).await
}

async fn count(app: &App) -> Arc<Counted> {
    let began = Instant::now();
    let from_store = read(app, || app.store.queues()).await.ok();
    let known: Vec<QueueFigures> = match &from_store {
        Some(rows) => rows
            .iter()
            .map(|row| QueueFigures {
                name: row.name.clone(),
                ready: None,
                running: Some(row.running),
                scheduled: Some(row.scheduled),
            })
            .collect(),
        None => app
            .observed
            .latest()
            .as_deref()
            .map(forget_rows)
            .unwrap_or_default(),
    };
    let away = AtomicBool::new(false);
    let queues: Vec<QueueFigures> = stream::iter(known)
        .map(|queue| with_ready(app, queue, &away))
        .buffered(DEPTHS_AT_ONCE)
        .collect()
        .await;
    let all_ready = queues.iter().all(|queue| queue.ready.is_some());
    let counted = Arc::new(Counted {
        problem: match (from_store.is_some(), all_ready) {
            (true, true) => None,
            (false, true) => Some("the store is not available: running and scheduled are not known"),
            (true, false) => Some("the broker is not available: ready is not known"),
            (false, false) => Some("neither the store nor the broker is available"),
        },
        queues,
        at: app.clock.now(),
        began,
        taken: Instant::now(),
        from_store: from_store.is_some(),
    });
    publish_gauges(app, &counted);
    *app.observed.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&counted));
    counted
}

/// The names of a former count, since names don't go away.
fn forget_rows(former: &Counted) -> Vec<QueueFigures> {
    let mut queues = former.queues.clone();
    for queue in &mut queues {
        (queue.ready, queue.running, queue.scheduled) = (None, None, None);
    }
    queues
}

/// Asks for the depth of a queue's lanes. A broker that is `away` for one queue is not asked for the others: a
/// thousand timeouts would take longer than anybody waits.
async fn with_ready(app: &App, mut queue: QueueFigures, away: &AtomicBool) -> QueueFigures {
    let mut sum = 0_u64;
    for lane in Lane::all_of(&queue.name) {
        if away.load(Ordering::Relaxed) {
            return queue;
        }
        match ask(app, app.broker.depth(&lane)).await {
            Ok(depth) => sum = sum.saturating_add(depth.waiting),
            Err(_) => {
                away.store(true, Ordering::Relaxed);
                return queue;
            }
        }
    }
    queue.ready = Some(sum);
    queue
}

/// Only a whole count moves the metrics: their timestamp says since when they are old.
fn publish_gauges(app: &App, counted: &Counted) {
    if counted.problem.is_some() {
        return;
    }
    let gauges: Vec<(QueueName, QueueGauges)> = counted
        .queues
        .iter()
        .map(|queue| {
            let gauges = QueueGauges {
                ready: queue.ready.unwrap_or_default(),
                running: queue.running.unwrap_or_default(),
                scheduled: queue.scheduled.unwrap_or_default(),
            };
            (queue.name.clone(), gauges)
        })
        .collect();
    app.metrics.queues(counted.at.as_second(), &gauges);
}
