//! Each request is a span, a child of the caller's where it sent a `traceparent`.

use std::borrow::Cow;

use axum::{
    extract::{MatchedPath, Request},
    http::HeaderMap,
};
use forebay_core::TraceParent;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::layers::request_id::RequestId;

/// The trace that a request belongs to.
#[derive(Debug, Clone)]
pub(crate) struct RequestTrace {
    /// What travels on with a task: the current span, where one is recorded, else what the caller sent.
    pub(crate) traceparent: Option<TraceParent>,
    /// The request's own id.
    pub(crate) request: RequestId,
}

impl RequestTrace {
    /// What a problem names: the trace, else the request's id.
    pub(crate) fn id(&self) -> &str {
        let trace = self.traceparent.as_ref();
        trace
            .and_then(|parent| parent.as_str().get(3..35))
            .unwrap_or_else(|| self.request.as_str())
    }
}

/// The pattern of the route, never the path.
pub(crate) fn route(request: &Request) -> Cow<'static, str> {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or(Cow::Borrowed("unmatched"), |path| {
        Cow::Owned(path.as_str().to_owned())
    })
}

/// The caller's trace, where the header is well-formed and there is one.
pub(crate) fn incoming(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all("traceparent").iter();
    let first = values.next()?;
    if values.next().is_some() {
        return None;
    }
    TraceParent::parse(first.to_str().ok()?)
}

/// Makes `span` a child of the caller's, and says how the trace goes on from it.
pub(crate) fn join(span: &Span, incoming: Option<TraceParent>) -> Option<TraceParent> {
    if span.is_disabled() {
        return incoming;
    }
    if let Some(parent) = incoming.as_ref().and_then(remote) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        // Without a tracer there is nothing to join, and the caller's trace travels on as it is.
        let _ = span.set_parent(context);
    }
    let context = span.context();
    let current = context.span().span_context().clone();
    if current.is_valid() {
        outgoing(&current)
    } else {
        incoming
    }
}

fn remote(parent: &TraceParent) -> Option<SpanContext> {
    let mut parts = parent.as_str().split('-').skip(1);
    let trace_id = TraceId::from_hex(parts.next()?).ok()?;
    let span_id = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    Some(SpanContext::new(
        trace_id,
        span_id,
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    ))
}

fn outgoing(current: &SpanContext) -> Option<TraceParent> {
    TraceParent::parse(&format!(
        "00-{:032x}-{:016x}-{:02x}",
        current.trace_id(),
        current.span_id(),
        current.trace_flags()
    ))
}

#[cfg(test)]
mod tests {
    use tracing::info_span;

    use super::*;

    fn named(traceparent: Option<TraceParent>) -> String {
        let request = RequestId(axum::http::HeaderValue::from_static("id"));
        RequestTrace { traceparent, request }.id().to_owned()
    }

    #[test]
    fn without_a_tracer_the_callers_trace_travels_on() {
        let sent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let joined = join(&Span::none(), sent.clone());
        assert_eq!(joined, sent);
        assert_eq!(named(joined), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(named(join(&Span::none(), None)), "id");
    }

    #[test]
    fn with_a_tracer_the_task_belongs_to_the_requests_span() {
        use opentelemetry::trace::TracerProvider;
        use tracing_subscriber::layer::SubscriberExt;

        let tracer = opentelemetry_sdk::trace::SdkTracerProvider::builder()
            .build()
            .tracer("test");
        let subscriber =
            tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        tracing::subscriber::with_default(subscriber, || {
            let sent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
            let outgoing = join(&info_span!("request"), Some(sent.clone())).unwrap();
            assert_eq!(outgoing.as_str()[..36], sent.as_str()[..36]);
            assert_ne!(outgoing, sent, "the parent is the span, not the caller");
            let alone = join(&info_span!("request"), None);
            assert!(alone.is_some_and(|own| !own.as_str().contains("4bf92f35")));
        });
    }

    #[test]
    fn a_traceparent_survives_the_way_through_a_span_context() {
        let sent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(outgoing(&remote(&sent).unwrap()), Some(sent));
    }
}
