//! Bulk load: NDJSON in chunks over a plain connection, and the gRPC stream. Both count the tasks that were accepted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use forebay_proto::v1::{
    SubmitTaskRequest, submit_tasks_response::Result as Answer, task_service_client::TaskServiceClient,
};
use futures::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};
use tonic::transport::Channel;

use super::{
    http::{Head, on_own_thread, task},
    meter::{Meter, Spent},
};

/// How long the next part of an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

const LINE_END: &[u8] = b"\r\n";

/// Tasks in one chunk of the request.
const CHUNK: u64 = 250;

/// The task with a number, as a line without its end.
pub(crate) type Line = fn(u64) -> String;

/// How many gRPC streams there are at a time: as many as requests of NDJSON.
const STREAMS: usize = 2;

/// What a bulk round gave.
pub(crate) struct Bulk {
    /// Tasks accepted.
    pub(crate) accepted: u64,
    /// Tasks refused.
    pub(crate) refused: u64,
    /// What they took, up to the last answer.
    pub(crate) spent: Spent,
}

/// How far a bulk load may go.
#[derive(Clone)]
pub(crate) struct Reins {
    /// When it stops.
    until: Instant,
    /// How many tasks it may have sent so far.
    allowed: Arc<AtomicU64>,
    /// How many were given out.
    taken: Arc<AtomicU64>,
    /// Set when it should stop.
    stop: Arc<AtomicBool>,
}

impl Reins {
    /// At most `most` tasks and for at most `window`.
    pub(crate) fn new(window: Duration, most: u64) -> Self {
        Self {
            until: Instant::now() + window,
            allowed: Arc::new(AtomicU64::new(most)),
            taken: Arc::new(AtomicU64::new(0)),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Lets it go up to `count` tasks in all.
    pub(crate) fn allow(&self, count: u64) {
        self.allowed.fetch_max(count, Ordering::Relaxed);
    }

    /// Makes it end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The next numbers to send: none when it is over. Waits while it is ahead, where `wait` is set.
    async fn take(&self, wait: bool) -> Option<std::ops::Range<u64>> {
        loop {
            if Instant::now() >= self.until || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let allowed = self.allowed.load(Ordering::Relaxed);
            let taken = self.taken.load(Ordering::Relaxed);
            let last = allowed.min(taken + CHUNK);
            let swap = self
                .taken
                .compare_exchange(taken, last, Ordering::Relaxed, Ordering::Relaxed);
            match swap {
                Ok(_) if last > taken => return Some(taken..last),
                Ok(_) if !wait => return None,
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(_) => {}
            }
        }
    }
}

/// Streams NDJSON over `connections` requests, as the reins allow. With `wait` it waits when it is ahead; otherwise it
/// ends there.
pub(crate) async fn ndjson(server: SocketAddr, connections: usize, reins: Reins, wait: bool) -> Result<Bulk> {
    ndjson_of(server, connections, reins, wait, |number| task("echo", number, 0)).await
}

/// The same with tasks of one's own.
pub(crate) async fn ndjson_of(
    server: SocketAddr,
    connections: usize,
    reins: Reins,
    wait: bool,
    line: Line,
) -> Result<Bulk> {
    on_own_thread(move || async move {
        let meter = Meter::start()?;
        let running: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(one_request(server, reins.clone(), wait, line)))
            .collect();
        total(running, meter).await
    })
    .await
}

/// What all of them gave together, each accepted and refused.
async fn total(running: Vec<JoinHandle<Result<(u64, u64)>>>, meter: Meter) -> Result<Bulk> {
    let (mut accepted, mut refused) = (0, 0);
    for one in running {
        let (good, bad) = one.await??;
        accepted += good;
        refused += bad;
    }
    let spent = meter.stop()?;
    Ok(Bulk {
        accepted,
        refused,
        spent,
    })
}

async fn one_request(server: SocketAddr, reins: Reins, wait: bool, line: Line) -> Result<(u64, u64)> {
    let stream = TcpStream::connect(server).await.context("connect to the API")?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    // The writer lives until all is read: dropping it would hang up.
    let (_writer, counts) = tokio::try_join!(write_lines(writer, reins, wait, line), read_lines(reader))?;
    Ok(counts)
}

async fn write_lines(
    mut writer: OwnedWriteHalf,
    reins: Reins,
    wait: bool,
    line: Line,
) -> Result<OwnedWriteHalf> {
    let head = "POST /v1/tasks/batch HTTP/1.1\r\nhost: forebay\r\ncontent-type: application/x-ndjson\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    writer.write_all(head.as_bytes()).await?;
    let mut lines = String::new();
    while let Some(numbers) = reins.take(wait).await {
        lines.clear();
        for number in numbers {
            lines.push_str(&line(number));
            lines.push('\n');
        }
        let framed = format!("{:x}\r\n{lines}\r\n", lines.len());
        writer.write_all(framed.as_bytes()).await?;
    }
    writer.write_all(b"0\r\n\r\n").await?;
    Ok(writer)
}

/// Counts the lines of the answer: accepted, refused.
async fn read_lines(mut reader: OwnedReadHalf) -> Result<(u64, u64)> {
    let (mut raw, mut chunks, mut text) = (Vec::with_capacity(1 << 17), None, Vec::new());
    let (mut accepted, mut refused) = (0, 0);
    loop {
        let read = tokio::time::timeout(PATIENCE, reader.read_buf(&mut raw))
            .await
            .context("no answer to a stream")??;
        ensure!(read > 0, "the API hung up in the middle of an answer");
        if chunks.is_none() {
            let Some(head) = Head::of(&raw)? else { continue };
            ensure!(
                (200..300).contains(&head.status),
                "a stream was answered {}",
                head.status
            );
            raw.drain(..head.bytes);
            chunks = Some(Chunks::default());
        }
        let over = chunks
            .as_mut()
            .map_or(Ok(false), |chunks| chunks.take(&mut raw, &mut text))?;
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in text[..whole]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            // An item has its id near its start, where it has one.
            if line[..line.len().min(48)]
                .windows(6)
                .any(|six| six == b"\"id\":\"")
            {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
        text.drain(..whole);
        if over {
            return Ok((accepted, refused));
        }
    }
}

/// Takes a chunked body apart.
#[derive(Default)]
struct Chunks {
    /// What is left of the present chunk, and of the line end that follows it.
    left: usize,
}

impl Chunks {
    /// Moves what is there from `raw` to `text`; returns whether the body is over.
    fn take(&mut self, raw: &mut Vec<u8>, text: &mut Vec<u8>) -> Result<bool> {
        let (mut at, mut over) = (0, false);
        loop {
            let here = self.left.min(raw.len() - at);
            let of_text = here.min(self.left.saturating_sub(LINE_END.len()));
            text.extend_from_slice(&raw[at..at + of_text]);
            (at, self.left) = (at + here, self.left - here);
            if self.left > 0 || over {
                break;
            }
            let Some(end) = raw[at..].windows(2).position(|two| two == LINE_END) else {
                break;
            };
            let size = std::str::from_utf8(&raw[at..at + end]).context("a strange chunk")?;
            let size = usize::from_str_radix(size.trim(), 16).context("a strange chunk")?;
            at += end + LINE_END.len();
            over = size == 0;
            self.left = if over { 0 } else { size + LINE_END.len() };
        }
        raw.drain(..at);
        Ok(over)
    }
}

/// Streams tasks over [`STREAMS`] gRPC streams, each with a connection of its own, as the reins allow.
pub(crate) async fn grpc(url: String, reins: Reins) -> Result<Bulk> {
    on_own_thread(move || async move {
        let clients = (0..STREAMS).map(|_| TaskServiceClient::connect(url.clone()));
        let clients = try_join_all(clients).await.context("connect over gRPC")?;
        let meter = Meter::start()?;
        let running: Vec<_> = clients
            .into_iter()
            .map(|client| tokio::spawn(one_stream(client, reins.clone())))
            .collect();
        total(running, meter).await
    })
    .await
}

/// Accepted, refused.
async fn one_stream(mut client: TaskServiceClient<Channel>, reins: Reins) -> Result<(u64, u64)> {
    let requests = futures::stream::unfold((reins, 0..0_u64), |(reins, mut numbers)| async move {
        if numbers.is_empty() {
            numbers = reins.take(false).await?;
        }
        let number = numbers.next()?;
        Some((request(number), (reins, numbers)))
    });
    let mut answers = client.submit_tasks(requests).await?.into_inner();
    let (mut accepted, mut refused) = (0, 0);
    while let Some(answer) = answers.message().await? {
        match answer.result {
            Some(Answer::Accepted(_)) => accepted += 1,
            _ => refused += 1,
        }
    }
    Ok((accepted, refused))
}

fn request(number: u64) -> SubmitTaskRequest {
    let whole = task("echo", number, 0);
    let payload = whole
        .split_once("\"payload\":")
        .map_or("null", |(_, rest)| &rest[..rest.len() - 1]);
    SubmitTaskRequest {
        kind: "echo".to_owned(),
        payload: payload.to_owned().into(),
        ..SubmitTaskRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_wherever_they_are_cut() {
        let body = b"5\r\nhello\r\n1\r\n\n\r\nb\r\n big world\n\r\n0\r\n\r\n";
        for step in 1..body.len() {
            let (mut chunks, mut raw, mut text, mut over) =
                (Chunks::default(), Vec::new(), Vec::new(), false);
            for part in body.chunks(step) {
                raw.extend_from_slice(part);
                over = over || chunks.take(&mut raw, &mut text).unwrap();
            }
            assert!(over, "in steps of {step}");
            assert_eq!(text, b"hello\n big world\n", "in steps of {step}");
        }
        let mut chunks = Chunks::default();
        assert!(
            chunks
                .take(&mut b"no size\r\n".to_vec(), &mut Vec::new())
                .is_err()
        );
    }

    #[tokio::test]
    async fn reins_hold_a_load_where_they_should() {
        let reins = Reins::new(Duration::from_secs(60), 600);
        assert_eq!(reins.take(false).await, Some(0..250));
        assert_eq!(reins.take(true).await, Some(250..500));
        assert_eq!(reins.take(false).await, Some(500..600));
        assert_eq!(reins.take(false).await, None);
        reins.allow(601);
        assert_eq!(reins.take(true).await, Some(600..601));
        reins.stop();
        assert_eq!(reins.take(true).await, None);
    }
}
