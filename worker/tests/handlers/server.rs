//! A server that answers as it is told, and remembers what it was asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request, with the names of its headers in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// Listens on the loopback until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers every request with these bytes and closes the connection; with nothing at all, it never answers.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::answering_in_turn([answer.into()]).await
    }

    /// As [`Self::answering`], each request with the next of these, and from then on with the last.
    pub(crate) async fn answering_in_turn(answers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers): (_, Vec<_>) = (Arc::clone(&requests), answers.into_iter().collect());
        let task = tokio::spawn(async move {
            let mut turns = answers.iter();
            let mut answer = turns.next().unwrap();
            while let Ok((connection, _)) = listener.accept().await {
                serve(connection, answer, &seen).await;
                answer = turns.next().unwrap_or(answer);
            }
        });
        Self {
            address,
            requests,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks/secret-path", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response of this status, with these header lines and this body.
pub(crate) fn response(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn serve(connection: TcpStream, answer: &[u8], seen: &Mutex<Vec<Request>>) {
    let mut connection = BufReader::new(connection);
    let request = read(&mut connection).await;
    seen.lock().unwrap().push(request);
    if answer.is_empty() {
        // Until the other side gives up.
        let _ = connection.read_to_end(&mut Vec::new()).await;
        return;
    }
    // The other side may have hung up already.
    let _ = connection.write_all(answer).await;
    let _ = connection.shutdown().await;
}

async fn read(connection: &mut BufReader<TcpStream>) -> Request {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let headers: BTreeMap<String, String> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    connection.read_exact(&mut body).await.unwrap();
    let line = lines.remove(0);
    Request { line, headers, body }
}
