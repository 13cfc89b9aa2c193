//! Streams of NDJSON: a line for each task, and a line for each answer, in order.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::handshake,
};
use serde::Deserialize;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use uuid::Uuid;

use super::{CHUNK_TASKS, Context, Pending, STREAM_IDLE, cause, refused, single};
use crate::{feed::Shot, tally::Answer};

/// How many chunks wait to be written.
const CHUNKS: usize = 4;

/// One stream, from its first tasks to its end. An error is what all that were not answered get.
pub(super) async fn stream(context: &Context, pending: &Pending, first: &[Shot]) -> Result<(), Answer> {
    let failed = |error: &dyn std::error::Error| Answer::Failed(error.to_string());
    let opened = timeout(context.timeout, context.target.connect()).await;
    let wire = opened
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) = handshake(wire).await.map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let (chunks, body) = mpsc::channel::<Bytes>(CHUNKS);
    let body = ReceiverStream::new(body).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut request = Request::new(StreamBody::new(body));
    *request.method_mut() = Method::POST;
    let path = format!("{}/v1/tasks/batch", context.target.path);
    *request.uri_mut() = path
        .parse()
        .map_err(|_| Answer::Failed("no such path".to_owned()))?;
    *request.headers_mut() = single::headers(&context.target.authority, "application/x-ndjson");
    let exchange = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| Answer::Unanswered(cause(&error)))?;
        read(context, pending, response).await
    };
    let writing = write(context, pending, first, chunks);
    tokio::pin!(exchange, writing);
    let mut written = false;
    let outcome = loop {
        tokio::select! {
            outcome = &mut exchange => break outcome,
            () = &mut writing, if !written => written = true,
            () = pending.silence(context.timeout) => {
                break Err(Answer::Unanswered("no answer in time".to_owned()));
            },
        }
    };
    connection.abort();
    outcome
}

/// Writes what is due, until there is no more, or nothing for a while.
async fn write(context: &Context, pending: &Pending, first: &[Shot], chunks: mpsc::Sender<Bytes>) {
    let mut shots = first.to_vec();
    while !shots.is_empty() {
        let mut chunk = Vec::with_capacity(shots.len() * (context.shape.bytes() + 1));
        for shot in &shots {
            context.shape.write(shot.number, &mut chunk);
            chunk.push(b'\n');
        }
        if chunks.send(chunk.into()).await.is_err() {
            return;
        }
        shots.clear();
        if timeout(STREAM_IDLE, context.take(CHUNK_TASKS, &mut shots))
            .await
            .is_err()
        {
            return;
        }
        pending.sent(&shots);
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    index: u64,
    id: Option<Uuid>,
    #[serde(borrow)]
    error: Option<Problem<'a>>,
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(default)]
    status: u16,
    #[serde(default)]
    code: &'a str,
}

impl Line<'_> {
    fn answer(&self) -> Answer {
        match (&self.id, &self.error) {
            (Some(id), _) => Answer::Accepted(id.into_bytes()),
            (None, Some(problem)) => {
                let why = format!("{} {}", problem.status, problem.code);
                match problem.status {
                    429 | 503 => refused(why, None),
                    _ => Answer::Failed(why),
                }
            }
            (None, None) => Answer::Unanswered("neither an id nor an error".to_owned()),
        }
    }
}

/// Reads answers to the end of the stream.
async fn read(
    context: &Context,
    pending: &Pending,
    response: http::Response<Incoming>,
) -> Result<(), Answer> {
    let status = response.status();
    let after = single::retry_after(response.headers());
    let mut body = response.into_body();
    if !status.is_success() {
        let text = body.collect().await.map(http_body_util::Collected::to_bytes);
        return Err(single::answer(status, after, &text.unwrap_or_default()));
    }
    debug_assert_eq!(status, StatusCode::ACCEPTED);
    let mut partial = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Answer::Unanswered(cause(&error)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        partial.extend_from_slice(&data);
        while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
            let line = partial.split_to(end + 1);
            settle(context, pending, &line)?;
        }
    }
    Ok(())
}

fn settle(context: &Context, pending: &Pending, line: &[u8]) -> Result<(), Answer> {
    let wrong = || Answer::Unanswered("an answer that cannot be read".to_owned());
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| wrong())?;
    match pending.answered(line.index) {
        Some(shot) => context.settle(shot, line.answer()),
        // Says why the stream ends, and belongs to no line.
        None if line.error.is_some() => return Err(line.answer()),
        None => return Err(wrong()),
    }
    Ok(())
}
