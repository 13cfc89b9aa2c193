//! The HTTP door: decode, call an operation, encode. No decisions here; `grpc` is its twin.

pub(crate) mod batch;
pub(crate) mod body;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod ndjson;
pub(crate) mod params;
pub(crate) mod queues;
pub(crate) mod rejects;
pub(crate) mod schedules;
pub(crate) mod submission;
pub(crate) mod tasks;
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
