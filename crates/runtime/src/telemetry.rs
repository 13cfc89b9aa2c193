//! Logs on standard error, traces to an OTLP receiver where one is configured, and the W3C trace context.

use std::time::Duration;

use anyhow::Context;
use forebay_core::TraceParent;
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Span, error, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt::format::FmtSpan, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{args::LogArgs, values::LogFormat};

/// How long the last traces may take to be sent when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one batch of traces may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Holds what must be flushed at the end.
#[derive(Debug)]
#[must_use = "the last traces are sent by `shutdown`"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// The target of the span of a request that submits one task. There are thousands of them a second, and hardly a log line
/// within them; so they are for traces, and for logs of the level `debug`.
pub const SUBMISSIONS: &str = "forebay::submissions";

/// Starts logging, and tracing where an endpoint is configured, for the process; panics are logged from now on.
/// Call it once, within the tokio runtime.
///
/// # Errors
/// Where a subscriber is installed already, or the endpoint can't be used.
pub fn start(args: &LogArgs, service: &'static str) -> anyhow::Result<Telemetry> {
    let traces = args
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| exporter(endpoint, service))
        .transpose()?;
    let mut layers = vec![log_layer(args)?];
    // Not as an `Option`: a layer that is not there would still want every span to be made.
    layers.extend(traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("forebay"))
            .with_filter(LevelFilter::INFO)
            .boxed()
    }));
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .context("start logging")?;
    log_panics();
    Ok(Telemetry { traces })
}

fn log_layer(args: &LogArgs) -> anyhow::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let filter = filter(&args.log)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    Ok(match args.log_format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines
                .with_ansi(colours)
                .with_target(false)
                .with_filter(filter)
                .boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    })
}

/// RabbitMQ's client tells of each message that comes back, with its payload, and of each lost connection as an error.
/// Neither is wanted by who asks for `debug`, but only by who asks for it by name.
fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    const CLIENT: &str = "lapin";
    let mut filter = EnvFilter::builder()
        .parse(directives)
        .context("parse the log filter")?;
    let names = |name: &str| {
        let target = |directive: &str| directive.split(['=', '[']).next().map(str::trim) == Some(name);
        directives.split(',').any(target)
    };
    let debugs = filter
        .max_level_hint()
        .is_none_or(|most| most >= LevelFilter::DEBUG);
    for (name, silent) in [(CLIENT, true), (SUBMISSIONS, !debugs)] {
        if silent && !names(name) {
            let off = format!("{name}=off").parse().context("silence a target")?;
            filter = filter.add_directive(off);
        }
    }
    Ok(filter)
}

fn exporter(endpoint: &str, service: &'static str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .context("set up the export of traces")?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build())
}

impl Telemetry {
    /// Sends what is left. Waits a few seconds at the most.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        // It blocks, and its exporter needs the runtime meanwhile.
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            warn!(%error, "the last traces were not sent");
        }
    }
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("a value that is no text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(panic = what, place, "panicked");
    }));
}

/// The trace context of the current span, to be sent along; `None` where no traces are collected. A request that
/// came with a context passes that on itself then.
#[must_use]
pub fn current_traceparent() -> Option<TraceParent> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return None;
    }
    let text = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags().to_u8()
    );
    TraceParent::parse(&text)
}

/// Makes `span` a child of the span that `parent` names. Call it before the span is entered.
pub fn set_parent(span: &Span, parent: &TraceParent) {
    let context = TraceContextPropagator::new().extract(&Header(parent.as_str()));
    // Refused where no traces are collected, which is as good.
    let _ = span.set_parent(context);
}

struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_goes_on_from_the_parent_that_was_set() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        let parent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            set_parent(&span, &parent);
            let inner = span.in_scope(current_traceparent).unwrap();
            assert!(
                inner.as_str().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
                "{inner:?}"
            );
            assert!(inner.as_str().ends_with("-01"));
            assert!(
                !inner.as_str().contains("00f067aa0ba902b7"),
                "it must name the span, not its parent"
            );
        });
    }

    /// Which of our own warning, the client's, and that of one of its modules, are logged.
    fn logged(directives: &str) -> (bool, bool, bool) {
        let subscriber = tracing_subscriber::registry().with(filter(directives).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            (
                tracing::enabled!(target: "forebay_worker", tracing::Level::WARN),
                tracing::enabled!(target: "lapin", tracing::Level::WARN),
                tracing::enabled!(target: "lapin::returned_messages", tracing::Level::WARN),
            )
        })
    }

    #[test]
    fn the_client_of_rabbitmq_is_silent_unless_it_is_asked_for_by_name() {
        for silent in ["info", "debug,sqlx=warn", "trace", "info,lapin=off"] {
            assert_eq!(logged(silent), (true, false, false), "{silent}");
        }
        assert_eq!(logged(""), (false, false, false));
        for asked in ["lapin", "lapin=warn", "off,lapin=debug"] {
            assert_eq!(logged(asked), (false, true, true), "{asked}");
        }
        assert_eq!(logged("info,lapin::returned_messages=warn"), (true, false, true));
    }

    #[test]
    fn without_traces_there_is_no_context_of_our_own() {
        assert_eq!(current_traceparent(), None);
    }
}
