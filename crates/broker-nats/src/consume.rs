//! Consuming: pull requests written by hand, because what the client offers either waits for a full batch or asks
//! for more than it was told to.
//!
//! A request asks for what is there, up to `max`; where nothing is, it waits at the server, and is answered with
//! what comes first, which is handed out at once. The server says when it has no more for a request, so nobody waits for
//! what may follow. There is at most one request at a time. It may outlive the call that made it; what it still brings is
//! handed out by the next call.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Message as Received, StatusCode, Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{
    Acknowledge, BrokerError, Consumer, Delivery, Message, Result, Source, Subscription, Token, Undecodable,
    bundle::{self, Parts},
    wire::Decoder,
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
/// The most bytes one request asks for, unless the server takes larger messages: a request must have room for one.
const PULL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The shortest time a request waits at the server.
const EXPIRES_MIN: Duration = Duration::from_millis(10);
/// How long the server's answer to an expired request may take, on top of its time.
const GRACE: Duration = Duration::from_millis(800);
/// What comes later than this after its request was not there when it was asked for.
const PROMPT: Duration = Duration::from_millis(5);
/// How long after its first message a request is waited for, where the server goes on to have more for it.
const GATHER_MAX: Duration = Duration::from_millis(5);
/// How often the server says that it still has a request that waits long.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A server that was silent for this long while it should have said so is stalled.
const SILENCE_MAX: Duration = Duration::from_millis(2_500);
/// How long acknowledgements may take to be written.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before asking again where the server refuses a request for the time being.
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
    let (stream, name) = (topology.stream_of(source), consumer_of(source));
    let parts = match source {
        Source::Submissions => Some(Arc::default()),
        Source::Lane(_) => None,
    };
    let consumer = NatsConsumer {
        pull_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}").into(),
        pull_bytes_max: PULL_BYTES_MAX.max(2 * connection.payload_bytes_max()),
        source: source.clone(),
        decoder: Decoder::default(),
        parts: parts.clone(),
        connection: connection.clone(),
        topology: Arc::clone(topology),
        losses,
        inbox,
        messages,
        buffer: VecDeque::new(),
        pulls: 0,
        pull: None,
        others_wait: false,
        in_vain: false,
    };
    Ok(Subscription {
        consumer: Box::new(consumer),
        acks: Arc::new(NatsAcks {
            connection: connection.clone(),
            connected_since,
            parts,
        }),
    })
}

/// A request that the server has not answered in full.
#[derive(Debug)]
struct Pull {
    /// Where it is answered: the subject of the server's remarks on it. (Messages keep their own subjects.)
    inbox: String,
    /// When it was sent.
    asked: Instant,
    /// How many messages it may still bring.
    open: usize,
    /// Whether it has brought any.
    answered: bool,
    /// When the server ends it.
    ends: Instant,
    /// When the server must have given a sign of life; later with each.
    silent: Instant,
}

/// The parts of bundles that are not answered; both sides of a subscription to submissions count them.
type SharedParts = Arc<Mutex<Parts>>;

fn lock(parts: &SharedParts) -> MutexGuard<'_, Parts> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

struct NatsConsumer {
    source: Source,
    pull_subject: Subject,
    pull_bytes_max: usize,
    connection: Connection,
    topology: Arc<Topology>,
    losses: watch::Receiver<u64>,
    decoder: Decoder,
    /// Where what is read are bundles.
    parts: Option<SharedParts>,
    inbox: String,
    messages: Subscriber,
    buffer: VecDeque<Delivery>,
    pulls: u64,
    pull: Option<Pull>,
    /// Whether the last request was refused because others wait for more than there is.
    others_wait: bool,
    /// Whether it brought nothing.
    in_vain: bool,
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let until = Instant::now() + wait;
        let mut asked = false;
        self.take_what_is_there()?;
        if self.pull.as_ref().is_some_and(|pull| pull.answered) {
            // The rest of what an earlier call began to hand out.
            self.gather(max).await?;
        }
        while self.buffer.is_empty() && max > 0 {
            if self.pull.is_none() {
                if asked && Instant::now() >= until {
                    break;
                }
                asked = true;
                self.ask(max, until).await?;
            }
            if !self.listen(max, until).await? {
                break;
            }
        }
        let ready = self.buffer.len().min(max);
        Ok(self.buffer.drain(..ready).collect())
    }

    /// Takes in what the last request still brings; then all of it is handed back, as whenever this is dropped.
    async fn close(&mut self) {
        while let Some(pull) = &self.pull {
            let until = pull.silent;
            tokio::select! {
                received = self.messages.next() => if self.take(received).is_err() { return },
                _ = self.losses.changed() => return,
                () = sleep_until(until) => return,
            }
        }
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
        // Behind others one waits in line, and for no more than comes next.
        let in_line = std::mem::take(&mut self.others_wait);
        let batch = if in_line { 1 } else { max.min(PULL_MAX) };
        let mut request = json!({
            "batch": batch,
            "max_bytes": self.pull_bytes_max,
            "no_wait": !in_line,
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
            asked: now,
            open: batch,
            answered: false,
            ends,
            silent,
        });
        let (subject, body) = (self.pull_subject.clone(), Bytes::from(request.to_string()));
        let sent = self.connection.client.publish_with_reply(subject, inbox, body);
        self.connection.within(LOOK_TIMEOUT, sent).await.map_err(broken)
    }

    /// Waits for something to come, and takes all that comes with it. Says no where nothing came until `until`.
    async fn listen(&mut self, max: usize, until: Instant) -> Result<bool> {
        let Some(pull) = &self.pull else {
            return Ok(true);
        };
        // A request of an earlier call may last longer than this call may wait; it is then left to the next.
        let ours = pull.ends <= until + EXPIRES_MIN;
        let limit = if ours { pull.silent } else { pull.silent.min(until) };
        let (asked, ends) = (pull.asked, pull.ends);
        tokio::select! {
            biased;
            received = self.messages.next() => self.take(received)?,
            _ = self.losses.changed() => {
                self.pull = None;
                return Err(broken("the connection was lost"));
            }
            () = sleep_until(limit) => return self.silence(limit),
        }
        if asked.elapsed() < PROMPT {
            self.gather(max).await?;
        } else {
            self.take_what_is_there()?;
        }
        let early = Instant::now() + EXPIRES_MIN < ends;
        if self.pull.is_none() && self.buffer.is_empty() && early && self.in_vain && !self.others_wait {
            sleep_until(until.min(Instant::now() + PAUSE)).await;
        }
        Ok(true)
    }

    /// Once something came, takes what comes with it, until that is enough or the server says that there is no more.
    async fn gather(&mut self, max: usize) -> Result<()> {
        self.take_what_is_there()?;
        let mut enough = pin!(sleep_until(Instant::now() + GATHER_MAX));
        while (1..max).contains(&self.buffer.len()) && self.pull.is_some() {
            tokio::select! {
                biased;
                received = self.messages.next() => self.take(received)?,
                () = &mut enough => break,
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

    /// Takes all of it: there is no more than one request asked for.
    fn take_what_is_there(&mut self) -> Result<()> {
        while let Some(received) = unconstrained(self.messages.next()).now_or_never() {
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
            pull.answered = true;
            pull.silent = pull.silent.max(Instant::now() + GRACE);
            if pull.open == 0 {
                self.pull = None;
            }
        }
        self.unpack(received);
        Ok(())
    }

    /// Puts what a message brings into the buffer. What has nothing to acknowledge it by is no message of the stream.
    fn unpack(&mut self, received: Received) {
        let Some(reply) = received.reply else {
            tracing::warn!(subject = %received.subject, "a message came from outside the stream");
            return;
        };
        let published_at = published_at(&reply);
        let token = Token(Bytes::from(reply.into_string()));
        if let Some(parts) = &self.parts {
            let messages = bundle::unpack(&received.subject, received.payload);
            lock(parts).open(&token.0, messages.len());
            self.buffer.extend(messages.into_iter().map(|message| Delivery {
                message,
                published_at,
                token: token.clone(),
            }));
        } else {
            let message = decoded(&mut self.decoder, &received.subject, received.payload);
            self.buffer.push_back(Delivery {
                message,
                published_at,
                token,
            });
        }
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
        self.in_vain = !pull.answered;
        let text = received.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => {
                pull.silent = (Instant::now() + SILENCE_MAX).min(pull.ends + GRACE);
                return Ok(());
            }
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                self.others_wait = text.contains("Requests Pending");
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
            self.topology.forget(&self.source);
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
        let tokens: Vec<Token> = self.buffer.drain(..).map(|delivery| delivery.token).collect();
        let tokens = match &self.parts {
            Some(parts) => lock(parts).hand_back(tokens),
            None => tokens.into_iter().map(|Token(token)| token).collect(),
        };
        for subject in tokens.into_iter().filter_map(ack_subject) {
            let handed_back = self.connection.client.publish(subject, NAK);
            let _ = unconstrained(handed_back).now_or_never();
        }
    }
}

fn broken(why: impl Into<String>) -> BrokerError {
    BrokerError::new("deliver", why.into())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a message of a lane says.
fn decoded(decoder: &mut Decoder, subject: &str, body: Bytes) -> std::result::Result<Message, Undecodable> {
    let verb = subject.split('.').next().unwrap_or_default();
    decoder.decode(verb, &body).map_err(|error| Undecodable {
        subject: subject.to_owned(),
        body,
        reason: error.to_string(),
    })
}

/// The time in the subject that acknowledges a message, in one of its two forms:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<seq>.<nanoseconds>.<pending>`, or, with two more tokens in
/// front of the stream and perhaps more at the end,
/// `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.<seq>.<seq>.<nanoseconds>.<pending>`.
fn published_at(reply: &str) -> Timestamp {
    let dots = reply.bytes().filter(|&byte| byte == b'.').count();
    let at = if dots == 8 { 7 } else { 9 };
    let nanoseconds = reply
        .split('.')
        .nth(at)
        .and_then(|token| token.parse::<i64>().ok());
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
    /// Where what is read are bundles.
    parts: Option<SharedParts>,
}

const ACK: Bytes = Bytes::from_static(b"+ACK");
const NAK: Bytes = Bytes::from_static(b"-NAK");

#[async_trait]
impl Acknowledge for NatsAcks {
    /// Does not wait until it is written: what is lost is delivered again.
    async fn ack(&self, tokens: Vec<Token>) -> Result<()> {
        let done = match &self.parts {
            Some(parts) => lock(parts).done(tokens),
            None => tokens.into_iter().map(|Token(token)| token).collect(),
        };
        let answered = self.answer(done, ACK).await;
        answered.map_err(|why| BrokerError::new("acknowledge", why))
    }

    /// Waits until it is written, since others wait for it.
    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()> {
        let back = match &self.parts {
            Some(parts) => lock(parts).hand_back(tokens),
            None => tokens.into_iter().map(|Token(token)| token).collect(),
        };
        let fail = |why| BrokerError::new("hand back", why);
        self.answer(back, NAK).await.map_err(fail)?;
        let written = self
            .connection
            .within(ANSWER_TIMEOUT, self.connection.client.flush());
        written.await.map_err(fail)
    }
}

impl NatsAcks {
    async fn answer(&self, tokens: Vec<Bytes>, word: Bytes) -> std::result::Result<(), String> {
        self.connection.check()?;
        if self.connection.losses() != self.connected_since {
            return Err("the connection was lost since the delivery".to_owned());
        }
        let answering = async {
            for subject in tokens.into_iter().filter_map(ack_subject) {
                self.connection.client.publish(subject, word.clone()).await?;
            }
            Ok::<_, async_nats::Error>(())
        };
        match timeout(ANSWER_TIMEOUT, answering).await {
            Ok(answered) => answered.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not sent within {ANSWER_TIMEOUT:?}")),
        }
    }
}

fn ack_subject(token: Bytes) -> Option<Subject> {
    let subject = Subject::from_utf8(token).ok()?;
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
