//! `forebay dev`: everything in one process, on one file.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use forebay_runtime::{
    config::Loaded,
    listen::{listen, reachable},
    open::{self, Backends},
};
use forebay_worker::WorkerOptions;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Doors},
    args::Dev,
    client::print::Printer,
    exit::{Code, Result},
    handlers,
    process::Process,
    worker,
};

/// The database's name within the data folder.
const DATABASE: &str = "forebay.db";
/// How long a task is held by a worker that has no handler for it: short, since the one that has is mostly in this
/// process, and the broker, which is, too, bears it.
const UNKNOWN_KIND_PAUSE: Duration = Duration::from_millis(100);
/// Where the client commands look by themselves.
const DEFAULT_PORT: u16 = 8080;

pub(crate) async fn run(args: Dev, mut loaded: Loaded) -> Result<Code> {
    let handlers = handlers::from_file(&mut loaded)?.with_builtin();
    let doors = Doors::open(&args.http, &args.grpc, &args.grpc_clients).await?;
    let admin = listen(args.admin.admin_addr, "metrics and health", "--admin-addr").await?;
    let welcome = Welcome {
        data: &args.data,
        http: reachable(&doors.http)?,
        grpc: reachable(&doors.grpc)?,
        admin: reachable(&admin)?,
    };
    let mut process = Process::start(&args.log, "forebay-dev")?;
    note_unused(&loaded);
    std::fs::create_dir_all(&args.data)
        .with_context(|| format!("--data {} cannot be used as a folder", args.data.display()))?;
    let backends = open::embedded(&args.data.join(DATABASE), &process.metrics).await?;
    take_over(&backends).await?;
    process.open_admin(admin);
    // The worker goes on until the last request is answered: one of them may wait for its task.
    let drain = CancellationToken::new();
    let mut options = worker::options(&args.worker);
    options.intake.unknown_kind_pause = UNKNOWN_KIND_PAUSE;
    let mut remote = api::remote_options(&args.remote, options.lease);
    remote.executor.intake.unknown_kind_pause = UNKNOWN_KIND_PAUSE;
    let remote = api::remote_workers(&process, &backends, remote);
    let work = worker::new(&process, &backends, options, handlers).beside(&remote);
    let work = worker::start(&process, work, drain.clone());
    if welcome.say().is_err() {
        // Nobody reads it; that is no reason to stop.
        tracing::info!(http = %welcome.http, grpc = %welcome.grpc, admin = %welcome.admin, "ready");
    }
    api::serve(&process, &backends, doors, remote).await;
    drain.cancel();
    // A panic is logged where it happens.
    let _ = work.await;
    drop(backends);
    process.end().await
}

/// Nobody else has these data open, so whoever is registered there is dead: its tasks need not wait for its lease.
async fn take_over(backends: &Backends) -> Result<()> {
    let lost_max = WorkerOptions::default().lost_max;
    let taken = backends.store.take_back(Duration::ZERO, lost_max).await;
    let taken = taken.context("take back what was running")?;
    if !taken.is_empty() {
        tracing::warn!(
            tasks = taken.len(),
            "the last process did not end in good order, its tasks were taken back"
        );
    }
    Ok(())
}

/// Settings of production may be in the environment, and the user may believe that they count.
fn note_unused(loaded: &Loaded) {
    for name in ["FOREBAY_DATABASE_URL", "FOREBAY_BROKER_URL"] {
        if loaded.unused.iter().any(|unused| unused == name) {
            tracing::warn!("{name} is set and not used: `forebay dev` keeps its data in --data");
        }
    }
}

/// What a person needs to know to begin.
struct Welcome<'a> {
    data: &'a Path,
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Welcome<'_> {
    fn say(&self) -> Result<()> {
        let Self {
            data,
            http,
            grpc,
            admin,
        } = self;
        let url = if http.port() == DEFAULT_PORT {
            String::new()
        } else {
            format!(" --url http://{http}")
        };
        Printer::new(false).line(format_args!(
            "Forebay is ready. Its data is in {data}.

  HTTP     http://{http}           (API reference: http://{http}/docs)
  gRPC     {grpc}
  metrics  http://{admin}/metrics

Submit a task, and wait for its result:

  curl -H 'Content-Type: application/json' -H 'Prefer: wait=10' \\
    -d '{{\"kind\": \"echo\", \"payload\": {{\"hello\": \"world\"}}}}' http://{http}/v1/tasks

Watch what happens:

  forebay watch{url}

Stop with Ctrl-C; what was accepted is kept.
",
            data = data.display(),
        ))
    }
}
