//! `forebay api`, and the doors as `forebay dev` has them, too.

use std::{sync::Arc, time::Duration};

use forebay_api::{App, Parts, background, serve_grpc, serve_http};
use forebay_broker::GroupCommit;
use forebay_core::SystemClock;
use forebay_runtime::{
    config::{
        Loaded,
        args::{GrpcArgs, HttpArgs},
    },
    listen::listen,
    open::{self, Backends},
};
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
    let doors = Doors::open(&args.http, &args.grpc).await?;
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
    serve(&process, &backends, doors).await;
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
}

impl Doors {
    pub(crate) async fn open(http: &HttpArgs, grpc: &GrpcArgs) -> anyhow::Result<Self> {
        Ok(Self {
            http: listen(http.http_addr, "HTTP", "--http-addr").await?,
            grpc: listen(grpc.grpc_addr, "gRPC", "--grpc-addr").await?,
        })
    }
}

/// Serves both doors until the process is to stop, all requests are finished, and what they handed in is answered.
pub(crate) async fn serve(process: &Process, backends: &Backends, doors: Doors) {
    let (submitter, group) = GroupCommit::new(Arc::clone(&backends.broker));
    let group = process.part("group commit", async move {
        group.run().await;
        Ok(())
    });
    let app = App::new(Parts {
        store: Arc::clone(&backends.store),
        broker: Arc::clone(&backends.broker),
        submitter,
        clock: Arc::new(SystemClock),
        metrics: Arc::clone(&process.metrics),
        health: process.health.clone(),
        stop: process.stop.clone(),
    });
    let http = process.part("http", serve_http(app.clone(), doors.http));
    let grpc = process.part("grpc", serve_grpc(app.clone(), doors.grpc));
    let beside = process.part("api background", async move {
        background(app).await;
        Ok(())
    });
    // A part that panics is logged where it runs.
    let _ = tokio::join!(http, grpc, beside);
    if timeout(FLUSH_MAX, group).await.is_err() {
        warn!("some submissions were cut off");
    }
}
