//! One connection through a proxy: two pumps, each with a bounded queue between reading and writing.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{Mode, State};

/// How much is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// How many chunks may be under way in one direction, so that a delay costs no throughput worth speaking of.
const CHUNKS_MAX: usize = 64;

/// How long a connection to the server may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who speaks in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

/// What was read: bytes, a proper end, or a failure of the connection.
#[derive(Debug)]
enum Said {
    Bytes(Vec<u8>),
    End,
    Failure(io::Error),
}

/// What a connection knows of its proxy.
#[derive(Debug, Clone)]
struct Surroundings {
    state: watch::Receiver<State>,
    era: u64,
}

impl Surroundings {
    /// The mode, while the era of the connection lasts. After that, never: the connection is about to be reset.
    async fn mode(&self) -> Mode {
        let mode = {
            let state = self.state.borrow();
            (state.era == self.era).then_some(state.mode)
        };
        match mode {
            Some(mode) => mode,
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of the era.
    async fn end(mut self) {
        let era = self.era;
        // An error says that the proxy is gone, which is the end, too.
        let _ = self.state.wait_for(|state| state.era != era).await;
    }

    /// Hides a failure or the end of one side from the other where the network would: for ever, in a lossy mode.
    async fn hide(&self) {
        if self.mode().await.is_lossy() {
            std::future::pending::<()>().await;
        }
    }
}

/// A stream that is reset when dropped, unless it was ended properly.
struct Resetting {
    stream: TcpStream,
    ended: bool,
}

impl Resetting {
    fn new(stream: TcpStream) -> Self {
        // Nothing here depends on it.
        let _ = stream.set_nodelay(true);
        Self { stream, ended: false }
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if !self.ended {
            // Fails where the stream has been reset already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Carries one connection until both sides have ended it, one fails, or the proxy resets it.
pub(super) async fn carry(client: TcpStream, upstream: Arc<str>, state: watch::Receiver<State>) {
    let era = state.borrow().era;
    let surroundings = Surroundings { state, era };
    let mut client = Resetting::new(client);
    tokio::select! {
        biased;
        () = surroundings.clone().end() => {}
        // A failure of one side resets the other: there is nobody else to tell.
        _ = exchange(&mut client, &upstream, &surroundings) => {}
    }
}

async fn exchange(client: &mut Resetting, upstream: &str, surroundings: &Surroundings) -> io::Result<()> {
    match surroundings.mode().await {
        Mode::BlackHole => return swallow(&mut client.stream).await,
        // It was accepted just before.
        Mode::Cut => return Err(io::ErrorKind::ConnectionReset.into()),
        Mode::Pass | Mode::Delay(_) | Mode::HalfOpen => {}
    }
    let mut server = match connect(upstream).await {
        Ok(stream) => Resetting::new(stream),
        Err(error) => {
            surroundings.hide().await;
            return Err(error);
        }
    };
    let (from_client, to_client) = client.stream.split();
    let (from_server, to_server) = server.stream.split();
    tokio::try_join!(
        pump(from_client, to_server, Speaker::Client, surroundings),
        pump(from_server, to_client, Speaker::Server, surroundings),
    )?;
    (client.ended, server.ended) = (true, true);
    Ok(())
}

async fn connect(upstream: &str) -> io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(upstream))
        .await
        .map_err(io::Error::from)?
}

/// Reads and forgets what a client says, and never tells it anything.
async fn swallow(client: &mut TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while matches!(client.read(&mut chunk).await, Ok(count) if count > 0) {}
    std::future::pending().await
}

/// Passes on what one side says until it ends.
async fn pump(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    speaker: Speaker,
    surroundings: &Surroundings,
) -> io::Result<()> {
    let (queue, queued) = mpsc::channel(CHUNKS_MAX);
    let ((), outcome) = tokio::join!(
        listen(from, queue, surroundings),
        repeat(queued, to, speaker, surroundings)
    );
    outcome
}

/// Queues what is said, with the time when it is due on the other side. Stops reading while the queue is full.
async fn listen(
    mut from: impl AsyncRead + Unpin,
    queue: mpsc::Sender<(Instant, Said)>,
    surroundings: &Surroundings,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(place) = queue.reserve().await {
        let said = match from.read(&mut chunk).await {
            Ok(0) => Said::End,
            Ok(count) => Said::Bytes(chunk[..count].to_vec()),
            Err(error) => Said::Failure(error),
        };
        let is_last = !matches!(said, Said::Bytes(_));
        place.send((Instant::now() + surroundings.mode().await.delay(), said));
        if is_last {
            return;
        }
    }
}

/// Says what is queued to the other side, each when it is due, as far as the mode lets it through at that time.
async fn repeat(
    mut queued: mpsc::Receiver<(Instant, Said)>,
    mut to: impl AsyncWrite + Unpin,
    speaker: Speaker,
    surroundings: &Surroundings,
) -> io::Result<()> {
    while let Some((due, said)) = queued.recv().await {
        sleep_until(due).await;
        let mode = surroundings.mode().await;
        let is_lost = mode == Mode::BlackHole || mode == Mode::HalfOpen && speaker == Speaker::Server;
        let outcome = match said {
            Said::Bytes(_) if is_lost => continue,
            Said::Bytes(bytes) => to.write_all(&bytes).await,
            Said::End | Said::Failure(_) if is_lost => std::future::pending().await,
            Said::End => return to.shutdown().await,
            Said::Failure(error) => return Err(error),
        };
        if let Err(error) = outcome {
            surroundings.hide().await;
            return Err(error);
        }
    }
    Ok(())
}
