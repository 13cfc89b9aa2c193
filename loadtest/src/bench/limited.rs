//! The same tasks without a limit and with one that none of them ever waits for: what it costs to be counted.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use forebay_testkit::broker::BrokerKind;
use serde_json::json;

use super::{
    Pace,
    figures::Figures,
    http::{address, task_with},
    meter::Meter,
    stream::{self, Line, Reins},
};
use crate::stack::{Forebay, Stack};

/// The table that the figures go to.
pub(crate) const SECTION: &str = "limited";

/// The names under which the ratio finds the figures.
pub(crate) mod name {
    pub(crate) const WITHOUT: &str = "10,000 tasks, no limit";
    pub(crate) const WITH: &str = "10,000 tasks, a limit on their kind that is never reached";
    pub(crate) const KEYS_WITHOUT: &str = "10,000 tasks with a hundred keys, no limit";
    pub(crate) const KEYS_WITH: &str =
        "10,000 tasks with a hundred keys, a limit by key that is never reached";
}

/// How many tasks there are at a time.
const TASKS: u64 = 10_000;
/// How often each is measured in a round.
const TIMES: usize = 4;
/// Slots of the worker: more than tasks.
const CONCURRENCY: &str = "4096";
/// So many may run: more than slots.
const MOST: u64 = 1_000_000;
/// A rule that is put or deleted holds within a second.
const UNTIL_KNOWN: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures both, in turns, on NATS.
pub(super) async fn measure(pace: Pace, figures: &mut Figures) -> Result<()> {
    let stack = Stack::start(BrokerKind::Nats).await?;
    let worker = stack.worker(CONCURRENCY).await?;
    let mut bench = Bench {
        stack: &stack,
        worker: &worker,
        tasks: TASKS / pace.shrink,
        accepted: 0,
    };
    // What is done for the first time takes longer.
    bench.burst(plain).await?;
    for turn in 0..TIMES {
        for (line, by_key, rows) in [
            (plain as Line, false, [name::WITHOUT, name::WITH]),
            (keyed as Line, true, [name::KEYS_WITHOUT, name::KEYS_WITH]),
        ] {
            // Which comes first changes.
            let limited = AtomicBool::new(turn % 2 == 1);
            for _ in 0..2 {
                let is_limited = limited.fetch_not(Ordering::Relaxed);
                bench.set_limit(by_key, is_limited).await?;
                let (rate, micros) = bench.burst(line).await?;
                let row = rows[usize::from(is_limited)];
                figures.note(SECTION, row, "per second", rate);
                figures.note(SECTION, row, "CPU µs", micros);
            }
            bench.set_limit(by_key, false).await?;
        }
    }
    let (all, succeeded) = stack.count_tasks()?;
    ensure!(
        (all, succeeded) == (bench.accepted, bench.accepted),
        "{} accepted, {all} stored, {succeeded} succeeded",
        bench.accepted
    );
    Ok(())
}

fn plain(number: u64) -> String {
    task_with("echo", number, "")
}

fn keyed(number: u64) -> String {
    task_with("echo", number, &format!(r#","limit_key":"key-{}""#, number % 100))
}

struct Bench<'a> {
    stack: &'a Stack,
    worker: &'a Forebay,
    tasks: u64,
    accepted: u64,
}

impl Bench<'_> {
    /// From the first byte to the last outcome: tasks a second, and what each took of the processors.
    async fn burst(&mut self, line: Line) -> Result<(f64, f64)> {
        let server = address(&self.stack.api.http)?;
        let meter = Meter::start()?;
        let reins = Reins::new(PATIENCE, self.tasks);
        let bulk = stream::ndjson_of(server, 1, reins, false, line).await?;
        self.accepted += bulk.accepted;
        self.worker.wait_until_succeeded(self.accepted).await?;
        let spent = meter.stop()?;
        ensure!(
            bulk.accepted == self.tasks,
            "only {} were accepted",
            bulk.accepted
        );
        let micros = super::meter::micros_each(spent.machine, bulk.accepted);
        Ok((bulk.accepted as f64 / spent.seconds, micros))
    }

    /// Puts the limit, or sees to it that there is none.
    async fn set_limit(&self, by_key: bool, wanted: bool) -> Result<()> {
        let url = format!("{}/v1/limits/bench", self.stack.api.http);
        let client = reqwest::Client::new();
        let request = match wanted {
            true => client
                .put(url)
                .header("content-type", "application/json")
                .body(json!({"kind": "echo", "by_key": by_key, "concurrency": MOST}).to_string()),
            false => client.delete(url),
        };
        let answer = request.send().await.context("set the limit")?;
        let status = answer.status();
        ensure!(
            status.is_success() || (!wanted && status.as_u16() == 404),
            "the limit was answered {status}"
        );
        tokio::time::sleep(UNTIL_KNOWN).await;
        Ok(())
    }
}
