//! What a run found out, as it is written to JSON. README.md documents every member; `version` changes with their
//! meaning.

mod chart;
mod html;
mod page;
mod verdict;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub(crate) use self::{html::html, verdict::judge};
use crate::{
    audit::Check, database::Figures, ledger::Account, schedule::Spacing, tally::Counts, transport::Transport,
};

/// The version of the form of the report.
pub(crate) const VERSION: u32 = 1;

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Of this form.
    pub(crate) version: u32,
    /// When the run began.
    pub(crate) began_at: String,
    /// What was asked for.
    pub(crate) settings: Settings,
    /// Where it ran.
    pub(crate) environment: Environment,
    /// The sums over the whole run.
    pub(crate) summary: Summary,
    /// What became of the accepted tasks.
    pub(crate) account: Account,
    /// What it means.
    pub(crate) verdict: Verdict,
    /// From the time a task was due to its answer.
    pub(crate) latency: Distribution,
    /// From the time a task was due to when the generator handed it out: its own fault.
    pub(crate) lag: Distribution,
    /// From the time a task was due to when a connection took it: all of them were busy.
    pub(crate) queued: Distribution,
    /// From acceptance to the start of the last attempt, by the server's clock.
    pub(crate) wait: Distribution,
    /// From acceptance to the end, by the server's clock.
    pub(crate) turnaround: Distribution,
    /// The run over time.
    pub(crate) points: Vec<Point>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) profile: String,
    pub(crate) transport: Transport,
    pub(crate) url: String,
    pub(crate) started_by_us: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) tasks_planned: u64,
    pub(crate) tasks_max: Option<u64>,
    pub(crate) in_flight_max: usize,
    pub(crate) spacing: Spacing,
    pub(crate) seed: u64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) timeout_seconds: f64,
    pub(crate) retries_max: u32,
    pub(crate) kind: String,
    pub(crate) queue: String,
    pub(crate) priorities: String,
    pub(crate) payload_bytes: usize,
    pub(crate) tag: Option<String>,
    pub(crate) check: Check,
    pub(crate) drain_seconds: f64,
}

/// Where it ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) generator: String,
    pub(crate) generator_build: String,
    pub(crate) server: String,
    pub(crate) database: Option<String>,
    pub(crate) os: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
}

impl Environment {
    /// This machine, this program, and the servers that were found.
    pub(crate) fn here(server: String, database: Option<String>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split(": ").nth(1))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), str::to_owned);
        Self {
            generator: format!("forebay-loadtest {}", env!("CARGO_PKG_VERSION")),
            generator_build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
            server,
            database,
            os: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
            processor,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// The sums over the whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// From the first due time to the last answer.
    pub(crate) seconds: f64,
    /// From the first due time to the end of the last task.
    pub(crate) seconds_to_last_end: Option<f64>,
    pub(crate) submitted: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
    pub(crate) unsent: u64,
    pub(crate) retried: u64,
    /// Accepted tasks a second, over `seconds`.
    pub(crate) accepted_per_second: f64,
    /// Ended tasks a second, over `seconds_to_last_end`.
    pub(crate) finished_per_second: Option<f64>,
    /// How far the generator fell behind its schedule at the worst, in milliseconds.
    pub(crate) behind_ms_max: f64,
    /// How often it waited for answers, as too many were outstanding.
    pub(crate) held_back: u64,
    /// Of the generator itself.
    pub(crate) generator_cpu_seconds: f64,
    /// Why tasks were refused, failed or not answered.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Whether the run was ended by hand.
    pub(crate) interrupted: bool,
}

impl Summary {
    /// Takes over what was counted.
    pub(crate) fn count(&mut self, counts: &Counts) {
        self.submitted = counts.submitted;
        self.accepted = counts.accepted;
        self.refused = counts.refused;
        self.failed = counts.failed;
        self.unanswered = counts.unanswered;
        self.retried = counts.retried;
        self.held_back = counts.held_back;
        self.reasons.clone_from(&counts.reasons);
        self.behind_ms_max = if counts.lag.is_empty() {
            0.0
        } else {
            ms(counts.lag.max())
        };
    }
}

/// What it means.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Whether every promise was kept.
    pub(crate) passed: bool,
    /// In a few words.
    pub(crate) title: String,
    /// In sentences.
    pub(crate) sentences: Vec<String>,
    /// What to keep in mind when reading the figures.
    pub(crate) warnings: Vec<String>,
}

/// The percentiles that are told, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// `None` where there is nothing.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
        })
    }
}

/// A distribution of times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) mean_ms: Option<f64>,
    pub(crate) percentiles_ms: Option<Percentiles>,
    /// How many lie up to each bound and above the one before; ten bounds for each power of ten.
    pub(crate) buckets: Vec<Bucket>,
}

/// One bar of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) up_to_ms: f64,
    pub(crate) count: u64,
}

impl Distribution {
    /// Of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let mut buckets = Vec::<Bucket>::new();
        for value in histogram.iter_recorded() {
            // The first bound that is not below it.
            let us = value.value_iterated_to().max(1) as f64;
            let step = (us.log10() * 10.0 - 1e-9).ceil();
            let up_to_ms = round(10_f64.powf(step / 10.0) / 1e3);
            match buckets.last_mut() {
                Some(last) if last.up_to_ms >= up_to_ms => last.count += value.count_at_value(),
                _ => buckets.push(Bucket {
                    up_to_ms,
                    count: value.count_at_value(),
                }),
            }
        }
        Self {
            count: histogram.len(),
            mean_ms: (!histogram.is_empty()).then(|| round(histogram.mean() / 1e3)),
            percentiles_ms: Percentiles::of(histogram),
            buckets,
        }
    }
}

/// A moment of the run: what happened since the last one, and how things stood.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The end of its interval, in seconds since the run began.
    pub(crate) at: f64,
    /// How long its interval is.
    pub(crate) seconds: f64,
    pub(crate) planned: u64,
    pub(crate) submitted: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
    /// Tasks that ended, by the server's clock; known where the tasks were looked at.
    pub(crate) finished: Option<u64>,
    pub(crate) latency_ms: Option<Percentiles>,
    pub(crate) behind_ms_max: Option<f64>,
    /// Due and not yet answered.
    pub(crate) in_flight: u64,
    pub(crate) ready: Option<u64>,
    pub(crate) running: Option<u64>,
    pub(crate) scheduled: Option<u64>,
    pub(crate) workers: Option<u64>,
    pub(crate) slots: Option<u64>,
    pub(crate) busy: Option<u64>,
    /// Of each process that could be asked, in MiB.
    pub(crate) memory_mib: BTreeMap<String, f64>,
    /// Processors that the generator used.
    pub(crate) generator_cores: Option<f64>,
    pub(crate) database: Option<Figures>,
}

/// Microseconds as milliseconds.
pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// To four digits: more would only be noise in the file.
pub(crate) fn round(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - number.abs().log10().floor());
    (number * scale).round() / scale
}

impl Report {
    /// Prints the verdict, and why.
    pub(crate) fn print(&self) {
        println!("{}.", self.verdict.title);
        for sentence in &self.verdict.sentences {
            println!("  {sentence}");
        }
        for (reason, count) in &self.summary.reasons {
            println!("  {count} × {reason}");
        }
        for warning in &self.verdict.warnings {
            println!("  Note: {warning}");
        }
        for id in &self.account.examples {
            println!("  at fault: {id}");
        }
    }

    /// Writes the report as JSON.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Writes the report as a page.
    pub(crate) fn write_html(&self, path: &Path) -> Result<()> {
        std::fs::write(path, html(self)).with_context(|| format!("write {}", path.display()))
    }

    /// Reads a report that was written as JSON.
    pub(crate) fn read_json(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let any: serde_json::Value = serde_json::from_str(&text).context("the report is not JSON")?;
        ensure!(
            any["version"] == VERSION,
            "the report has version {}, and this program reads version {VERSION}",
            any["version"]
        );
        serde_json::from_value(any).context("read the report")
    }
}

#[cfg(test)]
mod tests;
