//! Publishing: all of a batch is written, then all of it is awaited.
//!
//! A batch has a channel to itself while it is under way, since the client can't tell to which of several batches a
//! returned message belongs: it ties one to whatever confirmation comes next. For the same reason a channel with a
//! confirmation open is never used again.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use forebay_broker::{Message, PublishError, Source, wire};
use forebay_core::{Clock, Lane, SystemClock, Timestamp};
use futures::{FutureExt, future::BoxFuture, task::noop_waker_ref};
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    LOOK_TIMEOUT,
    connection::{Link, Live, close},
    failure::{Failure, within},
    topology::{Topology, lanes_of, routing_key},
};

/// The most messages that are under way on one channel.
const PART_MAX: usize = 1_000;
/// How many batches are under way at once, each on a channel of its own.
const BATCHES_IN_FLIGHT_MAX: usize = 16;
/// How long confirmations may still come once the server said that it takes nothing more.
const LAST_CONFIRMS: Duration = Duration::from_millis(200);
/// How long outcomes may still be put together once the connection is lost.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Stored on the disks of a majority before it is confirmed.
const PERSISTENT: u8 = 2;
/// The header with the time of publishing in microseconds: AMQP's own has seconds.
pub(crate) const PUBLISHED_AT: &str = "forebay-published-at";

type Outcome = Result<(), PublishError>;

/// How publishing one message went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Confirmed,
    /// No queue wanted it.
    Returned,
    /// A queue is full.
    Refused,
    Unknown(String),
}

/// A message as it goes over the wire.
struct Outgoing {
    routing_key: String,
    body: Bytes,
}

/// What publishes.
pub(crate) struct Publisher {
    link: Arc<Link>,
    topology: Arc<Topology>,
    timeout: Duration,
    batches: Semaphore,
    /// Channels with nothing under way, and the connections that they are of.
    idle: Mutex<Vec<(u64, Channel)>>,
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, topology: Arc<Topology>, timeout: Duration) -> Self {
        Self {
            link,
            topology,
            timeout,
            batches: Semaphore::new(BATCHES_IN_FLIGHT_MAX),
            idle: Mutex::default(),
        }
    }

    /// Publishes, and answers within the timeout: what is not confirmed by then counts as not taken.
    pub(crate) async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
        let live = match self.open_line() {
            Ok(live) => live,
            Err(why) => return vec![Err(unavailable(&why)); batch.len()],
        };
        let late = PublishError::Unavailable("no confirmation came in time".to_owned());
        let mut outcomes = vec![Err(late); batch.len()];
        let deadline = Instant::now() + self.timeout;
        // At the deadline the outcomes that are known by then remain.
        tokio::select! {
            _ = timeout_at(deadline, self.publish_all(&live, &batch, &mut outcomes)) => {}
            () = given_up(&live) => {}
        }
        outcomes
    }

    /// The connection, where there is one and the server reads from it.
    fn open_line(&self) -> Result<Arc<Live>, Failure> {
        let live = self.link.live()?;
        match live.blocked() {
            Some(reason) => Err(is_blocked(&reason)),
            None => Ok(live),
        }
    }

    async fn publish_all(&self, live: &Live, batch: &[Message], outcomes: &mut [Outcome]) {
        let lanes = lanes_of(batch);
        if let Err(error) = self.ensure(live, &lanes).await {
            outcomes.fill(Err(unavailable(&error)));
            return;
        }
        let outgoing: Vec<Outgoing> = batch
            .iter()
            .map(|message| Outgoing {
                routing_key: routing_key(message),
                body: wire::encode(message),
            })
            .collect();
        // One after the other: a lane is first in, first out.
        for (part, outcomes) in outgoing.chunks(PART_MAX).zip(outcomes.chunks_mut(PART_MAX)) {
            let fates = self.publish_part(live, part, &lanes).await;
            for (outcome, fate) in outcomes.iter_mut().zip(fates) {
                *outcome = fate.into();
            }
        }
    }

    /// Publishes up to [`PART_MAX`] messages; those that no queue wanted once more, after the queues are made again.
    async fn publish_part(&self, live: &Live, part: &[Outgoing], lanes: &[Lane]) -> Vec<Fate> {
        let all: Vec<&Outgoing> = part.iter().collect();
        let mut fates = self.attempt(live, &all).await;
        let returned: Vec<usize> = (0..part.len())
            .filter(|&index| fates[index] == Fate::Returned)
            .collect();
        if returned.is_empty() {
            return fates;
        }
        tracing::warn!(count = returned.len(), "a queue is gone, making it again");
        self.topology.forget_all();
        if self.ensure(live, lanes).await.is_ok() {
            let again: Vec<&Outgoing> = returned.iter().map(|&index| &part[index]).collect();
            let again = self.attempt(live, &again).await;
            for (index, fate) in returned.into_iter().zip(again) {
                fates[index] = fate;
            }
        }
        fates
    }

    async fn attempt(&self, live: &Live, part: &[&Outgoing]) -> Vec<Fate> {
        let _place = self.batches.acquire().await;
        let lease = match self.lease(live).await {
            Ok(lease) => lease,
            Err(error) => return vec![Fate::Unknown(error.to_string()); part.len()],
        };
        let exchange = self.topology.plan().exchange();
        // A little less than the whole, so that what was confirmed is not given up with what was not.
        let limit = self.timeout.mul_f64(0.9);
        let fates = send(live, &lease.channel, exchange, part, MANDATORY, limit).await;
        if !fates.iter().any(|fate| matches!(fate, Fate::Unknown(_))) {
            lease.give_back();
        }
        fates
    }

    /// A channel for one batch.
    async fn lease(&self, live: &Live) -> Result<Lease<'_>, Failure> {
        let lease = |channel| Lease {
            generation: live.generation(),
            channel,
            idle: &self.idle,
            reusable: false,
        };
        if let Some(channel) = self.take_idle(live.generation()) {
            return Ok(lease(channel));
        }
        let lease = lease(live.open_channel(self.timeout).await?);
        let selected = lease.channel.confirm_select(ConfirmSelectOptions::default());
        within(self.timeout, selected).await?;
        Ok(lease)
    }

    fn take_idle(&self, generation: u64) -> Option<Channel> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(of, channel)| *of == generation && channel.status().connected());
        idle.pop().map(|(_, channel)| channel)
    }

    async fn ensure(&self, live: &Live, lanes: &[Lane]) -> Result<(), Failure> {
        for lane in lanes {
            let source = Source::Lane(lane.clone());
            let ensured = self.topology.ensure(live, &source, self.timeout);
            tokio::select! {
                ensured = ensured => ensured?,
                () = live.until_blocked() => return Err(is_blocked(&live.blocked().unwrap_or_default())),
            }
        }
        Ok(())
    }

    /// Whether the server takes a message now: one is published to nobody, and confirmed.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let live = self.open_line()?;
        let checked = self.try_out(&live).await;
        // The server says so when it is given something, and the answers come in any order.
        match live.blocked() {
            Some(reason) => Err(is_blocked(&reason)),
            None => checked,
        }
    }

    async fn try_out(&self, live: &Live) -> Result<(), Failure> {
        self.topology
            .ensure(live, &Source::Submissions, LOOK_TIMEOUT)
            .await?;
        let trial = Outgoing {
            routing_key: "check".to_owned(),
            body: Bytes::new(),
        };
        let _place = self.batches.acquire().await;
        let lease = self.lease(live).await?;
        let exchange = self.topology.plan().exchange();
        let fates = send(live, &lease.channel, exchange, &[&trial], TO_ANYONE, LOOK_TIMEOUT).await;
        match fates.into_iter().next() {
            Some(Fate::Unknown(why)) => {
                // The exchange may be gone, which the server says by closing the channel.
                self.topology.forget_all();
                Err(Failure::unreachable(why))
            }
            _ => {
                lease.give_back();
                Ok(())
            }
        }
    }
}

const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};
const TO_ANYONE: BasicPublishOptions = BasicPublishOptions {
    mandatory: false,
    immediate: false,
};

/// A channel that one batch has to itself. Where it is not given back, it is closed: there may be something under
/// way on it.
struct Lease<'a> {
    generation: u64,
    channel: Channel,
    idle: &'a Mutex<Vec<(u64, Channel)>>,
    reusable: bool,
}

impl Lease<'_> {
    fn give_back(mut self) {
        self.reusable = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.reusable {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.generation, self.channel.clone()));
        } else {
            close(self.channel.clone());
        }
    }
}

/// Publishes on a channel that nobody else uses.
async fn send(
    live: &Live,
    channel: &Channel,
    exchange: &str,
    part: &[&Outgoing],
    options: BasicPublishOptions,
    limit: Duration,
) -> Vec<Fate> {
    let now = SystemClock.now();
    let writing: Vec<_> = part
        .iter()
        .enumerate()
        .map(|(index, message)| begin(channel, exchange, message, index, now, options))
        .collect();
    let unanswered = Fate::Unknown("the confirmation did not come in time".to_owned());
    let mut fates = vec![unanswered; part.len()];
    let mut returned = HashSet::new();
    let awaiting = async {
        for (fate, writing) in fates.iter_mut().zip(writing) {
            *fate = settle(writing, &mut returned).await;
        }
    };
    tokio::select! {
        () = awaiting => {}
        () = sleep(limit) => {}
        () = refusing(live) => {}
        () = live.until_lost() => {}
    }
    // In the end all that was returned is known: the server returns a message before it confirms it.
    for index in returned {
        if let Some(fate @ Fate::Confirmed) = fates.get_mut(index) {
            *fate = Fate::Returned;
        }
    }
    fates
}

/// Waits until the connection is lost, and what is known of the outcomes had time to be told.
async fn given_up(live: &Live) {
    live.until_lost().await;
    sleep(LAST_WORDS).await;
}

/// Waits until the server takes nothing more, and what it took before had time to be confirmed.
async fn refusing(live: &Live) {
    live.until_blocked().await;
    sleep(LAST_CONFIRMS).await;
}

type Writing<'a> = BoxFuture<'a, lapin::Result<PublisherConfirm>>;

/// Puts a message in line to be written. This happens at the first poll, so the order is that of the calls.
fn begin<'a>(
    channel: &'a Channel,
    exchange: &str,
    message: &'a Outgoing,
    index: usize,
    now: Timestamp,
    options: BasicPublishOptions,
) -> Writing<'a> {
    let mut headers = FieldTable::default();
    headers.insert(PUBLISHED_AT.into(), AMQPValue::LongLongInt(now.as_microsecond()));
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(index.to_string().into())
        .with_timestamp(u64::try_from(now.as_second()).unwrap_or(0))
        .with_headers(headers);
    let routing_key = message.routing_key.as_str().into();
    let mut writing = channel
        .basic_publish(exchange.into(), routing_key, options, &message.body, properties)
        .boxed();
    let mut nobody = std::task::Context::from_waker(noop_waker_ref());
    match writing.poll_unpin(&mut nobody) {
        std::task::Poll::Ready(done) => std::future::ready(done).boxed(),
        std::task::Poll::Pending => writing,
    }
}

/// Waits for a message's confirmation, and notes which message came back with it: not always the same one.
async fn settle(writing: Writing<'_>, returned: &mut HashSet<usize>) -> Fate {
    let confirmation = match writing.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    let confirmation = match confirmation {
        Ok(confirmation) => confirmation,
        Err(error) => return Fate::Unknown(Failure::from(error).to_string()),
    };
    let fate = match confirmation {
        Confirmation::Ack(_) => Fate::Confirmed,
        Confirmation::Nack(_) => Fate::Refused,
        Confirmation::NotRequested => Fate::Unknown("the channel confirms nothing".to_owned()),
    };
    let back: Option<usize> = confirmation.take_message().and_then(|message| {
        let id = message.delivery.properties.message_id().as_ref()?;
        id.as_str().parse().ok()
    });
    returned.extend(back);
    fate
}

impl From<Fate> for Outcome {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Confirmed => Ok(()),
            // A submission goes to two queues, and the other one may have had room. Then it may be recorded, and
            // later run, like any whose confirmation was lost: one who tries again should name it by a key.
            Fate::Refused => Err(PublishError::Full),
            Fate::Returned => Err(PublishError::Unavailable("no queue wanted it".to_owned())),
            Fate::Unknown(why) => Err(PublishError::Unavailable(why)),
        }
    }
}

fn is_blocked(reason: &str) -> Failure {
    Failure::unreachable(format!("RabbitMQ has blocked publishers: {reason}"))
}

fn unavailable(error: &Failure) -> PublishError {
    PublishError::Unavailable(error.to_string())
}
