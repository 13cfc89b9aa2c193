//! `/v1/operations`: one action on many tasks.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use forebay_core::{
    FilterRequest, Operation, OperationFilter, OperationId, OperationRequest, TaskId, Timestamp,
};
use forebay_store::Matching;
use serde::{Deserialize, Serialize};

use crate::{
    App,
    error::Result,
    http::{
        body, json, page,
        params::{OperationPath, Query},
        submission::{Members, Whole, object, time},
    },
    ops::{
        self,
        operations::{Answered, Asked},
    },
};

/// What is said of a body that is no object.
const NO_OPERATION: &str = "an operation must be a JSON object, such as {\"action\": \"retry\", \"filter\": {\"state\": \"failed\"}}";

/// The members of an operation as it is asked for. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationBody {
    #[serde(default)]
    action: String,
    filter: Option<Members<FilterBody>>,
    dry_run: Option<bool>,
    rate_per_second: Option<Whole>,
    max: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterBody {
    state: Option<String>,
    project: Option<String>,
    queue: Option<String>,
    kind: Option<String>,
    tag: Option<String>,
    batch: Option<String>,
    created_after: Option<String>,
    created_before: Option<String>,
    error_contains: Option<String>,
}

impl OperationBody {
    fn asked(self) -> Asked {
        let mut violations = Vec::new();
        let filter = self.filter.map_or_else(FilterBody::default, |filter| filter.0);
        let mut at = |text: &Option<String>, pointer: &str| time(text.as_deref(), pointer, &mut violations);
        let filter = FilterRequest {
            created_after: at(&filter.created_after, "/filter/created_after"),
            created_before: at(&filter.created_before, "/filter/created_before"),
            state: filter.state,
            project: filter.project,
            queue: filter.queue,
            kind: filter.kind,
            tag: filter.tag,
            batch: filter.batch,
            error_contains: filter.error_contains,
        };
        let request = OperationRequest {
            action: self.action,
            filter,
            rate_per_second: self.rate_per_second.map(|number| number.0),
            max: self.max.map(|number| number.0),
        };
        Asked {
            request,
            violations,
            dry_run: self.dry_run.unwrap_or(false),
        }
    }
}

/// What an operation would be about.
#[derive(Debug, Serialize)]
struct CountBody<'a> {
    dry_run: bool,
    count: u64,
    count_is_exact: bool,
    sample: &'a [TaskId],
}

impl<'a> From<&'a Matching> for CountBody<'a> {
    fn from(matching: &'a Matching) -> Self {
        Self {
            dry_run: true,
            count: matching.count,
            count_is_exact: matching.is_exact,
            sample: &matching.sample,
        }
    }
}

/// An operation in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
struct ShownBody<'a> {
    id: OperationId,
    action: &'a str,
    filter: ShownFilter<'a>,
    state: &'a str,
    rate_per_second: u32,
    max: Option<u64>,
    expected: u64,
    expected_is_exact: bool,
    progress: ProgressBody,
    created_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct ShownFilter<'a> {
    state: Option<&'a str>,
    project: Option<&'a str>,
    queue: Option<&'a str>,
    kind: Option<&'a str>,
    tag: Option<&'a str>,
    batch: Option<String>,
    created_after: Option<Timestamp>,
    created_before: Option<Timestamp>,
    error_contains: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ProgressBody {
    matched: u64,
    done: u64,
    skipped: u64,
    failed: u64,
}

impl<'a> From<&'a Operation> for ShownBody<'a> {
    fn from(operation: &'a Operation) -> Self {
        let progress = operation.progress;
        Self {
            id: operation.id,
            action: operation.plan.action.as_str(),
            filter: ShownFilter::from(&operation.plan.filter),
            state: operation.state.as_str(),
            rate_per_second: operation.plan.rate_per_second,
            max: operation.plan.max,
            expected: operation.expected,
            expected_is_exact: operation.expected_is_exact,
            progress: ProgressBody {
                matched: progress.matched,
                done: progress.done,
                skipped: progress.skipped,
                failed: progress.failed,
            },
            created_at: operation.created_at,
            updated_at: operation.updated_at,
            finished_at: operation.finished_at,
        }
    }
}

impl<'a> From<&'a OperationFilter> for ShownFilter<'a> {
    fn from(filter: &'a OperationFilter) -> Self {
        Self {
            state: filter.state.map(forebay_core::State::as_str),
            project: filter.project.as_ref().map(|name| name.as_str()),
            queue: filter.queue.as_ref().map(|name| name.as_str()),
            kind: filter.kind.as_ref().map(|name| name.as_str()),
            tag: filter.tag.as_deref(),
            batch: filter.batch.map(|batch| batch.to_string()),
            created_after: filter.created_after,
            created_before: filter.created_before,
            error_contains: filter.error_contains.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct ListBody<'a> {
    operations: Vec<ShownBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `POST /v1/operations`
pub(crate) async fn begin(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let text = body::read_json(&app, &headers, body).await?;
    let asked = object::<OperationBody>(&text, NO_OPERATION)?.asked();
    match ops::operations::begin(&app, asked).await? {
        Answered::Counted(matching) => Ok(json(StatusCode::OK, &CountBody::from(&matching))),
        Answered::Begun(operation) => {
            let mut response = json(StatusCode::ACCEPTED, &ShownBody::from(&*operation));
            let location = HeaderValue::from_str(&format!("/v1/operations/{}", operation.id));
            let headers = response.headers_mut();
            headers.extend(location.ok().map(|location| (header::LOCATION, location)));
            Ok(response)
        }
    }
}

/// `GET /v1/operations/{operation}`
pub(crate) async fn get(
    State(app): State<App>,
    OperationPath(id): OperationPath,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let operation = ops::operations::get(&app, id).await?;
    Ok(json(StatusCode::OK, &ShownBody::from(&operation)))
}

/// `GET /v1/operations`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let asked = query.page();
    query.done()?;
    let repeated = asked.repeated();
    let listed = ops::operations::list(&app, asked).await?;
    let body = ListBody {
        operations: listed.items.iter().map(ShownBody::from).collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/operations", repeated, &body, listed.next.as_deref()))
}

/// `POST /v1/operations/{operation}/abort`
pub(crate) async fn abort(
    State(app): State<App>,
    OperationPath(id): OperationPath,
    query: Query,
) -> Result<Response> {
    query.done()?;
    let operation = ops::operations::abort(&app, id).await?;
    Ok(json(StatusCode::OK, &ShownBody::from(&operation)))
}
