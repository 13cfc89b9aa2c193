//! Serves both doors on listeners, and ends them in good order: what is under way is finished, within a bound.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tonic::transport::server::TcpIncoming;

use crate::{App, grpc, router::door};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(15);
/// The largest head of a request, in bytes. Past it the server answers 431 by itself.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 256;
/// Between two attempts to accept, where that fails: no file handles are left, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the HTTP door, HTTP/1.1 and HTTP/2 without TLS. When `stop` is cancelled, takes no more connections,
/// ends what only waits, and gives the rest [`crate::Bounds::drain`] to finish.
///
/// # Errors
/// None at present: a connection that fails is that client's affair.
pub async fn serve_http(app: App, listener: TcpListener) -> anyhow::Result<()> {
    let service = TowerToHyperService::new(door(app.clone()));
    let server = server();
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(app.bounds.connections));
    let mut connections = JoinSet::new();
    while let Some((stream, place)) = next(&app, &listener, &places, &mut connections).await {
        let connection = server
            .serve_connection(TokioIo::new(stream), service.clone())
            .into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection failed");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(app.bounds.drain) => tracing::warn!("requests were cut off: they took longer than the drain"),
    }
    Ok(())
}

fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX);
    server
}

/// The next connection, with its place; `None` when the process is to stop.
async fn next(
    app: &App,
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    while connections.try_join_next().is_some() {}
    let place = tokio::select! {
        () = app.stop.cancelled() => return None,
        place = Arc::clone(places).acquire_owned() => place.ok()?,
    };
    loop {
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Only costs latency where it fails.
                let _ = stream.set_nodelay(true);
                return Some((stream, place));
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves the gRPC door, with health and reflection. When `stop` is cancelled, health says `NOT_SERVING`, streams
/// are ended, and calls have [`crate::Bounds::drain`] to finish.
///
/// # Errors
/// Where the transport fails.
pub async fn serve_grpc(app: App, listener: TcpListener) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<grpc::Service>().await;
    let stop = app.stop.clone();
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_max_header_list_size(Some(HEAD_BYTES_MAX as u32))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .add_service(health)
        .add_service(grpc::reflection()?)
        .add_service(grpc::reflection_v1alpha()?)
        .add_service(grpc::service(app.clone()))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    let drained = async {
        app.stop.cancelled().await;
        reporter.set_not_serving::<grpc::Service>().await;
        reporter
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
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
