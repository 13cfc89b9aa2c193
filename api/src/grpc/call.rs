//! What all calls share, whichever service they belong to.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use forebay_core::TraceParent;
use futures::FutureExt;
use tonic::{Code as Grpc, Response, Status, metadata::MetadataMap};
use tracing::{Instrument, info_span};

use crate::{
    App,
    error::{ApiError, Code, Result},
    grpc::status,
    layers::{grpc_deadline, limit::Pool, trace::join},
};

/// What a call returns.
pub(crate) type Answer<T> = std::result::Result<Response<T>, Status>;

/// Carries out one call: bounded in number, in a span of its own, counted, and safe from panics.
pub(crate) async fn call<T, F, Fut>(
    app: &App,
    (pool, method): (Pool, &'static str),
    metadata: &MetadataMap,
    operation: F,
) -> Answer<T>
where
    F: FnOnce(Option<TraceParent>) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut counted = Counted::new(app, method, metadata);
    let span = info_span!("rpc_call", otel.kind = "server", method);
    let traceparent = join(&span, incoming(metadata));
    let result = match pool.place(app) {
        Err(overloaded) => Err(overloaded),
        Ok(_place) => AssertUnwindSafe(operation(traceparent).instrument(span))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                tracing::error!(method, "a call's handler panicked");
                Err(ApiError::of(Code::Internal))
            }),
    };
    let code = result
        .as_ref()
        .map_or_else(|error| error.code.row().grpc, |_| Grpc::Ok);
    counted.code = Some(code);
    drop(counted);
    result.map(Response::new).map_err(|error| status::status(&error))
}

/// The deadline is kept from outside, by a clock that started a moment earlier.
const MOMENT: Duration = Duration::from_millis(50);

/// Counts a call, also one that is dropped before it is answered: its caller has gone, or its deadline is over.
struct Counted<'a> {
    app: &'a App,
    method: &'static str,
    began: Instant,
    /// How long the caller wanted to wait.
    within: Option<Duration>,
    code: Option<Grpc>,
}

impl<'a> Counted<'a> {
    fn new(app: &'a App, method: &'static str, metadata: &MetadataMap) -> Self {
        Self {
            app,
            method,
            began: Instant::now(),
            within: grpc_deadline::of(metadata.as_ref()).ok().flatten(),
            code: None,
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let code = self.code.unwrap_or_else(|| {
            let is_late = self.within.is_some_and(|within| took + MOMENT >= within);
            if is_late {
                Grpc::DeadlineExceeded
            } else {
                Grpc::Cancelled
            }
        });
        self.app.metrics.rpc_call(self.method, i32::from(code), took);
    }
}

fn incoming(metadata: &MetadataMap) -> Option<TraceParent> {
    TraceParent::parse(metadata.get("traceparent")?.to_str().ok()?)
}
