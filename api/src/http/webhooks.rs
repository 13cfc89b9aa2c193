//! `/v1/webhooks`: who hears of the ends of tasks.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use forebay_core::{State as TaskState, Timestamp, Webhook, WebhookName, WebhookRequest};
use forebay_store::Delivery;
use serde::{Deserialize, Serialize};

use crate::{
    App,
    error::Result,
    http::{
        body, json, kept, page,
        params::{Named, Query},
        submission::object,
    },
    ops::{self, webhooks::Told},
};

/// What is said of a body that is no object.
const NO_WEBHOOK: &str = "a webhook must be a JSON object, such as {\"url\": \"https://example.com/hook\"}";
const NO_REPLAY: &str = "a replay must be a JSON object, such as {\"since\": \"2026-03-01T12:00:00Z\"}";

/// The members of a webhook as it is put. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    #[serde(default)]
    url: String,
    secret: Option<String>,
    states: Option<Vec<String>>,
    include_result: Option<bool>,
    disabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    task: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

/// A webhook in JSON. Its members are part of the contract. Its secret is shown where it was made, and never again.
#[derive(Debug, Serialize)]
struct WebhookBody<'a> {
    name: &'a str,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    states: Vec<&'static str>,
    include_result: bool,
    disabled: bool,
    disabled_reason: Option<&'a str>,
    failing_since: Option<Timestamp>,
    previous_secret_until: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> From<&'a Webhook> for WebhookBody<'a> {
    fn from(webhook: &'a Webhook) -> Self {
        Self {
            name: webhook.name.as_str(),
            url: &webhook.url,
            secret: None,
            states: webhook.states.iter().copied().map(TaskState::as_str).collect(),
            include_result: webhook.include_result,
            disabled: webhook.disabled,
            disabled_reason: webhook.disabled_reason.as_deref(),
            failing_since: webhook.failing_since,
            previous_secret_until: webhook.previous_secret.as_ref().map(|(_, until)| *until),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct WebhooksBody<'a> {
    webhooks: Vec<WebhookBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// A delivery in JSON. `id` is that of the task that delivers.
#[derive(Debug, Serialize)]
struct DeliveryBody<'a> {
    id: Option<String>,
    event_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    task_id: Option<String>,
    state: &'static str,
    attempt: u32,
    error: Option<&'a str>,
    created_at: Timestamp,
    next_attempt_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

/// The state of what was noted and not delivered, since the webhook was disabled.
const SKIPPED: &str = "skipped";
/// The state of what is past its retention.
const FORGOTTEN: &str = "forgotten";

impl<'a> From<&'a Delivery> for DeliveryBody<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        let standing = delivery.standing.as_ref();
        let state = match (standing, delivery.delivered_by) {
            (Some(standing), _) => standing.state.as_str(),
            (None, None) => SKIPPED,
            (None, Some(_)) => FORGOTTEN,
        };
        let waits = standing.filter(|standing| standing.state.waits_for_a_time());
        let error = standing.filter(|standing| standing.state != TaskState::Succeeded);
        Self {
            id: delivery.delivered_by.map(|task| task.to_string()),
            event_id: &delivery.event_id,
            kind: &delivery.event_kind,
            task_id: delivery.task.map(|task| task.to_string()),
            state,
            attempt: standing.map_or(0, |standing| standing.attempt),
            error: error.and_then(|standing| Some(standing.error.as_ref()?.message.as_str())),
            created_at: delivery.created_at,
            next_attempt_at: waits.and_then(|standing| standing.run_at),
            finished_at: standing.and_then(|standing| standing.finished_at),
        }
    }
}

#[derive(Debug, Serialize)]
struct DeliveriesBody<'a> {
    deliveries: Vec<DeliveryBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// The deliveries that were made, by the ids of their tasks.
#[derive(Debug, Serialize)]
struct ToldBody {
    deliveries: Vec<String>,
    more: bool,
}

impl From<Told> for ToldBody {
    fn from(told: Told) -> Self {
        Self {
            deliveries: told.deliveries.iter().map(ToString::to_string).collect(),
            more: told.more,
        }
    }
}

/// `PUT /v1/webhooks/{name}`
pub(crate) async fn put(
    State(app): State<App>,
    Named(name): Named<WebhookName>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let text = body::read_json(&app, &headers, body).await?;
    let body = object::<PutBody>(&text, NO_WEBHOOK)?;
    let request = WebhookRequest {
        url: body.url,
        secret: body.secret,
        states: body.states,
        include_result: body.include_result.unwrap_or(false),
        disabled: body.disabled.unwrap_or(false),
    };
    let put = ops::webhooks::put(&app, name, request).await?;
    let shown = WebhookBody {
        secret: put.made_secret.as_ref().map(|secret| secret.expose()),
        ..WebhookBody::from(&put.webhook)
    };
    Ok(kept(put.is_new, &shown))
}

/// `GET /v1/webhooks/{name}`
pub(crate) async fn get(
    State(app): State<App>,
    Named(name): Named<WebhookName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let webhook = ops::webhooks::get(&app, &name).await?;
    Ok(json(StatusCode::OK, &WebhookBody::from(&webhook)))
}

/// `DELETE /v1/webhooks/{name}`
pub(crate) async fn delete(
    State(app): State<App>,
    Named(name): Named<WebhookName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    ops::webhooks::delete(&app, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/webhooks`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let asked = query.page();
    query.done()?;
    let repeated = asked.repeated();
    let listed = ops::webhooks::list(&app, asked).await?;
    let body = WebhooksBody {
        webhooks: listed.items.iter().map(WebhookBody::from).collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/webhooks", repeated, &body, listed.next.as_deref()))
}

/// `GET /v1/webhooks/{name}/deliveries`
pub(crate) async fn deliveries(
    State(app): State<App>,
    Named(name): Named<WebhookName>,
    mut query: Query,
) -> Result<Response> {
    let asked = query.page();
    query.done()?;
    let repeated = asked.repeated();
    let listed = ops::webhooks::deliveries(&app, &name, asked).await?;
    let body = DeliveriesBody {
        deliveries: listed.items.iter().map(DeliveryBody::from).collect(),
        next_page_token: listed.next.as_deref(),
    };
    let path = format!("/v1/webhooks/{name}/deliveries");
    Ok(page(&path, repeated, &body, listed.next.as_deref()))
}

/// `POST /v1/webhooks/{name}/test`
pub(crate) async fn test(
    State(app): State<App>,
    Named(name): Named<WebhookName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let told = ops::webhooks::test(&app, &name).await?;
    Ok(json(StatusCode::ACCEPTED, &ToldBody::from(told)))
}

/// `POST /v1/webhooks/{name}/replay`
pub(crate) async fn replay(
    State(app): State<App>,
    Named(name): Named<WebhookName>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let text = body::read_json(&app, &headers, body).await?;
    let body = object::<ReplayBody>(&text, NO_REPLAY)?;
    let span = (body.since.as_deref(), body.until.as_deref());
    let told = ops::webhooks::replay(&app, &name, body.task.as_deref(), span).await?;
    Ok(json(StatusCode::ACCEPTED, &ToldBody::from(told)))
}
