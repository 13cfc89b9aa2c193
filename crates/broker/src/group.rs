//! Group commit: what many callers submit at the same moment is published together.
//!
//! A durable publish costs a sync of the broker's disk, and a batch costs no more syncs than one message. So
//! whatever arrives while a batch is on its way makes up the next one. A lone submission waits for nobody: with no
//! batch under way it is published at once. What its caller has stopped waiting for is not published at all.
//!
//! Who has many at once hands them in at once, and gets one answer: no task of a stream costs a wake-up of its own.

use std::sync::Arc;

use forebay_core::Submission;
use futures::{StreamExt, future::BoxFuture, future::join_all, stream::FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

use crate::{Broker, Message, PublishError};

/// The most messages that are published together: one bundle.
const BATCH_MAX: usize = crate::bundle::TASKS_MAX;
/// The most bytes of payload that are published together, unless a single message has more.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many batches are on their way at once.
const IN_FLIGHT_MAX: usize = 2;
/// With a batch on its way a further one must be worth it: it waits until it has that many messages, or until the
/// other returns.
const WORTHWHILE: usize = 100;
/// How many submissions wait in line. Past it, callers are refused.
const LINE_MAX: usize = 16_384;

/// What became of one submission.
type Published = Result<(), PublishError>;

/// What was handed in together, and whom to tell.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is the usual case, and a box would cost an allocation each"
)]
enum Waiting {
    One(Submission, oneshot::Sender<Published>),
    Many(Vec<Submission>, oneshot::Sender<Vec<Published>>),
}

/// Whom to tell of how many.
enum Reply {
    One(oneshot::Sender<Published>),
    Many(usize, oneshot::Sender<Vec<Published>>),
}

impl Waiting {
    /// Whether its caller waits no longer: nobody was promised anything then, and the broker's time is better spent on
    /// those who still wait.
    fn is_given_up(&self) -> bool {
        match self {
            Self::One(_, reply) => reply.is_closed(),
            Self::Many(_, reply) => reply.is_closed(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(tasks, _) => tasks.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::One(task, _) => bytes_of(task),
            Self::Many(tasks, _) => tasks.iter().map(bytes_of).sum(),
        }
    }
}

fn bytes_of(task: &Submission) -> usize {
    task.payload.as_bytes().len()
}

/// Hands submissions to the group. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Submitter {
    line: mpsc::Sender<InLine>,
    /// A place for each submission that waits in line.
    places: Arc<Semaphore>,
}

impl Submitter {
    /// Publishes a submission together with others. `Ok` is durable.
    ///
    /// # Errors
    /// [`PublishError::Full`] at once where the line is full, else what the broker says.
    pub async fn submit(&self, task: Submission) -> Published {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|error| refused(&error))?;
        let (reply, answer) = oneshot::channel();
        self.enqueue(Waiting::One(task, reply), place)?;
        answer.await.map_err(|_| stopped())?
    }

    /// Publishes many; one result for each, in order. Waits for places in the line: for batches and streams, whose
    /// senders are held back meanwhile.
    pub async fn submit_all(&self, tasks: Vec<Submission>) -> Vec<Published> {
        let count = tasks.len();
        let mut parts = split(tasks);
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return self.submit_part(only).await;
        }
        let mut results = Vec::with_capacity(count);
        for part in join_all(parts.into_iter().map(|part| self.submit_part(part))).await {
            results.extend(part);
        }
        results
    }

    /// As [`Self::submit_all`], of so many as one batch has room for.
    async fn submit_part(&self, tasks: Vec<Submission>) -> Vec<Published> {
        let count = tasks.len();
        let submitted = async {
            let wanted = u32::try_from(count).unwrap_or(u32::MAX);
            let place = Arc::clone(&self.places).acquire_many_owned(wanted).await;
            let (reply, answer) = oneshot::channel();
            self.enqueue(Waiting::Many(tasks, reply), place.map_err(|_| stopped())?)?;
            answer.await.map_err(|_| stopped())
        };
        submitted.await.unwrap_or_else(|error| vec![Err(error); count])
    }

    fn enqueue(&self, waiting: Waiting, place: OwnedSemaphorePermit) -> Result<(), PublishError> {
        // There is a slot for each place, so this fails only where nobody takes them any more.
        self.line
            .try_send(InLine {
                waiting,
                _place: place,
            })
            .map_err(|_| stopped())
    }
}

fn refused(error: &TryAcquireError) -> PublishError {
    match error {
        TryAcquireError::NoPermits => PublishError::Full,
        TryAcquireError::Closed => stopped(),
    }
}

fn stopped() -> PublishError {
    PublishError::Unavailable("this process is shutting down".to_owned())
}

/// Cuts what was handed in together to the size of batches.
fn split(tasks: Vec<Submission>) -> Vec<Vec<Submission>> {
    let bytes: usize = tasks.iter().map(bytes_of).sum();
    if tasks.len() <= BATCH_MAX && bytes <= BATCH_BYTES_MAX {
        return if tasks.is_empty() { Vec::new() } else { vec![tasks] };
    }
    let mut parts: Vec<Vec<Submission>> = Vec::new();
    let mut bytes = 0;
    for task in tasks {
        bytes += bytes_of(&task);
        match parts.last_mut() {
            Some(part) if part.len() < BATCH_MAX && bytes <= BATCH_BYTES_MAX => part.push(task),
            _ => {
                bytes = bytes_of(&task);
                parts.push(vec![task]);
            }
        }
    }
    parts
}

/// Something in line, with its places.
struct InLine {
    waiting: Waiting,
    _place: OwnedSemaphorePermit,
}

/// What is published next.
#[derive(Default)]
struct Batch {
    waiting: Vec<Waiting>,
    count: usize,
    bytes: usize,
}

impl Batch {
    fn has_room_for(&self, next: &Waiting) -> bool {
        self.count == 0
            || (self.count + next.count() <= BATCH_MAX && self.bytes + next.bytes() <= BATCH_BYTES_MAX)
    }

    fn push(&mut self, next: Waiting) {
        self.count += next.count();
        self.bytes += next.bytes();
        self.waiting.push(next);
    }

    /// Those at the front have waited longest.
    fn drop_given_up(&mut self) {
        if !self.waiting.iter().any(Waiting::is_given_up) {
            return;
        }
        let waiting = std::mem::take(self).waiting;
        waiting
            .into_iter()
            .filter(|waiting| !waiting.is_given_up())
            .for_each(|waiting| self.push(waiting));
    }

    fn into_messages(self) -> (Vec<Message>, Vec<Reply>) {
        let mut messages = Vec::with_capacity(self.count);
        let mut replies = Vec::with_capacity(self.waiting.len());
        for waiting in self.waiting {
            match waiting {
                Waiting::One(task, reply) => {
                    messages.push(Message::Submission(task));
                    replies.push(Reply::One(reply));
                }
                Waiting::Many(tasks, reply) => {
                    replies.push(Reply::Many(tasks.len(), reply));
                    messages.extend(tasks.into_iter().map(Message::Submission));
                }
            }
        }
        (messages, replies)
    }
}

/// A batch on its way.
type Publishing = BoxFuture<'static, ()>;

/// The group itself: a loop to be driven.
pub struct GroupCommit {
    broker: Arc<dyn Broker>,
    line: mpsc::Receiver<InLine>,
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
            Submitter {
                line: sender,
                places: Arc::new(Semaphore::new(LINE_MAX)),
            },
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
        let mut batch = Batch::default();
        let mut open = true;
        loop {
            self.fill(&mut batch);
            batch.drop_given_up();
            if batch.count > 0 && self.may_publish(batch.count) {
                let full = std::mem::take(&mut batch);
                self.in_flight.push(publish(Arc::clone(&self.broker), full));
                continue;
            }
            if !open && batch.count == 0 && self.in_flight.is_empty() {
                return;
            }
            tokio::select! {
                Some(()) = self.in_flight.next() => {}
                next = self.line.recv(), if open && batch.count < BATCH_MAX && self.carried.is_none() => match next {
                    Some(next) => self.carried = Some(next.waiting),
                    None => open = false,
                },
            }
        }
    }

    fn may_publish(&self, size: usize) -> bool {
        match self.in_flight.len() {
            0 => true,
            under_way => under_way < IN_FLIGHT_MAX && size >= WORTHWHILE,
        }
    }

    /// Takes what waits in line, as far as it fits.
    fn fill(&mut self, batch: &mut Batch) {
        while batch.count < BATCH_MAX {
            let from_line = || self.line.try_recv().ok().map(|next| next.waiting);
            let Some(next) = self.carried.take().or_else(from_line) else {
                return;
            };
            if next.is_given_up() {
                continue;
            }
            if !batch.has_room_for(&next) {
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

fn publish(broker: Arc<dyn Broker>, batch: Batch) -> Publishing {
    Box::pin(async move {
        let (messages, replies) = batch.into_messages();
        let mut results = broker.publish(messages).await.into_iter();
        for reply in replies {
            // A caller that went away does not want to know; and one without a result hears that its reply is gone.
            match reply {
                Reply::One(reply) => drop(results.next().map(|result| reply.send(result))),
                Reply::Many(count, reply) => drop(reply.send(results.by_ref().take(count).collect())),
            }
        }
    })
}

#[cfg(test)]
mod tests;
