//! How fast the doors are by themselves: the real router and the real gRPC service, in a process of their own, in front
//! of a broker that takes 0.4 ms for each batch, one at a time. Beside them a bare axum route that does no more than
//! parse the same JSON, and a bare tonic stream that answers each message from what it says: these are the limits.
//!
//! ```text
//! cargo run --profile profiling -p forebay-api --example doors [case]
//! ```

use std::{
    convert::Infallible,
    error::Error,
    io::Write as _,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{Json as Parsed, Router, http::StatusCode, routing::post};
use forebay_api::{App, Bounds, Parts, background, serve_grpc, serve_http};
use forebay_broker::{
    Broker, Depth, GroupCommit, Message, PublishError, Result as BrokerResult, Source, Subscription,
};
use forebay_core::{Lane, Signal, SystemClock};
use forebay_proto::v1::{
    SubmitTaskRequest, SubmitTasksResponse, TaskReceipt, submit_tasks_response,
    task_service_client::TaskServiceClient,
};
use forebay_runtime::{
    config::{args::LogArgs, values::LogFormat},
    health::Health,
    metrics::Metrics,
};
use forebay_store::Admin;
use forebay_store_sqlite::SqliteStore;
use futures::{StreamExt, future::join_all, stream, stream::BoxStream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Streaming,
    body::Body,
    codegen::{BoxFuture, http},
    server::{Grpc, NamedService},
    transport::server::{Server, TcpIncoming},
};
use tonic_prost::ProstCodec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a publish takes.
const PUBLISH: Duration = Duration::from_micros(400);

/// Confirms a whole call after a while, one call at a time.
struct Slow {
    line: mpsc::Sender<oneshot::Sender<()>>,
    taken: Arc<AtomicU64>,
    batches: Arc<AtomicU64>,
}

impl Slow {
    fn new(taken: Arc<AtomicU64>, batches: Arc<AtomicU64>) -> Self {
        let (line, mut calls) = mpsc::channel::<oneshot::Sender<()>>(64);
        // A thread, since the runtime's timer counts whole milliseconds.
        std::thread::spawn(move || {
            while let Some(call) = calls.blocking_recv() {
                wait_for_the_disk();
                let _ = call.send(());
            }
        });
        Self { line, taken, batches }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the disk, on a thread of its own"
)]
fn wait_for_the_disk() {
    std::thread::sleep(PUBLISH);
}

#[async_trait]
impl Broker for Slow {
    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.line.send(reply).await;
        let _ = answer.await;
        self.taken.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        vec![Ok(()); batch.len()]
    }
    async fn consume(&self, _: Source) -> BrokerResult<Subscription> {
        std::future::pending().await
    }
    async fn depth(&self, _: &Lane) -> BrokerResult<Depth> {
        Ok(Depth::default())
    }
    async fn unrecorded(&self) -> BrokerResult<u64> {
        Ok(0)
    }
    async fn signal(&self, _: Signal) -> BrokerResult<()> {
        Ok(())
    }
    async fn signals(&self) -> BrokerResult<BoxStream<'static, Signal>> {
        Ok(stream::pending().boxed())
    }
    async fn trim(&self) -> BrokerResult<()> {
        Ok(())
    }
    async fn check(&self) -> BrokerResult<()> {
        Ok(())
    }
}

/// What the bare route reads.
#[derive(Deserialize)]
#[allow(dead_code, reason = "read to be timed")]
struct Bare {
    kind: String,
    queue: Option<String>,
    payload: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct BareAnswer {
    id: &'static str,
    state: &'static str,
}

async fn bare(Parsed(_): Parsed<Bare>) -> (StatusCode, Parsed<BareAnswer>) {
    let answer = BareAnswer {
        id: "0195d7f0-0000-7000-8000-000000000000",
        state: "queued",
    };
    (StatusCode::ACCEPTED, Parsed(answer))
}

async fn bare_batch(Parsed(tasks): Parsed<Vec<Bare>>) -> (StatusCode, String) {
    (StatusCode::ACCEPTED, tasks.len().to_string())
}

/// A stream of the generated messages, as tonic serves it.
#[derive(Clone)]
struct BareStream;

impl NamedService for BareStream {
    const NAME: &'static str = "forebay.v1.TaskService";
}

impl tower::Service<http::Request<Body>> for BareStream {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = tower::service_fn(async |request: Request<Streaming<SubmitTaskRequest>>| {
            let answers = request
                .into_inner()
                .map(|message| message.map(|message| bare_answer(&message)));
            Ok(Response::new(answers))
        });
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).streaming(method, request).await) })
    }
}

fn bare_answer(message: &SubmitTaskRequest) -> SubmitTasksResponse {
    let receipt = TaskReceipt {
        id: "0195d7f0-0000-7000-8000-000000000000".to_owned(),
        state: i32::from(!message.kind.is_empty()),
    };
    SubmitTasksResponse {
        index: 1,
        result: Some(submit_tasks_response::Result::Accepted(receipt)),
    }
}

fn serve() -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            // Logs as a server has them: what is not shown must cost nothing.
            let log = LogArgs {
                log_format: LogFormat::Text,
                log: "info".to_owned(),
                otlp_endpoint: None,
            };
            let _telemetry = forebay_runtime::telemetry::start(&log, "doors")?;
            let folder = tempfile::tempdir()?;
            let store = Arc::new(SqliteStore::open(&folder.path().join("doors.db")).await?);
            store.migrate().await?;
            let (taken, batches) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let broker: Arc<dyn Broker> = Arc::new(Slow::new(Arc::clone(&taken), Arc::clone(&batches)));
            let (submitter, group) = GroupCommit::new(Arc::clone(&broker));
            tokio::spawn(group.run());
            let parts = Parts {
                store,
                broker,
                submitter,
                clock: Arc::new(SystemClock),
                metrics: Arc::new(Metrics::new()),
                health: Health::default(),
                stop: CancellationToken::new(),
            };
            let app = App::bounded(parts, Bounds::default());
            tokio::spawn(background(app.clone()));
            let http = TcpListener::bind("127.0.0.1:0").await?;
            let grpc = TcpListener::bind("127.0.0.1:0").await?;
            let limit = TcpListener::bind("127.0.0.1:0").await?;
            let bare_grpc = TcpListener::bind("127.0.0.1:0").await?;
            println!(
                "{} {} {} {}",
                http.local_addr()?,
                grpc.local_addr()?,
                limit.local_addr()?,
                bare_grpc.local_addr()?
            );
            std::io::stdout().flush()?;
            tokio::spawn(serve_http(app.clone(), http));
            tokio::spawn(serve_grpc(app, grpc));
            let incoming = TcpIncoming::from(bare_grpc).with_nodelay(Some(true));
            let server = Server::builder().add_service(BareStream);
            tokio::spawn(server.serve_with_incoming(incoming));
            let count = move || async move {
                format!(
                    "{} {}",
                    taken.load(Ordering::Relaxed),
                    batches.load(Ordering::Relaxed)
                )
            };
            let routes = Router::new()
                .route("/v1/tasks", post(bare))
                .route("/v1/tasks/batch", post(bare_batch))
                .route("/count", post(count));
            Ok(axum::serve(limit, routes).await?)
        })
}

fn task() -> String {
    let payload = "x".repeat(200);
    format!(r#"{{"kind":"invoice.created","queue":"default","payload":{{"text":"{payload}","n":17}}}}"#)
}

fn post_of(path: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request again and again over one connection, and reads each answer.
struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    async fn new(to: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(256 * 1024),
        })
    }

    /// The answer's head and body.
    async fn call(&mut self, request: &[u8]) -> Result<(String, Vec<u8>), Failure> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection ended".into());
            }
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end])?.to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .ok_or("no content-length")?
                .parse()?;
            let whole = end + 4 + length;
            while self.buffer.len() < whole {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err("the connection ended".into());
                }
            }
            return Ok((head, self.buffer[end + 4..whole].to_vec()));
        }
    }
}

/// Posts one after the other on each of `connections`, for a while. How many were answered.
async fn posts(to: SocketAddr, connections: usize, request: Vec<u8>, each: u64) -> Result<u64, Failure> {
    let request = Arc::new(request);
    let until = Instant::now() + Duration::from_secs(3);
    let callers = (0..connections).map(|_| {
        let request = Arc::clone(&request);
        tokio::spawn(async move {
            let mut caller = Caller::new(to).await?;
            let mut count = 0;
            while Instant::now() < until {
                let (head, body) = caller.call(&request).await?;
                if !head.starts_with("http/1.1 202") {
                    return Err(format!("{head}\n{}", String::from_utf8_lossy(&body)).into());
                }
                count += each;
            }
            Ok::<u64, Failure>(count)
        })
    });
    let mut all = 0;
    for count in join_all(callers).await {
        all += count??;
    }
    Ok(all)
}

/// One NDJSON stream: all is written by one half while the other counts result lines.
async fn ndjson(to: SocketAddr, lines: u64) -> Result<u64, Failure> {
    let line = format!("{}\n", task());
    let stream = TcpStream::connect(to).await?;
    let (mut reader, mut writer) = stream.into_split();
    let head = format!(
        "POST /v1/tasks/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        line.len() as u64 * lines
    );
    let writing = tokio::spawn(async move {
        writer.write_all(head.as_bytes()).await?;
        let many = line.repeat(200);
        for _ in 0..lines / 200 {
            writer.write_all(many.as_bytes()).await?;
        }
        Ok::<_, Failure>(writer)
    });
    let (mut count, mut last, mut buffer) = (0, 0, vec![0; 256 * 1024]);
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        for &byte in &buffer[..read] {
            count += u64::from(byte == b'\n' && last == b'}');
            last = byte;
        }
    }
    writing.await??;
    Ok(count)
}

async fn ndjsons(to: SocketAddr, connections: usize, lines: u64) -> Result<u64, Failure> {
    let streams = (0..connections).map(|_| tokio::spawn(ndjson(to, lines)));
    let mut all = 0;
    for count in join_all(streams).await {
        all += count??;
    }
    Ok(all)
}

async fn grpc(to: SocketAddr, connections: usize, tasks: u64) -> Result<u64, Failure> {
    let streams = (0..connections).map(|_| {
        tokio::spawn(async move {
            let mut client = TaskServiceClient::connect(format!("http://{to}")).await?;
            let payload = bytes::Bytes::from(format!(r#"{{"text":"{}","n":17}}"#, "x".repeat(200)));
            let requests = stream::iter(0..tasks).map(move |_| SubmitTaskRequest {
                kind: "invoice.created".to_owned(),
                queue: "default".to_owned(),
                payload: payload.clone(),
                ..SubmitTaskRequest::default()
            });
            let mut answers = client.submit_tasks(requests).await?.into_inner();
            let mut count = 0;
            while let Some(answer) = answers.next().await {
                answer?;
                count += 1;
            }
            Ok::<u64, Failure>(count)
        })
    });
    let mut all = 0;
    for count in join_all(streams).await {
        all += count??;
    }
    Ok(all)
}

/// The server's processor time so far, and its memory in MiB.
fn usage(pid: u32) -> Result<(Duration, f64), Failure> {
    let mut ran = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        ran += schedstat.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = resident
        .unwrap_or_default()
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok((Duration::from_nanos(ran), kib / 1024.0))
}

async fn count(limit: SocketAddr) -> Result<(u64, u64), Failure> {
    let (_, body) = Caller::new(limit)
        .await?
        .call(&post_of("/count", "text/plain", ""))
        .await?;
    let text = String::from_utf8(body)?;
    let (taken, batches) = text.split_once(' ').ok_or("no count")?;
    Ok((taken.parse()?, batches.parse()?))
}

struct Lab {
    only: Option<String>,
    pid: u32,
    limit: SocketAddr,
}

impl Lab {
    async fn case(
        &self,
        name: &str,
        counted: bool,
        load: impl Future<Output = Result<u64, Failure>>,
    ) -> Result<(), Failure> {
        if self
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            return Ok(());
        }
        let (taken, batches) = count(self.limit).await?;
        let (cpu, _) = usage(self.pid)?;
        let began = Instant::now();
        let done = load.await?;
        let took = began.elapsed();
        let (after, resident) = usage(self.pid)?;
        let (taken_after, batches_after) = count(self.limit).await?;
        let each = (after - cpu).as_secs_f64() * 1e6 / done as f64;
        let rate = done as f64 / took.as_secs_f64();
        let batch = (taken_after - taken) as f64 / (batches_after - batches).max(1) as f64;
        println!(
            "{name:<28} {rate:>9.0}/s {each:>7.2} µs server CPU a task, {batch:>6.1} a batch, {resident:>6.1} MiB"
        );
        if counted && taken_after - taken != done {
            return Err(format!("{done} were answered, {} taken", taken_after - taken).into());
        }
        Ok(())
    }
}

async fn drive(only: Option<String>) -> Result<(), Failure> {
    let mut server = tokio::process::Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = server.id().ok_or("no server")?;
    let mut line = Vec::new();
    let mut out = server.stdout.take().ok_or("no output")?;
    while !line.ends_with(b"\n") {
        line.push(out.read_u8().await?);
    }
    let addresses = String::from_utf8(line)?;
    let addresses: Vec<SocketAddr> = addresses
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [http, door, limit, bare_grpc] = addresses[..] else {
        return Err("no addresses".into());
    };
    let lab = Lab { only, pid, limit };
    println!("{:>56.1} MiB at rest", usage(pid)?.1);
    let single = post_of("/v1/tasks", "application/json", &task());
    let array = format!("[{}]", vec![task(); 1_000].join(","));
    let batch = post_of("/v1/tasks/batch", "application/json", &array);
    lab.case("bare 32", false, posts(limit, 32, single.clone(), 1))
        .await?;
    lab.case("http 32", true, posts(http, 32, single.clone(), 1))
        .await?;
    lab.case("bare 256", false, posts(limit, 256, single.clone(), 1))
        .await?;
    lab.case("http 256", true, posts(http, 256, single, 1)).await?;
    lab.case(
        "bare array of 1000 x4",
        false,
        posts(limit, 4, batch.clone(), 1_000),
    )
    .await?;
    lab.case("array of 1000 x4", true, posts(http, 4, batch, 1_000))
        .await?;
    lab.case("ndjson x1", true, ndjsons(http, 1, 200_000)).await?;
    lab.case("ndjson x4", true, ndjsons(http, 4, 100_000)).await?;
    lab.case("bare tonic x1", false, grpc(bare_grpc, 1, 200_000))
        .await?;
    lab.case("bare tonic x4", false, grpc(bare_grpc, 4, 100_000))
        .await?;
    lab.case("grpc x1", true, grpc(door, 1, 200_000)).await?;
    lab.case("grpc x4", true, grpc(door, 4, 100_000)).await?;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{:>56.1} MiB after it", usage(pid)?.1);
    server.kill().await?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1) {
        Some(word) if word == "serve" => serve(),
        only => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(drive(only)),
    }
}
