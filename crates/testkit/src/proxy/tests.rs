//! Each mode, seen from both sides of a proxy.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::*;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(10);

/// For how long nothing has to happen where nothing may happen.
const SILENCE: Duration = Duration::from_millis(150);

/// A server that says again what it hears, and counts.
struct Echo {
    address: String,
    heard: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (heard, ended) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let counters = (Arc::clone(&heard), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(echo(stream, counters.clone()));
            }
        });
        Self {
            address,
            heard,
            ended,
            task,
        }
    }

    async fn has_heard(&self, bytes: usize) {
        wait::until("the server to hear it", PATIENCE, async || {
            self.heard.load(Ordering::Relaxed) == bytes
        })
        .await;
    }
}

async fn echo(mut stream: TcpStream, (heard, ended): (Arc<AtomicUsize>, Arc<AtomicUsize>)) {
    let mut chunk = vec![0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        heard.fetch_add(count, Ordering::Relaxed);
        // "." asks the server to end the connection.
        if &chunk[..count] == b"." || stream.write_all(&chunk[..count]).await.is_err() {
            break;
        }
    }
    ended.fetch_add(1, Ordering::Relaxed);
}

async fn start() -> (Echo, Proxy) {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    (echo, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Says a word, and waits for its echo.
async fn talk(stream: &mut TcpStream) -> std::io::Result<()> {
    let talk = async {
        stream.write_all(b"word").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"word");
        Ok(())
    };
    timeout(PATIENCE, talk).await.expect("an answer in time")
}

async fn connect_and_talk(proxy: &Proxy) -> TcpStream {
    let mut stream = connect(proxy).await;
    talk(&mut stream).await.unwrap();
    stream
}

/// What reading ends with.
async fn end_of(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("an end in time")
}

async fn is_reset(stream: &mut TcpStream) {
    assert_eq!(
        end_of(stream).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

async fn is_silent(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(
        timeout(SILENCE, stream.read(&mut byte)).await.is_err(),
        "something came"
    );
}

#[tokio::test]
async fn passes_on_all_bytes_and_the_end_of_either_side() {
    let (echo, proxy) = start().await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut reader, mut writer) = connect(&proxy).await.into_split();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let ((), count) = tokio::join!(write, reader.read_to_end(&mut received));
    assert_eq!(count.unwrap(), sent.len());
    assert!(received == sent, "the bytes changed on the way");
    assert_eq!(echo.ended.load(Ordering::Relaxed), 1);

    let mut stream = connect(&proxy).await;
    stream.write_all(b".").await.unwrap();
    assert_eq!(end_of(&mut stream).await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_is_away_resets_the_client() {
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let proxy = Proxy::start(nobody).await.unwrap();
    is_reset(&mut connect(&proxy).await).await;
}

#[tokio::test]
async fn delays_both_directions_and_loses_nothing_afterwards() {
    let (_echo, proxy) = start().await;
    let delay = Duration::from_millis(100);
    let mut stream = connect_and_talk(&proxy).await;
    proxy.set(Mode::Delay(delay));
    let begin = Instant::now();
    talk(&mut stream).await.unwrap();
    assert!(begin.elapsed() >= 2 * delay, "{:?}", begin.elapsed());
    stream.write_all(b"one ").await.unwrap();
    proxy.set(Mode::Pass);
    stream.write_all(b"two").await.unwrap();
    let mut answer = [0; 7];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"one two");
}

#[tokio::test]
async fn a_cut_resets_and_refuses_until_it_is_healed() {
    let (echo, proxy) = start().await;
    let mut stream = connect_and_talk(&proxy).await;
    proxy.set(Mode::Cut);
    is_reset(&mut stream).await;
    wait::until("connections to be refused", PATIENCE, async || {
        let refused = TcpStream::connect(proxy.address()).await;
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    wait::until("the server to notice", PATIENCE, async || {
        echo.ended.load(Ordering::Relaxed) == 1
    })
    .await;
    proxy.set(Mode::Pass);
    connect_and_talk(&proxy).await;
}

#[tokio::test]
async fn a_half_open_line_loses_what_the_server_says() {
    let (echo, proxy) = start().await;
    let mut present = connect_and_talk(&proxy).await;
    proxy.set(Mode::HalfOpen);
    let mut new = connect(&proxy).await;
    present.write_all(b"word").await.unwrap();
    new.write_all(b"word").await.unwrap();
    echo.has_heard(12).await;
    // Nor does the client hear that the server closes.
    present.write_all(b".").await.unwrap();
    echo.has_heard(13).await;
    is_silent(&mut present).await;
    is_silent(&mut new).await;
    proxy.set(Mode::Pass);
    is_reset(&mut present).await;
    is_reset(&mut new).await;
    connect_and_talk(&proxy).await;
}

#[tokio::test]
async fn a_black_hole_accepts_and_swallows_everything() {
    let (echo, proxy) = start().await;
    let mut present = connect_and_talk(&proxy).await;
    proxy.set(Mode::BlackHole);
    let mut new = connect(&proxy).await;
    present.write_all(b"word").await.unwrap();
    new.write_all(b"word").await.unwrap();
    is_silent(&mut present).await;
    is_silent(&mut new).await;
    // Nor does the server hear that a client is gone.
    drop(new);
    is_silent(&mut present).await;
    assert_eq!(echo.ended.load(Ordering::Relaxed), 0);
    proxy.set(Mode::Pass);
    is_reset(&mut present).await;
    connect_and_talk(&proxy).await;
    assert_eq!(
        echo.heard.load(Ordering::Relaxed),
        8,
        "swallowed words went through"
    );
}

#[tokio::test]
async fn a_cut_now_resets_once() {
    let (_echo, proxy) = start().await;
    let (mut one, mut other) = (connect_and_talk(&proxy).await, connect_and_talk(&proxy).await);
    proxy.cut_now();
    is_reset(&mut one).await;
    is_reset(&mut other).await;
    let mut stream = connect_and_talk(&proxy).await;
    proxy.set(Mode::Pass);
    talk(&mut stream).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_once_it_is_dropped() {
    let (echo, proxy) = start().await;
    let address = proxy.address();
    let mut stream = connect_and_talk(&proxy).await;
    drop(proxy);
    is_reset(&mut stream).await;
    wait::until(
        "the server to notice, and the port to be free",
        PATIENCE,
        async || echo.ended.load(Ordering::Relaxed) == 1 && std::net::TcpListener::bind(address).is_ok(),
    )
    .await;
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_writer_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().to_string())
        .await
        .unwrap();
    let mut stream = connect(&proxy).await;
    // It accepts, and never reads: only buffers of kernels and of the proxy can take what is written.
    let (_server, _) = listener.accept().await.unwrap();
    let chunk = vec![0; 1 << 20];
    let mut written = 0;
    while let Ok(count) = timeout(Duration::from_millis(500), stream.write(&chunk)).await {
        written += count.unwrap();
        assert!(written < 64 << 20, "the proxy takes everything");
    }
}
