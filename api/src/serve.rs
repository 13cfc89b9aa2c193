//! Serves both doors on listeners, and ends them in good order: what is under way is finished, within a bound.

use std::time::Duration;

use anyhow::Context;
use forebay_runtime::supervise::random_bytes;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::{App, connections::Accept, grpc, layers::grpc_edge, router::door};

/// The largest head of a request, in bytes. Past it the server answers 431 by itself.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 256;

/// Serves the HTTP door, HTTP/1.1 and HTTP/2 without TLS. When `stop` is cancelled, takes no more connections,
/// ends what only waits, and gives the rest [`crate::Bounds::drain`] to finish.
///
/// # Errors
/// None at present: a connection that fails is that client's affair.
pub async fn serve_http(app: App, listener: TcpListener) -> anyhow::Result<()> {
    let service = TowerToHyperService::new(door(app.clone()));
    let server = server(app.bounds.head);
    let graceful = GracefulShutdown::new();
    let accept = Accept::new(&app, listener);
    let mut connections = JoinSet::new();
    while let Some(stream) = accept.next().await {
        while connections.try_join_next().is_some() {}
        let connection = server
            .serve_connection(TokioIo::new(stream), service.clone())
            .into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection failed");
            }
        });
    }
    drop(accept);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(app.bounds.drain) => tracing::warn!("requests were cut off: they took longer than the drain"),
    }
    Ok(())
}

fn server(head: Duration) -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX);
    server
}

/// Moved by up to a tenth, so that replicas which started together do not lose their clients together.
fn about(age: Duration) -> Duration {
    let [random, ..] = random_bytes();
    age.mul_f64(0.9 + 0.2 * f64::from(random) / 255.0)
}

/// Services that this crate does not know, for the gRPC door to serve beside its own.
#[derive(Debug, Clone, Default)]
pub struct Further {
    /// The services.
    pub routes: Routes,
    /// Those of them that health is to name.
    pub names: Vec<&'static str>,
}

/// Serves the gRPC door, with health and reflection. When `stop` is cancelled, health says `NOT_SERVING`, streams
/// are ended, and calls have [`crate::Bounds::drain`] to finish.
///
/// # Errors
/// Where the transport fails.
pub async fn serve_grpc(app: App, listener: TcpListener) -> anyhow::Result<()> {
    serve_grpc_with(app, listener, Further::default()).await
}

/// As [`serve_grpc`], with further services. It is for them to end their streams when `stop` is cancelled.
///
/// # Errors
/// Where the transport fails.
pub async fn serve_grpc_with(app: App, listener: TcpListener, further: Further) -> anyhow::Result<()> {
    let incoming = Accept::new(&app, listener).stream();
    let (reporter, health) = tonic_health::server::health_reporter();
    let names: Vec<&str> = grpc::NAMES.into_iter().chain(further.names).collect();
    for name in &names {
        reporter.set_service_status(*name, ServingStatus::Serving).await;
    }
    let stop = app.stop.clone();
    let served = tonic::transport::Server::builder()
        .layer(grpc_edge::layer(&app))
        .http2_keepalive_interval(Some(app.bounds.ping))
        .http2_keepalive_timeout(Some(app.bounds.pong))
        // No grace is set: with one, tonic 0.14 cuts connections off without asking first.
        .max_connection_age(about(app.bounds.connection_age))
        .http2_max_header_list_size(Some(HEAD_BYTES_MAX as u32))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .add_routes(grpc::routes(&app, further.routes))
        .add_service(health)
        .add_service(grpc::reflection()?)
        .add_service(grpc::reflection_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    let drained = async {
        app.stop.cancelled().await;
        for name in names.into_iter().chain([""]) {
            reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
        sleep(app.bounds.drain).await;
    };
    tokio::select! {
        served = served => served.context("serve gRPC"),
        () = drained => {
            tracing::warn!("calls were cut off: they took longer than the drain");
            Ok(())
        }
    }
}
