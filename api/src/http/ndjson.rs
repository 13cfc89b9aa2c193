//! A batch as a stream of lines: one result line for each task, in order, for as long as the client goes on.
//! Bounded: so many lines and bytes are under way, and then the client is not read from until the broker has
//! confirmed some and the client has read their results.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Buf, Bytes, BytesMut};
use forebay_core::TraceParent;
use futures::{StreamExt, future::BoxFuture, stream, stream::FuturesOrdered};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    App,
    error::{ApiError, Code, Result},
    http::{
        batch::{Receipt, traced, write_item},
        submission,
    },
    ops::submit::submit_all,
};

/// How many lines are handed in together at most, where they are there.
const LINES_AT_ONCE: usize = 500;
/// About how long the line of a result is.
const RESULT_BYTES: usize = 96;

/// Answers with a line for each line.
pub(crate) fn stream(app: &App, body: Body, traceparent: Option<TraceParent>) -> Result<Response> {
    let place = Arc::clone(&app.places.uploads)
        .try_acquire_owned()
        .map_err(|_| ApiError::of(Code::Overloaded))?;
    let upload = Upload {
        app: app.clone(),
        traceparent,
        lines: Lines::new(app.clone(), body, place),
        under_way: FuturesOrdered::new(),
        room: Room {
            lines: app.bounds.lines,
            bytes: app.bounds.lines_bytes.max(app.bounds.line_bytes),
        },
    };
    let results = stream::unfold(upload, |mut upload| async move {
        let results = upload.next().await?;
        Some((Ok::<_, std::convert::Infallible>(results), upload))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    let body = Body::from_stream(results);
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, kind)], body).into_response())
}

/// How much may be taken up.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    lines: usize,
    bytes: usize,
}

/// The results of lines that were handed in together, and the room that these took.
struct Answered {
    results: Bytes,
    room: Room,
}

/// A stream of lines in, and a stream of results out.
struct Upload {
    app: App,
    traceparent: Option<TraceParent>,
    lines: Lines,
    under_way: FuturesOrdered<BoxFuture<'static, Answered>>,
    room: Room,
}

impl Upload {
    /// The next results. Reads on while there is room for more lines; what waits to be read by the client takes room,
    /// too.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            while let Some(group) = self.next_group() {
                self.under_way.push_back(group);
            }
            if !self.lines.may_read() {
                let answered = self.under_way.next().await?;
                return Some(self.done(answered));
            }
            tokio::select! {
                biased;
                Some(answered) = self.under_way.next() => return Some(self.done(answered)),
                () = self.lines.read_on() => {}
            }
        }
    }

    fn done(&mut self, answered: Answered) -> Bytes {
        self.room.lines += answered.room.lines;
        self.room.bytes += answered.room.bytes;
        answered.results
    }

    /// Hands in the lines that were read, as far as there is room.
    fn next_group(&mut self) -> Option<BoxFuture<'static, Answered>> {
        let mut group = Vec::new();
        let mut taken = Room::default();
        while let Some((_, text)) = self.lines.ready.front() {
            let bytes = text.as_ref().map_or(0, Bytes::len);
            if group.len() >= LINES_AT_ONCE || self.room.lines == 0 || self.room.bytes < bytes {
                break;
            }
            self.room.lines -= 1;
            self.room.bytes -= bytes;
            taken.lines += 1;
            taken.bytes += bytes;
            group.extend(self.lines.ready.pop_front());
        }
        if group.is_empty() {
            return None;
        }
        let (app, traceparent) = (self.app.clone(), self.traceparent.clone());
        Some(Box::pin(async move {
            let results = answer(&app, group, &traceparent).await;
            Answered { results, room: taken }
        }))
    }
}

/// Accepts lines, and writes their results.
async fn answer(app: &App, group: Vec<(u64, Result<Bytes>)>, traceparent: &Option<TraceParent>) -> Bytes {
    let indices: Vec<u64> = group.iter().map(|(index, _)| *index).collect();
    let parse =
        |(_, text): (u64, Result<Bytes>)| traced(text.and_then(|text| submission::parse(&text)), traceparent);
    let asked = group.into_iter().map(parse).collect();
    let results = submit_all(app, asked, Receipt::of).await;
    let mut text = Vec::with_capacity(results.len() * RESULT_BYTES);
    for (index, result) in indices.into_iter().zip(&results) {
        write_item(&mut text, index, result);
        text.push(b'\n');
    }
    text.into()
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
    _place: OwnedSemaphorePermit,
}

impl Lines {
    fn new(app: App, body: Body, place: OwnedSemaphorePermit) -> Self {
        Self {
            app,
            body: body.into_data_stream(),
            index: 0,
            partial: BytesMut::new(),
            skipping: false,
            ready: VecDeque::new(),
            ended: false,
            _place: place,
        }
    }

    /// Whether there is more to come, and all that came was handed in.
    fn may_read(&self) -> bool {
        !self.ended && self.ready.is_empty()
    }

    /// Reads a piece of the body. May be given up at any time, and nothing is lost.
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

    /// A line that came whole stays a part of its chunk; only what spans chunks is copied.
    fn split(&mut self, mut chunk: Bytes) {
        while let Some(end) = memchr::memchr(b'\n', &chunk) {
            let line = chunk.split_to(end);
            chunk.advance(1);
            if self.partial.is_empty() && !self.skipping && line.len() <= self.app.bounds.line_bytes {
                self.push(line);
            } else {
                self.take(&line);
                self.close();
            }
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
        let skipped = std::mem::take(&mut self.skipping);
        self.push(if skipped { Bytes::new() } else { line });
    }

    fn push(&mut self, line: Bytes) {
        if !line.iter().all(u8::is_ascii_whitespace) {
            self.ready.push_back((self.index, Ok(line)));
        }
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
