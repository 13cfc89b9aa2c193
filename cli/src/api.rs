//! `forebay api`, and the doors as `forebay dev` has them, too.

use std::{sync::Arc, time::Duration};

use forebay_api::{App, Bounds, Further, Parts, background, serve_grpc_with, serve_http};
use forebay_broker::GroupCommit;
use forebay_core::SystemClock;
use forebay_runtime::{
    config::{
        Loaded,
        args::{GrpcArgs, GrpcClientsArgs, HttpArgs, RemoteArgs},
    },
    listen::listen,
    open::{self, Backends},
};
use forebay_worker::{RemoteOptions, RemoteWorkers};
use tokio::{net::TcpListener, time::timeout};
use tracing::{info, warn};

use crate::{
    args::Api,
    exit::{Code, Result},
    process::Process,
};

/// How long the last submissions may take once the doors are closed.
const FLUSH_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: Api, loaded: &Loaded) -> Result<Code> {
    let doors = Doors::open(&args.http, &args.grpc, &args.grpc_clients).await?;
    let admin = listen(args.admin.admin_addr, "metrics and health", "--admin-addr").await?;
    let mut process = Process::start(&args.log, "forebay-api")?;
    log_settings(loaded);
    let backends = open::backends(&args.database, &args.broker, &process.metrics).await?;
    info!(
        http = %doors.http.local_addr()?,
        grpc = %doors.grpc.local_addr()?,
        admin = %admin.local_addr()?,
        "the API listens"
    );
    process.open_admin(admin);
    let remote = remote_workers(
        &process,
        &backends,
        remote_options(&args.remote, args.lease.lease),
    );
    serve(&process, &backends, doors, remote).await;
    process.end().await
}

/// Says in the log what is in effect, secrets masked.
pub(crate) fn log_settings(loaded: &Loaded) {
    for setting in &loaded.settings {
        let value = setting.value.as_deref().unwrap_or("-");
        tracing::debug!(setting = setting.key, value, source = %setting.source, "configured");
    }
}

/// Where HTTP and gRPC come in.
pub(crate) struct Doors {
    pub(crate) http: TcpListener,
    pub(crate) grpc: TcpListener,
    /// What is set of the doors' bounds.
    bounds: Bounds,
}

impl Doors {
    pub(crate) async fn open(
        http: &HttpArgs,
        grpc: &GrpcArgs,
        clients: &GrpcClientsArgs,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            http: listen(http.http_addr, "HTTP", "--http-addr").await?,
            grpc: listen(grpc.grpc_addr, "gRPC", "--grpc-addr").await?,
            bounds: Bounds {
                ping: clients.grpc_keepalive,
                connection_age: clients.grpc_max_connection_age,
                ..Bounds::default()
            },
        })
    }
}

/// How remote workers are served.
pub(crate) fn remote_options(args: &RemoteArgs, lease: Duration) -> RemoteOptions {
    let mut options = RemoteOptions {
        workers_max: args.remote_workers_max as usize,
        ..RemoteOptions::default()
    };
    options.executor.lease = lease;
    options
}

/// The workers that connect to the gRPC door.
pub(crate) fn remote_workers(
    process: &Process,
    backends: &Backends,
    options: RemoteOptions,
) -> RemoteWorkers {
    RemoteWorkers::new(
        options,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        Arc::clone(&process.metrics),
        process.stop.clone(),
    )
}

/// Serves both doors until the process is to stop, all requests are finished, and what they handed in is answered.
pub(crate) async fn serve(process: &Process, backends: &Backends, doors: Doors, remote: RemoteWorkers) {
    let (submitter, group) = GroupCommit::new(Arc::clone(&backends.broker));
    let group = process.part("group commit", async move {
        group.run().await;
        Ok(())
    });
    let parts = Parts {
        store: Arc::clone(&backends.store),
        broker: Arc::clone(&backends.broker),
        submitter,
        clock: Arc::new(SystemClock),
        metrics: Arc::clone(&process.metrics),
        health: process.health.clone(),
        stop: process.stop.clone(),
    };
    let app = App::bounded(parts, doors.bounds);
    let http = process.part("http", serve_http(app.clone(), doors.http));
    let further = Further {
        routes: remote.routes(),
        names: remote.names(),
    };
    let grpc = process.part("grpc", serve_grpc_with(app.clone(), doors.grpc, further));
    let remote = process.part("remote workers", async move {
        remote.run().await;
        Ok(())
    });
    let beside = process.part("api background", async move {
        background(app).await;
        Ok(())
    });
    // A part that panics is logged where it runs.
    let _ = tokio::join!(http, grpc, remote, beside);
    if timeout(FLUSH_MAX, group).await.is_err() {
        warn!("some submissions were cut off");
    }
}
