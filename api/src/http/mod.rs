//! The HTTP door: decode, call an operation, encode. No decisions here; `grpc` is its twin.

pub(crate) mod batch;
pub(crate) mod batches;
pub(crate) mod body;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod kinds;
pub(crate) mod limits;
pub(crate) mod ndjson;
pub(crate) mod operations;
pub(crate) mod params;
pub(crate) mod queues;
pub(crate) mod rejects;
pub(crate) mod schedules;
pub(crate) mod submission;
pub(crate) mod tasks;
pub(crate) mod webhooks;
pub(crate) mod workers;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::error::{ApiError, Code};

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let kind = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => {
            tracing::error!(error = %error, "an answer could not be written");
            ApiError::of(Code::Internal).into_response()
        }
    }
}

/// The answer to a `PUT`: what is kept now.
pub(crate) fn kept<T: Serialize>(is_new: bool, value: &T) -> Response {
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    json(status, value)
}

/// A page of a list, with a link to the next one, which repeats what was asked for.
pub(crate) fn page<T: Serialize>(
    path: &str,
    repeated: impl IntoIterator<Item = (&'static str, String)>,
    value: &T,
    next: Option<&str>,
) -> Response {
    let mut response = json(StatusCode::OK, value);
    if let Some(token) = next {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(repeated)
            .append_pair("page_token", token)
            .finish();
        if let Ok(link) = HeaderValue::from_str(&format!("<{path}?{query}>; rel=\"next\"")) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    response
}
