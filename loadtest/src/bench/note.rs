//! A worker whose handler notes how long its task waited: in a process of its own, as the peers' workers are.

use std::{
    fs::File,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use forebay_core::SystemClock;
use forebay_runtime::{
    config::args::{BrokerArgs, DatabaseArgs},
    health::Health,
    metrics::Metrics,
    open,
};
use forebay_worker::{Execution, HandlerSettings, Handlers, Worker, WorkerOptions};
use tokio_util::sync::CancellationToken;

use super::http::unix_micros;
use crate::limits::http::announce;

/// The kind of task that it handles.
pub(super) const KIND: &str = "note";

/// Where this process finds the servers.
#[derive(clap::Parser)]
struct Backing {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// Works until it is killed; waits go to the file that `BENCH_WAITS` begins.
pub(super) async fn serve(database: &str, broker: &str) -> Result<()> {
    let backing = Backing::try_parse_from(["bench", "--database-url", database, "--broker-url", broker])?;
    let (metrics, health) = (Arc::new(Metrics::new()), Health::default());
    let backends = open::backends(&backing.database, &backing.broker, &metrics).await?;
    let worker = Worker::new(
        WorkerOptions::default(),
        noting()?,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        metrics,
        health.clone(),
    );
    let running = tokio::spawn(worker.run(CancellationToken::new()));
    while !health.problems().is_empty() && !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nothing listens there: it only says that the worker is ready.
    announce(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    running.await?
}

fn noting() -> Result<Handlers> {
    let path = std::env::var("BENCH_WAITS").context("BENCH_WAITS says where to note")?;
    let notes = Arc::new(File::create(format!("{path}.{}", std::process::id()))?);
    let note = move |payload: serde_json::Value, _: Execution| {
        let sent = payload["sent"].as_u64().unwrap_or(0);
        if sent > 0 {
            let waited = unix_micros().saturating_sub(sent);
            // A note that is not written is a task that never ran, to the bench.
            let _ = (&*notes).write_all(format!("{waited}\n").as_bytes());
        }
        async move { Ok(()) }
    };
    Ok(Handlers::new().function(KIND, HandlerSettings::default(), note)?)
}
