//! Group commit: what many callers submit at the same moment is published together.
//!
//! A durable publish costs a sync of the broker's disk, and a batch costs no more syncs than one message. So
//! whatever arrives while a batch is on its way makes up the next one. A lone submission waits for nobody: with no
//! batch under way it is published at once. What its caller has stopped waiting for is not published at all.

use std::sync::Arc;

use forebay_core::Submission;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};

use crate::{Broker, Message, PublishError};

/// The most messages that are published together.
const BATCH_MAX: usize = 1_000;
/// The most bytes of payload that are published together, unless a single message has more.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many batches are on their way at once.
const IN_FLIGHT_MAX: usize = 4;
/// With this many batches on their way a further one must be worth it: it waits until it has that many messages,
/// or until one of the others returns.
const EAGER_IN_FLIGHT: usize = 1;
const WORTHWHILE: usize = 100;
/// How many submissions wait in line. Past it, callers are refused.
const LINE_MAX: usize = 16_384;

type Reply = oneshot::Sender<Result<(), PublishError>>;

struct Waiting {
    task: Submission,
    reply: Reply,
}

impl Waiting {
    /// Whether its caller waits no longer: nobody was promised anything then, and the broker's time is better spent on
    /// those who still wait.
    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Hands submissions to the group. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Submitter {
    line: mpsc::Sender<Waiting>,
}

impl Submitter {
    /// Publishes a submission together with others. `Ok` is durable.
    ///
    /// # Errors
    /// [`PublishError::Full`] at once where the line is full, else what the broker says.
    pub async fn submit(&self, task: Submission) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.line
            .try_send(Waiting { task, reply })
            .map_err(|error| refused(&error))?;
        answer.await.map_err(|_| stopped())?
    }

    /// As [`Self::submit`], but waits for a place in the line: for streams, which have backpressure of their own.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn submit_patiently(&self, task: Submission) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.line
            .send(Waiting { task, reply })
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

fn refused(error: &mpsc::error::TrySendError<Waiting>) -> PublishError {
    match error {
        mpsc::error::TrySendError::Full(_) => PublishError::Full,
        mpsc::error::TrySendError::Closed(_) => stopped(),
    }
}

fn stopped() -> PublishError {
    PublishError::Unavailable("this process is shutting down".to_owned())
}

/// A batch on its way.
type Publishing = BoxFuture<'static, ()>;

/// The group itself: a loop to be driven.
pub struct GroupCommit {
    broker: Arc<dyn Broker>,
    line: mpsc::Receiver<Waiting>,
    in_flight: FuturesUnordered<Publishing>,
    /// The first of the next batch, where it did not fit into the last.
    carried: Option<Waiting>,
}

impl GroupCommit {
    /// A group in front of `broker`. Nothing is published until [`Self::run`] is driven.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>) -> (Submitter, Self) {
        let (sender, line) = mpsc::channel(LINE_MAX);
        (
            Submitter { line: sender },
            Self {
                broker,
                line,
                in_flight: FuturesUnordered::new(),
                carried: None,
            },
        )
    }

    /// Publishes until every [`Submitter`] is gone and everything they handed in is answered.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        let mut open = true;
        loop {
            self.fill(&mut batch);
            // Those at the front have waited longest.
            batch.retain(|waiting| !waiting.is_given_up());
            if !batch.is_empty() && self.may_publish(batch.len()) {
                let full = std::mem::take(&mut batch);
                self.in_flight.push(publish(Arc::clone(&self.broker), full));
                continue;
            }
            if !open && batch.is_empty() && self.in_flight.is_empty() {
                return;
            }
            tokio::select! {
                Some(()) = self.in_flight.next() => {}
                next = self.line.recv(), if open && batch.len() < BATCH_MAX && self.carried.is_none() => match next {
                    Some(waiting) => batch.push(waiting),
                    None => open = false,
                },
            }
        }
    }

    fn may_publish(&self, size: usize) -> bool {
        let under_way = self.in_flight.len();
        under_way < EAGER_IN_FLIGHT || (under_way < IN_FLIGHT_MAX && size >= WORTHWHILE)
    }

    /// Takes what waits in line, as far as it fits.
    fn fill(&mut self, batch: &mut Vec<Waiting>) {
        let mut bytes: usize = batch
            .iter()
            .map(|waiting| waiting.task.payload.as_bytes().len())
            .sum();
        while batch.len() < BATCH_MAX {
            let Some(next) = self.carried.take().or_else(|| self.line.try_recv().ok()) else {
                return;
            };
            if next.is_given_up() {
                continue;
            }
            bytes += next.task.payload.as_bytes().len();
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                self.carried = Some(next);
                return;
            }
            batch.push(next);
        }
    }
}

impl std::fmt::Debug for GroupCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCommit")
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

fn publish(broker: Arc<dyn Broker>, batch: Vec<Waiting>) -> Publishing {
    Box::pin(async move {
        let (messages, replies): (Vec<Message>, Vec<Reply>) = batch
            .into_iter()
            .map(|waiting| (Message::Submission(waiting.task), waiting.reply))
            .unzip();
        let results = broker.publish(messages).await;
        for (reply, result) in replies.into_iter().zip(results) {
            // A caller that went away does not want to know.
            let _ = reply.send(result);
        }
    })
}

#[cfg(test)]
mod tests;
