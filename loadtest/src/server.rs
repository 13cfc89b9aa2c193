//! What the server says of itself: its version, its queues, its workers; and what its processes say, where their
//! metrics are given.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::StatusCode;
use serde::Deserialize;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where the answer is one of many samples.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(2);

/// A running Forebay.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    client: reqwest::Client,
    url: String,
}

/// What was found at a path.
pub(crate) enum Found {
    /// This.
    Body(Bytes),
    /// Nothing.
    Nothing,
    /// Not now.
    Busy,
}

/// How many tasks of a queue are where.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Depth {
    /// In the broker.
    pub(crate) ready: Option<u64>,
    /// With workers.
    pub(crate) running: Option<u64>,
    /// Not due yet.
    pub(crate) scheduled: Option<u64>,
}

impl Depth {
    /// All that are not final.
    pub(crate) fn sum(&self) -> u64 {
        let parts = [self.ready, self.running, self.scheduled];
        parts.into_iter().flatten().sum()
    }
}

#[derive(Deserialize)]
struct QueueList {
    queues: Vec<Queue>,
}

#[derive(Deserialize)]
struct Queue {
    name: String,
    #[serde(flatten)]
    depth: Depth,
}

/// Who works.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Workers {
    /// Processes.
    pub(crate) count: u64,
    /// What they can run at once.
    pub(crate) slots: u64,
    /// What they run.
    pub(crate) busy: u64,
}

#[derive(Deserialize)]
struct WorkerList {
    workers: Vec<Worker>,
}

#[derive(Deserialize)]
struct Worker {
    slots: u64,
    busy: std::collections::BTreeMap<String, u64>,
}

impl Server {
    /// The server at a URL, without a slash at its end.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build();
        Ok(Self {
            client: client.context("set up HTTP")?,
            url: url.to_owned(),
        })
    }

    /// Reads a path. A server that is away is no error: it may come back.
    pub(crate) async fn get(&self, path: &str) -> Result<Found> {
        let Ok(answer) = self.client.get(format!("{}{path}", self.url)).send().await else {
            return Ok(Found::Busy);
        };
        match answer.status() {
            status if status.is_success() => Ok(answer.bytes().await.map_or(Found::Busy, Found::Body)),
            StatusCode::NOT_FOUND => Ok(Found::Nothing),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Ok(Found::Busy),
            status => bail!("{}{path} was answered {status}", self.url),
        }
    }

    async fn sample<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let request = self
            .client
            .get(format!("{}{path}", self.url))
            .timeout(SAMPLE_PATIENCE);
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// The version of the server, which is also the proof that there is one.
    pub(crate) async fn version(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Document {
            info: Info,
        }
        #[derive(Deserialize)]
        struct Info {
            version: String,
        }
        let asked = self.client.get(format!("{}/openapi.json", self.url)).send().await;
        let answer = asked.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| format!("there is no server at {}", self.url))?;
        let document: Result<Document, _> = serde_json::from_slice(&answer.bytes().await?);
        let document = document.with_context(|| format!("the server at {} is not Forebay", self.url))?;
        Ok(document.info.version)
    }

    /// Where the tasks of a queue are; `None` where it can't be told now.
    pub(crate) async fn depth(&self, queue: &str) -> Option<Depth> {
        // The list is counted anew every second, one queue only every few.
        let list: QueueList = self.sample("/v1/queues").await?;
        let found = list.queues.into_iter().find(|found| found.name == queue);
        found.map(|found| found.depth)
    }

    /// Who works; `None` where it can't be told now.
    pub(crate) async fn workers(&self) -> Option<Workers> {
        let list: WorkerList = self.sample("/v1/workers").await?;
        let sum = list
            .workers
            .iter()
            .fold(Workers::default(), |sum, worker| Workers {
                count: sum.count + 1,
                slots: sum.slots + worker.slots,
                busy: sum.busy + worker.busy.values().sum::<u64>(),
            });
        Some(sum)
    }

    /// The resident memory of the process whose metrics are at `url`, in MiB.
    pub(crate) async fn memory_mib(&self, url: &str) -> Option<f64> {
        let request = self.client.get(url).timeout(SAMPLE_PATIENCE);
        let text = request.send().await.ok()?.text().await.ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("process_resident_memory_bytes "))?;
        let bytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(bytes / 1024.0 / 1024.0)
    }
}
