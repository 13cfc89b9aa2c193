//! `/v1/tasks/{id}/explain`: why a task is where it is.

use axum::{extract::State, http::StatusCode, response::Response};
use forebay_core::{BatchId, TaskId, Timestamp};
use forebay_store::Hold;
use serde::Serialize;

use crate::{
    App,
    error::Result,
    http::{
        json,
        params::{Id, Query},
    },
    ops::{self, explain::Explanation},
};

/// An explanation in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
struct ExplanationBody<'a> {
    id: TaskId,
    state: &'a str,
    reason: &'a str,
    detail: &'a str,
    run_at: Option<Timestamp>,
    next_attempt: Option<u32>,
    ahead: Option<u64>,
    ahead_is_exact: Option<bool>,
    worker: Option<String>,
    worker_name: Option<&'a str>,
    limit: Option<LimitBody<'a>>,
    blocked_on: &'a [TaskId],
    batch: Option<BatchId>,
    at: Timestamp,
}

/// The limit that holds a task back.
#[derive(Debug, Serialize)]
struct LimitBody<'a> {
    name: &'a str,
    key: Option<&'a str>,
    running: u32,
    concurrency: Option<u32>,
    next_at: Option<Timestamp>,
    ahead: u64,
}

impl<'a> From<&'a Hold> for LimitBody<'a> {
    fn from(held: &'a Hold) -> Self {
        Self {
            name: held.limit.as_str(),
            key: held.key.as_deref(),
            running: held.running,
            concurrency: held.concurrency,
            next_at: held.next_at,
            ahead: held.ahead,
        }
    }
}

impl<'a> From<&'a Explanation> for ExplanationBody<'a> {
    fn from(explained: &'a Explanation) -> Self {
        Self {
            id: explained.id,
            state: explained.state.as_str(),
            reason: explained.reason.as_str(),
            detail: &explained.detail,
            run_at: explained.run_at,
            next_attempt: explained.next_attempt,
            ahead: explained.ahead,
            ahead_is_exact: explained.ahead_is_exact,
            worker: explained.worker.map(|worker| worker.to_string()),
            worker_name: explained.worker_name.as_deref(),
            limit: explained.limit.as_ref().map(LimitBody::from),
            blocked_on: &explained.blocked_on,
            batch: explained.batch,
            at: explained.at,
        }
    }
}

/// `GET /v1/tasks/{id}/explain`
pub(crate) async fn get(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let explained = ops::explain::explain(&app, id).await?;
    Ok(json(StatusCode::OK, &ExplanationBody::from(&explained)))
}
