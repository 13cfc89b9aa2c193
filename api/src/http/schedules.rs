//! `/v1/schedules`: tasks by the clock.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use forebay_core::{Json, Schedule, ScheduleName, ScheduleRequest, ScheduledTask, Timestamp, WebhookName};
use serde::{Deserialize, Serialize};

use crate::{
    App,
    error::Result,
    http::{
        body, json, kept, page,
        params::{Named, Query},
        submission::{Members, Object, object},
    },
    ops::{
        self,
        schedules::{Asked, UPCOMING, check_upcoming, upcoming},
        submit::Asked as AskedTask,
    },
    task::terms::{RetryBody, TermsBody},
};

/// What is said of a body that is no object.
const NO_SCHEDULE: &str =
    "a schedule must be a JSON object, such as {\"cron\": \"0 3 * * *\", \"task\": {\"kind\": \"echo\"}}";

/// The members of a schedule as it is put. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody<'a> {
    #[serde(default)]
    cron: String,
    time_zone: Option<String>,
    #[serde(borrow)]
    task: Option<Object<'a>>,
    overlap: Option<String>,
    catch_up_seconds: Option<f64>,
    jitter_seconds: Option<f64>,
    paused: Option<bool>,
}

impl PutBody<'_> {
    /// What it asks for; the payload of its task is a part of `text`.
    fn asked(self, text: &Bytes) -> Asked {
        let task = self.task.map(|Members(task)| task.asked(text));
        let mut task: AskedTask = task.unwrap_or_default();
        let violations = Asked::task_violations(&mut task);
        let request = ScheduleRequest {
            cron: self.cron,
            time_zone: self.time_zone,
            task: task.request,
            overlap: self.overlap,
            catch_up_seconds: self.catch_up_seconds,
            jitter_seconds: self.jitter_seconds,
            paused: self.paused.unwrap_or(false),
        };
        Asked { request, violations }
    }
}

/// A schedule in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
struct ScheduleBody<'a> {
    name: &'a str,
    cron: &'a str,
    time_zone: &'a str,
    task: TaskBody<'a>,
    overlap: &'a str,
    catch_up_seconds: f64,
    jitter_seconds: f64,
    paused: bool,
    next: Vec<Timestamp>,
    last_tick: Option<Timestamp>,
    last_task_id: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// What is submitted at each tick.
#[derive(Debug, Serialize)]
struct TaskBody<'a> {
    kind: &'a str,
    queue: &'a str,
    project: &'a str,
    priority: &'a str,
    payload: &'a Json,
    tags: &'a [String],
    max_attempts: Option<u32>,
    timeout_seconds: Option<f64>,
    heartbeat_timeout_seconds: Option<f64>,
    retry: Option<RetryBody>,
    limit_key: Option<&'a str>,
    notify: &'a [WebhookName],
}

impl<'a> ScheduleBody<'a> {
    fn of(app: &App, schedule: &'a Schedule, ticks: usize) -> Self {
        Self {
            name: schedule.name.as_str(),
            cron: schedule.cron.as_str(),
            time_zone: schedule.time_zone.as_str(),
            task: TaskBody::from(&schedule.task),
            overlap: schedule.overlap.as_str(),
            catch_up_seconds: schedule.catch_up.as_secs_f64(),
            jitter_seconds: schedule.jitter.as_secs_f64(),
            paused: schedule.paused,
            next: upcoming(app, schedule, ticks),
            last_tick: schedule.last_tick.map(|(at, _)| at),
            last_task_id: schedule.last_tick.map(|(_, task)| task.to_string()),
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
        }
    }
}

impl<'a> From<&'a ScheduledTask> for TaskBody<'a> {
    fn from(task: &'a ScheduledTask) -> Self {
        // The others are possible for a single task only.
        let terms = TermsBody::from(task.terms.as_deref());
        Self {
            kind: task.kind.as_str(),
            queue: task.lane.queue.as_str(),
            project: task.project.as_str(),
            priority: task.lane.priority.as_str(),
            payload: &task.payload,
            tags: &task.tags,
            max_attempts: task.max_attempts,
            timeout_seconds: task.timeout.map(|timeout| timeout.as_secs_f64()),
            heartbeat_timeout_seconds: terms.heartbeat_timeout_seconds,
            retry: terms.retry,
            limit_key: terms.limit_key,
            notify: terms.notify,
        }
    }
}

#[derive(Debug, Serialize)]
struct SchedulesBody<'a> {
    schedules: Vec<ScheduleBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `PUT /v1/schedules/{name}`
pub(crate) async fn put(
    State(app): State<App>,
    Named(name): Named<ScheduleName>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let text = body::read_json(&app, &headers, body).await?;
    let asked = object::<PutBody<'_>>(&text, NO_SCHEDULE)?.asked(&text);
    let (schedule, is_new) = ops::schedules::put(&app, name, asked).await?;
    Ok(kept(is_new, &ScheduleBody::of(&app, &schedule, UPCOMING)))
}

/// `GET /v1/schedules/{name}`
pub(crate) async fn get(
    State(app): State<App>,
    Named(name): Named<ScheduleName>,
    mut query: Query,
) -> Result<Response> {
    let asked = query.parsed("upcoming");
    query.done()?;
    let ticks = check_upcoming(asked)?;
    let schedule = ops::schedules::get(&app, &name).await?;
    Ok(json(StatusCode::OK, &ScheduleBody::of(&app, &schedule, ticks)))
}

/// `POST /v1/schedules/{name}/pause`
pub(crate) async fn pause(
    State(app): State<App>,
    Named(name): Named<ScheduleName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let schedule = ops::schedules::set_paused(&app, &name, true).await?;
    Ok(json(StatusCode::OK, &ScheduleBody::of(&app, &schedule, UPCOMING)))
}

/// `POST /v1/schedules/{name}/resume`
pub(crate) async fn resume(
    State(app): State<App>,
    Named(name): Named<ScheduleName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let schedule = ops::schedules::set_paused(&app, &name, false).await?;
    Ok(json(StatusCode::OK, &ScheduleBody::of(&app, &schedule, UPCOMING)))
}

/// `DELETE /v1/schedules/{name}`
pub(crate) async fn delete(
    State(app): State<App>,
    Named(name): Named<ScheduleName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    ops::schedules::delete(&app, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/schedules`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let asked = query.page();
    query.done()?;
    let repeated = asked.repeated();
    let listed = ops::schedules::list(&app, asked).await?;
    let schedules = listed.items.iter();
    let body = SchedulesBody {
        schedules: schedules
            .map(|schedule| ScheduleBody::of(&app, schedule, UPCOMING))
            .collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/schedules", repeated, &body, listed.next.as_deref()))
}
