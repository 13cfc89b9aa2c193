//! Writes problems: the one place that knows both the error and the request's trace.

use axum::{extract::Request, http::header, middleware::Next, response::Response};

use crate::{error::ApiError, layers::trace::RequestTrace};

pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let trace = request
        .extensions()
        .get::<RequestTrace>()
        .cloned()
        .unwrap_or_default();
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let mut problem = error.to_response(Some(&trace.trace_id));
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}
