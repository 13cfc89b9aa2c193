//! Writes problems: the one place that knows both the error and the request's trace.

use axum::{http::header, response::Response};

use crate::{error::ApiError, layers::trace::RequestTrace};

/// Writes the problem that a handler answered with, if it did.
pub(crate) fn write(mut response: Response, trace: &RequestTrace) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let mut problem = error.to_response(Some(trace.id()));
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}
