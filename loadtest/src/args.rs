//! What `forebay-loadtest run` can be told.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use forebay_testkit::broker::BrokerKind;

use crate::{
    audit::Check,
    report::Report,
    schedule::{Curve, Spacing},
    shape::Priorities,
    transport::Transport,
};

/// The load, where it goes, and what is done with the results.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(subcommand)]
    pub(crate) profile: Profile,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// How the rate goes over time
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Profile {
    /// The same rate all the time
    Steady {
        /// Tasks a second
        #[arg(long, value_name = "N", default_value = "100", value_parser = rate)]
        rate: f64,
        #[command(flatten)]
        duration: Short,
    },
    /// A base rate, and bursts of another
    Burst {
        /// Tasks a second between bursts
        #[arg(long, value_name = "N", default_value = "100", value_parser = rate)]
        rate: f64,
        /// Tasks a second during a burst
        #[arg(long, value_name = "N", default_value = "1000", value_parser = rate)]
        burst_rate: f64,
        /// How long a burst is
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
        burst_length: Duration,
        /// From the end of one burst to the end of the next
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
        every: Duration,
        #[command(flatten)]
        duration: Short,
    },
    /// From one rate evenly to another: at which rate does it give way?
    Ramp {
        /// Tasks a second at the beginning
        #[arg(long, value_name = "N", default_value = "0", value_parser = rate)]
        from: f64,
        /// Tasks a second at the end
        #[arg(long, value_name = "N", default_value = "1000", value_parser = rate)]
        to: f64,
        #[command(flatten)]
        duration: Short,
    },
    /// The same rate for long: does memory grow, do dead rows, does latency?
    Soak {
        /// Tasks a second
        #[arg(long, value_name = "N", default_value = "100", value_parser = rate)]
        rate: f64,
        /// How long tasks are submitted
        #[arg(long = "duration", value_name = "DURATION", default_value = "30m", value_parser = duration)]
        duration: Duration,
    },
}

/// How long most profiles are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Short {
    /// How long tasks are submitted
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    duration: Duration,
}

impl Profile {
    /// Its name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Steady { rate, .. } => format!("steady, {rate}/s"),
            Self::Burst {
                rate,
                burst_rate,
                burst_length,
                every,
                ..
            } => format!(
                "burst, {rate}/s, and {burst_rate}/s for {} of every {} s",
                burst_length.as_secs_f64(),
                every.as_secs_f64()
            ),
            Self::Ramp { from, to, .. } => format!("ramp, from {from}/s to {to}/s"),
            Self::Soak { rate, .. } => format!("soak, {rate}/s"),
        }
    }

    /// The rate over time.
    pub(crate) fn curve(&self) -> Result<Curve> {
        let curve = match self {
            Self::Steady { rate, duration } => Curve::steady(*rate, duration.duration.as_secs_f64()),
            Self::Soak { rate, duration } => Curve::steady(*rate, duration.as_secs_f64()),
            Self::Ramp { from, to, duration } => Curve::ramp(*from, *to, duration.duration.as_secs_f64()),
            Self::Burst {
                rate,
                burst_rate,
                burst_length,
                every,
                duration,
            } => Curve::bursts(
                *rate,
                *burst_rate,
                (burst_length.as_secs_f64(), every.as_secs_f64()),
                duration.duration.as_secs_f64(),
            ),
        };
        ensure!(curve.tasks() >= 1.0, "at these rates not one task is due");
        Ok(curve)
    }
}

/// What all profiles have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) generator: GeneratorArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) results: ResultArgs,
}

/// Which servers `--start` starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// PostgreSQL, NATS JetStream, an api and workers
    Nats,
    /// PostgreSQL, RabbitMQ, an api and workers
    Rabbitmq,
    /// `forebay dev`: one process on SQLite
    Dev,
}

impl Start {
    /// The broker of a whole stack.
    pub(crate) fn broker(self) -> Option<BrokerKind> {
        match self {
            Self::Nats => Some(BrokerKind::Nats),
            Self::Rabbitmq => Some(BrokerKind::RabbitMq),
            Self::Dev => None,
        }
    }

    /// What it starts, in words.
    pub(crate) fn describe(self, workers: usize, concurrency: usize) -> String {
        match self {
            Self::Nats => format!("PostgreSQL, NATS, 1 api, {workers} worker(s) with {concurrency} slots"),
            Self::Rabbitmq => {
                format!("PostgreSQL, RabbitMQ, 1 api, {workers} worker(s) with {concurrency} slots")
            }
            Self::Dev => format!("forebay dev (SQLite) with {concurrency} slots"),
        }
    }
}

/// Where the load goes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The server")]
pub(crate) struct ServerArgs {
    /// Where Forebay's HTTP door is
    #[arg(
        long,
        global = true,
        env = "FOREBAY_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: String,
    /// Where its gRPC door is
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub(crate) grpc_url: String,
    /// Its database (PostgreSQL): figures over time, and a faster and sharper look at the tasks afterwards
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// A process to watch the memory of, by its metrics: `worker=http://127.0.0.1:9464/metrics`
    #[arg(long = "watch", global = true, value_name = "NAME=URL", value_parser = named_url)]
    pub(crate) watch: Vec<(String, String)>,
    /// Start private servers for the run, instead
    #[arg(long, global = true, value_enum, num_args = 0..=1, default_missing_value = "nats", require_equals = true)]
    pub(crate) start: Option<Start>,
    /// With --start: how many worker processes
    #[arg(long, global = true, value_name = "N", default_value = "1", value_parser = whole)]
    pub(crate) workers: usize,
    /// With --start: how many tasks a worker runs at once
    #[arg(long, global = true, value_name = "N", default_value = "512", value_parser = whole)]
    pub(crate) concurrency: usize,
}

/// How the load is made.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The generator")]
pub(crate) struct GeneratorArgs {
    /// How tasks are submitted
    #[arg(long, global = true, value_enum, default_value = "http")]
    pub(crate) transport: Transport,
    /// Connections, or streams, over all threads
    #[arg(long, global = true, value_name = "N", default_value = "32", value_parser = whole)]
    pub(crate) connections: usize,
    /// Threads that submit
    #[arg(long, global = true, value_name = "N", default_value = "1", value_parser = whole)]
    pub(crate) threads: usize,
    /// How tasks lie within the rate
    #[arg(long, global = true, value_enum, default_value = "poisson")]
    pub(crate) arrivals: Spacing,
    /// Of which arrivals and payloads are made; the same seed makes the same
    #[arg(long, global = true, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// At most this many tasks
    #[arg(long, global = true, value_name = "N")]
    pub(crate) tasks_max: Option<u64>,
    /// At most this many tasks unanswered at a time
    #[arg(long, global = true, value_name = "N", default_value = "20000", value_parser = whole)]
    pub(crate) in_flight_max: usize,
    /// How long an answer may take
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Send again what was refused with 429 or 503, after Retry-After, up to this often
    #[arg(long, global = true, value_name = "TIMES", num_args = 0..=1, default_value = "0", default_missing_value = "5",
          require_equals = true)]
    pub(crate) retry: u32,
}

/// What is submitted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The tasks")]
pub(crate) struct TaskArgs {
    /// Their kind; some worker must know it
    #[arg(long, global = true, value_name = "KIND", default_value = "echo")]
    pub(crate) kind: String,
    /// Their queue
    #[arg(long, global = true, value_name = "QUEUE", default_value = "default")]
    pub(crate) queue: String,
    /// Their priorities, with weights: `high=1,default=8,low=1`
    #[arg(long, global = true, value_name = "WEIGHTS", default_value = "default")]
    pub(crate) priorities: String,
    /// The size of their payload
    #[arg(long, global = true, value_name = "BYTES", default_value = "256")]
    pub(crate) payload_bytes: usize,
    /// The payload itself, for all tasks
    #[arg(long, global = true, value_name = "JSON", conflicts_with = "payload_bytes")]
    pub(crate) payload: Option<String>,
    /// The tag that tells this run's tasks from others; one of its own unless said
    #[arg(long, global = true, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// No tag at all: tasks that no answer named are not found then
    #[arg(long, global = true, conflicts_with = "tag")]
    pub(crate) untagged: bool,
}

impl TaskArgs {
    /// The priorities.
    pub(crate) fn priorities(&self) -> Result<Priorities> {
        self.priorities.parse()
    }
}

/// What is done with the results.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The results")]
pub(crate) struct ResultArgs {
    /// How long the accepted tasks may take to become final, after the last was submitted
    #[arg(long, global = true, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) drain: Duration,
    /// How accepted tasks are looked up; by the database where its URL is known
    #[arg(long, global = true, value_enum)]
    pub(crate) check: Option<Check>,
    /// Write everything as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// A report that was written before
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// What `run --json` has written
    file: PathBuf,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl ReportArgs {
    /// Writes the page and prints the verdict. Whether the run had kept all promises.
    pub(crate) fn write(&self) -> Result<bool> {
        let report = Report::read_json(&self.file)?;
        if let Some(path) = &self.html {
            report.write_html(path)?;
        }
        report.print();
        Ok(report.verdict.passed)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("must be a number of tasks a second".to_owned()),
    }
}

fn whole(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (1..=1_000_000).contains(&number) => Ok(number),
        _ => Err("must be a whole number from 1 to 1000000".to_owned()),
    }
}

/// `500ms`, `30s`, `5m`, `2h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a duration such as 500ms, 30s, 5m or 2h".to_owned();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(wrong()),
    };
    // A day: whatever is longer is a mistake.
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("must be from 1ms to 24h".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn named_url(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && url.starts_with("http") => {
            Ok((name.to_owned(), url.to_owned()))
        }
        _ => Err("must be a name and a URL: worker=http://127.0.0.1:9464/metrics".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let ms = |text| duration(text).map(|duration| duration.as_millis()).ok();
        assert_eq!(
            (ms("500ms"), ms("1.5s"), ms("30"), ms("2m")),
            (Some(500), Some(1_500), Some(30_000), Some(120_000))
        );
        for wrong in ["", "s", "-1s", "1d", "0s", "25h", "1.2.3s"] {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
    }
}
