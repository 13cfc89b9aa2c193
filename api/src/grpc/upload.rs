//! `SubmitTasks`: a stream of submissions, and an answer for each, in order. The twin of `http/ndjson.rs`, and as
//! bounded: so many messages and bytes are under way, and then the client is not read from until the broker has
//! confirmed some and the client has read their answers.

use forebay_core::TraceParent;
use forebay_proto::v1::{self, submit_tasks_response::Result as Outcome};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream, stream::FuturesOrdered};
use prost::Message;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tonic::{Status, Streaming};

use crate::{
    App,
    grpc::{convert, status, tasks::Answers},
    ops::submit::{Asked, submit_all},
};

/// How many messages are handed in together at most, where they are there.
const MESSAGES_AT_ONCE: usize = 500;

/// The largest message that tonic reads, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

type Answer = v1::SubmitTasksResponse;

/// Answers each submission. Where the stream breaks, that is the last of the answers.
pub(crate) fn answers(
    app: App,
    messages: Streaming<v1::SubmitTaskRequest>,
    traceparent: Option<TraceParent>,
    place: OwnedSemaphorePermit,
) -> Answers<Answer> {
    let room = Room {
        messages: app.bounds.lines,
        bytes: app.bounds.lines_bytes.max(MESSAGE_BYTES_MAX),
    };
    let ends = Instant::now() + app.bounds.connection_age;
    let upload = Upload {
        app,
        traceparent,
        messages,
        index: 0,
        held: None,
        under_way: FuturesOrdered::new(),
        room,
        ends,
        ended: false,
        broken: None,
        _place: place,
    };
    let groups = stream::unfold(upload, |mut upload| async move {
        let answers = upload.next().await?;
        Some((answers, upload))
    });
    let flat = groups.map_ok(|answers| stream::iter(answers).map(Ok));
    Box::pin(flat.try_flatten())
}

/// How much may be taken up.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    messages: usize,
    bytes: usize,
}

/// The answers to submissions that were handed in together, and the room that these took.
struct Answered {
    answers: Vec<Answer>,
    room: Room,
}

struct Upload {
    app: App,
    traceparent: Option<TraceParent>,
    messages: Streaming<v1::SubmitTaskRequest>,
    /// How many were handed in.
    index: u64,
    /// The next one, where it has come.
    held: Option<v1::SubmitTaskRequest>,
    under_way: FuturesOrdered<BoxFuture<'static, Answered>>,
    room: Room,
    /// When it ends for its age.
    ends: Instant,
    ended: bool,
    /// Why it ended, where that was a fault.
    broken: Option<Status>,
    _place: OwnedSemaphorePermit,
}

impl Upload {
    /// The next answers. Reads on while there is room for more; what waits to be read by the client takes room, too.
    async fn next(&mut self) -> Option<Result<Vec<Answer>, Status>> {
        loop {
            self.ended |= Instant::now() >= self.ends;
            while let Some(group) = self.next_group() {
                self.under_way.push_back(group);
            }
            if self.ended || self.held.is_some() {
                let Some(answered) = self.under_way.next().await else {
                    return self.broken.take().map(Err);
                };
                return Some(Ok(self.done(answered)));
            }
            let silent = self.ends.min(Instant::now() + self.app.bounds.body);
            tokio::select! {
                biased;
                Some(answered) = self.under_way.next() => return Some(Ok(self.done(answered))),
                () = self.app.stop.cancelled() => self.ended = true,
                message = timeout_at(silent, self.messages.next()) => self.take(message.ok().flatten()),
            }
        }
    }

    fn take(&mut self, message: Option<Result<v1::SubmitTaskRequest, Status>>) {
        match message {
            Some(Ok(message)) => self.held = Some(message),
            Some(Err(status)) => (self.ended, self.broken) = (true, Some(status)),
            None => self.ended = true,
        }
    }

    fn done(&mut self, answered: Answered) -> Vec<Answer> {
        self.room.messages += answered.room.messages;
        self.room.bytes += answered.room.bytes;
        answered.answers
    }

    /// Hands in the messages that are there, as far as there is room.
    fn next_group(&mut self) -> Option<BoxFuture<'static, Answered>> {
        let (mut group, mut taken) = (Vec::new(), Room::default());
        while group.len() < MESSAGES_AT_ONCE && self.room.messages > 0 {
            let bytes = self.held.as_ref().map_or(0, Message::encoded_len);
            let Some(message) = self.held.take_if(|_| bytes <= self.room.bytes) else {
                break;
            };
            self.room.messages -= 1;
            self.room.bytes -= bytes;
            taken.messages += 1;
            taken.bytes += bytes;
            group.push(Ok(convert::asked(message, self.traceparent.clone())));
            // Most have come already, and need neither a timer nor a wait.
            if !self.ended
                && let Some(message) = self.messages.next().now_or_never()
            {
                self.take(message);
            }
        }
        if group.is_empty() {
            return None;
        }
        let first = self.index;
        self.index += group.len() as u64;
        let app = self.app.clone();
        Some(Box::pin(async move {
            let answers = answer(&app, first, group).await;
            Answered { answers, room: taken }
        }))
    }
}

/// Accepts submissions, and says what became of each.
async fn answer(app: &App, first: u64, asked: Vec<crate::error::Result<Asked>>) -> Vec<Answer> {
    let results = submit_all(app, asked, convert::receipt).await;
    let outcomes = results.into_iter().map(|result| match result {
        Ok(receipt) => Outcome::Accepted(receipt),
        Err(error) => Outcome::Problem(status::problem(&error)),
    });
    (first..)
        .zip(outcomes)
        .map(|(index, outcome)| Answer {
            index,
            result: Some(outcome),
        })
        .collect()
}
