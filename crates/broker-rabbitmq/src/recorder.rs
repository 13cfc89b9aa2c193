//! Consuming all submissions: one consumer that stays open, with a large credit.
//!
//! What comes is taken off the client at once and counted, by a task that also answers the census: how much this
//! recorder holds, see [`crate::census`]. Its buffer is as large as the credit, so the server bounds it. A message holds
//! many submissions; it is unpacked when they are handed out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{BrokerError, Consumer, Delivery, Result, Source, Subscription, Token, bundle};
use forebay_core::Timestamp;
use futures::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery as Received,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    LOOK_TIMEOUT, SETUP_TIMEOUT,
    acks::{Acks, BundleAcks},
    census::{Questions, Voice},
    connection::{Link, close},
    consume::{broken, published_at, sign_of_life},
    failure::{Failure, within},
    looks::glance,
    topology::Topology,
};

/// How many messages may be under way to one recorder. Each may have a megabyte.
const CREDIT: u16 = 64;
/// How often a server that has nothing to deliver is asked whether it lives.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// Begins to consume all submissions.
pub(crate) async fn subscribe(
    link: &Arc<Link>,
    topology: &Arc<Topology>,
    voice: Voice,
) -> Result<Subscription> {
    let fail = |error: Failure| BrokerError::new("consume", error);
    let live = link.live().map_err(fail)?;
    let ensured = topology.ensure(&live, &Source::Submissions, SETUP_TIMEOUT).await;
    ensured.map_err(fail)?;
    let channel = live.open_channel(SETUP_TIMEOUT).await.map_err(fail)?;
    let acks = Acks::new(channel.clone());
    let queue = topology.plan().queue_of(&Source::Submissions);
    let deliveries = consume(&channel, &queue).await.map_err(fail)?;
    let began = Instant::now();
    // Only after the consumer: who answers must be among those whose answers are waited for.
    let questions = Questions::listen(&live, topology.plan()).await.map_err(fail)?;
    let (sender, inbox) = mpsc::channel(usize::from(CREDIT));
    let end = Arc::new(Mutex::new(None));
    let recorder = Recorder {
        queue,
        channel: channel.clone(),
        topology: Arc::clone(topology),
        acks: Arc::clone(&acks),
        deliveries,
        inbox: sender,
        questions,
        voice,
        began,
    };
    let task = tokio::spawn(run(recorder, Arc::clone(&end)));
    let acks = Arc::new(BundleAcks::new(acks));
    Ok(Subscription {
        consumer: Box::new(RecorderConsumer {
            channel,
            inbox,
            unpacked: VecDeque::new(),
            acks: Arc::clone(&acks),
            task,
            end,
        }),
        acks,
    })
}

async fn consume(channel: &Channel, queue: &str) -> std::result::Result<lapin::Consumer, Failure> {
    let limited = channel.basic_qos(CREDIT, BasicQosOptions::default());
    within(SETUP_TIMEOUT, limited).await?;
    let consumed = channel.basic_consume(
        queue.into(),
        "recorder".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    within(SETUP_TIMEOUT, consumed).await
}

/// Why a recorder's task ended.
type End = Arc<Mutex<Option<String>>>;

async fn run(mut recorder: Recorder, end: End) {
    let Err(why) = recorder.run().await;
    *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
}

/// A message that is held, not yet unpacked.
struct Packed {
    subject: String,
    body: Bytes,
    published_at: Timestamp,
    token: Token,
}

struct RecorderConsumer {
    channel: Channel,
    inbox: mpsc::Receiver<Packed>,
    /// What is left of the last message that was unpacked.
    unpacked: VecDeque<Delivery>,
    acks: Arc<BundleAcks>,
    task: JoinHandle<()>,
    end: End,
}

/// Unlike a lane's, a recorder's channel is closed with its consumer, even if somebody may still acknowledge on it:
/// what it holds must be counted, either by it or by the queue.
impl Drop for RecorderConsumer {
    fn drop(&mut self) {
        close(self.channel.clone());
        self.task.abort();
    }
}

#[async_trait]
impl Consumer for RecorderConsumer {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let until = Instant::now() + wait;
        loop {
            let there = self.take(max);
            if !there.is_empty() {
                return Ok(there);
            }
            let pause = until.min(Instant::now() + SIGN_INTERVAL);
            match timeout_at(pause, self.inbox.recv()).await {
                Ok(Some(first)) => {
                    self.unpack(first);
                    continue;
                }
                Ok(None) => return Err(self.why_broken()),
                Err(_) => {}
            }
            let alive = sign_of_life(&self.channel, CREDIT).await;
            // It may have come with the sign.
            if let Ok(first) = self.inbox.try_recv() {
                self.unpack(first);
                continue;
            }
            alive?;
            if pause == until {
                return Ok(Vec::new());
            }
        }
    }
}

impl RecorderConsumer {
    /// Takes what is there.
    fn take(&mut self, max: usize) -> Vec<Delivery> {
        while self.unpacked.len() < max
            && let Ok(next) = self.inbox.try_recv()
        {
            self.unpack(next);
        }
        let count = self.unpacked.len().min(max);
        self.unpacked.drain(..count).collect()
    }

    fn unpack(&mut self, packed: Packed) {
        let Packed {
            subject,
            body,
            published_at,
            token,
        } = packed;
        let parts = bundle::unpack(&subject, body);
        self.acks.opened(&token, parts.len());
        let deliveries = parts.into_iter().map(|message| Delivery {
            message,
            published_at,
            token: token.clone(),
        });
        self.unpacked.extend(deliveries);
    }

    fn why_broken(&self) -> BrokerError {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        broken(
            end.clone()
                .unwrap_or_else(|| "the recorder's task ended".to_owned()),
        )
    }
}

struct Recorder {
    queue: String,
    channel: Channel,
    topology: Arc<Topology>,
    acks: Arc<Acks>,
    deliveries: lapin::Consumer,
    inbox: mpsc::Sender<Packed>,
    questions: Questions,
    voice: Voice,
    began: Instant,
}

impl Recorder {
    /// Takes deliveries and answers questions until it can't.
    async fn run(&mut self) -> std::result::Result<std::convert::Infallible, String> {
        loop {
            tokio::select! {
                biased;
                received = self.deliveries.next() => self.take(received)?,
                question = self.questions.next() => {
                    let question = question.ok_or("the census can't be heard any more")?;
                    self.answer(question).await?;
                }
            }
        }
    }

    fn take(&mut self, received: Option<lapin::Result<Received>>) -> std::result::Result<(), String> {
        match received {
            Some(Ok(received)) => {
                let packed = Packed {
                    published_at: published_at(&received),
                    token: self.acks.delivered(received.delivery_tag),
                    subject: received.routing_key.into(),
                    body: received.data.into(),
                };
                let full = |_| "more was delivered than there was credit for".to_owned();
                self.inbox.try_send(packed).map_err(full)
            }
            Some(Err(error)) => Err(Failure::from(error).to_string()),
            None => {
                self.topology.forget_all();
                Err("the queue is gone".to_owned())
            }
        }
    }

    /// Answers with how much is held. What the queue had sent here when the question was asked must be among it:
    /// the queue's own answer to a look comes after that to the channel's process, though that process passes on
    /// the look's answer first; the answer to whatever is asked next is in order.
    async fn answer(&mut self, question: crate::census::Question) -> std::result::Result<(), String> {
        let barrier = async {
            glance(&self.channel, &self.queue, LOOK_TIMEOUT).await?;
            within(
                LOOK_TIMEOUT,
                self.channel.basic_qos(CREDIT, BasicQosOptions::default()),
            )
            .await
        };
        if let Err(error) = barrier.await {
            return Err(format!("the server does not answer: {error}"));
        }
        while let Some(received) = self.deliveries.next().now_or_never() {
            self.take(received)?;
        }
        self.voice.answer(question, self.acks.held(), self.began).await;
        Ok(())
    }
}
