//! The connections that carry the load: `--connections` of them, each taking what is due as soon as it can.

mod connect;
mod grpc;
mod lines;
mod single;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub(crate) use self::connect::Target;
use crate::{
    feed::{Feed, Shot},
    shape::Shape,
    tally::{Answer, Tally},
};

/// How many tasks are written to a stream together.
const CHUNK_TASKS: usize = 256;
/// A stream on which nothing was sent for so long is closed, well before a server would.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// How soon a refused task is sent again where the server does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How tasks are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// One POST for each task, over connections that are kept open
    Http,
    /// Streams of lines over HTTP, one line for each task
    Ndjson,
    /// Streams over gRPC, one message for each task
    Grpc,
}

/// What all connections of a thread share.
pub(crate) struct Context {
    /// What is due.
    pub(crate) feed: Feed,
    /// What happened.
    pub(crate) tally: Tally,
    /// What tasks look like.
    pub(crate) shape: Arc<Shape>,
    /// Where they go.
    pub(crate) target: Target,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// How often a refused task is sent again.
    pub(crate) retries_max: u32,
}

impl Context {
    /// Takes what is due, up to `most` tasks; none only when there will be no more.
    async fn take(&self, most: usize, taken: &mut Vec<Shot>) {
        self.feed.take(most, taken).await;
        self.tally.taken(taken.iter().map(|shot| shot.due));
    }

    /// A task was answered, or given up: counts it, or sends it again.
    fn settle(&self, shot: Shot, answer: Answer) {
        if let Answer::Refused { after, .. } = &answer
            && shot.refusals < self.retries_max
            && !self.feed.is_closed()
        {
            self.tally.retried();
            let again = Shot {
                refusals: shot.refusals + 1,
                ..shot
            };
            self.feed
                .again(again, Instant::now() + after.unwrap_or(RETRY_AFTER));
            return;
        }
        self.tally.settled(answer, shot.due.elapsed());
        self.feed.settled();
    }

    fn settle_all(&self, shots: impl IntoIterator<Item = Shot>, answer: &Answer) {
        for shot in shots {
            self.settle(shot, answer.clone());
        }
    }
}

/// Opens the connections, as tasks of the present runtime; they end when the feed is closed.
pub(crate) fn open(transport: Transport, connections: usize, context: &Arc<Context>) -> JoinSet<()> {
    let mut open = JoinSet::new();
    for _ in 0..connections {
        let context = Arc::clone(context);
        match transport {
            Transport::Http => open.spawn(single::run(context)),
            Transport::Ndjson | Transport::Grpc => open.spawn(streams(transport, context)),
        };
    }
    open
}

/// Submits over one stream after another until there is no more to submit.
async fn streams(transport: Transport, context: Arc<Context>) {
    let mut first = Vec::with_capacity(CHUNK_TASKS);
    loop {
        first.clear();
        context.take(CHUNK_TASKS, &mut first).await;
        if first.is_empty() {
            return;
        }
        let pending = Pending::default();
        pending.sent(&first);
        let ended = match transport {
            Transport::Grpc => grpc::stream(&context, &pending, &first).await,
            _ => lines::stream(&context, &pending, &first).await,
        };
        let why = match ended {
            Ok(()) => Answer::Unanswered("the stream ended early".to_owned()),
            Err(answer) => answer,
        };
        context.settle_all(pending.rest(), &why);
    }
}

/// What was sent on a stream and not answered yet, in order.
#[derive(Debug, Default)]
struct Pending(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    shots: VecDeque<Shot>,
    /// The index of the first of these.
    first: u64,
    /// Since when there has been no answer, though one is awaited.
    since: Option<Instant>,
}

impl Pending {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is about to be sent.
    fn sent(&self, shots: &[Shot]) {
        let mut waiting = self.waiting();
        waiting.since.get_or_insert_with(Instant::now);
        waiting.shots.extend(shots);
    }

    /// Takes out the task that the answer with this index is for. `None` where there is none.
    fn answered(&self, index: u64) -> Option<Shot> {
        let mut waiting = self.waiting();
        if index != waiting.first {
            return None;
        }
        let shot = waiting.shots.pop_front()?;
        waiting.first += 1;
        waiting.since = (!waiting.shots.is_empty()).then(Instant::now);
        Some(shot)
    }

    /// Since when there has been no answer.
    fn silent_since(&self) -> Option<Instant> {
        self.waiting().since
    }

    /// Takes out all that were not answered.
    fn rest(&self) -> VecDeque<Shot> {
        std::mem::take(&mut self.waiting().shots)
    }

    /// Ends when an answer has been awaited for too long.
    async fn silence(&self, timeout: Duration) {
        loop {
            let left = match self.silent_since() {
                Some(since) => timeout.saturating_sub(since.elapsed()),
                None => timeout,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// The server refuses for now.
fn refused(why: impl Into<String>, after: Option<Duration>) -> Answer {
    let why = why.into();
    Answer::Refused { why, after }
}

/// The innermost cause, which is what says something.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
