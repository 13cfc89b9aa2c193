//! A lean HTTP/1.1 client: it shares the machine with what it measures, so it does as little as it can. It runs on a
//! thread of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::meter::{Meter, Spent};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client that was refused waits before it asks again.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// What a round of single submissions gave.
pub(crate) struct Singles {
    /// Requests that were answered with a 2xx.
    pub(crate) accepted: u64,
    /// Requests that were answered with 429 or 503.
    pub(crate) refused: u64,
    /// What they took.
    pub(crate) spent: Spent,
    /// Of a request that was accepted, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// A histogram of microseconds, up to a minute.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

const FILLER: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// About 256 bytes of JSON, as a task might carry.
pub(crate) fn task(kind: &str, number: u64, sent: u64) -> String {
    format!(
        r#"{{"kind":"{kind}","payload":{{"number":{number},"customer":"4711","sent":{sent},"filler":"{FILLER}{FILLER}"}}}}"#
    )
}

/// The same with further members of the task.
pub(crate) fn task_with(kind: &str, number: u64, members: &str) -> String {
    format!(
        r#"{{"kind":"{kind}"{members},"payload":{{"number":{number},"customer":"4711","sent":0,"filler":"{FILLER}{FILLER}"}}}}"#
    )
}

/// Where a URL such as `http://127.0.0.1:8080` points to.
pub(crate) fn address(url: &str) -> Result<SocketAddr> {
    let host = url.strip_prefix("http://").context("a plain http URL")?;
    Ok(host.parse()?)
}

/// `clients` connections submit one task at a time, as fast as each is answered, until the window is over or `most`
/// were sent.
pub(crate) async fn singles(
    server: SocketAddr,
    clients: usize,
    window: Duration,
    most: u64,
) -> Result<Singles> {
    on_own_thread(move || async move {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(Connection::open(server).await?);
        }
        let next = Arc::new(AtomicU64::new(0));
        let meter = Meter::start()?;
        let until = Instant::now() + window;
        let running: Vec<_> = connections
            .into_iter()
            .map(|connection| tokio::spawn(one_by_one(connection, Arc::clone(&next), until, most)))
            .collect();
        let (mut accepted, mut refused, mut latency) = (0, 0, histogram()?);
        for one in running {
            let (times, refusals) = one.await??;
            accepted += times.len();
            refused += refusals;
            latency.add(times)?;
        }
        let spent = meter.stop()?;
        Ok(Singles {
            accepted,
            refused,
            spent,
            latency,
        })
    })
    .await
}

async fn one_by_one(
    mut connection: Connection,
    next: Arc<AtomicU64>,
    until: Instant,
    most: u64,
) -> Result<(Histogram<u64>, u64)> {
    let (mut latency, mut refused) = (histogram()?, 0);
    while Instant::now() < until {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= most {
            break;
        }
        let sent = Instant::now();
        match connection.submit(&task("echo", number, 0)).await? {
            200..300 => latency.saturating_record(micros(sent.elapsed())),
            429 | 503 => {
                refused += 1;
                tokio::time::sleep(AFTER_REFUSAL).await;
            }
            other => bail!("a submission was answered {other}"),
        }
    }
    Ok((latency, refused))
}

/// One connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await.context("connect to the API")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: Vec::with_capacity(1024),
            answer: Vec::with_capacity(4096),
        })
    }

    /// Submits one task; returns the status.
    pub(crate) async fn submit(&mut self, body: &str) -> Result<u16> {
        use std::io::Write;
        self.request.clear();
        write!(
            self.request,
            "POST /v1/tasks HTTP/1.1\r\nhost: forebay\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let exchange = async {
            self.stream.write_all(&self.request).await?;
            self.answer.clear();
            loop {
                ensure!(
                    self.stream.read_buf(&mut self.answer).await? > 0,
                    "the API hung up"
                );
                if let Some(head) = Head::of(&self.answer)? {
                    let length = head.length.context("an answer without a length")?;
                    if self.answer.len() >= head.bytes + length {
                        return Ok(head.status);
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .context("no answer")?
    }
}

/// What the head of an answer says.
pub(super) struct Head {
    /// How long it is.
    pub(super) bytes: usize,
    /// The status.
    pub(super) status: u16,
    /// The length of the body, where it is said.
    pub(super) length: Option<usize>,
}

impl Head {
    /// Reads it, where all of it is there.
    pub(super) fn of(answer: &[u8]) -> Result<Option<Self>> {
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&answer[..end]).context("a head that is no text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.context("an answer without a status")?.parse()?;
        let mut length = None;
        for line in lines {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        Ok(Some(Self {
            bytes: end + 4,
            status,
            length,
        }))
    }
}

/// Runs what `work` makes on a runtime and a thread of its own, so that the load does not wait for what else there is.
pub(crate) async fn on_own_thread<F, T>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    F: Future<Output = Result<T>>,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(work())
    })
    .await?
}

/// Microseconds since 1970, by the machine's clock.
pub(crate) fn unix_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, micros)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_complete() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\nx: y\r\n\r\nbody";
        assert!(Head::of(&answer[..30]).unwrap().is_none());
        let head = Head::of(answer).unwrap().unwrap();
        assert_eq!((head.status, head.length, head.bytes), (202, Some(12), 51));
        assert!(Head::of(b"nonsense\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn singles_count_what_was_accepted() {
        let route = axum::routing::post(|body: String| async move {
            if body.contains("\"number\":3,") {
                axum::http::StatusCode::SERVICE_UNAVAILABLE
            } else {
                axum::http::StatusCode::ACCEPTED
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let routes = axum::Router::new().route("/v1/tasks", route);
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
        let singles = singles(server, 4, Duration::from_secs(20), 100).await.unwrap();
        assert_eq!((singles.accepted, singles.refused), (99, 1));
        assert_eq!(singles.latency.len(), 99);
        serving.abort();
    }
}
