//! Forebay itself: PostgreSQL and one broker, both synced, one `forebay api`, one `forebay worker`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forebay_testkit::broker::BrokerKind;

use super::{
    Pace, RATE,
    figures::Figures,
    http::{self, Connection, address, on_own_thread, task},
    meter::{Meter, micros_each},
    note,
    pace::ticks,
    stream::{self, Bulk, Reins},
};
use crate::{
    limits::http::Server,
    peers,
    stack::{Forebay, Stack, binary},
};

/// Slots of the worker under load.
const CONCURRENCY: &str = "4096";

/// Tasks of a burst over NDJSON.
const BURST: u64 = 100_000;

/// Tasks of a burst over gRPC.
const STREAMED: u64 = 60_000;

/// How many NDJSON requests there are at a time.
const REQUESTS: usize = 2;

/// How far a sustained bulk load is ahead of the outcomes, at most: by what the worker has slots for, and by several times
/// that, so that tasks queue.
const AHEAD: [(&str, u64); 2] = [
    (name::SUSTAINED_BULK, 4_000),
    (name::SUSTAINED_BULK_QUEUED, 20_000),
];

/// How many connections submit while a worker runs.
const SUSTAINED_CONNECTIONS: usize = 256;

/// How long a process has to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// How long a backlog may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The names under which tables and ratios find the figures.
pub(crate) mod name {
    pub(crate) const SINGLE_32: &str = "submit one by one, HTTP, 32 connections";
    pub(crate) const SINGLE_256: &str = "submit one by one, HTTP, 256 connections";
    pub(crate) const NDJSON: &str = "bulk, NDJSON, burst";
    pub(crate) const GRPC: &str = "bulk, gRPC stream, burst";
    pub(crate) const RECORD: &str = "record a backlog";
    pub(crate) const DRAIN: &str = "drain of a recorded backlog";
    pub(crate) const SUSTAINED: &str = "sustained, HTTP one by one (256 connections) and worker at once";
    pub(crate) const SUSTAINED_BULK: &str = "sustained, NDJSON and worker at once, 4,000 ahead";
    pub(crate) const SUSTAINED_BULK_QUEUED: &str = "sustained, NDJSON and worker at once, 20,000 ahead";
    pub(crate) const LATENCY: &str = "submit to start at 100/s";
    pub(crate) const MEMORY_API: &str = "memory of the api at rest";
    pub(crate) const MEMORY_WORKER: &str = "memory of the worker at rest";
    pub(crate) const MEMORY_BUSY: &str = "memory of the worker, highest in the drain";
    pub(crate) const MEMORY_DEV: &str = "memory of `forebay dev` at rest";
    pub(crate) const READY_DEV: &str = "`forebay dev`, start to ready";
    pub(crate) const BINARY: &str = "binary";
    pub(crate) const DEV_BULK: &str = "`forebay dev` on SQLite, NDJSON to outcome";
}

/// The table of a broker.
pub(crate) fn section(kind: BrokerKind) -> &'static str {
    match kind {
        BrokerKind::Nats => "forebay-nats",
        BrokerKind::RabbitMq => "forebay-rabbitmq",
    }
}

/// The table of what is not about a broker.
pub(crate) const SMALL: &str = "forebay-small";

/// Measures everything on one broker. What fails of it is returned beside the figures; the rest goes on.
pub(crate) async fn measure(kind: BrokerKind, pace: Pace, figures: &mut Figures) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    let mut keep = |part: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            failed.push(format!("{part}: {error:#}"));
        }
    };
    keep("submit and drain", submit_and_drain(kind, pace, figures).await);
    keep("sustained", sustained(kind, pace, figures).await);
    for (row, ahead) in AHEAD {
        keep(row, sustained_bulk(kind, (row, ahead), pace, figures).await);
    }
    keep("latency", latency(kind, pace, figures).await);
    Ok(failed)
}

/// Submits with no worker, records it all, and then drains it.
async fn submit_and_drain(kind: BrokerKind, pace: Pace, figures: &mut Figures) -> Result<()> {
    let section = section(kind);
    let stack = Stack::start(kind).await?;
    at_rest(&stack, kind, figures).await?;
    let server = address(&stack.api.http)?;
    let mut accepted = http::singles(server, 32, Duration::from_millis(500), u64::MAX)
        .await?
        .accepted;
    for (row, clients) in [(name::SINGLE_32, 32), (name::SINGLE_256, 256)] {
        let singles = http::singles(server, clients, pace.window, u64::MAX).await?;
        accepted += singles.accepted;
        note_singles(figures, section, row, &singles);
    }
    let bulk = stream::ndjson(server, REQUESTS, Reins::new(PATIENCE, BURST / pace.shrink), false).await?;
    accepted += note_bulk(figures, section, name::NDJSON, &bulk);
    let bulk = stream::grpc(
        stack.api.grpc.clone(),
        Reins::new(PATIENCE, STREAMED / pace.shrink),
    )
    .await?;
    accepted += note_bulk(figures, section, name::GRPC, &bulk);
    record(&stack, accepted, section, figures).await?;
    stack
        .postgres
        .psql("postgres", "VACUUM ANALYZE")
        .and_then(|_| stack.postgres.psql("postgres", "CHECKPOINT"))?;
    drain(&stack, accepted, section, figures).await
}

async fn at_rest(stack: &Stack, kind: BrokerKind, figures: &mut Figures) -> Result<()> {
    let worker = stack.worker(CONCURRENCY).await?;
    tokio::time::sleep(REST).await;
    if kind == BrokerKind::Nats {
        figures.note(SMALL, name::MEMORY_API, "MiB", stack.api.memory_mib()?);
        figures.note(SMALL, name::MEMORY_WORKER, "MiB", worker.memory_mib()?);
    }
    Ok(())
}

/// A worker that records and does nothing else, until every accepted task is a row.
async fn record(stack: &Stack, accepted: u64, section: &str, figures: &mut Figures) -> Result<()> {
    let meter = Meter::start()?;
    let recorder = stack.worker_with(&["--roles", "recorder"]).await?;
    let deadline = Instant::now() + PATIENCE;
    while stack.count_tasks()?.0 < accepted {
        ensure!(
            Instant::now() < deadline,
            "not all {accepted} tasks were recorded"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    figures.note_work(section, name::RECORD, accepted, &meter.stop()?);
    // It publishes what is ready, and acknowledges, a moment after the last row is there.
    tokio::time::sleep(REST).await;
    drop(recorder);
    Ok(())
}

async fn drain(stack: &Stack, accepted: u64, section: &str, figures: &mut Figures) -> Result<()> {
    let (whole, began) = (Meter::start()?, Instant::now());
    let worker = stack.worker(CONCURRENCY).await?;
    let meter = Meter::start()?;
    let before = worker.succeeded().await?;
    let mut memory = 0.0;
    let deadline = Instant::now() + PATIENCE;
    let mut looked = Instant::now();
    loop {
        let done = worker.succeeded().await?;
        if done >= accepted {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "only {done} of {accepted} tasks were drained"
        );
        if looked.elapsed() > Duration::from_millis(300) {
            memory = f64::max(memory, worker.memory_mib()?);
            looked = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (spent, took) = (meter.stop()?, began.elapsed());
    figures.note(
        section,
        name::DRAIN,
        "per second",
        (accepted - before) as f64 / spent.seconds,
    );
    figures.note(
        section,
        name::DRAIN,
        "CPU µs",
        micros_each(whole.stop()?.machine, accepted),
    );
    let with_start = accepted as f64 / took.as_secs_f64();
    figures.note(section, name::DRAIN, "with start", with_start);
    if memory > 0.0 && section == self::section(BrokerKind::Nats) {
        figures.note(SMALL, name::MEMORY_BUSY, "MiB", memory);
    }
    expect_all_succeeded(stack, accepted).await
}

/// Every accepted task is there, once, and succeeded.
async fn expect_all_succeeded(stack: &Stack, accepted: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (all, succeeded) = stack.count_tasks()?;
        if (all, succeeded) == (accepted, accepted) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline && all <= accepted,
            "{accepted} accepted, {all} stored, {succeeded} succeeded"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One by one at one end and outcomes at the other, at once; until all that was accepted is stored.
async fn sustained(kind: BrokerKind, pace: Pace, figures: &mut Figures) -> Result<()> {
    let stack = Stack::start(kind).await?;
    let worker = stack.worker(CONCURRENCY).await?;
    let meter = Meter::start()?;
    let server = address(&stack.api.http)?;
    let singles = http::singles(server, SUSTAINED_CONNECTIONS, pace.sustained, u64::MAX).await?;
    worker.wait_until_succeeded(singles.accepted).await?;
    let mut spent = meter.stop()?;
    spent.own = singles.spent.own;
    let (section, row) = (section(kind), name::SUSTAINED);
    figures.note_work(section, row, singles.accepted, &spent);
    figures.note(
        section,
        row,
        "accepted/s",
        singles.accepted as f64 / singles.spent.seconds,
    );
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let wait = singles.latency.value_at_quantile(quantile) as f64 / 1e3;
        figures.note(section, row, column, wait);
    }
    expect_all_succeeded(&stack, singles.accepted).await
}

/// The same in bulk, the load held to be at most `ahead` tasks ahead of the outcomes.
async fn sustained_bulk(
    kind: BrokerKind,
    (row, ahead): (&str, u64),
    pace: Pace,
    figures: &mut Figures,
) -> Result<()> {
    let stack = Stack::start(kind).await?;
    let worker = stack.worker(CONCURRENCY).await?;
    let meter = Meter::start()?;
    let reins = Reins::new(pace.sustained, ahead);
    let load = tokio::spawn(stream::ndjson(
        address(&stack.api.http)?,
        REQUESTS,
        reins.clone(),
        true,
    ));
    while !load.is_finished() {
        reins.allow(worker.succeeded().await? + ahead);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    reins.stop();
    let bulk = load.await??;
    worker.wait_until_succeeded(bulk.accepted).await?;
    let mut spent = meter.stop()?;
    spent.own = bulk.spent.own;
    let section = section(kind);
    figures.note_work(section, row, bulk.accepted, &spent);
    figures.note(section, row, "refused", bulk.refused as f64);
    expect_all_succeeded(&stack, bulk.accepted).await
}

/// From when a request is sent to the first line of its handler, far below what the machine can do.
async fn latency(kind: BrokerKind, pace: Pace, figures: &mut Figures) -> Result<()> {
    let stack = Stack::start(kind).await?;
    let folder = tempfile::Builder::new().prefix("forebay-note-").tempdir()?;
    let (database, broker) = (stack.postgres.url(), stack.broker.url());
    let waits = folder.path().join("waits");
    let worker = Server::start_with(
        &[
            "--serve",
            "note",
            "--database-url",
            &database,
            "--broker-url",
            &broker,
        ],
        &[("BENCH_WAITS", waits.as_os_str())],
    )?;
    let seconds = u32::try_from(pace.latency.as_secs())?;
    open_loop(address(&stack.api.http)?, RATE, seconds, RATE).await?;
    let expected = usize::try_from(RATE * seconds)?;
    let waits = peers::notes(folder.path(), expected).await?;
    drop(worker);
    ensure!(waits.len() == expected, "{} of {expected} tasks ran", waits.len());
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let at = ((waits.len() as f64 * quantile) as usize).min(waits.len() - 1);
        figures.note(section(kind), name::LATENCY, column, waits[at] as f64 / 1e3);
    }
    Ok(())
}

/// Submits at appointed times, whatever became of those before. The first `uncounted` ask for no note.
async fn open_loop(server: std::net::SocketAddr, rate: u32, seconds: u32, uncounted: u32) -> Result<()> {
    let (sender, mut due) = tokio::sync::mpsc::channel(1_024);
    let count = rate * seconds + uncounted;
    let clock = std::thread::spawn(move || ticks(rate, count, |sent| sender.blocking_send(sent).is_ok()));
    on_own_thread(move || async move {
        let idle = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Connection>::new()));
        let (mut number, mut requests) = (0, Vec::new());
        while let Some(sent) = due.recv().await {
            let body = task(
                note::KIND,
                number,
                if number < u64::from(uncounted) { 0 } else { sent },
            );
            number += 1;
            let idle = std::sync::Arc::clone(&idle);
            requests.push(tokio::spawn(async move {
                let kept = idle.lock().ok().and_then(|mut idle| idle.pop());
                let mut connection = match kept {
                    Some(connection) => connection,
                    None => Connection::open(server).await?,
                };
                let status = connection.submit(&body).await?;
                ensure!((200..300).contains(&status), "a submission was answered {status}");
                if let Ok(mut idle) = idle.lock() {
                    idle.push(connection);
                }
                Ok(())
            }));
        }
        for request in requests {
            request.await??;
        }
        Ok(())
    })
    .await?;
    clock.join().ok().context("the clock's thread panicked")
}

fn note_singles(figures: &mut Figures, section: &str, row: &str, singles: &http::Singles) {
    figures.note_work(section, row, singles.accepted, &singles.spent);
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let wait = singles.latency.value_at_quantile(quantile) as f64 / 1e3;
        figures.note(section, row, column, wait);
    }
    figures.note(section, row, "refused", singles.refused as f64);
}

fn note_bulk(figures: &mut Figures, section: &str, row: &str, bulk: &Bulk) -> u64 {
    figures.note_work(section, row, bulk.accepted, &bulk.spent);
    figures.note(section, row, "refused", bulk.refused as f64);
    bulk.accepted
}

/// `forebay dev`: one process on SQLite; and the size of the program.
pub(crate) async fn dev(pace: Pace, figures: &mut Figures) -> Result<()> {
    let size = std::fs::metadata(binary()?)?.len() as f64 / 1_048_576.0;
    figures.note(SMALL, name::BINARY, "MiB", size);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let forebay = Forebay::start(&["dev", "--data", &data, "--concurrency", CONCURRENCY], &[]).await?;
    let ready = forebay.ready_after.as_secs_f64() * 1e3;
    figures.note(SMALL, name::READY_DEV, "ms", ready);
    tokio::time::sleep(REST).await;
    figures.note(SMALL, name::MEMORY_DEV, "MiB", forebay.memory_mib()?);
    let reins = Reins::new(PATIENCE, BURST / 5 / pace.shrink);
    let meter = Meter::start()?;
    let bulk = stream::ndjson(address(&forebay.http)?, 1, reins, false).await?;
    forebay.wait_until_succeeded(bulk.accepted).await?;
    figures.note_work(SMALL, name::DEV_BULK, bulk.accepted, &meter.stop()?);
    Ok(())
}
