//! Consuming: pull requests written by hand, because what the client offers either waits for a full batch or asks
//! for more than it was told to.
//!
//! A request asks for what is there, up to `max`; where nothing is, it waits at the server, and is answered with
//! what comes first. There is at most one request at a time. It may outlive the call that made it, when the call
//! was dropped; what it still brings is handed out by the next call.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{Message as Received, StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{
    Acknowledge, BrokerError, Consumer, Delivery, Result, Source, Subscription, Token, Undecodable, wire,
};
use forebay_core::{Timestamp, from_unix_micros};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    LOOK_TIMEOUT, SETUP_TIMEOUT,
    connection::Connection,
    topology::{Topology, consumer_of},
};

/// The most messages one request asks for: they are buffered here if the caller is slow to ask again.
const PULL_MAX: usize = 5_000;
/// The most bytes one request asks for.
const PULL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The shortest time a request waits at the server.
const EXPIRES_MIN: Duration = Duration::from_millis(10);
/// How long the server's answer to an expired request may take, on top of its time.
const GRACE: Duration = Duration::from_millis(800);
/// Within this time of a message the next follows, if the server has it.
const GAP: Duration = Duration::from_millis(5);
/// How often the server says that it still has a request that waits long.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A server that was silent for this long while it should have said so is stalled.
const SILENCE_MAX: Duration = Duration::from_millis(2_500);
/// How long acknowledgements may take to be written.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before asking again where the server has others to serve first.
const PAUSE: Duration = Duration::from_millis(10);

/// Begins to consume.
pub(crate) async fn subscribe(
    connection: &Connection,
    topology: &Arc<Topology>,
    source: &Source,
) -> Result<Subscription> {
    let fail = |error: String| BrokerError::new("consume", error);
    let mut losses = connection.watch_losses();
    let connected_since = *losses.borrow_and_update();
    let ensured = topology.ensure(source, SETUP_TIMEOUT).await;
    ensured.map_err(|error| fail(error.to_string()))?;
    let inbox = connection.client.new_inbox();
    let subscribed = connection.client.subscribe(format!("{inbox}.*"));
    let messages = connection.within(LOOK_TIMEOUT, subscribed).await.map_err(fail)?;
    let name = consumer_of(source);
    let consumer = NatsConsumer {
        pull_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", topology.stream()),
        name,
        connection: connection.clone(),
        topology: Arc::clone(topology),
        losses,
        inbox,
        messages,
        buffer: VecDeque::new(),
        pulls: 0,
        pull: None,
    };
    Ok(Subscription {
        consumer: Box::new(consumer),
        acks: Arc::new(NatsAcks {
            connection: connection.clone(),
            connected_since,
        }),
    })
}

/// A request that the server has not answered in full.
#[derive(Debug)]
struct Pull {
    /// Where it is answered: the subject of the server's remarks on it. (Messages keep their own subjects.)
    inbox: String,
    /// How many messages it may still bring.
    open: usize,
    /// When the server ends it.
    ends: Instant,
    /// When the server must have given a sign of life; later with each.
    silent: Instant,
}

struct NatsConsumer {
    name: String,
    pull_subject: String,
    connection: Connection,
    topology: Arc<Topology>,
    losses: watch::Receiver<u64>,
    inbox: String,
    messages: Subscriber,
    buffer: VecDeque<Delivery>,
    pulls: u64,
    pull: Option<Pull>,
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let until = Instant::now() + wait;
        let mut asked = false;
        self.take_what_is_there()?;
        while self.buffer.is_empty() && max > 0 {
            if self.pull.is_none() {
                if asked && Instant::now() >= until {
                    break;
                }
                asked = true;
                self.ask(max, until).await?;
            }
            if !self.listen(until).await? {
                break;
            }
        }
        let ready = self.buffer.len().min(max);
        Ok(self.buffer.drain(..ready).collect())
    }
}

impl NatsConsumer {
    /// Sends a request that waits at the server until `until`.
    async fn ask(&mut self, max: usize, until: Instant) -> Result<()> {
        self.connection.check().map_err(broken)?;
        if self.losses.has_changed().unwrap_or(true) {
            return Err(broken("the connection was lost"));
        }
        let now = Instant::now();
        let expires = until.saturating_duration_since(now).max(EXPIRES_MIN);
        let ends = now + expires;
        let batch = max.min(PULL_MAX);
        let mut request = json!({
            "batch": batch,
            "max_bytes": PULL_BYTES_MAX,
            "no_wait": true,
            "expires": nanos(expires),
        });
        let mut silent = ends + GRACE;
        if expires >= 2 * HEARTBEAT {
            request["idle_heartbeat"] = nanos(HEARTBEAT).into();
            silent = silent.min(now + SILENCE_MAX);
        }
        self.pulls += 1;
        let inbox = format!("{}.{}", self.inbox, self.pulls);
        // Noted before it is sent, so that a call dropped in between leaves no request that nobody knows of.
        self.pull = Some(Pull {
            inbox: inbox.clone(),
            open: batch,
            ends,
            silent,
        });
        let (subject, body) = (self.pull_subject.clone(), Bytes::from(request.to_string()));
        let sent = self.connection.client.publish_with_reply(subject, inbox, body);
        self.connection.within(LOOK_TIMEOUT, sent).await.map_err(broken)
    }

    /// Waits for something to come, and takes all that comes with it. Says no where nothing came until `until`.
    async fn listen(&mut self, until: Instant) -> Result<bool> {
        let Some(pull) = &self.pull else {
            return Ok(true);
        };
        // A request of an earlier call may last longer than this call may wait; it is then left to the next.
        let ours = pull.ends <= until + EXPIRES_MIN;
        let limit = if ours { pull.silent } else { pull.silent.min(until) };
        let ends = pull.ends;
        tokio::select! {
            biased;
            received = self.messages.next() => self.take(received)?,
            _ = self.losses.changed() => {
                self.pull = None;
                return Err(broken("the connection was lost"));
            }
            () = sleep_until(limit) => return self.silence(limit),
        }
        self.gather().await?;
        let early = Instant::now() + GAP < ends;
        if self.pull.is_none() && self.buffer.is_empty() && early {
            sleep_until(until.min(Instant::now() + PAUSE)).await;
        }
        Ok(true)
    }

    /// Once something came, waits for what follows closely.
    async fn gather(&mut self) -> Result<()> {
        self.take_what_is_there()?;
        while !self.buffer.is_empty() && self.pull.is_some() {
            let gap = sleep_until(Instant::now() + GAP);
            tokio::select! {
                biased;
                received = self.messages.next() => self.take(received)?,
                () = gap => break,
            }
            self.take_what_is_there()?;
        }
        Ok(())
    }

    fn silence(&mut self, limit: Instant) -> Result<bool> {
        match &self.pull {
            Some(pull) if pull.silent <= limit => {
                self.pull = None;
                Err(broken("the server is silent"))
            }
            _ => Ok(false),
        }
    }

    fn take_what_is_there(&mut self) -> Result<()> {
        while let Some(received) = self.messages.next().now_or_never() {
            self.take(received)?;
        }
        Ok(())
    }

    fn take(&mut self, received: Option<Received>) -> Result<()> {
        let Some(received) = received else {
            return Err(broken("the connection is closed"));
        };
        if let Some(status) = received.status {
            return self.remark(status, &received);
        }
        if let Some(pull) = &mut self.pull {
            pull.open = pull.open.saturating_sub(1);
            pull.silent = pull.silent.max(Instant::now() + GRACE);
            if pull.open == 0 {
                self.pull = None;
            }
        }
        self.buffer.extend(delivery(received));
        Ok(())
    }

    /// What the server remarks on a request, instead of a message.
    fn remark(&mut self, status: StatusCode, received: &Received) -> Result<()> {
        let Some(pull) = self
            .pull
            .as_mut()
            .filter(|pull| pull.inbox == received.subject.as_str())
        else {
            return Ok(());
        };
        let text = received.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => {
                pull.silent = (Instant::now() + SILENCE_MAX).min(pull.ends + GRACE);
                return Ok(());
            }
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                self.pull = None;
                return Ok(());
            }
            StatusCode::REQUEST_TERMINATED if text.contains("Exceed") || text.contains("Completed") => {
                self.pull = None;
                return Ok(());
            }
            _ => {}
        }
        self.pull = None;
        if status == StatusCode::NO_RESPONDERS || text.contains("Consumer Deleted") {
            self.topology.forget(&self.name);
            return Err(broken("the consumer is gone"));
        }
        Err(broken(format!("the server says: {status} {text}")))
    }
}

/// What was buffered and not handed out goes to others at once; without this it would after the ack wait.
impl Drop for NatsConsumer {
    fn drop(&mut self) {
        // An error means that there is nobody to hand anything back to.
        let _ = self.take_what_is_there();
        if self.losses.has_changed().unwrap_or(true) {
            return;
        }
        for delivery in self.buffer.drain(..) {
            if let Some(subject) = ack_subject(delivery.token) {
                let handed_back = self.connection.client.publish(subject, NAK);
                let _ = unconstrained(handed_back).now_or_never();
            }
        }
    }
}

fn broken(why: impl Into<String>) -> BrokerError {
    BrokerError::new("deliver", why.into())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A message of the stream as a delivery. `None` where it has nothing to acknowledge it by: then it is none.
fn delivery(received: Received) -> Option<Delivery> {
    let Some(reply) = received.reply else {
        tracing::warn!(subject = %received.subject, "a message came from outside the stream");
        return None;
    };
    let verb = received.subject.split('.').next().unwrap_or_default();
    let message = wire::decode(verb, received.payload.clone()).map_err(|error| Undecodable {
        subject: received.subject.to_string(),
        body: received.payload.clone(),
        reason: error.to_string(),
    });
    Some(Delivery {
        message,
        published_at: published_at(&reply),
        token: Token(Bytes::copy_from_slice(reply.as_bytes())),
    })
}

/// The time in the subject that acknowledges a message, in one of its two forms:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<seq>.<nanoseconds>.<pending>`, or, with two more tokens in
/// front of the stream and perhaps more at the end,
/// `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.<seq>.<seq>.<nanoseconds>.<pending>`.
fn published_at(reply: &str) -> Timestamp {
    let tokens: Vec<&str> = reply.split('.').collect();
    let at = if tokens.len() == 9 { 7 } else { 9 };
    let nanoseconds = tokens.get(at).and_then(|token| token.parse::<i64>().ok());
    from_unix_micros(nanoseconds.unwrap_or(0) / 1_000)
}

/// Answers deliveries by publishing to the subject that came with each.
///
/// That subject names a message by its number alone. A server that came back may have lost its disk, and have given
/// the number to another message, which would then count as read. So deliveries are only answered on the connection
/// that they came by; those of an earlier one come again.
struct NatsAcks {
    connection: Connection,
    /// How often the connection had been lost when the subscription was made.
    connected_since: u64,
}

const ACK: Bytes = Bytes::from_static(b"+ACK");
const NAK: Bytes = Bytes::from_static(b"-NAK");

#[async_trait]
impl Acknowledge for NatsAcks {
    async fn ack(&self, tokens: Vec<Token>) -> Result<()> {
        let answered = self.answer(tokens, ACK).await;
        answered.map_err(|why| BrokerError::new("acknowledge", why))
    }

    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()> {
        let answered = self.answer(tokens, NAK).await;
        answered.map_err(|why| BrokerError::new("hand back", why))
    }
}

impl NatsAcks {
    async fn answer(&self, tokens: Vec<Token>, word: Bytes) -> std::result::Result<(), String> {
        self.connection.check()?;
        if self.connection.losses() != self.connected_since {
            return Err("the connection was lost since the delivery".to_owned());
        }
        let client = &self.connection.client;
        let answering = async {
            for subject in tokens.into_iter().filter_map(ack_subject) {
                client.publish(subject, word.clone()).await?;
            }
            client.flush().await?;
            Ok::<_, async_nats::Error>(())
        };
        match timeout(ANSWER_TIMEOUT, answering).await {
            Ok(answered) => answered.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not sent within {ANSWER_TIMEOUT:?}")),
        }
    }
}

fn ack_subject(token: Token) -> Option<String> {
    let subject = String::from_utf8(token.0.into()).ok()?;
    subject.starts_with("$JS.ACK.").then_some(subject)
}

#[cfg(test)]
mod tests {
    use super::published_at;

    #[test]
    fn both_forms_of_the_ack_subject_have_the_time() {
        let expected = "2026-03-01T12:00:00.123456Z".parse().unwrap();
        for reply in [
            "$JS.ACK.FOREBAY.recorder.1.7.5.1772366400123456789.0",
            "$JS.ACK._.AbCdEf.FOREBAY.recorder.1.7.5.1772366400123456789.0",
            "$JS.ACK.hub.AbCdEf.FOREBAY.recorder.1.7.5.1772366400123456789.0.aaaa",
        ] {
            assert_eq!(published_at(reply), expected, "{reply}");
        }
    }
}
