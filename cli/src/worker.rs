//! `forebay worker`, and the worker as `forebay dev` has it, too.

use std::{num::NonZero, path::Path, sync::Arc, time::Duration};

use forebay_core::SystemClock;
use forebay_runtime::{
    config::{
        Loaded, Source,
        args::{ScaleInArgs, WorkerArgs},
        values::Role,
    },
    listen::listen,
    open::{self, Backends},
};
use forebay_worker::{Handlers, Roles, WebhookOptions, WorkerOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api::log_settings,
    args::Worker,
    exit::{Code, Failure, Result},
    handlers,
    pod_cost::{self, Pod},
    process::Process,
};

/// Where Linux tells the host's name.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

pub(crate) async fn run(args: Worker, mut loaded: Loaded) -> Result<Code> {
    let options = bounded(options(&args.worker), &args.scale_in, &loaded)?;
    let pod = args
        .scale_in
        .worker_pod_deletion_cost
        .then(this_pod)
        .transpose()?;
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
    let worker = new(&process, &backends, options, handlers);
    if let Some(pod) = pod {
        let (load, stop) = (worker.load(), process.stop.clone());
        process.part("pod deletion cost", async move {
            // Whatever becomes of it is no reason to stop working.
            pod.tell(load, &stop).await;
            Ok(())
        });
    }
    // A panic is logged where it happens.
    let _ = start(&process, worker, process.stop.clone()).await;
    process.complete();
    process.end().await
}

pub(crate) fn new(
    process: &Process,
    backends: &Backends,
    options: WorkerOptions,
    handlers: Handlers,
) -> forebay_worker::Worker {
    forebay_worker::Worker::new(
        options,
        handlers,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        Arc::clone(&process.metrics),
        process.health.clone(),
    )
}

/// Starts a worker that drains when `stop` is cancelled.
pub(crate) fn start(
    process: &Process,
    worker: forebay_worker::Worker,
    stop: CancellationToken,
) -> JoinHandle<()> {
    process.part("worker", worker.run(stop))
}

pub(crate) fn options(args: &WorkerArgs) -> WorkerOptions {
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
        lease: args.lease.lease,
        drain_timeout: args.drain_timeout,
        retention: args
            .retention_days
            .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
        webhooks: WebhookOptions {
            allow_private: args
                .webhook_allow_private
                .iter()
                .flat_map(|networks| &networks.0)
                .map(|network| network.0)
                .collect(),
            ..WebhookOptions::default()
        },
        ..WorkerOptions::default()
    }
}

/// Sets the worker's own end. A recorder or dispatcher that ends by itself would be missed, so such a worker is an
/// executor alone.
fn bounded(mut options: WorkerOptions, args: &ScaleInArgs, loaded: &Loaded) -> Result<WorkerOptions> {
    options.once = args.worker_once;
    options.tasks_max = args.worker_max_tasks.and_then(|max| NonZero::new(max as usize));
    if !options.once && options.tasks_max.is_none() {
        return Ok(options);
    }
    let roles = loaded.settings.iter().find(|setting| setting.key == "roles");
    if roles.is_none_or(|setting| setting.source == Source::Default) {
        options.roles = Roles::EXECUTOR;
    }
    if options.roles == Roles::EXECUTOR {
        return Ok(options);
    }
    Err(Failure::usage(format_args!(
        "a worker that ends by itself (--once, --max-tasks) is an executor alone: give --roles executor, or no roles; \
         not {}",
        options.roles
    )))
}

fn this_pod() -> Result<Pod> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Pod::from_variables(variable, Path::new(pod_cost::SERVICE_ACCOUNT)).map_err(Failure::usage)
}

fn hostname() -> String {
    let name = std::fs::read_to_string(HOSTNAME_FILE).unwrap_or_default();
    match name.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}
