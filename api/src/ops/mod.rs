//! What Forebay can be asked to do. Both doors call these; each returns what happened, or an [`ApiError`].

pub(crate) mod after;
pub(crate) mod batches;
pub(crate) mod change;
pub(crate) mod counts;
pub(crate) mod explain;
pub(crate) mod follow;
pub(crate) mod get;
pub(crate) mod kinds;
pub(crate) mod limits;
pub(crate) mod list;
pub(crate) mod notify;
pub(crate) mod operations;
pub(crate) mod page;
pub(crate) mod pause;
pub(crate) mod queues;
pub(crate) mod recent;
pub(crate) mod rejects;
pub(crate) mod schedules;
pub(crate) mod submit;
pub(crate) mod unique;
pub(crate) mod wait;
pub(crate) mod webhooks;
pub(crate) mod workers;

use std::{future::Future, time::Duration};

use forebay_runtime::guard::Away;
use forebay_store::StoreError;
use tokio::time::{Instant, timeout};
use tower::retry::budget::Budget;

use crate::{
    App,
    error::{ApiError, Code, Result},
};

/// A failure that comes later than this is no broken connection, and asking again would only cost more time.
const BROKEN_WITHIN: Duration = Duration::from_millis(250);

/// Puts a question to the store, bounded, and once more where it failed as on a broken connection: the pool may have
/// handed one out that a restarted database had closed. So that this does not double an outage's load, there is a
/// budget for it.
pub(crate) async fn read<T, A>(app: &App, question: impl Fn() -> A) -> Result<T>
where
    A: Future<Output = forebay_store::Result<T>>,
{
    let twice = async {
        app.retries.deposit();
        let began = Instant::now();
        match question().await {
            Err(error)
                if may_be_broken(&error) && began.elapsed() < BROKEN_WITHIN && app.retries.withdraw() =>
            {
                tracing::debug!(error = %error, "a read failed, and is tried once more");
                question().await
            }
            answer => answer,
        }
    };
    once(app, twice).await
}

/// Not where a circuit is open: that is known better.
fn may_be_broken(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { source, .. } => !source.is::<Away>(),
        _ => false,
    }
}

/// Puts a question, or a command, to the store, bounded, and once only.
pub(crate) async fn once<T>(
    app: &App,
    question: impl Future<Output = forebay_store::Result<T>>,
) -> Result<T> {
    match timeout(app.bounds.read, question).await {
        Ok(answer) => answer.map_err(ApiError::from),
        Err(_) => Err(ApiError::of(Code::StoreUnavailable)),
    }
}

/// Asks the broker, bounded.
pub(crate) async fn ask<T>(
    app: &App,
    question: impl Future<Output = forebay_broker::Result<T>>,
) -> Result<T> {
    match timeout(app.bounds.ask, question).await {
        Ok(answer) => answer.map_err(ApiError::from),
        Err(_) => Err(ApiError::of(Code::BrokerUnavailable)),
    }
}
