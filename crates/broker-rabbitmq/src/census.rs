//! Counting what is not yet recorded.
//!
//! AMQP tells how many messages of a queue wait, and how many consumers it has; not how many were delivered and are
//! not acknowledged. So all recorders are asked, in all processes, how much they hold. There must be as many answers
//! as there are consumers: with fewer, the number is not known.
//!
//! The queue is looked at first. A message was then either waiting, and is counted so, or was with a recorder, which
//! counts it. That it goes from one recorder to another between their answers takes the end of the first one's
//! channel, and then its answer is missing; one that began after the look does not count as answering for it.
//! Messages are counted, however many submissions are in each.
//! Both counts may name a message twice. The number may be too large, but it is not zero while something is left.
//!
//! A queue that is slow is said to have no consumers. So "nothing, and no consumers" is not believed where it took
//! long, and the recorders are asked all the same: any answer contradicts it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_broker::Source;
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel,
    message::Delivery as Received,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    LOOK_TIMEOUT,
    connection::{Link, Live, Owned},
    failure::{Failure, within},
    listen::Listener,
    looks::Looks,
    speak::Speaker,
    topology::{Plan, Topology},
};

/// How long a census may take in all.
const CENSUS_TIMEOUT: Duration = Duration::from_millis(1_400);
/// How long the answers to one question may take, before it is asked again: a recorder may have come or gone.
const ANSWERS_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a recorder has to contradict a server that says there is none.
const CONTRADICTION_TIMEOUT: Duration = Duration::from_millis(75);
/// Clocks are not compared, but durations are: by this much they may differ from process to process.
const SLACK: Duration = Duration::from_millis(50);
/// The name that stands for whoever asks, see RabbitMQ's "direct reply-to".
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// A question that waits for an answer.
pub(crate) struct Question {
    reply_to: ShortString,
    id: ShortString,
}

/// What one recorder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    /// How many deliveries it holds.
    held: u64,
    /// For how long it has been consuming.
    age: Duration,
}

impl Answer {
    fn write(self) -> String {
        format!("{} {}", self.held, self.age.as_micros())
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (held, age) = std::str::from_utf8(body).ok()?.split_once(' ')?;
        Some(Self {
            held: held.parse().ok()?,
            age: Duration::from_micros(age.parse().ok()?),
        })
    }
}

/// The questions that a recorder hears.
pub(crate) struct Questions(Listener);

impl Questions {
    pub(crate) async fn listen(live: &Live, plan: &Plan) -> Result<Self, Failure> {
        Listener::open(live, &plan.census()).await.map(Self)
    }

    /// The next one. `None` where none will ever come.
    pub(crate) async fn next(&mut self) -> Option<Question> {
        loop {
            let asked = self.0.next().await?;
            let (reply_to, id) = (asked.properties.reply_to(), asked.properties.correlation_id());
            if let (Some(reply_to), Some(id)) = (reply_to.clone(), id.clone()) {
                return Some(Question { reply_to, id });
            }
        }
    }
}

/// What a recorder answers with.
#[derive(Clone)]
pub(crate) struct Voice(pub(crate) Arc<Speaker>);

impl Voice {
    /// Best effort: whoever does not hear it asks again.
    pub(crate) async fn answer(&self, question: Question, held: u64, began: Instant) {
        let answer = Answer {
            held,
            age: began.elapsed(),
        };
        let properties = BasicProperties::default().with_correlation_id(question.id);
        let said = self
            .0
            .say("", question.reply_to, answer.write().as_bytes(), properties)
            .await;
        if let Err(error) = said {
            tracing::debug!(%error, "a census was not answered");
        }
    }
}

/// Where one asks, and where the answers come.
struct Desk {
    generation: u64,
    channel: Owned,
    answers: lapin::Consumer,
}

/// The last census, for those who asked before it began.
#[derive(Default)]
struct Bureau {
    desk: Option<Desk>,
    last: Option<(Instant, Result<u64, Failure>)>,
}

/// What counts.
pub(crate) struct Census {
    link: Arc<Link>,
    topology: Arc<Topology>,
    looks: Arc<Looks>,
    bureau: Mutex<Bureau>,
    asked: AtomicU64,
}

impl Census {
    pub(crate) fn new(link: Arc<Link>, topology: Arc<Topology>, looks: Arc<Looks>) -> Self {
        Self {
            link,
            topology,
            looks,
            bureau: Mutex::default(),
            asked: AtomicU64::new(0),
        }
    }

    /// How many submissions are not known to be recorded. Those who ask at the same time share one census: it
    /// began after all of them asked.
    pub(crate) async fn unrecorded(&self) -> Result<u64, Failure> {
        let since = Instant::now();
        let mut bureau = self.bureau.lock().await;
        match &bureau.last {
            Some((began, counted)) if *began >= since => return counted.clone(),
            _ => {}
        }
        let began = Instant::now();
        let counted = timeout(CENSUS_TIMEOUT, self.count(&mut bureau.desk)).await;
        let counted = counted.unwrap_or_else(|_| Err(Failure::no_answer(CENSUS_TIMEOUT)));
        bureau.last = Some((began, counted.clone()));
        counted
    }

    async fn count(&self, desk: &mut Option<Desk>) -> Result<u64, Failure> {
        let queue = self.topology.plan().queue_of(&Source::Submissions);
        loop {
            let looked = Instant::now();
            // A queue that does not exist holds nothing, and whoever publishes makes it first.
            let Some(seen) = self.looks.look(&queue).await? else {
                return Ok(0);
            };
            if seen.is_nothing() {
                let is_silent = !seen.doubtful && !self.contradicts(desk, looked).await?;
                if is_silent {
                    return Ok(0);
                }
            } else if seen.consumers == 0 {
                return Ok(seen.ready);
            } else if let Some(held) = self.ask(desk, seen.consumers, looked, ANSWERS_TIMEOUT).await? {
                return Ok(seen.ready + held);
            }
        }
    }

    /// Whether any recorder answers that was there at the look.
    async fn contradicts(&self, desk: &mut Option<Desk>, looked: Instant) -> Result<bool, Failure> {
        let answer = self.ask(desk, 1, looked, CONTRADICTION_TIMEOUT).await?;
        Ok(answer.is_some())
    }

    /// Asks all recorders. `None` where there were fewer answers than that.
    async fn ask(
        &self,
        desk: &mut Option<Desk>,
        answers: u32,
        looked: Instant,
        limit: Duration,
    ) -> Result<Option<u64>, Failure> {
        // Put back only after all went well.
        let mut open = match desk.take() {
            Some(open) if self.is_usable(&open) => open,
            _ => self.open().await?,
        };
        let id = self.asked.fetch_add(1, Ordering::Relaxed).to_string();
        self.put(&open.channel.0, &id).await?;
        let deadline = Instant::now() + limit;
        let (mut missing, mut held) = (answers, 0);
        while missing > 0 {
            let answer = match timeout_at(deadline, open.answers.next()).await {
                Ok(Some(Ok(received))) => read(&received, &id),
                Ok(_) => {
                    return Err(Failure::unreachable(
                        "the answers of the recorders can't be heard",
                    ));
                }
                Err(_) => break,
            };
            let Some(answer) = answer else { continue };
            held += answer.held;
            if answer.age + SLACK > looked.elapsed() {
                missing -= 1;
            }
        }
        *desk = Some(open);
        Ok((missing == 0).then_some(held))
    }

    fn is_usable(&self, desk: &Desk) -> bool {
        let current = self.link.live().map(|live| live.generation());
        current == Ok(desk.generation) && desk.channel.0.status().connected()
    }

    async fn open(&self) -> Result<Desk, Failure> {
        let live = self.link.live()?;
        self.topology
            .ensure(&live, &Source::Submissions, LOOK_TIMEOUT)
            .await?;
        let channel = Owned(live.open_channel(LOOK_TIMEOUT).await?);
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumed = channel
            .0
            .basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default());
        Ok(Desk {
            generation: live.generation(),
            answers: within(LOOK_TIMEOUT, consumed).await?,
            channel,
        })
    }

    async fn put(&self, channel: &Channel, id: &str) -> Result<(), Failure> {
        let properties = BasicProperties::default()
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(id.into());
        let asked = channel.basic_publish(
            self.topology.plan().census().into(),
            "".into(),
            BasicPublishOptions::default(),
            &[],
            properties,
        );
        within(LOOK_TIMEOUT, asked).await.map(|_| ())
    }
}

/// An answer to the question that was asked last; there may be late ones to those before.
fn read(received: &Received, id: &str) -> Option<Answer> {
    let to = received.properties.correlation_id().as_ref()?;
    (to.as_str() == id).then(|| Answer::read(&received.data))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_as_it_was_written() {
        let answer = Answer {
            held: 17,
            age: Duration::from_micros(1_234_567),
        };
        assert_eq!(Answer::read(answer.write().as_bytes()), Some(answer));
        for wrong in ["", "17", "17 x", "-1 5", "17 5 5"] {
            assert_eq!(Answer::read(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
