//! The HTTP door on a real socket.

use std::time::Duration;

use forebay_api::{Bounds, serve_http};
use forebay_core::State;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    door::{Door, eventually, quick},
    fake::Mood,
};

const PATIENCE: Duration = Duration::from_secs(10);

async fn served(door: &Door) -> (std::net::SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(serve_http(door.app.clone(), listener)))
}

async fn send(address: std::net::SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text))
        .await
        .expect("the answer in time")
        .ok();
    String::from_utf8_lossy(&text).into_owned()
}

fn post(extra: &str) -> String {
    format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 15\r\n{extra}\r\n{{\"kind\":\"echo\"}}"
    )
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_what_waits_is_ended() {
    let door = Door::bounded(Bounds {
        submit: PATIENCE,
        ..quick()
    });
    let (address, server) = served(&door).await;
    door.fake.lock().broker = Mood::Hangs;
    let under_way = send(address, &post("")).await;
    let idle = TcpStream::connect(address).await.unwrap();
    let events = send(address, "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").await;
    eventually("requests arrive", async || {
        door.app.metrics.encode().contains("route=\"/v1/events\"")
    })
    .await;
    door.app.stop.cancel();
    let ended = read_all(events).await;
    assert!(ended.starts_with("HTTP/1.1 200"), "{ended}");
    door.fake.lock().broker = Mood::Up;
    drop(idle);
    let answer = read_all(under_way).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    timeout(PATIENCE, server)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "still listens");
    assert_eq!(door.fake.lock().tasks.len(), 1);
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let door = Door::bounded(Bounds {
        drain: Duration::from_millis(100),
        body: Duration::from_secs(60),
        ..quick()
    });
    let (address, server) = served(&door).await;
    let _never_ends = send(
        address,
        "POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{",
    )
    .await;
    let other = send(
        address,
        "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(read_all(other).await.starts_with("HTTP/1.1 200"));
    door.app.stop.cancel();
    timeout(PATIENCE, server)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_connection_that_does_not_begin_gives_its_place_back() {
    let door = Door::bounded(Bounds {
        connections: 1,
        head: Duration::from_millis(100),
        ..quick()
    });
    let (address, _server) = served(&door).await;
    for said in ["", "P"] {
        let _silent = send(address, said).await;
        let other = send(
            address,
            "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        let answer = read_all(other).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // One that has begun may wait longer for its answer than it had for its first bytes.
    let waiting = send(address, &post("prefer: wait=1\r\nconnection: close\r\n")).await;
    let answer = read_all(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test]
async fn a_wait_on_a_connection_is_answered_when_the_process_stops() {
    let door = Door::new();
    let (address, server) = served(&door).await;
    let waiting = send(address, &post("prefer: wait=60\r\n")).await;
    eventually("the task is there", async || !door.fake.lock().tasks.is_empty()).await;
    door.app.stop.cancel();
    let answer = read_all(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    timeout(PATIENCE, server)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
    assert!(
        door.fake
            .lock()
            .tasks
            .values()
            .all(|task| task.state == State::Queued)
    );
}

#[tokio::test]
async fn garbage_on_the_wire_is_never_a_5xx() {
    let door = Door::new();
    let (address, _server) = served(&door).await;
    let huge = format!(
        "GET /v1/tasks HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(200_000)
    );
    let many = format!(
        "GET /v1/tasks HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    let long = format!(
        "GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "%ff".repeat(10_000)
    );
    for text in [
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /v1/tasks\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/tasks HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\nconnection: close\r\n\r\nZZ\r\n",
        &huge,
        &many,
        &long,
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may hang up before it has read everything.
        let _ = stream.write_all(text.as_bytes()).await;
        let answer = read_all(stream).await;
        assert!(!answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    let fine = send(
        address,
        "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(read_all(fine).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_its_answer() {
    let door = Door::new();
    let (address, _server) = served(&door).await;
    let size = 3 * 1024 * 1024;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    );
    let mut stream = send(address, &head).await;
    stream.write_all(&vec![b'x'; size]).await.unwrap();
    let answer = read_all(stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"),
        "{answer}"
    );
}
