//! `/v1/workers`: who runs, what, since when.

use std::collections::BTreeMap;

use axum::{extract::State, http::StatusCode, response::Response};
use forebay_core::{Timestamp, WorkerInfo};
use serde::Serialize;

use crate::{
    App,
    error::Result,
    http::{json, params::Query},
    ops,
};

#[derive(Debug, Serialize)]
struct WorkerBody<'a> {
    id: String,
    name: &'a str,
    queues: Vec<&'a str>,
    slots: u32,
    /// How many tasks it runs, of each queue.
    busy: BTreeMap<&'a str, u32>,
    draining: bool,
    started_at: Timestamp,
    heartbeat_at: Timestamp,
}

impl<'a> From<&'a WorkerInfo> for WorkerBody<'a> {
    fn from(worker: &'a WorkerInfo) -> Self {
        Self {
            id: worker.id.to_string(),
            name: &worker.name,
            queues: worker.queues.iter().map(|queue| queue.as_str()).collect(),
            slots: worker.slots,
            busy: worker
                .busy
                .iter()
                .map(|(queue, count)| (queue.as_str(), *count))
                .collect(),
            draining: worker.draining,
            started_at: worker.started_at,
            heartbeat_at: worker.heartbeat_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct WorkersBody<'a> {
    workers: Vec<WorkerBody<'a>>,
}

/// `GET /v1/workers`
pub(crate) async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    query.done()?;
    let workers = ops::workers::workers(&app).await?;
    let body = WorkersBody {
        workers: workers.iter().map(WorkerBody::from).collect(),
    };
    Ok(json(StatusCode::OK, &body))
}
