//! What all requests share: an id, a trace, security headers, problems, safety from panics, metrics; and for the API
//! proper the number of requests at once, of each sort.
//!
//! One function instead of a layer each: a layer costs an allocation and a move of the request, and there are six things
//! to do.

pub(crate) mod grpc_deadline;
pub(crate) mod grpc_edge;
pub(crate) mod headers;
pub(crate) mod limit;
pub(crate) mod metrics;
pub(crate) mod panic;
pub(crate) mod problem;
pub(crate) mod request_id;
pub(crate) mod trace;

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use futures::FutureExt;
use tracing::{Instrument, field::Empty, info_span};

use crate::{
    App,
    layers::trace::{RequestTrace, incoming, join},
};

/// All of it, around a routed request.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = metrics::label(request.method());
    let route = trace::route(&request);
    let id = request_id::of(request.headers());
    let span = info_span!(
        "http_request",
        otel.kind = "server",
        method,
        route = &*route,
        request_id = id.as_str(),
        status = Empty,
    );
    let trace = RequestTrace {
        traceparent: join(&span, incoming(request.headers())),
        request: id,
    };
    request.extensions_mut().insert(trace.clone());
    let answer = AssertUnwindSafe(async { next.run(request).await });
    let answered = answer.catch_unwind().instrument(span.clone()).await;
    let response = answered.unwrap_or_else(panic::respond);
    let response = finished(problem::write(response, &trace), trace);
    span.record("status", response.status().as_u16());
    app.metrics
        .http_request(method, &route, response.status().as_u16(), began.elapsed());
    response
}

/// The target of the spans of [`submission`]. Log lines within them are few, and these spans are not shown there
/// unless one debugs.
const SUBMISSION: &str = forebay_runtime::telemetry::SUBMISSIONS;

/// All of it, around a submission of one task: the same, with nothing to look up.
pub(crate) async fn submission<F>(
    app: &App,
    request: Request,
    answer: impl FnOnce(Request, Option<forebay_core::TraceParent>) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    const ROUTE: &str = "/v1/tasks";
    let began = Instant::now();
    let id = request_id::of(request.headers());
    let span = info_span!(
        target: SUBMISSION,
        "http_request",
        otel.kind = "server",
        method = "POST",
        route = ROUTE,
        request_id = id.as_str(),
        status = Empty,
    );
    let traceparent = join(&span, incoming(request.headers()));
    let trace = RequestTrace {
        traceparent: traceparent.clone(),
        request: id,
    };
    let answer = AssertUnwindSafe(async { answer(request, traceparent).await }).catch_unwind();
    let answered = if span.is_disabled() {
        answer.await
    } else {
        answer.instrument(span.clone()).await
    };
    let response = answered.unwrap_or_else(panic::respond);
    let response = finished(problem::write(response, &trace), trace);
    let status = response.status();
    span.record("status", status.as_u16());
    if status == StatusCode::ACCEPTED {
        let accepted = || app.metrics.http_requests("POST", ROUTE, status.as_u16());
        let counted = app.accepted.get_or_init(accepted);
        counted.observe(began.elapsed());
    } else {
        app.metrics
            .http_request("POST", ROUTE, status.as_u16(), began.elapsed());
    }
    response
}

fn finished(mut response: Response, trace: RequestTrace) -> Response {
    let headers = response.headers_mut();
    headers::add(headers);
    headers.insert(request_id::HEADER, trace.request.0);
    response
}
