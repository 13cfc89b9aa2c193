//! The trace of an attempt: it goes on from the request that submitted the task, and into the handler.

use forebay_core::TraceParent;
use forebay_runtime::telemetry::{current_traceparent, set_parent};
use forebay_store::Claimed;
use tracing::Span;

/// The span of an attempt, below the span of its request.
pub(super) fn span(claimed: &Claimed) -> Span {
    let span = tracing::info_span!(
        "attempt",
        task = %claimed.id,
        kind = %claimed.kind,
        queue = %claimed.lane.queue,
        attempt = claimed.attempt,
    );
    if let Some(parent) = &claimed.traceparent {
        set_parent(&span, parent);
    }
    span
}

/// The trace context inside a span; `None` where no traces are collected.
pub(super) fn inside(span: &Span) -> Option<TraceParent> {
    span.in_scope(current_traceparent)
}
