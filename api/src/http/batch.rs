//! `POST /v1/tasks/batch`: many tasks in one request, as an array or as a stream of lines.

use std::io::Write as _;

use axum::{
    body::Body,
    extract,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use forebay_core::{State, TaskId, TraceParent};
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
        ndjson,
        params::{Query, Trace},
        submission,
    },
    ops::submit::{self, Asked, Durable},
};

/// What is told of an item that was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    id: TaskId,
    state: State,
}

impl Receipt {
    /// Of what is durable.
    pub(crate) fn of(durable: Durable<'_>) -> Self {
        match durable {
            Durable::New(submission) => Self {
                id: submission.id,
                state: submission.state(),
            },
            Durable::Known(task) => Self {
                id: task.id,
                state: task.state,
            },
        }
    }
}

/// What became of an item that was not accepted.
#[derive(Debug, Serialize)]
struct RefusedBody<'a> {
    index: u64,
    error: ProblemBody<'a>,
}

/// Writes what became of the item at `index`.
pub(crate) fn write_item(text: &mut Vec<u8>, index: u64, result: &Result<Receipt>) {
    let written = match result {
        Ok(receipt) => {
            let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
            let id: &str = receipt.id.as_uuid().hyphenated().encode_lower(&mut id);
            let state = receipt.state.as_str();
            // By hand, since there may be a hundred thousand of them a second; ids and states need no escaping.
            write!(
                text,
                "{{\"index\":{index},\"id\":\"{id}\",\"state\":\"{state}\"}}"
            )
            .is_ok()
        }
        Err(error) => {
            let error = error.to_problem(None);
            serde_json::to_writer(text, &RefusedBody { index, error }).is_ok()
        }
    };
    debug_assert!(written, "writing to memory can't fail");
}

/// `POST /v1/tasks/batch`
pub(crate) async fn submit(
    extract::State(app): extract::State<App>,
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
    let asked = asked(&text, app.bounds.batch_items)?;
    drop(text);
    let asked = asked
        .into_iter()
        .map(|asked| traced(asked, &traceparent))
        .collect();
    let results = submit::submit_all(app, asked, Receipt::of).await;
    refuse_if_nothing_was_possible(&results)?;
    Ok(answer(&results))
}

fn answer(results: &[Result<Receipt>]) -> Response {
    const ITEM_BYTES: usize = 96;
    let mut text = Vec::with_capacity(results.len() * ITEM_BYTES);
    text.extend_from_slice(b"{\"results\":[");
    for (index, result) in (0..).zip(results) {
        if index > 0 {
            text.push(b',');
        }
        write_item(&mut text, index, result);
    }
    text.extend_from_slice(b"]}");
    let kind = HeaderValue::from_static("application/json");
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, kind)], text).into_response()
}

/// What the items of an array ask for.
fn asked(text: &Bytes, items_max: usize) -> Result<Vec<Result<Asked>>> {
    if let Some(asked) = submission::parse_all(text, items_max) {
        return Ok(asked.into_iter().map(Ok).collect());
    }
    let items = items(text, items_max)?.into_iter();
    Ok(items
        .map(|item| submission::parse(&text.slice_ref(item.get().as_bytes())))
        .collect())
}

/// One of many, with the trace of their request.
pub(crate) fn traced(asked: Result<Asked>, traceparent: &Option<TraceParent>) -> Result<Asked> {
    asked.map(|mut asked| {
        asked.request.traceparent.clone_from(traceparent);
        asked
    })
}

/// Where not one task could be accepted and trying again may help, the whole request says so.
fn refuse_if_nothing_was_possible(results: &[Result<Receipt>]) -> Result<()> {
    let hopeless = |result: &Result<Receipt>| match result {
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
