//! The same work with many rows in the table: millions of finished tasks, a million queued, and a day that is dropped
//! under load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forebay_testkit::broker::BrokerKind;

use super::{
    figures::Figures,
    http::{self, address},
    ratios::grouped,
    stream::{self, Reins},
};
use crate::stack::{Forebay, Stack};

/// The table that the figures go to.
pub(crate) const SECTION: &str = "scale";

/// How long a recorder may take to publish what is ready, once the last row is there.
const UNTIL_READY: Duration = Duration::from_secs(1);

const SINGLES: &str = "submit one by one, 32 connections";
const CONCURRENCY: &str = "4096";
const WINDOW: Duration = Duration::from_secs(5);
const BURST: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(600);

/// Over how many past days the finished rows are spread.
const DAYS: u64 = 10;

/// The days of the finished rows.
const MAKE_DAYS: &str = "SELECT forebay_create_partitions(forebay_today() - 12, forebay_today())";

/// Finished rows of a day: `:days` days ago, `:rows` of them.
const FILL: &str = "
    INSERT INTO tasks (id, state, priority, project, queue, kind, payload, result, fence, attempt, max_attempts,
                       created_at, queued_at, started_at, finished_at)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
            || substr(md5(number::text || at::text), 1, 3) || '8' || substr(md5(number::text), 1, 15))::uuid,
           'succeeded', 'default', 'default', 'default', 'echo', '{\"filler\":\"' || repeat('x', 240) || '\"}', 'null',
           1, 1, 3, at, at, at, at
    FROM generate_series(1, $1::bigint) AS number,
         LATERAL (SELECT (forebay_today() - $2::int)::timestamp AT TIME ZONE 'UTC'
                         + number * interval '80 milliseconds') AS day (at)";

/// Measures a full table beside an empty one, a long queue, and retention. The two tables have servers of their own and
/// take turns, so that what else the machine does meets both alike.
pub(super) async fn measure(rows: u64, backlog: u64, rounds: usize, figures: &mut Figures) -> Result<()> {
    let (empty, full) = (
        Stack::start(BrokerKind::Nats).await?,
        Stack::start(BrokerKind::Nats).await?,
    );
    eprintln!("filling {rows} finished rows");
    fill(&full, rows).await?;
    let many = format!("{} finished rows", grouped(rows as f64));
    let mut drained = 0.0;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: the empty table, and {many}");
        let (of_empty, of_full) = if round % 2 == 1 {
            let of_empty = the_work(&empty).await?;
            (of_empty, the_work(&full).await?)
        } else {
            let of_full = the_work(&full).await?;
            (the_work(&empty).await?, of_full)
        };
        for ((what, of_empty), (_, of_full)) in of_empty.named().into_iter().zip(of_full.named()) {
            note(figures, &format!("empty table: {what}"), of_empty, None);
            note(figures, &format!("{many}: {what}"), of_full, Some(of_empty));
        }
        drained = of_full.drain;
    }
    drop(empty);
    eprintln!("retention under load");
    retention(&full, figures).await?;
    eprintln!("a backlog of {backlog}");
    long_queue(&full, backlog, drained, figures).await
}

/// Rates of the three stages.
struct Rates {
    single: f64,
    bulk: f64,
    drain: f64,
}

impl Rates {
    fn named(&self) -> [(&'static str, f64); 3] {
        [
            (SINGLES, self.single),
            ("bulk, NDJSON, burst", self.bulk),
            ("drain", self.drain),
        ]
    }
}

async fn the_work(stack: &Stack) -> Result<Rates> {
    let server = address(&stack.api.http)?;
    let singles = http::singles(server, 32, WINDOW, u64::MAX).await?;
    let bulk = stream::ndjson(server, 2, Reins::new(PATIENCE, BURST), false).await?;
    let accepted = singles.accepted + bulk.accepted;
    record(stack, accepted).await?;
    stack.postgres.psql("postgres", "CHECKPOINT")?;
    let (drain, _) = drain(stack, accepted).await?;
    Ok(Rates {
        single: singles.accepted as f64 / singles.spent.seconds,
        bulk: bulk.accepted as f64 / bulk.spent.seconds,
        drain,
    })
}

fn note(figures: &mut Figures, row: &str, rate: f64, beside: Option<f64>) {
    figures.note(SECTION, row, "per second", rate);
    if let Some(beside) = beside {
        figures.note(SECTION, row, "ratio", rate / beside);
    }
}

/// Records all that is queued; ends when there are that many unfinished rows.
async fn record(stack: &Stack, count: u64) -> Result<()> {
    let recorder = stack.worker_with(&["--roles", "recorder"]).await?;
    recorded(stack, count).await?;
    tokio::time::sleep(UNTIL_READY).await;
    drop(recorder);
    Ok(())
}

/// Waits until `count` tasks without an outcome are recorded. A recorder that is killed before keeps what it has from the
/// next one, until the broker gives that up.
async fn recorded(stack: &Stack, count: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while unfinished(stack)? < count {
        ensure!(Instant::now() < deadline, "not all {count} tasks were recorded");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Tasks of today and yesterday that have no outcome.
fn unfinished(stack: &Stack) -> Result<u64> {
    let sql = "SELECT count(*) FROM tasks WHERE id >= forebay_day_bound(forebay_today() - 1) \
               AND state IN ('queued', 'running', 'retrying')";
    Ok(stack.postgres.psql("postgres", sql)?.parse()?)
}

/// Drains so many tasks: how many a second, and what memory the worker had then, in MiB.
async fn drain(stack: &Stack, count: u64) -> Result<(f64, f64)> {
    let worker = stack.worker(CONCURRENCY).await?;
    let (before, began) = (worker.succeeded().await?, Instant::now());
    wait(&worker, count).await?;
    let rate = (count - before) as f64 / began.elapsed().as_secs_f64();
    let memory = worker.memory_mib()?;
    drop(worker);
    ensure!(unfinished(stack)? == 0, "a drained table has unfinished tasks");
    Ok((rate, memory))
}

async fn wait(worker: &Forebay, count: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while worker.succeeded().await? < count {
        ensure!(Instant::now() < deadline, "not all {count} tasks were drained");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Finished rows over the past days, a day a statement.
async fn fill(stack: &Stack, rows: u64) -> Result<()> {
    stack.postgres.psql("postgres", MAKE_DAYS)?;
    let (client, connection) = tokio_postgres::connect(&stack.postgres.url(), tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    for days in 1..=i32::try_from(DAYS)? {
        let of_a_day = i64::try_from(rows / DAYS)?;
        client
            .execute(FILL, &[&of_a_day, &days])
            .await
            .context("fill a day")?;
    }
    client.batch_execute("VACUUM ANALYZE tasks").await?;
    client.batch_execute("CHECKPOINT").await?;
    driver.abort();
    Ok(())
}

/// A steady load while a dispatcher with a retention drops the days past it: the latency before and during.
async fn retention(stack: &Stack, figures: &mut Figures) -> Result<()> {
    let server = address(&stack.api.http)?;
    let worker = stack.worker(CONCURRENCY).await?;
    let before = partitions(stack)?;
    let calm = http::singles(server, 16, WINDOW, u64::MAX).await?;
    let load = tokio::spawn(http::singles(server, 16, WINDOW * 4, u64::MAX));
    let keeper = stack
        .worker_with(&["--roles", "dispatcher", "--retention-days", "3"])
        .await?;
    let under = load.await??;
    drop(keeper);
    let dropped = before.saturating_sub(partitions(stack)?);
    ensure!(dropped > 0, "retention dropped nothing within {:?}", WINDOW * 4);
    wait(&worker, calm.accepted + under.accepted).await?;
    for (row, singles) in [("no drop", &calm), ("while days are dropped", &under)] {
        let row = format!("retention: submit one by one, 16 connections, {row}");
        figures.note(
            SECTION,
            &row,
            "per second",
            singles.accepted as f64 / singles.spent.seconds,
        );
        for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99), ("most ms", 1.0)] {
            let wait = singles.latency.value_at_quantile(quantile) as f64 / 1e3;
            figures.note(SECTION, &row, column, wait);
        }
    }
    figures.note(SECTION, "retention: days dropped", "tasks", dropped as f64);
    Ok(())
}

fn partitions(stack: &Stack) -> Result<u64> {
    let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tasks'::regclass";
    Ok(stack.postgres.psql("postgres", sql)?.parse()?)
}

/// A long queue: filled while a recorder runs, then submitted to, then drained. `drained` is the rate with a short one.
async fn long_queue(stack: &Stack, backlog: u64, drained: f64, figures: &mut Figures) -> Result<()> {
    let server = address(&stack.api.http)?;
    let before = http::singles(server, 32, WINDOW, u64::MAX).await?;
    let recorder = stack.worker_with(&["--roles", "recorder"]).await?;
    let began = Instant::now();
    let filled = stream::ndjson(server, 2, Reins::new(PATIENCE, backlog), false).await?;
    let queued = before.accepted + filled.accepted;
    recorded(stack, queued).await?;
    let queue = format!("backlog of {}", grouped(backlog as f64));
    let rate = filled.accepted as f64 / began.elapsed().as_secs_f64();
    note(figures, &format!("{queue}: accept and record"), rate, None);
    tokio::time::sleep(UNTIL_READY).await;
    let row = format!("{queue}: memory, api");
    figures.note(SECTION, &row, "MiB", stack.api.memory_mib()?);
    let row = format!("{queue}: memory, recorder");
    figures.note(SECTION, &row, "MiB", recorder.memory_mib()?);
    drop(recorder);
    let singles = http::singles(server, 32, WINDOW, u64::MAX).await?;
    note(
        figures,
        &format!("{queue}: {SINGLES}"),
        singles.accepted as f64 / singles.spent.seconds,
        Some(before.accepted as f64 / before.spent.seconds),
    );
    record(stack, queued + singles.accepted).await?;
    let (rate, memory) = drain(stack, queued + singles.accepted).await?;
    note(figures, &format!("{queue}: drain"), rate, Some(drained));
    figures.note(
        SECTION,
        &format!("{queue}: memory, worker that drained it"),
        "MiB",
        memory,
    );
    Ok(())
}
