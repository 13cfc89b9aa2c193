//! Consuming a lane: a pull made of AMQP's push.
//!
//! A consumer is opened with as much credit as was asked for, and cancelled as soon as something came. What it held
//! until then stays delivered, and only after the server has said that it is cancelled anything is handed out: so no
//! acknowledgement can attract more. The cancellation is also the sign that the server, and the queue, live.
//!
//! Calls in progress are kept here and not in the future that [`Consumer::next`] returns, so that dropping that
//! loses nothing; the next call goes on where the last one stopped.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{BrokerError, Consumer, Delivery, Result, Source, Subscription, Undecodable, wire};
use forebay_core::{Timestamp, from_unix_micros};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use lapin::{
    Channel,
    message::Delivery as Received,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    SETUP_TIMEOUT,
    acks::{Acks, Holdings},
    connection::{Link, close},
    failure::{Failure, within},
    publish::PUBLISHED_AT,
    topology::Topology,
};

/// The most messages that one call brings.
const PULL_MAX: usize = 5_000;
/// The shortest time a consumer is open.
const OPEN_MIN: Duration = Duration::from_millis(5);
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
    Closing(lapin::Consumer, Call<()>),
}

struct LaneConsumer {
    queue: String,
    channel: Channel,
    topology: Arc<Topology>,
    acks: Arc<Acks>,
    phase: Phase,
    /// How many consumers were opened. Each has a name of its own: one that is cancelled may still hold messages.
    opened: u64,
    /// The credit that the channel gives to consumers opened from now on.
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
                    self.listen(until).await?;
                    self.begin_to_close();
                }
                Phase::Closing(_, closing) => {
                    let closed = timeout_at(until.min(Instant::now()) + GRACE, closing).await;
                    self.closed(closed)?;
                }
            }
        }
        let ready = self.buffer.len().min(max);
        Ok(self.buffer.drain(..ready).collect())
    }
}

impl LaneConsumer {
    fn may_hand_out(&self) -> bool {
        !self.buffer.is_empty() && matches!(self.phase, Phase::Idle)
    }

    fn begin_to_open(&mut self, max: usize) -> Result<()> {
        if !self.channel.status().connected() {
            return Err(broken("the channel is closed"));
        }
        self.opened += 1;
        let credit = u16::try_from(max.min(PULL_MAX)).unwrap_or(u16::MAX);
        let changed = std::mem::replace(&mut self.credit, credit) != credit;
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

    fn closed<E>(&mut self, closed: std::result::Result<lapin::Result<()>, E>) -> Result<()> {
        let Ok(closed) = closed else {
            return Err(broken("the server is silent"));
        };
        if let Phase::Closing(mut consumer, _) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.take_what_is_there(&mut consumer)?;
        }
        closed.map_err(|error| self.failed(Failure::from(error)))
    }

    /// Waits for something to come, and sees to it meanwhile that the server lives.
    async fn listen(&mut self, until: Instant) -> Result<()> {
        loop {
            let Phase::Open(consumer, opened) = &mut self.phase else {
                return Ok(());
            };
            let until = until.max(*opened + OPEN_MIN);
            let pause = until.min(Instant::now() + SIGN_INTERVAL);
            tokio::select! {
                biased;
                received = consumer.next() => return self.take(received),
                () = sleep_until(pause) => {}
            }
            if pause == until {
                return Ok(());
            }
            sign_of_life(&self.channel, self.credit).await?;
        }
    }

    fn begin_to_close(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open(consumer, _) => {
                let (channel, tag) = (self.channel.clone(), consumer.tag());
                let closing = async move { channel.basic_cancel(tag, BasicCancelOptions::default()).await };
                Phase::Closing(consumer, Box::pin(closing))
            }
            other => other,
        };
    }

    fn take_what_is_there(&mut self, consumer: &mut lapin::Consumer) -> Result<()> {
        while let Some(received) = consumer.next().now_or_never() {
            match received {
                // The end of a consumer that is cancelled.
                None => break,
                received => self.take(received)?,
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

/// What was not handed out goes to others at once. The channel lives as long as somebody may acknowledge on it, so
/// nothing more must be attracted to it.
impl Drop for LaneConsumer {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {}
            Phase::Open(mut consumer, _) => {
                // An error means that the server has taken everything back already.
                let _ = self.take_what_is_there(&mut consumer);
                close(self.channel.clone());
            }
            Phase::Opening(_) | Phase::Closing(..) => close(self.channel.clone()),
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

/// What was received, as a delivery that is held from now on.
pub(crate) fn delivery(received: Received, acks: &Acks) -> Delivery {
    let published_at = published_at(&received);
    let token = acks.delivered(received.delivery_tag);
    let subject: String = received.routing_key.into();
    let body = Bytes::from(received.data);
    let verb = subject.split('.').next().unwrap_or_default();
    let message = wire::decode(verb, body.clone()).map_err(|error| Undecodable {
        reason: error.to_string(),
        subject,
        body,
    });
    Delivery {
        message,
        published_at,
        token,
    }
}

/// The publisher's time in microseconds, or AMQP's in seconds where a message is not of our making.
fn published_at(received: &Received) -> Timestamp {
    let headers = received.properties.headers().as_ref();
    let micros = match headers.and_then(|headers| headers.inner().get(PUBLISHED_AT)) {
        Some(AMQPValue::LongLongInt(micros)) => *micros,
        _ => {
            let seconds = received.properties.timestamp().unwrap_or(0);
            i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000)
        }
    };
    from_unix_micros(micros)
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn received(properties: BasicProperties) -> Received {
        let mut received = Received::mock(1, "x".into(), "submit.q.default".into(), false, Vec::new());
        received.properties = properties;
        received
    }

    #[test]
    fn the_time_of_publishing_is_as_exact_as_the_message_says() {
        let mut headers = FieldTable::default();
        headers.insert(PUBLISHED_AT.into(), AMQPValue::LongLongInt(1_772_366_400_123_456));
        let exact = BasicProperties::default().with_timestamp(7).with_headers(headers);
        let expected: Timestamp = "2026-03-01T12:00:00.123456Z".parse().unwrap();
        assert_eq!(published_at(&received(exact)), expected);
        let coarse = BasicProperties::default().with_timestamp(1_772_366_400);
        let expected: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        assert_eq!(published_at(&received(coarse)), expected);
        assert_eq!(
            published_at(&received(BasicProperties::default())),
            Timestamp::UNIX_EPOCH
        );
    }
}
