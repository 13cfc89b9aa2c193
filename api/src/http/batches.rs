//! `/v1/batches`: tasks that are submitted together and looked at together.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use forebay_core::{BatchId, State as TaskState, Task, TaskId, Timestamp};
use forebay_store::{Batch, BatchCounts};
use serde::{Deserialize, Serialize};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::Instrument;

use crate::{
    App,
    error::{ApiError, Code, Result},
    http::{
        body::{self, MediaType},
        json, page,
        params::{Batch as Id, Query, Trace},
        submission::{Members, Object, key_in, object},
    },
    ops::{
        self,
        batches::{Accepted, Asked, Said, Tasks},
        submit::Asked as AskedTask,
    },
    task::TaskBody,
};

/// What is said of a body that is no object.
const NO_BATCH: &str = "a batch must be a JSON object, such as {\"tasks\": [{\"kind\": \"echo\"}]}";

/// The members of a batch as it is opened. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenBody<'a> {
    name: Option<String>,
    project: Option<String>,
    #[serde(borrow)]
    tasks: Option<Vec<Object<'a>>>,
    chain: Option<bool>,
    on_complete: Option<Object<'a>>,
    open: Option<bool>,
}

/// What is added to a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody<'a> {
    #[serde(borrow)]
    tasks: Vec<Object<'a>>,
    chain: Option<bool>,
}

fn asked(tasks: Vec<Object<'_>>, text: &Bytes) -> Vec<AskedTask> {
    tasks.into_iter().map(|Members(task)| task.asked(text)).collect()
}

/// A batch in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
struct BatchBody<'a> {
    id: BatchId,
    name: Option<&'a str>,
    project: &'a str,
    state: &'static str,
    total: u64,
    ended: u64,
    progress: f64,
    counts: Option<BTreeMap<&'static str, u64>>,
    completion_task_id: Option<TaskId>,
    created_at: Timestamp,
    closed_at: Option<Timestamp>,
    cancelled_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

impl<'a> BatchBody<'a> {
    fn of(batch: &'a Batch, counts: Option<&BatchCounts>) -> Self {
        Self {
            id: batch.id,
            name: batch.name.as_deref(),
            project: batch.project.as_str(),
            state: state_of(batch),
            total: batch.total,
            ended: batch.ended,
            progress: progress_of(batch),
            counts: counts.map(|counts| told(batch, counts)),
            completion_task_id: batch.completion,
            created_at: batch.created_at,
            closed_at: batch.closed_at,
            cancelled_at: batch.cancelled_at,
            completed_at: batch.completed_at,
        }
    }
}

fn state_of(batch: &Batch) -> &'static str {
    match batch {
        Batch {
            cancelled_at: Some(_),
            ..
        } => "cancelled",
        Batch {
            completed_at: Some(_),
            ..
        } => "completed",
        Batch { closed_at: None, .. } => "open",
        _ => "running",
    }
}

fn progress_of(batch: &Batch) -> f64 {
    match batch.total {
        0 => f64::from(batch.completed_at.is_some()),
        total => (batch.ended as f64 / total as f64).min(1.0),
    }
}

/// All states, and what is accepted and not recorded yet.
fn told(batch: &Batch, counts: &BatchCounts) -> BTreeMap<&'static str, u64> {
    let of = |state: TaskState| (state.as_str(), counts.of.get(&state).copied().unwrap_or(0));
    let accepted = batch.total.saturating_sub(counts.recorded());
    TaskState::ALL
        .into_iter()
        .map(of)
        .chain([("accepted", accepted)])
        .collect()
}

/// A batch, and the tasks that this request has submitted.
#[derive(Debug, Serialize)]
struct AcceptedBody<'a> {
    #[serde(flatten)]
    batch: BatchBody<'a>,
    task_ids: &'a [TaskId],
}

fn accepted(accepted: &Accepted) -> Response {
    let body = AcceptedBody {
        batch: BatchBody::of(&accepted.batch, None),
        task_ids: &accepted.ids,
    };
    let mut response = json(StatusCode::ACCEPTED, &body);
    let location = HeaderValue::from_str(&format!("/v1/batches/{}", accepted.batch.id));
    let headers = response.headers_mut();
    headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    if accepted.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// Reads the body of a request that submits many tasks.
async fn text(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes> {
    if body::media_type(headers) != Some(MediaType::Json) {
        return Err(body::unsupported(headers, "application/json"));
    }
    body::read(headers, body, app.bounds.batch_bytes, app.bounds.body).await
}

fn key(headers: &HeaderMap) -> Result<Option<String>> {
    key_in(headers).map_err(|detail| ApiError::at(Code::InvalidParameter, "/Idempotency-Key", detail))
}

/// Goes on with it when the client hangs up: once a batch counts on tasks, these must be submitted.
async fn to_its_end(
    place: OwnedSemaphorePermit,
    work: impl Future<Output = Result<Accepted>> + Send + 'static,
) -> Result<Accepted> {
    let work = async move {
        let _place = place;
        work.await
    };
    let work = tokio::spawn(work.in_current_span()).await;
    work.unwrap_or_else(|_| Err(ApiError::of(Code::Internal)))
}

/// `POST /v1/batches`
pub(crate) async fn open(
    State(app): State<App>,
    Trace(traceparent): Trace,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let place = Arc::clone(&app.places.batches).acquire_owned();
    let Ok(Ok(place)) = timeout(app.bounds.submit, place).await else {
        body::drain(body).await;
        return Err(ApiError::of(Code::Overloaded));
    };
    let text = text(&app, &headers, body).await?;
    let said: OpenBody<'_> = object(&text, NO_BATCH)?;
    let asked = Asked {
        name: said.name,
        project: said.project,
        is_open: said.open.unwrap_or(false),
        tasks: Tasks {
            tasks: asked(said.tasks.unwrap_or_default(), &text),
            chain: said.chain.unwrap_or(false),
            key: key(&headers)?,
            said: Said::of(&text),
            traceparent,
        },
        on_complete: said.on_complete.map(|Members(task)| task.asked(&text)),
    };
    let done = to_its_end(place, async move { ops::batches::open(&app, asked).await }).await?;
    Ok(accepted(&done))
}

/// `POST /v1/batches/{id}/tasks`
pub(crate) async fn add(
    State(app): State<App>,
    Id(id): Id,
    Trace(traceparent): Trace,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let place = Arc::clone(&app.places.batches).acquire_owned();
    let Ok(Ok(place)) = timeout(app.bounds.submit, place).await else {
        body::drain(body).await;
        return Err(ApiError::of(Code::Overloaded));
    };
    let text = text(&app, &headers, body).await?;
    let said: AddBody<'_> = object(&text, NO_BATCH)?;
    let tasks = Tasks {
        tasks: asked(said.tasks, &text),
        chain: said.chain.unwrap_or(false),
        key: key(&headers)?,
        said: Said::of(&text),
        traceparent,
    };
    let done = to_its_end(place, async move { ops::batches::grow(&app, id, tasks).await }).await?;
    Ok(accepted(&done))
}

/// `GET /v1/batches/{id}`
pub(crate) async fn get(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let (batch, counts) = ops::batches::get(&app, id).await?;
    Ok(json(StatusCode::OK, &BatchBody::of(&batch, Some(&counts))))
}

/// `POST /v1/batches/{id}/close`
pub(crate) async fn close(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let batch = ops::batches::close(&app, id).await?;
    Ok(json(StatusCode::OK, &BatchBody::of(&batch, None)))
}

/// `POST /v1/batches/{id}/cancel`
pub(crate) async fn cancel(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let batch = ops::batches::cancel(&app, id).await?;
    Ok(json(StatusCode::ACCEPTED, &BatchBody::of(&batch, None)))
}

#[derive(Debug, Serialize)]
struct BatchesBody<'a> {
    batches: Vec<BatchBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `GET /v1/batches`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let project = query.parsed::<forebay_core::Project>("project");
    let (page_size, page_token) = (query.parsed("page_size"), query.text("page_token"));
    query.done()?;
    let mut repeated = Vec::new();
    repeated.extend(project.as_ref().map(|project| ("project", project.to_string())));
    repeated.extend(page_size.map(|size: i64| ("page_size", size.to_string())));
    let listed = ops::batches::list(&app, project, page_size, page_token).await?;
    let body = BatchesBody {
        batches: listed
            .batches
            .iter()
            .map(|batch| BatchBody::of(batch, None))
            .collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/batches", repeated, &body, listed.next.as_deref()))
}

#[derive(Debug, Serialize)]
struct TasksBody<'a> {
    tasks: Vec<TaskBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `GET /v1/batches/{id}/tasks`
pub(crate) async fn tasks(State(app): State<App>, Id(id): Id, mut query: Query) -> Result<Response> {
    let (page_size, page_token) = (query.parsed("page_size"), query.text("page_token"));
    query.done()?;
    let listed = ops::batches::tasks(&app, id, page_size, page_token).await?;
    let body = TasksBody {
        tasks: listed
            .tasks
            .iter()
            .map(|task: &Task| TaskBody::from(task))
            .collect(),
        next_page_token: listed.next.as_deref(),
    };
    let repeated = page_size.map(|size: i64| ("page_size", size.to_string()));
    let path = format!("/v1/batches/{id}/tasks");
    Ok(page(&path, repeated, &body, listed.next.as_deref()))
}
