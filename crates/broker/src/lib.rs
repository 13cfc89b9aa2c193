//! The port to the broker: where ready tasks wait.
//!
//! Narrow on purpose. There is no delay, no dead-letter queue, no retry count and no priority of a message here:
//! brokers do these differently, and by design such tasks wait in the store. Every implementation passes
//! `conformance`.

pub mod bundle;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod group;
pub mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_core::{Lane, Ready, Signal, Submission, Timestamp};
use futures::stream::BoxStream;

pub use error::{BrokerError, PublishError, Result};
pub use group::{GroupCommit, Submitter};

/// What is published, and where: submissions go to `submit`, many in one [bundle]; a recorded task that is ready goes to
/// `ready.<lane>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A task that was accepted, ready or not: for the recorder.
    Submission(Submission),
    /// A recorded task that is ready: for the executors of its lane. The store knows it; so where the broker loses it,
    /// it is published again.
    Ready(Ready),
}

impl Message {
    /// The lane it belongs to.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        match self {
            Self::Submission(task) => &task.lane,
            Self::Ready(task) => &task.lane,
        }
    }

    /// The first word of its subject.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Submission(_) => "submit",
            Self::Ready(_) => "ready",
        }
    }
}

/// What is consumed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Every submission, ready or not, of all lanes: what the recorder reads, and nobody else.
    Submissions,
    /// What is ready in one lane, first in, first out: what executors read. It has only [`Message::Ready`].
    Lane(Lane),
}

/// Names a delivery to the broker that made it. Several deliveries may have one name, where they came in one message;
/// each is answered nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token(pub Bytes);

/// A message that can't be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Where it was published.
    pub subject: String,
    /// As it came.
    pub body: Bytes,
    /// Why not.
    pub reason: String,
}

/// A message that the broker handed out. Until it is acknowledged or handed back, it is nobody else's; when its
/// consumer is gone or slow, the broker hands it out again.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// What it says.
    pub message: std::result::Result<Message, Undecodable>,
    /// When it was published, by the broker's clock.
    pub published_at: Timestamp,
    /// To acknowledge it by.
    pub token: Token,
}

/// A running consumption.
pub struct Subscription {
    /// Receives.
    pub consumer: Box<dyn Consumer>,
    /// Acknowledges; may be used while the consumer waits.
    pub acks: Arc<dyn Acknowledge>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// The receiving side of a subscription.
#[async_trait]
pub trait Consumer: Send {
    /// Waits up to `wait` for a message, and returns what is there then, up to `max`; nothing, if nothing came.
    /// Never hands out more than `max`, and leaves the rest to others. Answers within `wait` and a second, or
    /// fails: a caller may take longer silence for a deaf subscription, drop it and consume anew. Dropping
    /// the returned future may delay the messages it would have returned, and loses none.
    ///
    /// # Errors
    /// Where the subscription is broken. Consume anew.
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>>;

    /// Ends in good order, within a second or so: what the broker still sends, and was not handed out, goes back to it
    /// at once. A consumer that is dropped without this may leave such messages waiting until the broker gives up waiting
    /// for their acknowledgement.
    async fn close(&mut self) {}
}

/// The answering side of a subscription.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// These are done. Losing this only means that they are delivered again.
    async fn ack(&self, tokens: Vec<Token>) -> Result<()>;

    /// These are left to the store: the broker forgets them, and the dispatcher publishes them again later. A broker
    /// whose log is the store must not hand them out again at once.
    async fn leave(&self, tokens: Vec<Token>) -> Result<()> {
        self.ack(tokens).await
    }

    /// These are not done: hand them out again, at once, to anyone.
    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()>;
}

/// How much of a lane is in the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages that wait to be delivered.
    pub waiting: u64,
    /// Messages that were delivered and neither acknowledged nor handed back.
    pub delivered: u64,
}

impl Depth {
    /// Whether the lane holds nothing at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.waiting == 0 && self.delivered == 0
    }
}

/// A broker. Cheap to share; reconnects by itself, with backoff and jitter.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Publishes a batch; one result for each message, in order. `Ok` of a submission is durable: it is given only
    /// after the broker confirmed that it holds it as safely as it is set up to. `Ok` of what is ready says that the
    /// broker has it, and not that it keeps it through a crash: it is in the store. Lanes not seen before are made
    /// first. A message that was refused may still have been taken if the refusal is `Unavailable`.
    ///
    /// Answers within its publish timeout, whatever the broker does.
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>>;

    /// Begins to consume. Several subscriptions to one source, in any processes, share its messages.
    async fn consume(&self, source: Source) -> Result<Subscription>;

    /// How much is in a lane. Zero where the lane was never used; an error, never zero, where it is not known.
    async fn depth(&self, lane: &Lane) -> Result<Depth>;

    /// Whether there are submissions that are not yet known to be recorded, and how many messages they came in.
    async fn unrecorded(&self) -> Result<u64>;

    /// Tells all processes that listen at this moment. Best effort.
    async fn signal(&self, signal: Signal) -> Result<()>;

    /// Listens. Signals may be missed while the connection is down or the listener is slow.
    async fn signals(&self) -> Result<BoxStream<'static, Signal>>;

    /// Forgets messages that nobody needs any more. The dispatcher calls this every second or so.
    async fn trim(&self) -> Result<()>;

    /// Whether the broker can take a message now.
    async fn check(&self) -> Result<()>;
}
