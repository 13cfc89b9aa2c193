//! The load itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use hdrhistogram::Histogram;

/// About 256 bytes of JSON, as a task might carry.
pub(crate) fn body(number: usize) -> String {
    let filler = "x".repeat(200);
    format!(r#"{{"kind":"echo","payload":{{"number":{number},"customer":"4711","filler":"{filler}"}}}}"#)
}

/// What a round of single submissions gave.
pub(crate) struct Singles {
    /// Tasks accepted.
    pub(crate) accepted: usize,
    /// Accepted tasks a second.
    pub(crate) per_second: f64,
    /// Latency of a request, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// `clients` connections submit one task at a time, as fast as each is answered, `total` in all.
pub(crate) async fn singles(http: &str, clients: usize, total: usize) -> Result<Singles> {
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(clients)
        .build()?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let histograms = try_join_all((0..clients).map(|_| {
        let (client, next, url) = (client.clone(), Arc::clone(&next), format!("{http}/v1/tasks"));
        tokio::spawn(async move {
            let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(latency);
                }
                let sent = Instant::now();
                let answer = client
                    .post(&url)
                    .header("content-type", "application/json")
                    .body(body(number))
                    .send()
                    .await?;
                ensure!(
                    answer.status() == 202,
                    "a submission was answered {}",
                    answer.status()
                );
                answer.bytes().await?;
                latency.saturating_record(micros(sent.elapsed()));
            }
        })
    }))
    .await?;
    let seconds = began.elapsed().as_secs_f64();
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for histogram in histograms {
        latency.add(histogram?)?;
    }
    Ok(Singles {
        accepted: total,
        per_second: total as f64 / seconds,
        latency,
    })
}

/// One NDJSON stream of `total` tasks. Returns accepted tasks a second.
pub(crate) async fn bulk(http: &str, total: usize) -> Result<f64> {
    let lines = futures::stream::iter((0..total).step_by(100).map(move |first| {
        let chunk: String = (first..total.min(first + 100))
            .map(|number| body(number) + "\n")
            .collect();
        std::io::Result::Ok(chunk)
    }));
    let began = Instant::now();
    let answer = reqwest::Client::new()
        .post(format!("{http}/v1/tasks/batch"))
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(lines))
        .send()
        .await?;
    ensure!(
        answer.status().is_success(),
        "the stream was answered {}",
        answer.status()
    );
    let results = answer.text().await?;
    let seconds = began.elapsed().as_secs_f64();
    let accepted = results.lines().filter(|line| line.contains("\"id\"")).count();
    ensure!(accepted == total, "{accepted} of {total} lines were accepted");
    Ok(total as f64 / seconds)
}

/// Submits `per_second` tasks for `seconds`, each at its appointed time whatever became of those before.
pub(crate) async fn open_loop(http: &str, per_second: u32, seconds: u32, kind: &str) -> Result<usize> {
    let client = reqwest::Client::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut requests = Vec::new();
    for number in 0..per_second * seconds {
        let intended = tick.tick().await.into_std();
        let request = client
            .post(format!("{http}/v1/tasks"))
            .header("content-type", "application/json")
            .body(format!(
                r#"{{"kind":"{kind}","payload":{{"number":{number},"sent_unix_micros":{}}}}}"#,
                unix_micros() - micros(intended.elapsed()),
            ));
        requests.push(tokio::spawn(async move {
            let answer = request.send().await?;
            ensure!(
                answer.status() == 202,
                "a submission was answered {}",
                answer.status()
            );
            Ok(())
        }));
    }
    let count = requests.len();
    for request in requests {
        request.await??;
    }
    Ok(count)
}

/// Microseconds since 1970, by the machine's clock.
pub(crate) fn unix_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
