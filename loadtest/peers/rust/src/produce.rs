//! The producers: one by one, in bulk, and at appointed times.

use std::{
    fs::File,
    future::Future,
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Up to here, being late is the timer's fault and nobody's wait.
const SLACK: Duration = Duration::from_millis(2);

/// What each task carries: about 256 bytes of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Noop {
    number: u64,
    customer: String,
    /// The microsecond in which it was due, 0 where nobody asks.
    sent: u64,
    filler: String,
}

impl Noop {
    fn new(number: u64, sent: u64) -> Self {
        Self {
            number,
            customer: "4711".into(),
            sent,
            filler: "x".repeat(200),
        }
    }

    /// The task itself: nothing, except that the latency run wants to know how long it waited.
    pub(crate) fn handle(&self) {
        static NOTES: OnceLock<Option<File>> = OnceLock::new();
        if self.sent > 0 {
            let waited = unix_micros().saturating_sub(self.sent);
            let open = || {
                File::create(format!(
                    "{}.{}",
                    std::env::var("BENCH_WAITS").ok()?,
                    std::process::id()
                ))
                .ok()
            };
            if let Some(mut notes) = NOTES.get_or_init(open).as_ref() {
                // A note that is not written is a task that never ran, to the harness.
                let _ = notes.write_all(format!("{waited}\n").as_bytes());
            }
        }
    }
}

/// How a peer takes tasks.
pub(crate) trait Submit: Send + Sync + 'static {
    /// One task, by the call that is meant for one.
    fn submit(&self, task: Noop) -> impl Future<Output = Result<()>> + Send;
    /// Many, by the call that is meant for many.
    fn submit_many(&self, tasks: Vec<Noop>) -> impl Future<Output = Result<()>> + Send;
}

/// Runs one of the producers' commands and prints its figures.
pub(crate) async fn run(producer: impl Submit, command: &str, numbers: &[u64]) -> Result<()> {
    let &[a, b, c] = numbers else {
        bail!("{command} takes three numbers")
    };
    let producer = Arc::new(producer);
    let answer = match command {
        "single" => single(producer, Duration::from_secs(a), b, c).await?,
        "bulk" => bulk(producer, Duration::from_secs(a), b, c).await?,
        "open-loop" => open_loop(producer, a, b, c).await?,
        other => bail!("there is no command {other}"),
    };
    println!("{answer}");
    Ok(())
}

async fn single(
    producer: Arc<impl Submit>,
    window: Duration,
    producers: u64,
    most: u64,
) -> Result<serde_json::Value> {
    let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let running: Vec<_> = (0..producers)
        .map(|_| {
            let (producer, next) = (Arc::clone(&producer), Arc::clone(&next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < window {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= most {
                        break;
                    }
                    let sent = Instant::now();
                    producer.submit(Noop::new(number, 0)).await?;
                    took.push(sent.elapsed());
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for one in running {
        took.extend(one.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let quantile = |q: f64| {
        took.get((took.len() as f64 * q) as usize)
            .map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    };
    Ok(serde_json::json!({
        "count": took.len(), "seconds": seconds, "p50_ms": quantile(0.5), "p99_ms": quantile(0.99),
    }))
}

async fn bulk(
    producer: Arc<impl Submit>,
    window: Duration,
    chunk: u64,
    most: u64,
) -> Result<serde_json::Value> {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let caller = || async {
        while began.elapsed() < window {
            let first = next.fetch_add(chunk, Ordering::Relaxed);
            if first >= most {
                break;
            }
            let tasks = (first..most.min(first + chunk))
                .map(|number| Noop::new(number, 0))
                .collect();
            producer.submit_many(tasks).await?;
        }
        anyhow::Ok(())
    };
    futures::future::try_join(caller(), caller()).await?;
    let count = next.load(Ordering::Relaxed).min(most);
    Ok(serde_json::json!({ "count": count, "seconds": began.elapsed().as_secs_f64() }))
}

/// Every task at its appointed time, whatever became of those before.
async fn open_loop(
    producer: Arc<impl Submit>,
    rate: u64,
    seconds: u64,
    warm_up: u64,
) -> Result<serde_json::Value> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate)?);
    let mut sending = Vec::new();
    for number in 0..rate * (seconds + warm_up) {
        let late = tick.tick().await.into_std().elapsed();
        let late = if late < SLACK { Duration::ZERO } else { late };
        let counts_from = unix_micros() - u64::try_from(late.as_micros())?;
        let sent = if number < rate * warm_up { 0 } else { counts_from };
        let producer = Arc::clone(&producer);
        sending.push(tokio::spawn(async move {
            producer.submit(Noop::new(number, sent)).await
        }));
    }
    let count = sending.len();
    for one in sending {
        one.await?.context("submit at an appointed time")?;
    }
    Ok(serde_json::json!({ "count": count, "seconds": seconds }))
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
