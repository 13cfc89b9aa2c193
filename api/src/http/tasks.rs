//! `/v1/tasks`: one task at a time, and the list.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use forebay_core::{Task, TraceParent};
use forebay_store::TaskFilter;
use serde::Serialize;

use crate::{
    App,
    error::Result,
    http::{
        body::{self, MediaType},
        json, page,
        params::{Id, Query, Trace, prefer_wait},
        submission,
    },
    ops::{self, list::Wanted, submit::Accepted},
    task::{self, TaskBody},
};

/// How many headers an answer to a submission has.
const HEADERS_MAX: usize = 12;

/// `POST /v1/tasks`
pub(crate) async fn submit(
    State(app): State<App>,
    Trace(traceparent): Trace,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    submit_one(&app, traceparent, &headers, body).await
}

/// The same, once it is known that there is no query.
pub(crate) async fn submit_one(
    app: &App,
    traceparent: Option<TraceParent>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response> {
    if body::media_type(headers) != Some(MediaType::Json) {
        return Err(body::unsupported(headers, "application/json"));
    }
    let text = body::read(headers, body, app.bounds.body_bytes, app.bounds.body).await?;
    let asked = submission::parse(&text)?.with_headers(headers, traceparent)?;
    drop(text);
    let accepted = ops::submit::submit(app, asked).await?;
    match prefer_wait(headers).filter(|wait| !wait.is_zero()) {
        // Boxed, so that those who do not wait need not carry its state.
        Some(wait) => Ok(Box::pin(waited(app, accepted, wait)).await),
        None if accepted.replayed || accepted.stands_in => Ok(answer(StatusCode::ACCEPTED, &accepted)),
        None => Ok(at_once(&accepted.task)),
    }
}

/// The answer to what was new a moment ago.
fn at_once(task: &Task) -> Response {
    let mut response = Response::new(Body::from(task::write_accepted(task)));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    // These two, those that every answer has, and what the server adds.
    headers.reserve(HEADERS_MAX);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(location(task).map(|location| (header::LOCATION, location)));
    response
}

fn location(task: &Task) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("/v1/tasks/{}", task.id)).ok()
}

/// Answers when the task has ended, or when the client does not prefer to wait any longer.
async fn waited(app: &App, mut accepted: Accepted, wait: Duration) -> Response {
    let wait = wait.min(app.bounds.wait);
    let Some(ended) = ops::wait::wait(app, &accepted.task, wait).await else {
        return answer(StatusCode::ACCEPTED, &accepted);
    };
    let status = if ended.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    accepted.task = ended.unwrap_or(accepted.task);
    let mut response = answer(status, &accepted);
    if let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
        response.headers_mut().insert("preference-applied", applied);
    }
    response
}

fn answer(status: StatusCode, accepted: &Accepted) -> Response {
    let mut response = json(status, &TaskBody::from(&accepted.task));
    let location = location(&accepted.task);
    response
        .headers_mut()
        .extend(location.map(|location| (header::LOCATION, location)));
    if accepted.replayed {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotency-replayed", replayed);
    }
    if accepted.stands_in {
        let returned = HeaderValue::from_static("true");
        response.headers_mut().insert("unique-returned", returned);
    }
    response
}

/// `GET /v1/tasks/{id}`
pub(crate) async fn get(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let task = ops::get::get(&app, id).await?;
    Ok(json(StatusCode::OK, &TaskBody::from(&task)))
}

/// `POST /v1/tasks/{id}/cancel`
pub(crate) async fn cancel(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let task = ops::change::cancel(&app, id).await?;
    Ok(json(StatusCode::ACCEPTED, &TaskBody::from(&task)))
}

/// `POST /v1/tasks/{id}/retry`
pub(crate) async fn retry(State(app): State<App>, Id(id): Id, query: Query) -> Result<Response> {
    query.done()?;
    let task = ops::change::retry(&app, id).await?;
    Ok(json(StatusCode::ACCEPTED, &TaskBody::from(&task)))
}

#[derive(Debug, Serialize)]
struct ListBody<'a> {
    tasks: Vec<TaskBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `GET /v1/tasks`
pub(crate) async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    let (wanted, repeated) = wanted(query)?;
    let listed = ops::list::list(&app, wanted).await?;
    let body = ListBody {
        tasks: listed
            .tasks
            .iter()
            .map(|task: &Task| TaskBody::from(task))
            .collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/tasks", repeated, &body, listed.next.as_deref()))
}

/// The query's parameters other than the token, as they came: what a link to the next page repeats.
type Repeated = Vec<(&'static str, String)>;

fn wanted(mut query: Query) -> Result<(Wanted, Repeated)> {
    let mut repeated = Repeated::new();
    let mut repeat = |name, value: Option<String>| repeated.extend(value.map(|value| (name, value)));
    let filter = TaskFilter {
        project: query.parsed("project"),
        state: query.parsed("state"),
        queue: query.parsed("queue"),
        kind: query.parsed("kind"),
        tag: query.text("tag"),
        created_after: query.time("created_after"),
        created_before: query.time("created_before"),
    };
    let page_size = query.parsed("page_size");
    let page_token = query.text("page_token");
    query.done()?;
    repeat("project", filter.project.as_ref().map(ToString::to_string));
    repeat("state", filter.state.map(|state| state.to_string()));
    repeat("queue", filter.queue.as_ref().map(ToString::to_string));
    repeat("kind", filter.kind.as_ref().map(ToString::to_string));
    repeat("tag", filter.tag.clone());
    repeat("created_after", filter.created_after.map(|at| at.to_string()));
    repeat("created_before", filter.created_before.map(|at| at.to_string()));
    repeat("page_size", page_size.map(|size: i64| size.to_string()));
    let wanted = Wanted {
        filter,
        page_size,
        page_token,
    };
    Ok((wanted, repeated))
}
