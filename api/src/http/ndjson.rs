//! A batch as a stream of lines: one result line for each task, in order, for as long as the client goes on.
//! Bounded: so many lines and bytes are under way, and then the client is not read from until the broker has
//! confirmed some and the client has read their results.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use forebay_core::TraceParent;
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    App,
    error::{ApiError, Code, Result},
    http::batch::{ItemBody, submit_one},
    ops::submit::Accepted,
};

/// How many results are written together, where they are there.
const RESULTS_AT_ONCE: usize = 64;
/// The unit in which bytes under way are counted.
const BLOCK_BYTES: usize = 1_024;

/// Answers with a line for each line.
pub(crate) fn stream(app: &App, body: Body, traceparent: Option<TraceParent>) -> Result<Response> {
    let place = Arc::clone(&app.places.uploads)
        .try_acquire_owned()
        .map_err(|_| ApiError::of(Code::Overloaded))?;
    let lines = Lines::new(app.clone(), body, place);
    let results = results(app.clone(), lines, traceparent);
    let chunks = results
        .ready_chunks(RESULTS_AT_ONCE)
        .map(|lines| Ok::<_, std::convert::Infallible>(Bytes::from(lines.concat())));
    let kind = HeaderValue::from_static("application/x-ndjson");
    let body = Body::from_stream(chunks);
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, kind)], body).into_response())
}

fn results(app: App, lines: Lines, traceparent: Option<TraceParent>) -> impl Stream<Item = Vec<u8>> {
    let at_once = app.bounds.lines;
    stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((line, lines))
    })
    .map(move |line| {
        let app = app.clone();
        let traceparent = traceparent.clone();
        async move {
            let result: Result<Accepted> = match line.text {
                Ok(text) => submit_one(app, text, traceparent).await,
                Err(error) => Err(error),
            };
            drop(line.room);
            write(line.index, &result)
        }
    })
    .buffered(at_once)
}

fn write(index: u64, result: &Result<Accepted>) -> Vec<u8> {
    let mut text = serde_json::to_vec(&ItemBody::of(index, result)).unwrap_or_default();
    text.push(b'\n');
    text
}

/// A line that is not empty, with the room that it takes.
struct Line {
    index: u64,
    text: Result<Bytes>,
    room: Option<OwnedSemaphorePermit>,
}

async fn room_for(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let blocks = u32::try_from(bytes / BLOCK_BYTES + 1).unwrap_or(u32::MAX);
    Arc::clone(room).acquire_many_owned(blocks).await.ok()
}

/// Splits a body into lines. After an error of the body itself there are no more.
struct Lines {
    app: App,
    body: BodyDataStream,
    index: u64,
    /// The beginning of a line whose end has not come.
    partial: BytesMut,
    /// Whether the line that is read is too long, and dropped up to its end.
    skipping: bool,
    ready: VecDeque<(u64, Result<Bytes>)>,
    ended: bool,
    room: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl Lines {
    fn new(app: App, body: Body, place: OwnedSemaphorePermit) -> Self {
        let blocks = app.bounds.lines_bytes.max(app.bounds.line_bytes) / BLOCK_BYTES + 1;
        Self {
            app,
            body: body.into_data_stream(),
            index: 0,
            partial: BytesMut::new(),
            skipping: false,
            ready: VecDeque::new(),
            ended: false,
            room: Arc::new(Semaphore::new(blocks)),
            _place: place,
        }
    }

    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some((index, text)) = self.ready.pop_front() {
                let room = room_for(&self.room, text.as_ref().map_or(0, Bytes::len)).await;
                return Some(Line { index, text, room });
            }
            if self.ended {
                return None;
            }
            self.read_on().await;
        }
    }

    async fn read_on(&mut self) {
        let stop = self.app.stop.clone();
        tokio::select! {
            () = stop.cancelled() => self.end_with(ApiError::new(
                Code::ShuttingDown,
                "the server is shutting down: this line and all after it were not accepted",
            )),
            chunk = timeout(self.app.bounds.body, self.body.next()) => match chunk {
                Ok(Some(Ok(chunk))) => self.split(chunk),
                Ok(Some(Err(_))) => self.ended = true,
                Ok(None) => self.finish(),
                Err(_) => self.end_with(ApiError::new(
                    Code::BodyTimeout,
                    "nothing came for too long: this line and all after it were not accepted",
                )),
            },
        }
    }

    fn split(&mut self, mut chunk: Bytes) {
        while let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
            let rest = chunk.split_off(end + 1);
            chunk.truncate(end);
            self.take(&chunk);
            self.close();
            chunk = rest;
        }
        self.take(&chunk);
    }

    fn take(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.partial.len() + part.len() > self.app.bounds.line_bytes {
            self.skipping = true;
            self.partial = BytesMut::new();
            let detail = format!("a line has at most {} bytes", self.app.bounds.line_bytes);
            let refused = Err(ApiError::new(Code::BodyTooLarge, detail));
            self.ready.push_back((self.index, refused));
            return;
        }
        self.partial.extend_from_slice(part);
    }

    /// A line has ended. An empty one counts, and has no result.
    fn close(&mut self) {
        let line = self.partial.split().freeze();
        if !self.skipping && !line.iter().all(u8::is_ascii_whitespace) {
            self.ready.push_back((self.index, Ok(line)));
        }
        self.skipping = false;
        self.index += 1;
    }

    fn finish(&mut self) {
        self.close();
        self.ended = true;
    }

    fn end_with(&mut self, error: ApiError) {
        self.ready.push_back((self.index, Err(error)));
        self.ended = true;
    }
}
