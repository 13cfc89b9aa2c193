//! `forebay worker`, and the worker as `forebay dev` has it, too.

use std::{sync::Arc, time::Duration};

use forebay_core::SystemClock;
use forebay_runtime::{
    config::{Loaded, args::WorkerArgs, values::Role},
    listen::listen,
    open::{self, Backends},
};
use forebay_worker::{Handlers, Roles, WorkerOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api::log_settings,
    args::Worker,
    exit::{Code, Result},
    handlers,
    process::Process,
};

/// Where Linux tells the host's name.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

pub(crate) async fn run(args: Worker, mut loaded: Loaded) -> Result<Code> {
    let mut handlers = handlers::from_file(&mut loaded)?;
    if args.builtin_handlers {
        handlers = handlers.with_builtin();
    }
    let admin = listen(args.admin.admin_addr, "metrics and health", "--admin-addr").await?;
    let mut process = Process::start(&args.log, "forebay-worker")?;
    log_settings(&loaded);
    let backends = open::backends(&args.database, &args.broker, &process.metrics).await?;
    info!(admin = %admin.local_addr()?, "metrics and health are served");
    process.open_admin(admin);
    let work = start(&process, &backends, &args.worker, handlers, process.stop.clone());
    // A panic is logged where it happens.
    let _ = work.await;
    process.end().await
}

/// Starts a worker that drains when `stop` is cancelled.
pub(crate) fn start(
    process: &Process,
    backends: &Backends,
    args: &WorkerArgs,
    handlers: Handlers,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let worker = forebay_worker::Worker::new(
        options(args),
        handlers,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        Arc::clone(&process.metrics),
        process.health.clone(),
    );
    process.part("worker", worker.run(stop))
}

fn options(args: &WorkerArgs) -> WorkerOptions {
    let has = |role| args.roles.0.contains(&role);
    WorkerOptions {
        name: args.name.clone().unwrap_or_else(hostname),
        queues: args.queues.0.clone(),
        roles: Roles {
            recorder: has(Role::Recorder),
            executor: has(Role::Executor),
            dispatcher: has(Role::Dispatcher),
        },
        concurrency: args.concurrency as usize,
        lease: args.lease,
        drain_timeout: args.drain_timeout,
        retention: args
            .retention_days
            .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
        ..WorkerOptions::default()
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string(HOSTNAME_FILE).unwrap_or_default();
    match name.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}
