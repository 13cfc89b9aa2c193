//! Server-Sent Events: of one task, and of all.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use forebay_core::{Kind, QueueName, State as TaskState, TaskEvent, TaskProgress, Timestamp};
use futures::{Stream, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use crate::{
    App,
    error::{ApiError, Code, Result},
    events::{Heard, event_id},
    http::params::{Id, Query},
    ops::follow::{Cursor, Follow, Step},
    task::TaskBody,
};

/// The longest `Last-Event-ID` that is looked at.
const LAST_ID_BYTES_MAX: usize = 128;

#[derive(Debug, Serialize)]
struct StepBody<'a> {
    id: String,
    state: &'static str,
    attempt: u32,
    at: Timestamp,
    task: Option<TaskBody<'a>>,
    progress: Option<&'a TaskProgress>,
}

/// `GET /v1/tasks/{id}/events`
pub(crate) async fn of_task(
    State(app): State<App>,
    Id(id): Id,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    query.done()?;
    let place = place(&app)?;
    let after = last_event_id(&headers).and_then(Cursor::parse);
    let follow = Follow::open(&app, id, after).await?;
    if follow.is_over() {
        // What an EventSource takes for the end; after a 200 it would come again for ever.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let steps = stream::unfold((follow, place), move |(mut follow, place)| async move {
        let step = follow.next().await?;
        Some((step_event(&id.to_string(), &step), (follow, place)))
    });
    Ok(sse(&app, steps))
}

fn step_event(id: &str, step: &Step) -> Event {
    let body = StepBody {
        id: id.to_owned(),
        state: step.cursor.state.as_str(),
        attempt: step.cursor.attempt,
        at: step.cursor.at,
        task: step.task.as_deref().map(TaskBody::from),
        progress: step.progress.as_ref(),
    };
    let name = if step.progress.is_some() {
        "progress"
    } else {
        "state"
    };
    event(name, &body).id(step.cursor.to_string())
}

#[derive(Debug, Serialize)]
struct EventBody<'a> {
    id: String,
    kind: &'a str,
    queue: &'a str,
    state: &'static str,
    attempt: u32,
    at: Timestamp,
}

#[derive(Debug, Serialize)]
struct MissedBody {
    missed: Option<u64>,
}

/// `GET /v1/events`
pub(crate) async fn all(State(app): State<App>, mut query: Query, headers: HeaderMap) -> Result<Response> {
    let wanted = Wanted {
        queue: query.parsed("queue"),
        kind: query.parsed("kind"),
        state: query.parsed("state"),
    };
    query.done()?;
    let listening = Listening::new(&app, wanted, last_event_id(&headers), place(&app)?);
    let events = stream::unfold(listening, |mut listening| async move {
        let event = listening.next().await?;
        Some((event, listening))
    });
    Ok(sse(&app, events))
}

/// Which events a listener wants.
struct Wanted {
    queue: Option<QueueName>,
    kind: Option<Kind>,
    state: Option<TaskState>,
}

impl Wanted {
    fn wants(&self, event: &TaskEvent) -> bool {
        self.queue.as_ref().is_none_or(|queue| *queue == event.queue)
            && self.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && self.state.is_none_or(|state| state == event.state)
    }
}

struct Listening {
    app: App,
    wanted: Wanted,
    /// What came since the client was here last.
    since: VecDeque<Arc<TaskEvent>>,
    /// Whether events may be missing before the next one.
    missed: Option<Option<u64>>,
    events: broadcast::Receiver<Heard>,
    _place: OwnedSemaphorePermit,
}

impl Listening {
    fn new(app: &App, wanted: Wanted, last: Option<&str>, place: OwnedSemaphorePermit) -> Self {
        let (since, events) = match last {
            Some(last) => app.hub.resume(last),
            None => (Some(Vec::new()), app.hub.listen()),
        };
        Self {
            app: app.clone(),
            wanted,
            missed: since.is_none().then_some(None),
            since: since.unwrap_or_default().into(),
            events,
            _place: place,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(missed) = self.missed.take() {
            return Some(event("missed", &MissedBody { missed }));
        }
        while let Some(past) = self.since.pop_front() {
            if self.wanted.wants(&past) {
                return Some(heard_event(&past));
            }
        }
        let stop = self.app.stop.clone();
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => return None,
                heard = self.events.recv() => heard,
            };
            let missed = match heard {
                Ok(Heard::Event(heard)) if self.wanted.wants(&heard) => return Some(heard_event(&heard)),
                Ok(Heard::Event(_)) => continue,
                Ok(Heard::Gap) => None,
                Err(broadcast::error::RecvError::Lagged(count)) => Some(count),
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            return Some(event("missed", &MissedBody { missed }));
        }
    }
}

fn heard_event(heard: &TaskEvent) -> Event {
    let body = EventBody {
        id: heard.id.to_string(),
        kind: heard.kind.as_str(),
        queue: heard.queue.as_str(),
        state: heard.state.as_str(),
        attempt: heard.attempt,
        at: heard.at,
    };
    event("state", &body).id(event_id(heard))
}

fn event<T: Serialize>(name: &str, body: &T) -> Event {
    let event = Event::default().event(name);
    match serde_json::to_string(body) {
        Ok(text) => event.data(text),
        Err(error) => {
            tracing::error!(error = %error, "an event could not be written");
            event.data("null")
        }
    }
}

fn place(app: &App) -> Result<OwnedSemaphorePermit> {
    let place = Arc::clone(&app.places.streams).try_acquire_owned();
    place.map_err(|_| ApiError::of(Code::Overloaded))
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= LAST_ID_BYTES_MAX).then_some(id)
}

fn sse(app: &App, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures::StreamExt;
    let events = events.map(Ok::<_, Infallible>);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(app.bounds.keep_alive))
        .into_response();
    // Proxies that buffer would hold events back.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
