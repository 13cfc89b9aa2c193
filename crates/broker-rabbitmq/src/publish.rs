//! Publishing: all of a batch is written, then all of it is awaited.
//!
//! A batch has a channel to itself while it is under way, since the client can't tell to which of several batches a
//! returned message belongs: it ties one to whatever confirmation comes next. For the same reason a channel with a
//! confirmation open is never used again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use forebay_broker::{Message, PublishError, Source, wire};
use forebay_core::{Clock, Lane, SystemClock, Timestamp};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
    task::noop_waker_ref,
};
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout_at},
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
    /// Its place in the batch.
    index: usize,
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
        let began = Instant::now();
        let deadline = began + self.timeout;
        // A little less than the whole, so that what was confirmed is not given up with what was not.
        let until = began + self.timeout.mul_f64(0.9);
        // At the deadline the outcomes that are known by then remain.
        tokio::select! {
            _ = timeout_at(deadline, self.publish_all(&live, &batch, until, &mut outcomes)) => {}
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

    async fn publish_all(&self, live: &Live, batch: &[Message], until: Instant, outcomes: &mut [Outcome]) {
        let missing = self.ensure(live, lanes_of(batch)).await;
        let mut outgoing = Vec::with_capacity(batch.len());
        for (index, message) in batch.iter().enumerate() {
            if let Some(error) = missing.get(message.lane()) {
                outcomes[index] = Err(unavailable(error));
                continue;
            }
            outgoing.push(Outgoing {
                index,
                routing_key: routing_key(message),
                body: wire::encode(message),
            });
        }
        // One after the other: a lane is first in, first out.
        for part in outgoing.chunks(PART_MAX) {
            let fates = self.publish_part(live, batch, part, until).await;
            for (outgoing, fate) in part.iter().zip(fates) {
                outcomes[outgoing.index] = outcome(&batch[outgoing.index], fate);
            }
        }
    }

    /// Publishes up to [`PART_MAX`] messages; those that no queue wanted once more, after the queues are made again.
    async fn publish_part(
        &self,
        live: &Live,
        batch: &[Message],
        part: &[Outgoing],
        until: Instant,
    ) -> Vec<Fate> {
        let all: Vec<&Outgoing> = part.iter().collect();
        let mut fates = self.attempt(live, &all, until).await;
        let returned: Vec<usize> = (0..part.len())
            .filter(|&index| fates[index] == Fate::Returned)
            .collect();
        if returned.is_empty() {
            return fates;
        }
        tracing::warn!(count = returned.len(), "a queue is gone, making it again");
        self.topology.forget_all();
        let message = |index: usize| &batch[part[index].index];
        let missing = self
            .ensure(live, lanes_of(returned.iter().map(|&index| message(index))))
            .await;
        let wanted: Vec<usize> = returned
            .into_iter()
            .filter(|&index| !missing.contains_key(message(index).lane()))
            .collect();
        let again: Vec<&Outgoing> = wanted.iter().map(|&index| &part[index]).collect();
        let again = self.attempt(live, &again, until).await;
        for (index, fate) in wanted.into_iter().zip(again) {
            fates[index] = fate;
        }
        fates
    }

    async fn attempt(&self, live: &Live, part: &[&Outgoing], until: Instant) -> Vec<Fate> {
        let _place = self.batches.acquire().await;
        let lease = match self.lease(live).await {
            Ok(lease) => lease,
            Err(error) => return vec![Fate::Unknown(error.to_string()); part.len()],
        };
        let exchange = self.topology.plan().exchange();
        let fates = send(live, &lease.channel, exchange, part, MANDATORY, until).await;
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

    /// Sees to it that these lanes exist. Those that can't be ensured are answered, and take up only so much of the
    /// time that the others can still be published to.
    async fn ensure(&self, live: &Live, lanes: Vec<Lane>) -> HashMap<Lane, Failure> {
        let limit = self.timeout.mul_f64(0.7);
        let ensured = lanes.into_iter().map(async |lane| {
            let source = Source::Lane(lane.clone());
            let ensured = tokio::select! {
                ensured = self.topology.ensure(live, &source, limit) => ensured,
                () = live.until_blocked() => Err(is_blocked(&live.blocked().unwrap_or_default())),
            };
            ensured.err().map(|error| (lane, error))
        });
        join_all(ensured).await.into_iter().flatten().collect()
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
            index: 0,
            routing_key: "check".to_owned(),
            body: Bytes::new(),
        };
        let _place = self.batches.acquire().await;
        let lease = self.lease(live).await?;
        let exchange = self.topology.plan().exchange();
        let until = Instant::now() + LOOK_TIMEOUT;
        let fates = send(live, &lease.channel, exchange, &[&trial], TO_ANYONE, until).await;
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
    until: Instant,
) -> Vec<Fate> {
    let now = SystemClock.now();
    let writing = part
        .iter()
        .enumerate()
        .map(|(index, message)| begin(channel, exchange, message, index, now, options));
    // All are begun, in order, before the first is awaited.
    let writing: Vec<_> = writing.collect();
    let mut settling: FuturesUnordered<_> = writing.into_iter().enumerate().map(settle).collect();
    let unanswered = Fate::Unknown("the confirmation did not come in time".to_owned());
    let mut fates = vec![unanswered; part.len()];
    let mut returned = HashSet::new();
    let mut note = |(index, fate, back): Settled| {
        fates[index] = fate;
        returned.extend(back);
    };
    let awaiting = async {
        while let Some(settled) = settling.next().await {
            note(settled);
        }
    };
    tokio::select! {
        // In this order: what has an answer by then is noted.
        biased;
        () = awaiting => {}
        () = sleep_until(until) => {}
        () = refusing(live) => {}
        () = live.until_lost() => {}
    }
    conclude(&mut fates, &returned);
    fates
}

/// Tells what was returned from what was taken. The server returns a message before it confirms it, so in the end all
/// that was returned is known. Where the end was not reached and something came back, more may have come back that
/// waits for a confirmation to be tied to.
fn conclude(fates: &mut [Fate], returned: &HashSet<usize>) {
    let cut_short = fates.iter().any(|fate| matches!(fate, Fate::Unknown(_)));
    for (index, fate) in fates.iter_mut().enumerate() {
        if *fate != Fate::Confirmed {
            continue;
        }
        if returned.contains(&index) {
            *fate = Fate::Returned;
        } else if cut_short && !returned.is_empty() {
            *fate = Fate::Unknown("it may have been returned".to_owned());
        }
    }
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

/// A message, how it went, and which one came back with its confirmation: not always the same.
type Settled = (usize, Fate, Option<usize>);

/// Waits for a message's confirmation.
async fn settle((index, writing): (usize, Writing<'_>)) -> Settled {
    let confirmation = match writing.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    let confirmation = match confirmation {
        Ok(confirmation) => confirmation,
        Err(error) => return (index, Fate::Unknown(Failure::from(error).to_string()), None),
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
    (index, fate, back)
}

fn outcome(message: &Message, fate: Fate) -> Outcome {
    let unavailable = |why: &str| Err(PublishError::Unavailable(why.to_owned()));
    match (fate, message) {
        (Fate::Confirmed, _) => Ok(()),
        // A submission goes to two queues, and the other one may have had room. Then it is recorded, or run, later,
        // like any whose confirmation was lost: "full" would say that it was not taken, and free its key.
        (Fate::Refused, Message::Submission(_)) => Err(PublishError::PartlyFull),
        (Fate::Refused, Message::Ready(_)) => Err(PublishError::Full),
        (Fate::Returned, _) => unavailable("no queue wanted it"),
        (Fate::Unknown(why), _) => Err(PublishError::Unavailable(why)),
    }
}

fn is_blocked(reason: &str) -> Failure {
    Failure::unreachable(format!("RabbitMQ has blocked publishers: {reason}"))
}

fn unavailable(error: &Failure) -> PublishError {
    PublishError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_returned_is_not_confirmed() {
        let unknown = || Fate::Unknown("late".to_owned());
        let mut whole = vec![Fate::Confirmed, Fate::Confirmed, Fate::Refused];
        conclude(&mut whole, &HashSet::from([0, 2]));
        assert_eq!(whole, [Fate::Returned, Fate::Confirmed, Fate::Refused]);
        let mut cut_short = vec![Fate::Confirmed, Fate::Confirmed, unknown()];
        conclude(&mut cut_short, &HashSet::from([0]));
        assert_eq!(cut_short[0], Fate::Returned);
        assert!(matches!(cut_short[1], Fate::Unknown(_)));
        let mut none_returned = vec![Fate::Confirmed, unknown()];
        conclude(&mut none_returned, &HashSet::new());
        assert_eq!(none_returned, [Fate::Confirmed, unknown()]);
    }
}
