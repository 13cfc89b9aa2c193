//! `/v1/kinds`: what payloads must look like.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use forebay_core::{Json, KindSchema, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    App,
    error::Result,
    http::{
        body, json, kept, page,
        params::{KindPath, Query},
        submission::{object, payload},
    },
    ops,
};

/// What is said of a body that is no object.
const NO_SCHEMA: &str = "a schema comes in a JSON object, such as {\"schema\": {\"type\": \"object\"}}";

/// The members of a schema as it is put. Unknown ones are refused, so that a typo is not a silent default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody<'a> {
    mode: Option<String>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

/// A schema in JSON. Its members are part of the contract.
#[derive(Debug, Serialize)]
struct SchemaBody<'a> {
    kind: &'a str,
    version: u32,
    mode: &'static str,
    created_at: Timestamp,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a Json>,
}

impl<'a> From<&'a KindSchema> for SchemaBody<'a> {
    fn from(kept: &'a KindSchema) -> Self {
        Self {
            kind: kept.kind.as_str(),
            version: kept.version,
            mode: kept.mode.as_str(),
            created_at: kept.created_at,
            schema: Some(&kept.schema),
        }
    }
}

#[derive(Debug, Serialize)]
struct KindsBody<'a> {
    kinds: Vec<SchemaBody<'a>>,
    next_page_token: Option<&'a str>,
}

/// `PUT /v1/kinds/{kind}/schema`
pub(crate) async fn put(
    State(app): State<App>,
    KindPath(kind): KindPath,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    query.done()?;
    let text: Bytes = body::read_json(&app, &headers, body).await?;
    let asked = object::<PutBody<'_>>(&text, NO_SCHEMA)?;
    let asked_for = asked.schema.map(|raw| payload(&text, raw));
    let (schema, is_new) = ops::kinds::put(&app, kind, asked.mode, asked_for).await?;
    Ok(kept(is_new, &SchemaBody::from(&schema)))
}

/// `GET /v1/kinds/{kind}/schema`
pub(crate) async fn get(
    State(app): State<App>,
    KindPath(kind): KindPath,
    mut query: Query,
) -> Result<Response> {
    let version = query.parsed("version");
    query.done()?;
    let kept = ops::kinds::get(&app, &kind, version).await?;
    Ok(json(StatusCode::OK, &SchemaBody::from(&kept)))
}

/// `DELETE /v1/kinds/{kind}/schema`
pub(crate) async fn delete(
    State(app): State<App>,
    KindPath(kind): KindPath,
    query: Query,
) -> Result<Response> {
    query.done()?;
    ops::kinds::delete(&app, &kind).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/kinds`
pub(crate) async fn list(State(app): State<App>, mut query: Query) -> Result<Response> {
    let asked = query.page();
    query.done()?;
    let repeated = asked.repeated();
    let listed = ops::kinds::list(&app, asked).await?;
    let without_schema = |kept| SchemaBody {
        schema: None,
        ..SchemaBody::from(kept)
    };
    let body = KindsBody {
        kinds: listed.items.iter().map(without_schema).collect(),
        next_page_token: listed.next.as_deref(),
    };
    Ok(page("/v1/kinds", repeated, &body, listed.next.as_deref()))
}
