//! `/v1/queues`: what waits and what runs.

use axum::{extract::State, http::StatusCode, response::Response};
use forebay_core::Timestamp;
use serde::Serialize;

use crate::{
    App,
    error::Result,
    http::{
        json,
        params::{Query, Queue},
    },
    ops::{
        self,
        queues::{Counted, QueueFigures},
    },
};

/// A queue. A figure that is not known is null, never 0.
#[derive(Debug, Serialize)]
struct QueueBody<'a> {
    name: &'a str,
    ready: Option<u64>,
    running: Option<u64>,
    scheduled: Option<u64>,
    observed_at: Timestamp,
    stale: bool,
    problem: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct QueuesBody<'a> {
    queues: Vec<QueueBody<'a>>,
    observed_at: Timestamp,
    stale: bool,
    problem: Option<&'static str>,
}

impl<'a> QueueBody<'a> {
    fn of(app: &App, queue: &'a QueueFigures, counted: &Counted) -> Self {
        Self {
            name: queue.name.as_str(),
            ready: queue.ready,
            running: queue.running,
            scheduled: queue.scheduled,
            observed_at: counted.at,
            stale: counted.is_stale(app),
            problem: counted.problem,
        }
    }
}

/// `GET /v1/queues`
pub(crate) async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    query.done()?;
    let counted = ops::queues::queues(&app).await?;
    let queues = counted
        .queues
        .iter()
        .map(|queue| QueueBody::of(&app, queue, &counted));
    let body = QueuesBody {
        queues: queues.collect(),
        observed_at: counted.at,
        stale: counted.is_stale(&app),
        problem: counted.problem,
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /v1/queues/{queue}`
pub(crate) async fn get(State(app): State<App>, Queue(name): Queue, query: Query) -> Result<Response> {
    query.done()?;
    let (queue, counted) = ops::queues::queue(&app, &name).await?;
    Ok(json(StatusCode::OK, &QueueBody::of(&app, &queue, &counted)))
}
