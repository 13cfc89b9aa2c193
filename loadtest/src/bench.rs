//! What is measured, and how it is printed.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Result, ensure};
use clap::Parser;
use forebay_core::SystemClock;
use forebay_runtime::{
    config::args::{BrokerArgs, DatabaseArgs},
    health::Health,
    metrics::Metrics,
    open,
};
use forebay_testkit::broker::BrokerKind;
use forebay_worker::{Execution, HandlerError, HandlerSettings, Handlers, Worker, WorkerOptions};
use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

use crate::{
    limits, load,
    stack::{Forebay, Stack},
};

/// Slots of the worker under load.
const CONCURRENCY: &str = "512";

/// One figure, with all its readings.
struct Figure {
    name: &'static str,
    unit: &'static str,
    readings: Vec<f64>,
}

impl Figure {
    fn row(&self) -> String {
        let mut sorted = self.readings.clone();
        sorted.sort_by(f64::total_cmp);
        let digits = if sorted.last().is_some_and(|&largest| largest < 100.0) {
            2
        } else {
            0
        };
        let median = sorted[sorted.len() / 2];
        let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
        format!(
            "| {} | **{median:.digits$}** | {low:.digits$} to {high:.digits$} | {} |",
            self.name, self.unit
        )
    }
}

#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, name: &'static str, unit: &'static str, reading: f64) {
        match self.0.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.readings.push(reading),
            None => self.0.push(Figure {
                name,
                unit,
                readings: vec![reading],
            }),
        }
    }
}

/// Measures everything `rounds` times and prints the table.
pub(crate) async fn run(broker: BrokerKind, rounds: usize, tasks: usize) -> Result<()> {
    let mut figures = Figures::default();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        production(&mut figures, broker, tasks).await?;
        latency(&mut figures, broker).await?;
        embedded(&mut figures, tasks / 4).await?;
    }
    println!("| figure | median | range of {rounds} | unit |");
    println!("|---|---|---|---|");
    for figure in &figures.0 {
        println!("{}", figure.row());
    }
    Ok(())
}

/// The broker (synced) and PostgreSQL (synced), one api, one worker.
async fn production(figures: &mut Figures, broker: BrokerKind, tasks: usize) -> Result<()> {
    let stack = Stack::start(broker).await?;
    figures.add(
        "limit: rows inserted, 1,000 a statement, 1 connection",
        "rows/s",
        limits::postgres_rows_per_second(&stack).await?,
    );
    figures.add(
        "limit: bare HTTP route, 32 clients",
        "requests/s",
        limits::http_requests_per_second().await?,
    );
    let worker = stack.worker(CONCURRENCY).await?;
    figures.add("memory of the api at rest", "MiB", stack.api.memory_mib()?);
    figures.add("memory of the worker at rest", "MiB", worker.memory_mib()?);

    let mut accepted = 0;
    let began = Instant::now();
    let singles = load::singles(&stack.api.http, 32, tasks / 3).await?;
    accepted += singles.accepted;
    worker.wait_until_succeeded(accepted as u64).await?;
    figures.add("submitted one by one, 32 clients", "tasks/s", singles.per_second);
    figures.add(
        "submitted one by one: p50 of a request",
        "ms",
        singles.latency.value_at_quantile(0.5) as f64 / 1e3,
    );
    figures.add(
        "submitted one by one: p99 of a request",
        "ms",
        singles.latency.value_at_quantile(0.99) as f64 / 1e3,
    );
    figures.add(
        "end to end, submitted one by one by 32 clients",
        "tasks/s",
        singles.accepted as f64 / began.elapsed().as_secs_f64(),
    );

    let began = Instant::now();
    let rate = load::bulk(&stack.api.http, tasks).await?;
    accepted += tasks;
    worker.wait_until_succeeded(accepted as u64).await?;
    figures.add("submitted as one NDJSON stream, worker running", "tasks/s", rate);
    figures.add(
        "end to end, one NDJSON stream",
        "tasks/s",
        tasks as f64 / began.elapsed().as_secs_f64(),
    );
    drop(worker);

    let rate = load::bulk(&stack.api.http, tasks).await?;
    accepted += tasks;
    figures.add(
        "submitted as one NDJSON stream, no worker running",
        "tasks/s",
        rate,
    );
    let began = Instant::now();
    let worker = stack.worker(CONCURRENCY).await?;
    worker.wait_until_succeeded(tasks as u64).await?;
    figures.add(
        "drained after a start, outcome in PostgreSQL",
        "tasks/s",
        tasks as f64 / began.elapsed().as_secs_f64(),
    );
    let (all, succeeded) = stack.count_tasks().await?;
    ensure!(
        (all, succeeded) == (accepted as i64, accepted as i64),
        "{accepted} accepted, {all} stored, {succeeded} succeeded"
    );
    Ok(())
}

/// From just before the request is due to the first line of the handler, at 100 tasks a second.
async fn latency(figures: &mut Figures, broker: BrokerKind) -> Result<()> {
    let stack = Stack::start(broker).await?;
    let waits = Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?));
    let handlers = noting(Arc::clone(&waits))?;
    let metrics = Arc::new(Metrics::new());
    let backends = connect(&stack, &metrics).await?;
    let health = Health::default();
    let worker = Worker::new(
        WorkerOptions::default(),
        handlers,
        Arc::clone(&backends.store),
        Arc::clone(&backends.broker),
        Arc::new(SystemClock),
        metrics,
        health.clone(),
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    while !health.problems().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let warm_up = load::open_loop(&stack.api.http, 100, 2, "note").await?;
    wait_for(&waits, warm_up).await?;
    waits.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.reset();
    let sent = load::open_loop(&stack.api.http, 100, 10, "note").await?;
    wait_for(&waits, sent).await?;
    stop.cancel();
    running.await??;
    let waits = waits.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    figures.add(
        "submit to start at 100/s: p50",
        "ms",
        waits.value_at_quantile(0.5) as f64 / 1e3,
    );
    figures.add(
        "submit to start at 100/s: p99",
        "ms",
        waits.value_at_quantile(0.99) as f64 / 1e3,
    );
    Ok(())
}

/// A handler that notes how long ago its task should have been submitted.
fn noting(waits: Arc<Mutex<Histogram<u64>>>) -> Result<Handlers> {
    let note = move |payload: serde_json::Value, _: Execution| {
        let waited = load::unix_micros().saturating_sub(payload["sent_unix_micros"].as_u64().unwrap_or(0));
        let noted = waits.lock().map(|mut waits| waits.saturating_record(waited));
        let noted = noted.map_err(|_| HandlerError::permanent("the histogram is poisoned"));
        async move { noted }
    };
    Ok(Handlers::new().function("note", HandlerSettings::default(), note)?)
}

/// Where this process, as a worker of its own, finds the servers.
#[derive(clap::Parser)]
struct Backing {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
}

async fn connect(stack: &Stack, metrics: &Arc<Metrics>) -> Result<open::Backends> {
    let (database, broker) = (stack.postgres.url(), stack.broker.url());
    let backing = Backing::try_parse_from(["bench", "--database-url", &database, "--broker-url", &broker])?;
    open::backends(&backing.database, &backing.broker, metrics).await
}

async fn wait_for(waits: &Mutex<Histogram<u64>>, count: usize) -> Result<()> {
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let noted = waits.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.len();
        if noted >= count as u64 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {noted} of {count} tasks started");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// `forebay dev`: one process on SQLite.
async fn embedded(figures: &mut Figures, tasks: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let forebay = Forebay::start(&["dev", "--data", &data, "--concurrency", CONCURRENCY], &[]).await?;
    figures.add("memory of `forebay dev` at rest", "MiB", forebay.memory_mib()?);
    let began = Instant::now();
    load::bulk(&forebay.http, tasks).await?;
    forebay.wait_until_succeeded(tasks as u64).await?;
    figures.add(
        "end to end, `forebay dev` on SQLite, one NDJSON stream",
        "tasks/s",
        tasks as f64 / began.elapsed().as_secs_f64(),
    );
    Ok(())
}
