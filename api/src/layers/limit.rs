//! How many requests may be under way. Past it the answer is 503 at once: nothing queues in memory.
//!
//! What depends on the broker and what depends on the store are counted apart, so that a store which has gone slow,
//! and the reads that pile up before it, leave the submissions alone, and the reverse.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::SemaphorePermit;

use crate::{
    App,
    error::{ApiError, Code, Result},
};

/// Requests that share places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Submissions,
    Reads,
    Changes,
}

impl Pool {
    /// A place for a request; it is held until the head of the answer is written.
    pub(crate) fn place(self, app: &App) -> Result<SemaphorePermit<'_>> {
        let places = match self {
            Self::Submissions => &app.places.submissions,
            Self::Reads => &app.places.reads,
            Self::Changes => &app.places.changes,
        };
        places.try_acquire().map_err(|_| ApiError::of(Code::Overloaded))
    }
}

pub(crate) async fn layer(State((app, pool)): State<(App, Pool)>, request: Request, next: Next) -> Response {
    match pool.place(&app) {
        Ok(_place) => next.run(request).await,
        Err(overloaded) => overloaded.into_response(),
    }
}
