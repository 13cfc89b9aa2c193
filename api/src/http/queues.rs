//! `/v1/queues`: what waits and what runs, and what shall wait.

use axum::{extract::State, http::StatusCode, response::Response};
use forebay_autoscale::QueueSample;
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
        queues::{Count, QueueFigures, is_stale, problem},
    },
};

/// A queue. A figure that is not known is null, never 0.
#[derive(Debug, Serialize)]
struct QueueBody<'a> {
    name: &'a str,
    ready: Option<u64>,
    running: Option<u64>,
    scheduled: Option<u64>,
    paused: Option<bool>,
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
    fn of(app: &App, queue: &'a QueueFigures, counted: &Count) -> Self {
        Self {
            name: queue.name.as_str(),
            ready: queue.waiting(),
            running: queue.running,
            scheduled: queue.scheduled,
            paused: queue.paused,
            observed_at: counted.at,
            stale: is_stale(app, counted),
            problem: problem(counted),
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
        stale: is_stale(&app, &counted),
        problem: problem(&counted),
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /v1/queues/{queue}`
pub(crate) async fn get(State(app): State<App>, Queue(name): Queue, query: Query) -> Result<Response> {
    query.done()?;
    let (queue, counted) = ops::queues::queue(&app, &name).await?;
    Ok(json(StatusCode::OK, &QueueBody::of(&app, &queue, &counted)))
}

/// `POST /v1/queues/{queue}/pause`
pub(crate) async fn pause(State(app): State<App>, Queue(name): Queue, query: Query) -> Result<Response> {
    query.done()?;
    let (queue, counted) = ops::pause::set_paused(&app, &name, true).await?;
    Ok(json(StatusCode::OK, &QueueBody::of(&app, &queue, &counted)))
}

/// `POST /v1/queues/{queue}/resume`
pub(crate) async fn resume(State(app): State<App>, Queue(name): Queue, query: Query) -> Result<Response> {
    query.done()?;
    let (queue, counted) = ops::pause::set_paused(&app, &name, false).await?;
    Ok(json(StatusCode::OK, &QueueBody::of(&app, &queue, &counted)))
}

/// What a queue needs, all of it known.
#[derive(Debug, Serialize)]
struct AutoscaleBody<'a> {
    queue: &'a str,
    ready: u64,
    running: u64,
    gated: u64,
    scheduled: u64,
    oldest_ready_age_seconds: Option<f64>,
    desired_workers: u64,
    at: Timestamp,
}

impl<'a> From<&'a QueueSample> for AutoscaleBody<'a> {
    fn from(sample: &'a QueueSample) -> Self {
        Self {
            queue: sample.queue.as_str(),
            ready: sample.ready,
            running: sample.running,
            gated: sample.gated,
            scheduled: sample.scheduled,
            oldest_ready_age_seconds: sample.oldest_ready_age.map(|age| age.as_secs_f64()),
            desired_workers: sample.desired_workers,
            at: sample.at,
        }
    }
}

/// `GET /v1/queues/{queue}/autoscale`
pub(crate) async fn autoscale(State(app): State<App>, Queue(name): Queue, query: Query) -> Result<Response> {
    query.done()?;
    let sample = ops::queues::autoscale(&app, &name).await?;
    Ok(json(StatusCode::OK, &AutoscaleBody::from(&sample)))
}
