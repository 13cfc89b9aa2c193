//! Acknowledging, and what is held.
//!
//! AMQP names a delivery by its number on its channel. An acknowledgement may stand for all smaller numbers as well,
//! which spares the server most of the work; and one of a number that is not outstanding costs the channel. So what
//! is outstanding is known here.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Context,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{Acknowledge, BrokerError, Result, Token, bundle::Parts};
use futures::{FutureExt, future::join_all, task::noop_waker_ref};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};

use crate::{connection::close, failure::within};

/// How long answers may take to be written.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The numbers that were delivered on a channel and are neither acknowledged nor handed back.
#[derive(Debug, Default)]
struct Outstanding(BTreeSet<u64>);

/// One frame of acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    tag: u64,
    /// Whether it stands for all smaller numbers too.
    multiple: bool,
}

impl Outstanding {
    /// Takes these out, and says how to answer them in as few frames as possible. What is not outstanding is left
    /// out: it was answered before.
    fn settle(&mut self, tags: impl IntoIterator<Item = u64>) -> Vec<Answer> {
        let mut settled: BTreeSet<u64> = tags.into_iter().filter(|tag| self.0.remove(tag)).collect();
        let rest = match self.0.first() {
            Some(oldest) => settled.split_off(oldest),
            None => BTreeSet::new(),
        };
        // All that is outstanding below these was settled just now.
        let prefix = settled.last().map(|&tag| Answer {
            tag,
            multiple: settled.len() > 1,
        });
        let singles = rest.into_iter().map(|tag| Answer { tag, multiple: false });
        prefix.into_iter().chain(singles).collect()
    }
}

/// How a delivery is answered.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Done,
    /// `nack`, not `reject`: from 4.3 on only the latter counts as a failure of the message.
    HandedBack,
}

type Writing = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

/// The answering side of a subscription; the channel ends with it.
pub(crate) struct Acks {
    channel: Channel,
    /// Tells the channel from every other, since all count from 1.
    generation: u64,
    outstanding: Mutex<Outstanding>,
}

impl Drop for Acks {
    fn drop(&mut self) {
        close(self.channel.clone());
    }
}

impl Acks {
    pub(crate) fn new(channel: Channel) -> Arc<Self> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            channel,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            outstanding: Mutex::default(),
        })
    }

    fn outstanding(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a delivery.
    pub(crate) fn delivered(&self, tag: u64) -> Token {
        self.outstanding().0.insert(tag);
        let mut token = [0; 16];
        token[..8].copy_from_slice(&self.generation.to_be_bytes());
        token[8..].copy_from_slice(&tag.to_be_bytes());
        Token(Bytes::copy_from_slice(&token))
    }

    /// How many deliveries are neither acknowledged nor handed back; none where the channel is closed, since the
    /// server has taken them back then.
    pub(crate) fn held(&self) -> u64 {
        if self.channel.status().connected() {
            self.outstanding().0.len() as u64
        } else {
            0
        }
    }

    /// Hands back without waiting for it to be written: for what is dropped.
    pub(crate) fn hand_back_now(&self, tokens: impl IntoIterator<Item = Token>) {
        let tags = tokens.into_iter().filter_map(|token| self.tag(&token));
        drop(self.begin(tags, Verdict::HandedBack));
    }

    /// Whether it was delivered by this channel.
    fn is_ours(&self, token: &Token) -> bool {
        self.tag(token).is_some()
    }

    fn tag(&self, token: &Token) -> Option<u64> {
        let bytes: &[u8; 16] = token.0.as_ref().try_into().ok()?;
        let (generation, tag) = bytes.split_at(8);
        (generation == self.generation.to_be_bytes())
            .then(|| u64::from_be_bytes(tag.try_into().expect("8 of 16 bytes are 8 bytes")))
    }

    /// Puts the answers in line to be written. This happens under the lock: an answer for all smaller numbers must
    /// not overtake, or be overtaken by, one that counted on it.
    fn begin(&self, tags: impl IntoIterator<Item = u64>, verdict: Verdict) -> Vec<Writing> {
        let mut outstanding = self.outstanding();
        let answers = outstanding.settle(tags);
        let mut nobody = Context::from_waker(noop_waker_ref());
        let begin = |answer| {
            let mut writing = write(self.channel.clone(), answer, verdict);
            // Polled once, the frame is in the client's line. Whether it was written is asked later.
            match writing.poll_unpin(&mut nobody) {
                std::task::Poll::Ready(done) => std::future::ready(done).boxed(),
                std::task::Poll::Pending => writing,
            }
        };
        answers.into_iter().map(begin).collect()
    }

    async fn answer(&self, tokens: &[Token], verdict: Verdict) -> std::result::Result<(), String> {
        if !self.channel.status().connected() {
            return Err("the channel was closed since the delivery".to_owned());
        }
        let ours: Vec<u64> = tokens.iter().filter_map(|token| self.tag(token)).collect();
        let foreign = tokens.len() - ours.len();
        let writing = self.begin(ours, verdict);
        let written = async { join_all(writing).await.into_iter().collect::<lapin::Result<()>>() };
        within(ANSWER_TIMEOUT, written)
            .await
            .map_err(|error| error.to_string())?;
        if foreign > 0 {
            return Err(format!("{foreign} of the deliveries came by another channel"));
        }
        Ok(())
    }
}

fn write(channel: Channel, answer: Answer, verdict: Verdict) -> Writing {
    let Answer { tag, multiple } = answer;
    Box::pin(async move {
        match verdict {
            Verdict::Done => channel.basic_ack(tag, BasicAckOptions { multiple }).await,
            Verdict::HandedBack => {
                let requeue = BasicNackOptions {
                    multiple,
                    requeue: true,
                };
                channel.basic_nack(tag, requeue).await
            }
        }
    })
}

#[async_trait]
impl Acknowledge for Acks {
    async fn ack(&self, tokens: Vec<Token>) -> Result<()> {
        let answered = self.answer(&tokens, Verdict::Done).await;
        answered.map_err(|why| BrokerError::new("acknowledge", why))
    }

    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()> {
        let answered = self.answer(&tokens, Verdict::HandedBack).await;
        answered.map_err(|why| BrokerError::new("hand back", why))
    }
}

/// The answering side where several deliveries come in one message: it is answered once all of them are.
pub(crate) struct BundleAcks {
    acks: Arc<Acks>,
    parts: Mutex<Parts>,
}

impl BundleAcks {
    pub(crate) fn new(acks: Arc<Acks>) -> Self {
        Self {
            acks,
            parts: Mutex::default(),
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a message has so many parts.
    pub(crate) fn opened(&self, token: &Token, count: usize) {
        self.parts().open(&token.0, count);
    }

    /// Divides what this channel delivered from what is left for it to complain of.
    fn divide(&self, tokens: Vec<Token>) -> (Vec<Token>, Vec<Token>) {
        tokens.into_iter().partition(|token| self.acks.is_ours(token))
    }
}

#[async_trait]
impl Acknowledge for BundleAcks {
    async fn ack(&self, tokens: Vec<Token>) -> Result<()> {
        let (ours, mut answered) = self.divide(tokens);
        answered.extend(self.parts().done(ours).into_iter().map(Token));
        self.acks.ack(answered).await
    }

    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()> {
        let (ours, mut answered) = self.divide(tokens);
        answered.extend(self.parts().hand_back(ours).into_iter().map(Token));
        self.acks.hand_back(answered).await
    }
}

/// What the subscriptions of this process hold, by queue.
#[derive(Default)]
pub(crate) struct Holdings(Mutex<HashMap<String, Vec<Weak<Acks>>>>);

impl Holdings {
    /// Counts what this subscription holds from now on.
    pub(crate) fn add(&self, queue: &str, acks: &Arc<Acks>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, of_queue| {
            of_queue.retain(|acks| acks.strong_count() > 0);
            !of_queue.is_empty()
        });
        all.entry(queue.to_owned())
            .or_default()
            .push(Arc::downgrade(acks));
    }

    /// How much is held of a queue.
    pub(crate) fn held(&self, queue: &str) -> u64 {
        let holders: Vec<_> = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(queue)
                .into_iter()
                .flatten()
                .filter_map(Weak::upgrade)
                .collect()
        };
        holders.iter().map(|acks| acks.held()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(tags: impl IntoIterator<Item = u64>) -> Outstanding {
        Outstanding(tags.into_iter().collect())
    }

    fn answers(frames: &[(u64, bool)]) -> Vec<Answer> {
        let answers = frames.iter().map(|&(tag, multiple)| Answer { tag, multiple });
        answers.collect()
    }

    #[test]
    fn a_whole_batch_is_one_frame() {
        let mut all = outstanding(1..=100);
        assert_eq!(all.settle(1..=100), answers(&[(100, true)]));
        assert!(all.0.is_empty());
    }

    #[test]
    fn what_lies_behind_one_that_is_held_is_answered_singly() {
        let mut all = outstanding(1..=6);
        assert_eq!(
            all.settle([6, 1, 2, 4]),
            answers(&[(2, true), (4, false), (6, false)])
        );
        assert_eq!(all.0, BTreeSet::from([3, 5]));
        assert_eq!(all.settle([3]), answers(&[(3, false)]));
        assert_eq!(all.settle([5]), answers(&[(5, false)]));
    }

    #[test]
    fn what_was_answered_before_is_left_out() {
        let mut all = outstanding(1..=3);
        assert_eq!(all.settle([1, 1, 2]), answers(&[(2, true)]));
        assert_eq!(all.settle([1, 2, 99]), []);
        assert_eq!(all.settle([2, 3]), answers(&[(3, false)]));
        assert_eq!(all.settle([]), []);
    }

    /// No frame for several may reach beyond what it is about, whatever the order.
    #[test]
    fn frames_never_cover_what_is_held() {
        for pattern in 0..1_u32 << 8 {
            let (settled, held): (Vec<u64>, Vec<u64>) = (0..8).partition(|bit| pattern & (1 << bit) != 0);
            let mut all = outstanding(0..8);
            let mut covered = BTreeSet::new();
            for Answer { tag, multiple } in all.settle(settled.iter().rev().copied()) {
                covered.extend((0..=tag).filter(|&other| other == tag || multiple));
            }
            assert_eq!(covered.into_iter().collect::<Vec<_>>(), settled);
            assert_eq!(all.0.into_iter().collect::<Vec<_>>(), held);
        }
    }
}
