//! A bare route, and the thinnest path to a durable 202: each a process of its own, as Forebay is one.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use async_nats::jetstream;
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::{BUNDLE, Gauge, SECTION, name};
use crate::bench::http;

/// How many requests may wait for the next message.
const WAITING_MAX: usize = 4_096;

/// What the bare route reads of a body.
#[derive(Deserialize)]
struct Submission {
    kind: String,
    payload: Box<RawValue>,
}

/// One request, and where its answer goes.
type Waiting = (Bytes, oneshot::Sender<bool>);

/// Measures both at 32 and 256 connections.
pub(crate) async fn measure(gauge: &mut Gauge<'_>, nats: &str) -> Result<()> {
    let bare = Server::start(&["--serve", "bare"])?;
    single(gauge, bare.address, name::BARE_32, 32).await?;
    single(gauge, bare.address, name::BARE_256, 256).await?;
    drop(bare);
    let thin = Server::start(&["--serve", "thin", "--broker-url", nats])?;
    single(gauge, thin.address, name::THIN_32, 32).await?;
    single(gauge, thin.address, name::THIN_256, 256).await
}

async fn single(gauge: &mut Gauge<'_>, server: SocketAddr, row: &str, clients: usize) -> Result<()> {
    http::singles(server, clients, Duration::from_millis(300), u64::MAX).await?;
    let singles = http::singles(server, clients, gauge.window, u64::MAX).await?;
    gauge
        .figures
        .note_work(SECTION, row, singles.accepted, &singles.spent);
    for (column, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        let wait = singles.latency.value_at_quantile(quantile) as f64 / 1e3;
        gauge.figures.note(SECTION, row, column, wait);
    }
    Ok(())
}

/// This program, serving in a process of its own.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_with(arguments, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_with(arguments: &[&str], env: &[(&str, &OsStr)]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bench")
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start this program once more")?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output")?;
        let read = BufReader::new(output).read_line(&mut line);
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        read?;
        server.address = line.trim().parse().context("a server that does not start")?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves a route that parses the JSON and answers 202, until it is killed.
pub(crate) async fn serve_bare() -> Result<()> {
    let route = post(|Json(body): Json<Submission>| async move {
        let known = !body.kind.is_empty() && !body.payload.get().is_empty();
        (
            StatusCode::ACCEPTED,
            if known { r#"{"state":"queued"}"# } else { "{}" },
        )
    });
    serve(Router::new().route("/v1/tasks", route)).await
}

/// Serves a route that answers 202 once the body is synced: all that wait go into one message, while the last is on
/// its way.
pub(crate) async fn serve_thin(nats: &str) -> Result<()> {
    let (sender, receiver) = mpsc::channel::<Waiting>(WAITING_MAX);
    let jetstream = jetstream::new(async_nats::connect(nats).await?);
    super::nats::make_stream(&jetstream, "thin", false).await?;
    tokio::spawn(commit_groups(jetstream, receiver));
    let route = post(
        |State(sender): State<mpsc::Sender<Waiting>>, body: Bytes| async move {
            let (answer, answered) = oneshot::channel();
            let sent = sender.send((body, answer)).await.is_ok();
            if sent && answered.await.unwrap_or(false) {
                (StatusCode::ACCEPTED, r#"{"state":"queued"}"#)
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "{}")
            }
        },
    );
    serve(Router::new().route("/v1/tasks", route).with_state(sender)).await
}

async fn commit_groups(jetstream: jetstream::Context, mut waiting: mpsc::Receiver<Waiting>) {
    let mut group = Vec::with_capacity(BUNDLE);
    while waiting.recv_many(&mut group, BUNDLE).await > 0 {
        let mut message = BytesMut::with_capacity(group.iter().map(|(body, _)| body.len() + 4).sum());
        for (body, _) in &group {
            message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
            message.put_slice(body);
        }
        let confirmed = async { jetstream.publish("thin", message.freeze()).await?.await };
        let stored = confirmed.await.is_ok();
        for (_, answer) in group.drain(..) {
            // The client may have hung up.
            let _ = answer.send(stored);
        }
    }
}

async fn serve(routes: Router) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}

/// Tells the process that started this one where it listens.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}
