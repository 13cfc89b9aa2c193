//! Other task queues on the same work. Each has a small program of its own under `loadtest/peers/`, with one protocol,
//! which is told there; each run has private servers.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use forebay_testkit::{postgres::Postgres, process::Process, rabbitmq::RabbitMq};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    bench::{Pace, RATE, figures::Figures, meter},
    stack,
};

mod backlog;
mod list;

pub(crate) use list::{ALL, Peer};

/// The table that they go to.
pub(crate) const SECTION: &str = "peers";

/// How many submit one by one at a time.
const PRODUCERS: u64 = 32;

/// Tasks of one bulk call.
const CHUNK: u64 = 1_000;

/// How long a producer may take beyond its window.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a producer prints.
#[derive(Debug, Deserialize)]
struct Produced {
    count: u64,
    seconds: f64,
    #[serde(default)]
    p50_ms: Option<f64>,
    #[serde(default)]
    p99_ms: Option<f64>,
}

/// A peer with servers of its own.
struct Place<'a> {
    peer: &'a Peer,
    postgres: Postgres,
    rabbitmq: Option<RabbitMq>,
    folder: TempDir,
}

/// Where a peer keeps its tasks for one part of the run.
struct Site {
    database: String,
    amqp: String,
}

/// Measures a peer. What fails of it is returned beside the figures; the rest goes on.
pub(crate) async fn measure(peer: &Peer, pace: Pace, figures: &mut Figures) -> Result<Vec<String>> {
    let place = Place::open(peer).await?;
    let mut failed = Vec::new();
    let mut keep = |part: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            failed.push(format!("{part}: {error:#}"));
        }
    };
    keep("submit", submit(&place, pace, figures).await);
    let site = place.site().await?;
    let most = peer.backlog / pace.shrink;
    let size = if peer.bulk { CHUNK } else { PRODUCERS };
    let how = if peer.bulk { "bulk" } else { "single" };
    let filled = place
        .produce(&site, &[how, "60", &size.to_string(), &most.to_string()])
        .await?;
    backlog::vacuum(&site.database).await?;
    let worker = place.worker(&site)?;
    keep(
        "drain",
        drain(&place, &site, &worker, filled.count, figures).await,
    );
    keep("sustained", sustained(&place, &site, pace, figures).await);
    keep("latency", latency(&place, &site, pace, figures).await);
    Ok(failed)
}

/// One by one and in bulk, with no worker.
async fn submit(place: &Place<'_>, pace: Pace, figures: &mut Figures) -> Result<()> {
    let name = place.peer.name;
    let site = place.site().await?;
    let window = pace.window.as_secs().to_string();
    let producers = PRODUCERS.to_string();
    let singles = place
        .produce(&site, &["single", &window, &producers, "1000000"])
        .await?;
    figures.note(SECTION, name, "submit/s", singles.count as f64 / singles.seconds);
    for (column, wait) in [
        ("submit p50 ms", singles.p50_ms),
        ("submit p99 ms", singles.p99_ms),
    ] {
        if let Some(wait) = wait {
            figures.note(SECTION, name, column, wait);
        }
    }
    if place.peer.bulk {
        let bulk = place
            .produce(&site, &["bulk", &window, &CHUNK.to_string(), "1000000"])
            .await?;
        figures.note(SECTION, name, "bulk/s", bulk.count as f64 / bulk.seconds);
    }
    Ok(())
}

/// From the first outcome to the last, and from the start of the processes.
async fn drain(
    place: &Place<'_>,
    site: &Site,
    worker: &Process,
    total: u64,
    figures: &mut Figures,
) -> Result<()> {
    let name = place.peer.name;
    let drained = backlog::wait_until_done(&site.database, place.peer, total, worker.id()).await?;
    figures.note(SECTION, name, "drain/s", drained.steady);
    figures.note(SECTION, name, "drain with start/s", drained.with_start);
    figures.note(SECTION, name, "drain CPU µs", drained.cpu_micros);
    figures.note(SECTION, name, "memory MiB", drained.memory_mib);
    Ok(())
}

/// Producers and workers at once, until the outcomes of all are stored.
async fn sustained(place: &Place<'_>, site: &Site, pace: Pace, figures: &mut Figures) -> Result<()> {
    let (name, peer) = (place.peer.name, place.peer);
    let window = pace.sustained.as_secs().to_string();
    let most = (peer.sustained / pace.shrink).to_string();
    let before = backlog::done(&site.database, peer).await?;
    let (singles, began) = place
        .produce_at(site, &["single", &window, &PRODUCERS.to_string(), &most])
        .await?;
    let rest = backlog::wait_for_rest(&site.database, peer, before, singles.count, began).await?;
    let seconds = singles.seconds + rest.as_secs_f64();
    figures.note(SECTION, name, "sustained/s", singles.count as f64 / seconds);
    if peer.bulk {
        let before = backlog::done(&site.database, peer).await?;
        let most = (peer.backlog / pace.shrink).to_string();
        let (bulk, began) = place
            .produce_at(site, &["bulk", "60", &CHUNK.to_string(), &most])
            .await?;
        let rest = backlog::wait_for_rest(&site.database, peer, before, bulk.count, began).await?;
        let seconds = bulk.seconds + rest.as_secs_f64();
        figures.note(SECTION, name, "sustained bulk/s", bulk.count as f64 / seconds);
    }
    Ok(())
}

/// From just before a task is submitted to its first line, at a rate that leaves the machine idle.
async fn latency(place: &Place<'_>, site: &Site, pace: Pace, figures: &mut Figures) -> Result<()> {
    let name = place.peer.name;
    let seconds = pace.latency.as_secs();
    place
        .produce(site, &["open-loop", &RATE.to_string(), &seconds.to_string(), "1"])
        .await?;
    let expected = usize::try_from(u64::from(RATE) * seconds)?;
    let waits = notes(place.folder.path(), expected).await?;
    ensure!(!waits.is_empty(), "none of {expected} tasks ran");
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let at = ((waits.len() as f64 * quantile) as usize).min(waits.len() - 1);
        figures.note(SECTION, name, column, waits[at] as f64 / 1e3);
    }
    ensure!(
        waits.len() >= expected,
        "only {} of {expected} tasks ran within 10 s at {RATE} a second; the waits are of those that ran",
        waits.len()
    );
    Ok(())
}

/// The waits that workers noted, in order; ends when all are there, or nothing more can be expected.
pub(crate) async fn notes(folder: &Path, expected: usize) -> Result<Vec<u64>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut waits = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("waits."))
            {
                let text = std::fs::read_to_string(&path)?;
                waits.extend(text.lines().filter_map(|line| line.parse::<u64>().ok()));
            }
        }
        if waits.len() >= expected || Instant::now() > deadline {
            waits.sort_unstable();
            return Ok(waits);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl<'a> Place<'a> {
    async fn open(peer: &'a Peer) -> Result<Self> {
        let rabbitmq = match peer.rabbitmq {
            true => Some(RabbitMq::start().await?),
            false => None,
        };
        Ok(Self {
            peer,
            postgres: stack::postgres().await?,
            rabbitmq,
            folder: tempfile::Builder::new().prefix("forebay-peer-").tempdir()?,
        })
    }

    /// An empty database and virtual host, made ready.
    async fn site(&self) -> Result<Site> {
        let amqp = match &self.rabbitmq {
            Some(server) => server.fresh_vhost().await?,
            None => String::new(),
        };
        let site = Site {
            database: self.postgres.fresh_database()?,
            amqp,
        };
        let output = self.command(&site, &["prepare"]).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .context("prepare hangs")??;
        ensure!(
            output.status.success(),
            "prepare: {}",
            last_lines(&String::from_utf8_lossy(&output.stderr))
        );
        Ok(site)
    }

    fn command(&self, site: &Site, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(self.peer.command());
        command
            .args(arguments)
            .env("BENCH_DATABASE", &site.database)
            .env("BENCH_AMQP", &site.amqp)
            .env("BENCH_WAITS", self.folder.path().join("waits"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn worker(&self, site: &Site) -> Result<Process> {
        let mut command = self.command(site, &["work"]);
        Process::spawn(command.as_std_mut(), &self.folder.path().join("worker.log"))
    }

    async fn produce(&self, site: &Site, arguments: &[&str]) -> Result<Produced> {
        Ok(self.produce_at(site, arguments).await?.0)
    }

    /// Runs a producer; returns its figures, and when it was through.
    async fn produce_at(&self, site: &Site, arguments: &[&str]) -> Result<(Produced, Instant)> {
        let log = self.folder.path().join("producer.log");
        let mut child = self
            .command(site, arguments)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("start the producer of {}", self.peer.name))?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let answer = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with('{') {
                    return Ok((serde_json::from_str(&line)?, Instant::now()));
                }
            }
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("{arguments:?} ended without figures: {}", last_lines(&said))
        };
        let answer = tokio::time::timeout(PATIENCE * 2, answer).await;
        let answer = answer.with_context(|| format!("{arguments:?} hangs"))??;
        // Closing its connections is no part of the work, but must not overlap with the next part.
        let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        Ok(answer)
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Highest memory of a group of processes so far.
pub(crate) fn peak(group: u32, so_far: &mut f64) {
    *so_far = so_far.max(meter::group_memory_mib(group));
}
