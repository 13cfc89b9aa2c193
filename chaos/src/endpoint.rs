//! The handlers of a run: one HTTP endpoint, which writes down each start before it answers. Whether a task was
//! executed is therefore known from a place that Forebay does not write.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use forebay_chaos::evidence::Start;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::watch::Watch;

/// How long a command waits for the endpoint: longer than any task works.
const COMMAND_MAX: Duration = Duration::from_secs(10);

/// What a task is to do. It travels as the payload, and comes back as the result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The so manieth task of the run.
    pub(crate) number: u64,
    /// How long it takes.
    pub(crate) work_ms: u64,
    /// Whether its first attempt fails.
    pub(crate) fail_first: bool,
}

/// The endpoint, until it is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    file: PathBuf,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    watch: Watch,
    file: Mutex<File>,
    /// Starts of each task, to tell its first from others.
    seen: Mutex<HashMap<Uuid, u32>>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    /// Listens on a free port, and appends to `file`.
    pub(crate) async fn open(watch: Watch, file: &Path) -> Result<Self> {
        let shared = Arc::new(Shared {
            watch,
            file: Mutex::new(File::options().create_new(true).append(true).open(file)?),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let routes = Router::new().route("/run", post(run)).with_state(shared);
        let server = tokio::spawn(async move {
            // It has no end of its own, and what it can't accept is tried again by the worker.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self {
            file: file.to_owned(),
            address,
            server,
        })
    }

    /// Where it listens, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it has written down, read back from its file.
    pub(crate) fn starts(&self) -> Result<Vec<Start>> {
        let text = std::fs::read_to_string(&self.file).context("read the handlers' log")?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line).with_context(|| format!("the handlers' log says {line:?}"))
            })
            .collect()
    }
}

async fn run(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Bytes) {
    match begin(&shared, &headers, &body) {
        Ok((work, first)) => {
            tokio::time::sleep(Duration::from_millis(work.work_ms)).await;
            if work.fail_first && first {
                return (
                    StatusCode::SERVICE_UNAVAILABLE,
                    Bytes::from_static(b"as it was told"),
                );
            }
            (StatusCode::OK, body)
        }
        // Final for the task, and a result that is not its payload: the checker sees it.
        Err(problem) => (StatusCode::BAD_REQUEST, Bytes::from(format!("{problem:#}"))),
    }
}

/// Writes down the start, and says whether it is the task's first.
fn begin(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<(Work, bool)> {
    let start = Start {
        id: header(headers, "webhook-id")?,
        fence: header(headers, "forebay-fence")?,
        attempt: header(headers, "forebay-attempt")?,
        at: shared.watch.now(),
    };
    let work = serde_json::from_slice(body).context("the payload")?;
    let mut line = serde_json::to_vec(&start)?;
    line.push(b'\n');
    shared
        .file
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .write_all(&line)
        .context("write down the start")?;
    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let count = seen.entry(start.id).or_default();
    *count += 1;
    Ok((work, *count == 1))
}

fn header<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    headers: &HeaderMap,
    name: &str,
) -> Result<T> {
    let value = headers.get(name).with_context(|| format!("no {name}"))?;
    value
        .to_str()?
        .parse()
        .with_context(|| format!("a strange {name}"))
}

/// The `command` handler: posts what it is given to the endpoint, with the headers that it has as variables.
pub(crate) fn handle(port: u16) -> Result<ExitCode> {
    let mut payload = String::new();
    std::io::stdin().read_to_string(&mut payload)?;
    let variable = |name: &str| std::env::var(name).with_context(|| format!("no {name}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(COMMAND_MAX))?;
    write!(
        stream,
        "POST /run HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nwebhook-id: {}\r\nforebay-fence: {}\r\n\
         forebay-attempt: {}\r\ncontent-length: {}\r\n\r\n{payload}",
        variable("FOREBAY_TASK_ID")?,
        variable("FOREBAY_FENCE")?,
        variable("FOREBAY_ATTEMPT")?,
        payload.len(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Ok(ExitCode::from(75));
    }
    std::io::stdout().write_all(body.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
