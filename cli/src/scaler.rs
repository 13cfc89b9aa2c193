//! `forebay scaler`: KEDA's external scaler.

use std::sync::Arc;

use forebay_autoscale::{Observer, Sources};
use forebay_core::SystemClock;
use forebay_runtime::{
    config::{Loaded, args::ScalerArgs},
    listen::listen,
    open::{self, Backends},
};
use forebay_scaler::{Bounds, Parts, Tls, serve};
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    api::log_settings,
    args::Scaler,
    exit::{Code, Result},
    process::Process,
};

pub(crate) async fn run(args: Scaler, loaded: &Loaded) -> Result<Code> {
    let tls = tls(&args.scaler)?;
    let door = listen(args.grpc.grpc_addr, "gRPC", "--grpc-addr").await?;
    let admin = listen(args.admin.admin_addr, "metrics and health", "--admin-addr").await?;
    let mut process = Process::start(&args.log, "forebay-scaler")?;
    log_settings(loaded);
    let backends = open::backends(&args.database, &args.broker, &process.metrics).await?;
    info!(
        grpc = %door.local_addr()?,
        admin = %admin.local_addr()?,
        tls = tls.is_some(),
        "the scaler listens"
    );
    process.open_admin(admin);
    work(&process, &backends, door, tls).await;
    process.end().await
}

fn tls(args: &ScalerArgs) -> anyhow::Result<Option<Tls>> {
    Tls::read(
        args.scaler_tls_cert.as_deref(),
        args.scaler_tls_key.as_deref(),
        args.scaler_tls_client_ca.as_deref(),
    )
}

/// Observes the queues and serves KEDA, until the process is to stop.
async fn work(process: &Process, backends: &Backends, door: TcpListener, tls: Option<Tls>) {
    let observer = Observer::new(
        Sources {
            store: Arc::clone(&backends.store) as _,
            broker: Arc::clone(&backends.broker),
            clock: Arc::new(SystemClock),
            metrics: Arc::clone(&process.metrics),
        },
        forebay_autoscale::Bounds::default(),
    );
    let scaler = serve(
        Parts {
            figures: Arc::new(observer.clone()),
            metrics: Arc::clone(&process.metrics),
            health: process.health.clone(),
            stop: process.stop.clone(),
            bounds: Bounds::default(),
            tls,
        },
        door,
    );
    let stop = process.stop.clone();
    let observing = process.part("observer", async move {
        observer.run(stop).await;
        Ok(())
    });
    let serving = process.part("grpc", scaler);
    // A part that panics is logged where it runs.
    let _ = tokio::join!(observing, serving);
}
