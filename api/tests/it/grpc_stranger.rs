//! A gRPC client that knows HTTP/2 and nothing more: it keeps no deadline, and sends what it is told to.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{HeaderMap, Request};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::door::Door;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Messages, and then the end, unless it never comes.
pub(crate) struct Sent {
    data: Option<Bytes>,
    ends: bool,
}

impl Sent {
    pub(crate) fn bytes(data: impl Into<Bytes>) -> Self {
        let data = Some(data.into());
        Self { data, ends: true }
    }

    pub(crate) fn message(message: &impl Message) -> Self {
        Self::bytes(framed(&message.encode_to_vec()))
    }

    /// Nothing, for ever.
    pub(crate) fn nothing_yet() -> Self {
        Self {
            data: None,
            ends: false,
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// A message as it is put into a body.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.to_vec()
}

/// Serves the gRPC door; it ends with the handle.
pub(crate) async fn serve(door: &Door) -> (String, AbortOnDropHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(forebay_api::serve_grpc(door.app.clone(), listener));
    (address, AbortOnDropHandle::new(served))
}

pub(crate) struct Stranger {
    address: String,
    requests: SendRequest<Sent>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<hyper::Result<()>>,
}

/// An answer that may still be under way.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) http_status: u16,
    pub(crate) head: HeaderMap,
    body: Incoming,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) data: Bytes,
    pub(crate) status: Status,
}

impl Stranger {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (requests, connection) = shaken.await.unwrap();
        Self {
            address: address.to_owned(),
            requests,
            connection: tokio::spawn(connection),
        }
    }

    /// Begins a call, and waits for the head of its answer.
    pub(crate) async fn begin(&self, path: &str, headers: &[(&str, &str)], sent: Sent) -> Answering {
        let mut request = Request::post(format!("http://{}{path}", self.address)).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone();
        requests.ready().await.unwrap();
        let answer = timeout(PATIENCE, requests.send_request(request.body(sent).unwrap()));
        let (head, body) = answer.await.expect("an answer in time").unwrap().into_parts();
        Answering {
            http_status: head.status.as_u16(),
            head: head.headers,
            body,
        }
    }

    pub(crate) async fn call(&self, path: &str, headers: &[(&str, &str)], sent: Sent) -> Answered {
        self.begin(path, headers, sent).await.end().await
    }
}

impl Answering {
    /// The next messages that come; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let frame = timeout(PATIENCE, self.body.frame())
            .await
            .expect("a frame in time")?;
        frame.unwrap().into_data().ok()
    }

    pub(crate) async fn end(self) -> Answered {
        let collected = timeout(PATIENCE, self.body.collect())
            .await
            .expect("an end in time");
        let collected = collected.unwrap();
        let trailers = collected.trailers().cloned();
        let of_trailers = trailers.as_ref().and_then(Status::from_header_map);
        Answered {
            data: collected.to_bytes(),
            status: of_trailers
                .or_else(|| Status::from_header_map(&self.head))
                .unwrap(),
        }
    }
}
