//! Publishing: all of a batch is written, then all of it is awaited. The submissions of a batch go together in as few
//! messages as possible, since the server syncs its disk for each.
//!
//! A batch has a channel to itself while it is under way, since the client can't tell to which of several batches a
//! returned message belongs: it ties one to whatever confirmation comes next. For the same reason a channel with a
//! confirmation open is never used again.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use forebay_broker::{Message, PublishError, Source, bundle, wire};
use forebay_core::{Clock, Lane, SystemClock};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    LOOK_TIMEOUT,
    connection::{Link, Live, close},
    failure::{Failure, within},
    topology::{Topology, routing_key},
};

/// The most messages that are under way on one channel.
const PART_MAX: usize = 2_000;
/// The most bytes of submissions in one message, but for one that is larger by itself: far less than any server takes,
/// and little enough for a recorder to hold many.
const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
/// How many batches are under way at once, each on a channel of its own.
const BATCHES_IN_FLIGHT_MAX: usize = 16;
/// How long confirmations may still come once the server said that it takes nothing more.
const LAST_CONFIRMS: Duration = Duration::from_millis(200);
/// How long outcomes may still be put together once the connection is lost.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Stored on the disks of a majority before it is confirmed.
const PERSISTENT: u8 = 2;

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

/// Where messages go.
struct Target {
    source: Source,
    routing_key: ShortString,
}

/// A message as it goes over the wire.
struct Outgoing {
    /// The number of its target.
    target: usize,
    /// What is in it, by the load's order.
    parts: Range<usize>,
    body: Bytes,
}

/// A batch, ready to be sent: submissions are bundled.
struct Load {
    targets: Vec<Target>,
    outgoing: Vec<Outgoing>,
    /// The place in the batch of everything that is in the messages, one message after the other.
    order: Vec<usize>,
}

impl Load {
    fn pack(batch: Vec<Message>) -> Self {
        let mut load = Self {
            targets: Vec::new(),
            outgoing: Vec::new(),
            order: Vec::with_capacity(batch.len()),
        };
        let (mut submissions, mut ready) = (Vec::new(), Vec::new());
        for (place, message) in batch.into_iter().enumerate() {
            match message {
                Message::Submission(task) => {
                    load.order.push(place);
                    submissions.push(task);
                }
                Message::Ready(_) => ready.push((place, message)),
            }
        }
        if !submissions.is_empty() {
            let target = load.target(Source::Submissions);
            for bundle in bundle::pack(&submissions, BUNDLE_BYTES_MAX) {
                load.push(target, bundle.count, bundle.body);
            }
        }
        let mut known: HashMap<Lane, usize> = HashMap::new();
        for (place, message) in ready {
            let lane = message.lane();
            let target = known.get(lane).copied().unwrap_or_else(|| {
                let target = load.target(Source::Lane(lane.clone()));
                known.insert(lane.clone(), target);
                target
            });
            load.order.push(place);
            load.push(target, 1, wire::encode(&message));
        }
        load
    }

    fn target(&mut self, source: Source) -> usize {
        let routing_key = routing_key(&source).into();
        self.targets.push(Target { source, routing_key });
        self.targets.len() - 1
    }

    fn push(&mut self, target: usize, count: usize, body: Bytes) {
        let begin = self.outgoing.last().map_or(0, |last| last.parts.end);
        self.outgoing.push(Outgoing {
            target,
            parts: begin..begin + count,
            body,
        });
    }
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
        let load = Load::pack(batch);
        // At the deadline the outcomes that are known by then remain.
        tokio::select! {
            _ = timeout_at(deadline, self.publish_all(&live, load, until, &mut outcomes)) => {}
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

    async fn publish_all(&self, live: &Live, load: Load, until: Instant, outcomes: &mut [Outcome]) {
        let Load {
            targets,
            outgoing,
            order,
        } = load;
        let missing = self.ensure(live, &targets, 0..targets.len()).await;
        let mut note = |message: &Outgoing, outcome: Outcome| {
            for &place in &order[message.parts.clone()] {
                outcomes[place] = outcome.clone();
            }
        };
        let mut wanted = Vec::with_capacity(outgoing.len());
        for message in outgoing {
            match missing.get(&message.target) {
                Some(error) => note(&message, Err(unavailable(error))),
                None => wanted.push(message),
            }
        }
        // One after the other: a lane is first in, first out.
        for part in wanted.chunks(PART_MAX) {
            let fates = self.publish_part(live, &targets, part, until).await;
            for (message, fate) in part.iter().zip(fates) {
                note(message, outcome(fate));
            }
        }
    }

    /// Publishes up to [`PART_MAX`] messages; those that no queue wanted once more, after the queues are made again.
    async fn publish_part(
        &self,
        live: &Live,
        targets: &[Target],
        part: &[Outgoing],
        until: Instant,
    ) -> Vec<Fate> {
        let all: Vec<&Outgoing> = part.iter().collect();
        let mut fates = self.attempt(live, targets, &all, until).await;
        let mut returned: Vec<usize> = (0..part.len())
            .filter(|&index| fates[index] == Fate::Returned)
            .collect();
        if returned.is_empty() {
            return fates;
        }
        tracing::warn!(count = returned.len(), "a queue is gone, making it again");
        self.topology.forget_all();
        let gone: HashSet<usize> = returned.iter().map(|&index| part[index].target).collect();
        let missing = self.ensure(live, targets, gone).await;
        returned.retain(|&index| !missing.contains_key(&part[index].target));
        let again: Vec<&Outgoing> = returned.iter().map(|&index| &part[index]).collect();
        let again = self.attempt(live, targets, &again, until).await;
        for (index, fate) in returned.into_iter().zip(again) {
            fates[index] = fate;
        }
        fates
    }

    async fn attempt(
        &self,
        live: &Live,
        targets: &[Target],
        part: &[&Outgoing],
        until: Instant,
    ) -> Vec<Fate> {
        let _place = self.batches.acquire().await;
        let lease = match self.lease(live).await {
            Ok(lease) => lease,
            Err(error) => return vec![Fate::Unknown(error.to_string()); part.len()],
        };
        let exchange = self.topology.plan().exchange();
        let messages = part
            .iter()
            .map(|message| (&targets[message.target].routing_key, &message.body));
        let fates = send(live, &lease.channel, exchange, messages, MANDATORY, until).await;
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

    /// Sees to it that these of the targets exist. Those that can't be ensured are answered, and take up only so much of
    /// the time that the others can still be published to.
    async fn ensure(
        &self,
        live: &Live,
        targets: &[Target],
        wanted: impl IntoIterator<Item = usize>,
    ) -> HashMap<usize, Failure> {
        let limit = self.timeout.mul_f64(0.7);
        let ensured = wanted.into_iter().map(async |target| {
            let ensured = tokio::select! {
                ensured = self.topology.ensure(live, &targets[target].source, limit) => ensured,
                () = live.until_blocked() => Err(is_blocked(&live.blocked().unwrap_or_default())),
            };
            ensured.err().map(|error| (target, error))
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
        let _place = self.batches.acquire().await;
        let lease = self.lease(live).await?;
        let exchange = self.topology.plan().exchange();
        let until = Instant::now() + LOOK_TIMEOUT;
        let trial = [(&"check".into(), &Bytes::new())];
        let fates = send(live, &lease.channel, exchange, trial, TO_ANYONE, until).await;
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
async fn send<'a>(
    live: &Live,
    channel: &Channel,
    exchange: &str,
    messages: impl IntoIterator<Item = (&'a ShortString, &'a Bytes)>,
    options: BasicPublishOptions,
    until: Instant,
) -> Vec<Fate> {
    let now = SystemClock.now().as_microsecond();
    // All are begun, in order, before the first is awaited.
    let mut settling: Vec<Settling<'_>> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| begin(channel, exchange, message, message_id(now, index), options))
        .collect();
    let unanswered = Fate::Unknown("the confirmation did not come in time".to_owned());
    let mut fates = vec![unanswered; settling.len()];
    let mut returned = HashSet::new();
    let mut settled = 0;
    // In order, as the server mostly confirms: whoever waits for one of many is woken for that one alone.
    let awaiting = async {
        while settled < settling.len() {
            let (fate, back) = (&mut settling[settled]).await;
            fates[settled] = fate;
            returned.extend(back);
            settled += 1;
        }
    };
    tokio::select! {
        biased;
        () = awaiting => {}
        () = sleep_until(until) => {}
        () = refusing(live) => {}
        () = live.until_lost() => {}
    }
    // What has an answer by then is noted.
    for index in settled..settling.len() {
        if let Some((fate, back)) = (&mut settling[index]).now_or_never() {
            fates[index] = fate;
            returned.extend(back);
        }
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

/// How a message went, and which one came back with its confirmation: not always the same.
type Settled = (Fate, Option<usize>);
type Settling<'a> = BoxFuture<'a, Settled>;

/// Puts a message in line to be written. This happens at the first poll, so the order is that of the calls.
fn begin<'a>(
    channel: &'a Channel,
    exchange: &str,
    (routing_key, body): (&ShortString, &'a Bytes),
    id: ShortString,
    options: BasicPublishOptions,
) -> Settling<'a> {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id);
    let (exchange, routing_key) = (exchange.into(), routing_key.clone());
    let mut settling: Settling<'a> = Box::pin(async move {
        let writing = channel.basic_publish(exchange, routing_key, options, body, properties);
        match writing.await {
            Ok(confirm) => settled(confirm.await),
            Err(error) => settled(Err(error)),
        }
    });
    match (&mut settling).now_or_never() {
        Some(done) => Box::pin(std::future::ready(done)),
        None => settling,
    }
}

fn settled(confirmation: lapin::Result<Confirmation>) -> Settled {
    let confirmation = match confirmation {
        Ok(confirmation) => confirmation,
        Err(error) => return (Fate::Unknown(Failure::from(error).to_string()), None),
    };
    let fate = match confirmation {
        Confirmation::Ack(_) => Fate::Confirmed,
        Confirmation::Nack(_) => Fate::Refused,
        Confirmation::NotRequested => Fate::Unknown("the channel confirms nothing".to_owned()),
    };
    let back = confirmation.take_message().and_then(|message| {
        let id = message.delivery.properties.message_id().as_ref()?;
        Some(read_message_id(id)?.1)
    });
    (fate, back)
}

/// A message's name: when it was published, in microseconds, and its place among those published with it.
pub(crate) fn message_id(published_at: i64, index: usize) -> ShortString {
    format!("{published_at}-{index}").into()
}

/// Reads what [`message_id`] wrote.
pub(crate) fn read_message_id(id: &ShortString) -> Option<(i64, usize)> {
    let (published_at, index) = id.as_str().split_once('-')?;
    Some((published_at.parse().ok()?, index.parse().ok()?))
}

fn outcome(fate: Fate) -> Outcome {
    match fate {
        Fate::Confirmed => Ok(()),
        Fate::Refused => Err(PublishError::Full),
        Fate::Returned => Err(PublishError::Unavailable("no queue wanted it".to_owned())),
        Fate::Unknown(why) => Err(PublishError::Unavailable(why)),
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
