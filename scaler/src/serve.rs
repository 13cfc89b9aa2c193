//! Serves the scaler on a listener, and ends it in good order.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context;
use forebay_core::QueueName;
use forebay_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use forebay_runtime::{health::Health, health::Reporter, metrics::Metrics};
use tokio::{
    net::TcpListener,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_reflection::server::Builder;

use crate::{
    Bounds, Figures, Tls,
    incoming::incoming,
    service::{CODES, METHODS, Scaler, ask},
};

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// The largest request, in bytes: a name and a trigger's metadata.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// The calls that one connection may have under way. KEDA has one connection for all ScaledObjects of an address.
const CALLS_MAX: u32 = 1_024;
/// How often a silent connection is asked whether anybody is there, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What readiness is about.
const COMPONENT: &str = "figures";
/// How often readiness is looked after, and how long the last look counts.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_TTL: Duration = Duration::from_secs(10);

type Service = ExternalScalerServer<Scaler>;

/// What a scaler is made of.
pub struct Parts {
    /// Who knows the queues.
    pub figures: Arc<dyn Figures>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// What `/health/ready` tells: the component `figures` is well where they are known.
    pub health: Health,
    /// Cancelled when the process is to stop.
    pub stop: CancellationToken,
    /// How much, and how long.
    pub bounds: Bounds,
    /// Without it, everybody who reaches the listener is served, in the clear.
    pub tls: Option<Tls>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("bounds", &self.bounds)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Serves KEDA, with gRPC health and reflection. When `stop` is cancelled, streams end with OK, and calls have
/// [`Bounds::drain`] to finish.
///
/// # Errors
/// Where the transport fails.
pub async fn serve(parts: Parts, listener: TcpListener) -> anyhow::Result<()> {
    let Parts {
        figures,
        metrics,
        health,
        stop,
        bounds,
        tls,
    } = parts;
    metrics.scaler_starts(&METHODS, &CODES);
    let readiness = watch(
        Arc::clone(&figures),
        health.component(COMPONENT, LOOK_TTL),
        bounds.answer,
    );
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(Some(HEAD_BYTES_MAX))
        .max_concurrent_streams(Some(CALLS_MAX))
        // No grace: that would cut streams off with an error. They end by themselves.
        .max_connection_age(bounds.connection_age);
    if let Some(tls) = tls {
        server = server.tls_config(tls.config()).context("set up TLS")?;
    }
    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    reporter.set_serving::<Service>().await;
    let (drain, connections) = (bounds.drain, bounds.connections);
    let scaler = Scaler::new(figures, metrics, stop.clone(), bounds);
    let served = server
        .add_service(grpc_health)
        .add_service(described().build_v1().context("build gRPC reflection")?)
        .add_service(
            described()
                .build_v1alpha()
                .context("build gRPC reflection, v1alpha")?,
        )
        .add_service(ExternalScalerServer::new(scaler).max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(incoming(listener, connections), stop.clone().cancelled_owned());
    let drained = async {
        stop.cancelled().await;
        reporter.set_not_serving::<Service>().await;
        reporter
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        sleep(drain).await;
    };
    tokio::select! {
        served = served => served.context("serve gRPC"),
        never = readiness => match never {},
        () = drained => {
            tracing::warn!("calls were cut off: they took longer than the drain");
            Ok(())
        }
    }
}

fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(forebay_proto::SCALER_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Reports whether the figures are known. Those of any queue will do: one that nobody has heard of has them, too.
async fn watch(figures: Arc<dyn Figures>, reporter: Reporter, within: Duration) -> std::convert::Infallible {
    let queue = [QueueName::default()];
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        match ask(&*figures, &queue, within).await {
            Ok(_) => reporter.ok(),
            Err(unknown) => reporter.failing(unknown),
        }
    }
}
