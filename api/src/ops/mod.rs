//! What Forebay can be asked to do. Both doors call these; each returns what happened, or an [`ApiError`].

pub(crate) mod change;
pub(crate) mod follow;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod queues;
pub(crate) mod recent;
pub(crate) mod submit;
pub(crate) mod wait;
pub(crate) mod workers;

use std::future::Future;

use tokio::time::timeout;

use crate::{
    App,
    error::{ApiError, Code, Result},
};

/// Asks the store, bounded.
pub(crate) async fn read<T>(
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
