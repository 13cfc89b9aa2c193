//! `/v1/limits`: how many tasks run, or start, at a time.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use forebay_core::{LimitName, LimitRequest, Rate, RateRequest, Timestamp};
use forebay_store::{Limit, LimitUse};
use serde::{Deserialize, Serialize};

use crate::{
    App,
    error::Result,
    http::{
        body, json, kept, page,
        params::{Named, Query},
        submission::{Members, Whole, object},
    },
    ops,
};

/// What is said of a body that is no object.
const NO_LIMIT: &str = "a limit must be a JSON object, such as {\"queue\": \"default\", \"concurrency\": 10}";

/// The members of a limit as it is put. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    queue: Option<String>,
    kind: Option<String>,
    by_key: Option<bool>,
    concurrency: Option<Whole>,
    rate: Option<Members<PutRate>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutRate {
    count: Option<Whole>,
    per_seconds: Option<f64>,
    burst: Option<Whole>,
}

impl From<PutBody> for LimitRequest {
    fn from(body: PutBody) -> Self {
        // What is needed and not said is refused as what is out of range.
        let rate = |Members(rate): Members<PutRate>| RateRequest {
            count: rate.count.map_or(0, |count| count.0),
            per_seconds: rate.per_seconds.unwrap_or(0.0),
            burst: rate.burst.map(|burst| burst.0),
        };
        Self {
            queue: body.queue,
            kind: body.kind,
            by_key: body.by_key.unwrap_or(false),
            concurrency: body.concurrency.map(|count| count.0),
            rate: body.rate.map(rate),
        }
    }
}

/// A limit in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
struct LimitBody<'a> {
    name: &'a str,
    queue: Option<&'a str>,
    kind: Option<&'a str>,
    by_key: bool,
    concurrency: Option<u32>,
    rate: Option<RateBody>,
    /// Only where it is read by itself.
    running: Option<u64>,
    waiting: Option<u64>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct RateBody {
    count: u32,
    per_seconds: f64,
    burst: u32,
}

impl From<Rate> for RateBody {
    fn from(rate: Rate) -> Self {
        Self {
            count: rate.count,
            per_seconds: rate.per.as_secs_f64(),
            burst: rate.burst,
        }
    }
}

impl<'a> LimitBody<'a> {
    fn of(limit: &'a Limit, used: Option<LimitUse>) -> Self {
        let rule = &limit.rule;
        Self {
            name: rule.name.as_str(),
            queue: rule.queue.as_ref().map(|queue| queue.as_str()),
            kind: rule.kind.as_ref().map(|kind| kind.as_str()),
            by_key: rule.by_key,
            concurrency: rule.concurrency,
            rate: rule.rate.map(RateBody::from),
            running: used.map(|used| used.running),
            waiting: used.map(|used| used.waiting),
            created_at: limit.created_at,
            updated_at: limit.updated_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct LimitsBody<'a> {
    limits: Vec<LimitBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `PUT /v1/limits/{name}`
pub(crate) async fn put(
    State(app): State<App>,
    Named(name): Named<LimitName>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let text = body::read_json(&app, &headers, body).await?;
    let asked = object::<PutBody>(&text, NO_LIMIT)?;
    let (limit, is_new) = ops::limits::put(&app, name, asked.into()).await?;
    Ok(kept(is_new, &LimitBody::of(&limit, None)))
}

/// `GET /v1/limits/{name}`
pub(crate) async fn get(
    State(app): State<App>,
    Named(name): Named<LimitName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let (limit, used) = ops::limits::get(&app, &name).await?;
    Ok(json(StatusCode::OK, &LimitBody::of(&limit, Some(used))))
}

/// `DELETE /v1/limits/{name}`
pub(crate) async fn delete(
    State(app): State<App>,
    Named(name): Named<LimitName>,
    query: Query,
) -> Result<Response> {
    query.done()?;
    ops::limits::delete(&app, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/limits`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let asked = query.page();
    query.done()?;
    let repeated = asked.repeated();
    let listed = ops::limits::list(&app, asked).await?;
    let body = LimitsBody {
        limits: listed
            .items
            .iter()
            .map(|limit| LimitBody::of(limit, None))
            .collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/limits", repeated, &body, listed.next.as_deref()))
}
