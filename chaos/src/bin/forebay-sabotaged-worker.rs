//! A worker that breaks its promise on purpose: it acknowledges messages before what they say is in the store. The
//! fault suite runs it to see whether it would notice. It takes the settings of `forebay worker` that the suite gives.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use forebay_core::SystemClock;
use forebay_runtime::{
    admin,
    config::{
        args::{AdminArgs, BrokerArgs, DatabaseArgs, LogArgs, WorkerArgs},
        values::Role,
    },
    health::Health,
    listen::listen,
    metrics::Metrics,
    open, telemetry,
};
use forebay_worker::{Handlers, Roles, Sabotage, Worker, WorkerOptions, handlers::config::HandlerConfig};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// How long it waits between the acknowledgement and the store.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Cli {
    /// As in `forebay worker`, which is what this stands in for.
    command: String,
    #[arg(long)]
    config: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Deserialize)]
struct File {
    handler: Vec<HandlerConfig>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.command != "worker" {
        bail!("this is a worker, and no {}", cli.command);
    }
    let _telemetry = telemetry::start(&cli.log, "forebay-sabotaged-worker")?;
    let handlers = handlers(&cli.config)?;
    let (metrics, health) = (Arc::new(Metrics::new()), Health::default());
    let listener = listen(cli.admin.admin_addr, "metrics and health", "--admin-addr").await?;
    let backends = open::backends(&cli.database, &cli.broker, &metrics).await?;
    let worker = Worker::new(
        options(&cli.worker),
        handlers,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        Arc::clone(&metrics),
        health.clone(),
    )
    .sabotage(Sabotage {
        acknowledge_first: Some(PAUSE),
    });
    let door = admin::serve(listener, metrics, health, std::future::pending());
    // Nobody ends it but by force.
    tokio::select! {
        ended = worker.run(CancellationToken::new()) => ended,
        served = door => Ok(served?),
    }
}

fn handlers(file: &std::path::Path) -> Result<Handlers> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let file: File = toml::from_str(&text)?;
    Handlers::from_config(file.handler, std::path::Path::new("."), |_| None)
        .map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

fn options(args: &WorkerArgs) -> WorkerOptions {
    let has = |role| args.roles.0.contains(&role);
    WorkerOptions {
        queues: args.queues.0.clone(),
        roles: Roles {
            recorder: has(Role::Recorder),
            executor: has(Role::Executor),
            dispatcher: has(Role::Dispatcher),
        },
        concurrency: args.concurrency as usize,
        lease: args.lease.lease,
        ..WorkerOptions::default()
    }
}
