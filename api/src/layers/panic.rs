//! A panic of a handler is answered as a problem that says nothing of what went wrong inside.

use std::any::Any;

use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, Code};

#[expect(clippy::needless_pass_by_value, reason = "what a panic layer calls")]
pub(crate) fn respond(panic: Box<dyn Any + Send + 'static>) -> Response {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(
        panic = said.as_deref().unwrap_or("unknown"),
        "a request's handler panicked"
    );
    ApiError::of(Code::Internal).into_response()
}
