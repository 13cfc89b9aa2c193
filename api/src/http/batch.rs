//! `POST /v1/tasks/batch`: many tasks in one request, as an array or as a stream of lines.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use forebay_core::TraceParent;
use futures::{StreamExt, stream};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{
    App,
    error::{ApiError, Code, ProblemBody, Result},
    http::{
        body::{self, MediaType},
        json, ndjson,
        params::{Query, Trace},
        submission,
    },
    ops::submit::{self, Accepted, Patience},
};

/// What became of one item.
#[derive(Debug, Serialize)]
pub(crate) struct ItemBody<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProblemBody<'a>>,
}

impl<'a> ItemBody<'a> {
    /// What became of the item at `index`.
    pub(crate) fn of(index: u64, result: &'a Result<Accepted>) -> Self {
        let accepted = result.as_ref().ok();
        Self {
            index,
            id: accepted.map(|accepted| accepted.task.id.to_string()),
            state: accepted.map(|accepted| accepted.task.state.as_str()),
            error: result.as_ref().err().map(|error| error.to_problem(None)),
        }
    }
}

#[derive(Debug, Serialize)]
struct BatchBody<'a> {
    results: Vec<ItemBody<'a>>,
}

/// `POST /v1/tasks/batch`
pub(crate) async fn submit(
    State(app): State<App>,
    Trace(traceparent): Trace,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let media_type = body::media_type(&headers)
        .ok_or_else(|| body::unsupported(&headers, "application/json or application/x-ndjson"))?;
    if headers.contains_key("idempotency-key") {
        let detail = "names one task: give idempotency_key in each item instead";
        return Err(ApiError::at(Code::InvalidParameter, "/Idempotency-Key", detail));
    }
    match media_type {
        MediaType::Json => array(&app, &headers, body, traceparent).await,
        MediaType::NdJson => ndjson::stream(&app, body, traceparent),
    }
}

async fn array(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    traceparent: Option<TraceParent>,
) -> Result<Response> {
    let place = timeout(app.bounds.submit, app.places.batches.acquire()).await;
    let Ok(Ok(_place)) = place else {
        body::drain(body).await;
        return Err(ApiError::of(Code::Overloaded));
    };
    let text = body::read(headers, body, app.bounds.batch_bytes, app.bounds.body).await?;
    let items: Vec<Bytes> = items(&text, app.bounds.batch_items)?
        .into_iter()
        .map(|item| text.slice_ref(item.get().as_bytes()))
        .collect();
    let results: Vec<Result<Accepted>> = stream::iter(items)
        .map(|item| submit_one(app.clone(), item, traceparent.clone()))
        .buffered(app.bounds.batch_items)
        .collect()
        .await;
    refuse_if_nothing_was_possible(&results)?;
    let results = (0..)
        .zip(&results)
        .map(|(index, result)| ItemBody::of(index, result))
        .collect();
    Ok(json(StatusCode::ACCEPTED, &BatchBody { results }))
}

/// Accepts one of many.
pub(crate) async fn submit_one(app: App, text: Bytes, traceparent: Option<TraceParent>) -> Result<Accepted> {
    let mut asked = submission::parse(&text)?;
    drop(text);
    asked.request.traceparent = traceparent;
    submit::submit(&app, asked, Patience::Some).await
}

/// Where not one task could be accepted and trying again may help, the whole request says so.
fn refuse_if_nothing_was_possible(results: &[Result<Accepted>]) -> Result<()> {
    let hopeless = |result: &Result<Accepted>| match result {
        Ok(_) => false,
        Err(error) => error.code.row().retry_after_seconds.is_some(),
    };
    match results.first() {
        Some(Err(first)) if results.iter().all(hopeless) => Err(first.clone()),
        _ => Ok(()),
    }
}

/// The items of an array, unread.
fn items(text: &[u8], items_max: usize) -> Result<Vec<&RawValue>> {
    let read = serde_json::from_slice::<Items<'_>>(text);
    let items = read.map_err(|error| {
        if error.is_data() {
            ApiError::at(Code::InvalidBody, "", "must be an array of tasks")
        } else {
            submission::malformed(&error)
        }
    })?;
    if items.count > items_max {
        return Err(ApiError::new(
            Code::BatchTooLarge,
            format!(
                "a batch has at most {items_max} items, this one has {}: send application/x-ndjson, which has no limit",
                items.count
            ),
        ));
    }
    Ok(items.first)
}

/// The first items of an array, and the number of all.
struct Items<'a> {
    first: Vec<&'a RawValue>,
    count: usize,
}

/// How many items are kept, whatever the bound of a batch is.
const KEPT_MAX: usize = 10_000;

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of tasks")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Items<'de>, A::Error> {
                let mut first = Vec::new();
                while first.len() < KEPT_MAX {
                    match items.next_element()? {
                        Some(item) => first.push(item),
                        None => break,
                    }
                }
                let mut count = first.len();
                while count >= KEPT_MAX && items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Items { first, count })
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}
