//! Consuming a lane: a pull made of AMQP's push.
//!
//! A consumer is opened with as much credit as was asked for, and cancelled as soon as something came. An
//! acknowledgement gives credit back, so none may reach the server while a consumer is open: the cancellation is in line
//! before anything is handed out, and the server works in order. What came by then is handed out at once where more can't
//! come, or where it came alone; else only after the server has said that the consumer is cancelled, which is the sign
//! that all there was has come. What comes after something was handed out goes to the next call if it is made by then,
//! else back.
//!
//! Calls in progress are kept here and not in the future that [`Consumer::next`] returns, so that dropping that
//! loses nothing; the next call goes on where the last one stopped.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{BrokerError, Consumer, Delivery, Result, Source, Subscription, Undecodable, wire};
use forebay_core::{Timestamp, from_unix_micros};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use lapin::{
    Channel,
    message::Delivery as Received,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    SETUP_TIMEOUT,
    acks::{Acks, Holdings},
    connection::{Link, close},
    failure::{Failure, within},
    publish::read_message_id,
    topology::Topology,
};

/// The most messages that one call brings.
const PULL_MAX: usize = 5_000;
/// The shortest time a consumer is open.
const OPEN_MIN: Duration = Duration::from_millis(5);
/// After this time, and so much more for each message that was asked for, something of what waited for a consumer has come.
/// What comes first later than that has just been published.
const BACKLOG_WAIT: Duration = Duration::from_millis(3);
const BACKLOG_WAIT_EACH: Duration = Duration::from_micros(10);
/// By how much an answer may be later than the caller's time.
const GRACE: Duration = Duration::from_millis(900);
/// How often a server that has nothing to deliver is asked whether it lives.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to say so.
pub(crate) const SIGN_TIMEOUT: Duration = Duration::from_millis(900);

/// Begins to consume a lane.
pub(crate) async fn subscribe(
    link: &Link,
    topology: &Arc<Topology>,
    holdings: &Holdings,
    source: &Source,
) -> Result<Subscription> {
    let fail = |error: Failure| BrokerError::new("consume", error);
    let live = link.live().map_err(fail)?;
    let ensured = topology.ensure(&live, source, SETUP_TIMEOUT).await;
    ensured.map_err(fail)?;
    let channel = live.open_channel(SETUP_TIMEOUT).await.map_err(fail)?;
    let acks = Acks::new(channel.clone());
    let queue = topology.plan().queue_of(source);
    holdings.add(&queue, &acks);
    let consumer = LaneConsumer {
        queue,
        channel,
        topology: Arc::clone(topology),
        acks: Arc::clone(&acks),
        phase: Phase::Idle,
        opened: 0,
        credit: 0,
        buffer: VecDeque::new(),
    };
    Ok(Subscription {
        consumer: Box::new(consumer),
        acks,
    })
}

type Call<T> = BoxFuture<'static, lapin::Result<T>>;

enum Phase {
    /// No consumer is open at the server: nothing more comes.
    Idle,
    Opening(Call<lapin::Consumer>),
    Open(lapin::Consumer, Instant),
    /// The cancellation is in line; what the consumer got until it is through is not all here.
    Closing(lapin::Consumer, Call<()>),
    /// The same, and what is still to come is not waited for.
    Ending(Ending),
}

/// The end of a consumer after something of it was handed out.
struct Ending {
    /// Whether a call waits for what still comes. Else it goes back.
    wanted: Arc<AtomicBool>,
    late: JoinHandle<std::result::Result<Late, Failure>>,
}

/// What came after something was handed out. Where it is dropped it goes back.
struct Late {
    acks: Arc<Acks>,
    deliveries: Vec<Delivery>,
}

impl Drop for Late {
    fn drop(&mut self) {
        if !self.deliveries.is_empty() {
            let tokens = self.deliveries.drain(..).map(|delivery| delivery.token);
            self.acks.hand_back_now(tokens);
        }
    }
}

struct LaneConsumer {
    queue: String,
    channel: Channel,
    topology: Arc<Topology>,
    acks: Arc<Acks>,
    phase: Phase,
    /// How many consumers were opened. Each has a name of its own: one that is cancelled may still hold messages.
    opened: u64,
    /// The credit that the channel gives to consumers opened from now on, which is that of the last one.
    credit: u16,
    buffer: VecDeque<Delivery>,
}

#[async_trait]
impl Consumer for LaneConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let until = Instant::now() + wait;
        let mut asked = false;
        while max > 0 && !self.may_hand_out() {
            match &mut self.phase {
                Phase::Idle if asked && Instant::now() >= until => break,
                Phase::Idle => {
                    asked = true;
                    self.begin_to_open(max)?;
                }
                Phase::Opening(opening) => {
                    let opened = timeout_at(until.min(Instant::now()) + GRACE, opening).await;
                    self.opened(opened)?;
                }
                Phase::Open(..) => {
                    asked = true;
                    let came_alone = self.listen(until).await?;
                    self.begin_to_close();
                    if came_alone || self.is_full() {
                        self.let_end();
                    }
                }
                Phase::Closing(..) => self.gather(until.min(Instant::now()) + GRACE).await?,
                Phase::Ending(_) => self.take_late(until.min(Instant::now()) + GRACE).await?,
            }
        }
        let ready = self.buffer.len().min(max);
        Ok(self.buffer.drain(..ready).collect())
    }
}

impl LaneConsumer {
    fn may_hand_out(&self) -> bool {
        !self.buffer.is_empty() && matches!(self.phase, Phase::Idle | Phase::Ending(_))
    }

    /// Whether nothing more can come of the consumer.
    fn is_full(&self) -> bool {
        self.buffer.len() >= usize::from(self.credit)
    }

    fn begin_to_open(&mut self, max: usize) -> Result<()> {
        if !self.channel.status().connected() {
            return Err(broken("the channel is closed"));
        }
        self.opened += 1;
        let credit = u16::try_from(max.min(PULL_MAX)).unwrap_or(u16::MAX);
        let changed = mem::replace(&mut self.credit, credit) != credit;
        let (channel, queue) = (self.channel.clone(), self.queue.clone());
        let tag = format!("pull-{}", self.opened);
        self.phase = Phase::Opening(Box::pin(async move {
            let limited = async {
                if changed {
                    channel.basic_qos(credit, BasicQosOptions::default()).await
                } else {
                    Ok(())
                }
            };
            let options = BasicConsumeOptions::default();
            let consumed = channel.basic_consume(queue.into(), tag.into(), options, FieldTable::default());
            // Both are written before either is answered.
            let (limited, consumed) = futures::join!(limited, consumed);
            limited.and(consumed)
        }));
        Ok(())
    }

    fn opened<E>(&mut self, opened: std::result::Result<lapin::Result<lapin::Consumer>, E>) -> Result<()> {
        match opened {
            Ok(Ok(consumer)) => {
                self.phase = Phase::Open(consumer, Instant::now());
                Ok(())
            }
            Ok(Err(error)) => {
                // The future is done and must not be asked again.
                self.phase = Phase::Idle;
                Err(self.failed(Failure::from(error)))
            }
            Err(_) => Err(broken("the server is silent")),
        }
    }

    /// Waits for something to come, takes what is there then, and sees to it meanwhile that the server lives. Says
    /// whether something came that had not waited: then it need not wait for more either.
    async fn listen(&mut self, until: Instant) -> Result<bool> {
        loop {
            let Phase::Open(consumer, opened) = &mut self.phase else {
                return Ok(false);
            };
            let (opened, until) = (*opened, until.max(*opened + OPEN_MIN));
            let pause = until.min(Instant::now() + SIGN_INTERVAL);
            tokio::select! {
                biased;
                received = consumer.next() => {
                    let backlog_wait = BACKLOG_WAIT + BACKLOG_WAIT_EACH * u32::from(self.credit);
                    let came_alone = opened.elapsed() >= backlog_wait;
                    self.take(received)?;
                    self.take_what_is_there()?;
                    return Ok(came_alone);
                }
                () = sleep_until(pause) => {}
            }
            if pause == until {
                return Ok(false);
            }
            sign_of_life(&self.channel, self.credit).await?;
        }
    }

    /// Puts the cancellation in line. Whatever is sent to the server from now on comes after it.
    fn begin_to_close(&mut self) {
        self.phase = match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open(consumer, _) => {
                let (channel, tag) = (self.channel.clone(), consumer.tag());
                let closing = async move { channel.basic_cancel(tag, BasicCancelOptions::default()).await };
                let mut closing: Call<()> = Box::pin(closing);
                // Polled once, it is in the client's line.
                match (&mut closing).now_or_never() {
                    Some(closed) => Phase::Closing(consumer, Box::pin(std::future::ready(closed))),
                    None => Phase::Closing(consumer, closing),
                }
            }
            other => other,
        };
    }

    /// Takes what comes of a consumer that is being closed, until no more can come.
    async fn gather(&mut self, deadline: Instant) -> Result<()> {
        while let Phase::Closing(consumer, closing) = &mut self.phase {
            let received = tokio::select! {
                biased;
                received = consumer.next() => received,
                closed = timeout_at(deadline, closing) => {
                    let Ok(closed) = closed else {
                        return Err(broken("the server is silent"));
                    };
                    let taken = self.take_what_is_there();
                    self.phase = Phase::Idle;
                    taken?;
                    return closed.map_err(|error| self.failed(Failure::from(error)));
                }
            };
            match received {
                // The end of a consumer that is cancelled, just before the server's answer is noted.
                None => self.let_end(),
                received => self.take(received)?,
            }
            if self.is_full() {
                self.let_end();
            }
        }
        Ok(())
    }

    /// Leaves the end of a consumer that is being closed to itself.
    fn let_end(&mut self) {
        self.phase = match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Closing(consumer, closing) => {
                let wanted = Arc::new(AtomicBool::new(false));
                let ending = end(consumer, closing, Arc::clone(&self.acks), Arc::clone(&wanted));
                let late = tokio::spawn(ending);
                Phase::Ending(Ending { wanted, late })
            }
            other => other,
        };
    }

    /// Waits for the end of the consumer before, and takes what came late. Until then its deliveries are not all known,
    /// and an acknowledgement for all up to a number could be about them too.
    async fn take_late(&mut self, deadline: Instant) -> Result<()> {
        let Phase::Ending(Ending { wanted, late }) = &mut self.phase else {
            return Ok(());
        };
        wanted.store(true, Ordering::Release);
        let Ok(ended) = timeout_at(deadline, late).await else {
            return Err(broken("the server is silent"));
        };
        self.phase = Phase::Idle;
        let failed = match ended {
            Ok(Ok(mut late)) => {
                self.buffer.extend(late.deliveries.drain(..));
                return Ok(());
            }
            Ok(Err(failure)) => self.failed(failure),
            Err(error) => broken(error.to_string()),
        };
        // There may be deliveries that nobody knows of.
        close(self.channel.clone());
        Err(failed)
    }

    /// Takes what the client has of the consumer.
    fn take_what_is_there(&mut self) -> Result<()> {
        while let Phase::Open(consumer, _) | Phase::Closing(consumer, _) = &mut self.phase {
            match consumer.next().now_or_never() {
                Some(Some(received)) => self.take(Some(received))?,
                // Nothing for now, or the end of a consumer that is cancelled.
                Some(None) | None => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, received: Option<lapin::Result<Received>>) -> Result<()> {
        match received {
            Some(Ok(received)) => {
                let delivery = delivery(received, &self.acks);
                self.buffer.push_back(delivery);
                Ok(())
            }
            Some(Err(error)) => Err(self.failed(Failure::from(error))),
            None => {
                self.topology.forget_all();
                Err(broken("the queue is gone"))
            }
        }
    }

    fn failed(&self, failure: Failure) -> BrokerError {
        if failure.is_missing() {
            self.topology.forget_all();
        }
        BrokerError::new("deliver", failure)
    }
}

/// Sees a consumer that is being closed to its end.
async fn end(
    mut consumer: lapin::Consumer,
    closing: Call<()>,
    acks: Arc<Acks>,
    wanted: Arc<AtomicBool>,
) -> std::result::Result<Late, Failure> {
    let closed = within(SIGN_TIMEOUT, closing).await;
    let mut late = Late {
        acks,
        deliveries: Vec::new(),
    };
    while let Some(Some(Ok(received))) = consumer.next().now_or_never() {
        late.deliveries.push(delivery(received, &late.acks));
    }
    closed?;
    if !wanted.load(Ordering::Acquire) {
        late = Late {
            acks: Arc::clone(&late.acks),
            deliveries: Vec::new(),
        };
    }
    Ok(late)
}

/// What was not handed out goes to others at once. The channel lives as long as somebody may acknowledge on it, so
/// nothing more must be attracted to it.
impl Drop for LaneConsumer {
    fn drop(&mut self) {
        match self.phase {
            Phase::Idle => {}
            // It hands back what comes late by itself.
            Phase::Ending(_) => {}
            Phase::Opening(_) | Phase::Open(..) | Phase::Closing(..) => close(self.channel.clone()),
        }
        let tokens = self.buffer.drain(..).map(|delivery| delivery.token);
        self.acks.hand_back_now(tokens);
    }
}

/// Asks for something that costs nothing, on the channel whose life is in doubt.
pub(crate) async fn sign_of_life(channel: &Channel, credit: u16) -> Result<()> {
    let asked = channel.basic_qos(credit, BasicQosOptions::default());
    within(SIGN_TIMEOUT, asked)
        .await
        .map_err(|error| broken(format!("the server is silent: {error}")))
}

pub(crate) fn broken(why: impl Into<String>) -> BrokerError {
    BrokerError::new("deliver", why.into())
}

/// What was received from a lane, as a delivery that is held from now on.
fn delivery(received: Received, acks: &Acks) -> Delivery {
    let published_at = published_at(&received);
    let token = acks.delivered(received.delivery_tag);
    let body = Bytes::from(received.data);
    let message = wire::decode("ready", body.clone()).map_err(|error| Undecodable {
        reason: error.to_string(),
        subject: received.routing_key.into(),
        body,
    });
    Delivery {
        message,
        published_at,
        token,
    }
}

/// The publisher's time in microseconds, or AMQP's in seconds where a message is not of our making.
pub(crate) fn published_at(received: &Received) -> Timestamp {
    let id = received.properties.message_id().as_ref();
    let micros = id.and_then(read_message_id).map_or_else(
        || {
            let seconds = received.properties.timestamp().unwrap_or(0);
            i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000)
        },
        |(micros, _)| micros,
    );
    from_unix_micros(micros)
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;
    use crate::publish::message_id;

    fn received(properties: BasicProperties) -> Received {
        let mut received = Received::mock(1, "x".into(), "ready.q.default".into(), false, Vec::new());
        received.properties = properties;
        received
    }

    #[test]
    fn the_time_of_publishing_is_as_exact_as_the_message_says() {
        let id = message_id(1_772_366_400_123_456, 17);
        assert_eq!(read_message_id(&id), Some((1_772_366_400_123_456, 17)));
        let exact = BasicProperties::default().with_timestamp(7).with_message_id(id);
        let expected: Timestamp = "2026-03-01T12:00:00.123456Z".parse().unwrap();
        assert_eq!(published_at(&received(exact)), expected);
        let coarse = BasicProperties::default()
            .with_timestamp(1_772_366_400)
            .with_message_id("somebody-else's".into());
        let expected: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        assert_eq!(published_at(&received(coarse)), expected);
        assert_eq!(
            published_at(&received(BasicProperties::default())),
            Timestamp::UNIX_EPOCH
        );
    }
}
