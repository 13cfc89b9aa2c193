//! What is known of queues. The counting is `forebay_autoscale`'s; here is what the doors make of it.

use std::{sync::Arc, time::Duration};

use forebay_autoscale::{Bounds, Observer, QueueSample, Sources, Unknown};
pub(crate) use forebay_autoscale::{Count, QueueFigures};
use forebay_core::QueueName;
use tokio::time::Instant;

use crate::{
    App, Parts,
    error::{ApiError, Code, Result},
};

/// How often an unknown queue may cause a count.
const RECOUNT: Duration = Duration::from_millis(250);
/// A list older than this is counted anew while whoever asks waits.
const LIST_AGE: Duration = Duration::from_secs(1);

/// Who counts for the doors.
pub(crate) fn observer(parts: &Parts, bounds: &crate::Bounds) -> Observer {
    let store = Arc::clone(&parts.store);
    let sources = Sources {
        store,
        broker: Arc::clone(&parts.broker),
        clock: Arc::clone(&parts.clock),
        metrics: Arc::clone(&parts.metrics),
    };
    let bounds = Bounds {
        store: bounds.count,
        broker: bounds.ask,
    };
    Observer::new(sources, bounds)
}

/// Whether a count is older than it should be.
pub(crate) fn is_stale(app: &App, count: &Count) -> bool {
    count.taken().elapsed() > app.bounds.fresh
}

/// Which figures are missing, and why.
pub(crate) fn problem(count: &Count) -> Option<&'static str> {
    Some(match count.unknown? {
        Unknown::Store { .. } => "the store is not available: running and scheduled are not known",
        Unknown::Broker { .. } => "the broker is not available: ready is not known",
        Unknown::Both { .. } => "neither the store nor the broker is available",
    })
}

/// The queues as counted within a second or so. "None" is only said by a count that began after it was asked for:
/// the first submission may just have been made.
pub(crate) async fn queues(app: &App) -> Result<Arc<Count>> {
    let asked = Instant::now();
    let age = LIST_AGE.min(app.bounds.fresh);
    let will_do = |count: &Count| {
        count.taken().elapsed() <= age && (!count.queues.is_empty() || count.began() >= asked)
    };
    let count = app.observer.counted(will_do).await;
    if count.queues.is_empty() && !count.from_store {
        return Err(ApiError::of(Code::StoreUnavailable));
    }
    Ok(count)
}

/// One queue as counted lately.
pub(crate) async fn queue(app: &App, name: &QueueName) -> Result<(QueueFigures, Arc<Count>)> {
    let mut count = counted_within(app, app.bounds.fresh).await;
    if count.queue(name).is_none() {
        // It may be new.
        count = counted_within(app, RECOUNT).await;
    }
    match count.queue(name).cloned() {
        Some(queue) => Ok((queue, count)),
        None if count.from_store => Err(ApiError::new(
            Code::QueueNotFound,
            format!("no task was ever submitted to the queue {name}"),
        )),
        None => Err(ApiError::of(Code::StoreUnavailable)),
    }
}

/// The queues as counted since `asked`, or before where that takes long.
pub(crate) async fn counted_since(app: &App, asked: Instant) -> Arc<Count> {
    app.observer.counted(|count| count.began() >= asked).await
}

async fn counted_within(app: &App, age: Duration) -> Arc<Count> {
    app.observer.counted(|count| count.taken().elapsed() <= age).await
}

/// What a queue needs, for whoever scales its workers: all of it known, or an error.
pub(crate) async fn autoscale(app: &App, name: &QueueName) -> Result<QueueSample> {
    app.observer.sample(name).await.map_err(|unknown| {
        let code = match unknown {
            Unknown::Store { .. } | Unknown::Both { .. } => Code::StoreUnavailable,
            Unknown::Broker { .. } => Code::BrokerUnavailable,
        };
        let detail = format!("what the queue {name} needs is not known: {unknown}");
        ApiError::new(code, detail)
    })
}
