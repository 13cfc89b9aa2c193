//! A broker in memory. It loses messages, repeats them and falls silent as it is told to.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_broker::{
    Acknowledge, Broker, BrokerError, Consumer, Delivery, Depth, Message, PublishError, Result, Source,
    Subscription, Token, Undecodable,
};
use forebay_core::{Clock, Lane, Ready, Signal, SystemClock, Timestamp};
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::BroadcastStream;

/// What is delivered and neither acknowledged nor handed back in this time is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(3);

/// What a delivery says.
pub(crate) type Item = std::result::Result<Message, Undecodable>;

/// One message: a bundle of submissions, or a bundle of one.
#[derive(Clone)]
struct Stored {
    items: Vec<Item>,
    published_at: Timestamp,
}

struct Delivered {
    at: Instant,
    stored: Stored,
    /// How many of its items are not answered yet.
    open: usize,
    handed_back: bool,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<(u64, Stored)>,
    delivered: BTreeMap<u64, Delivered>,
}

/// How what is ready is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lanes {
    #[default]
    Open,
    /// They take nothing more.
    Full,
    /// They do not answer.
    Silent,
}

#[derive(Default)]
struct State {
    lines: HashMap<Source, Line>,
    next: u64,
    /// So many messages to lanes are confirmed and forgotten.
    forget: usize,
    away: bool,
    lanes: Lanes,
    /// Consumers made before this one never answer again.
    deaf_below: usize,
    /// How many consumers were ended in good order.
    closed: usize,
    /// What every consumer holds, for as long as it is read.
    reading: Vec<(Source, Weak<()>)>,
}

pub(crate) struct MemoryBroker {
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
    signals: broadcast::Sender<Signal>,
    consumers: AtomicUsize,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            arrived: Arc::default(),
            signals: broadcast::Sender::new(10_000),
            consumers: AtomicUsize::new(0),
        }
    }
}

impl MemoryBroker {
    /// All subscriptions of now never answer again.
    pub(crate) fn deafen(&self) {
        self.state().deaf_below = self.consumers.load(Ordering::SeqCst);
    }

    pub(crate) fn consumers(&self) -> usize {
        self.consumers.load(Ordering::SeqCst)
    }

    /// How many of them were ended in good order.
    pub(crate) fn closed(&self) -> usize {
        self.state().closed
    }

    /// Whether anybody has a subscription to it.
    pub(crate) fn is_read(&self, source: &Source) -> bool {
        let state = self.state();
        let mut reading = state.reading.iter().filter(|(read, _)| read == source);
        reading.any(|(_, by)| by.strong_count() > 0)
    }

    /// The next messages to lanes are confirmed and lost.
    pub(crate) fn forget(&self, count: usize) {
        self.state().forget = count;
    }

    pub(crate) fn forgotten(&self) -> bool {
        self.state().forget == 0
    }

    pub(crate) fn wipe(&self) {
        self.state().lines.clear();
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    pub(crate) fn set_lanes(&self, lanes: Lanes) {
        self.state().lanes = lanes;
    }

    /// Puts a message into a source as it is.
    pub(crate) fn put(&self, source: Source, item: Item) {
        self.put_bundle(source, vec![item]);
    }

    /// Puts several into a source as one message.
    pub(crate) fn put_bundle(&self, source: Source, items: Vec<Item>) {
        let stored = Stored {
            items,
            published_at: SystemClock.now(),
        };
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state
            .lines
            .entry(source)
            .or_default()
            .waiting
            .push_back((number, stored));
        self.arrived.notify_waiters();
    }

    pub(crate) fn depth_of(&self, source: &Source) -> Depth {
        let state = self.state();
        let line = state.lines.get(source);
        line.map_or_else(Depth::default, |line| Depth {
            waiting: line.waiting.iter().map(|(_, it)| it.items.len() as u64).sum(),
            delivered: line
                .delivered
                .values()
                .map(|it| it.stored.items.len() as u64)
                .sum(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn publish_ready(&self, ready: Ready) -> std::result::Result<(), PublishError> {
        let is_lost = {
            let mut state = self.state();
            if state.lanes == Lanes::Full {
                return Err(PublishError::Full);
            }
            let is_lost = state.forget > 0;
            state.forget = state.forget.saturating_sub(1);
            is_lost
        };
        if !is_lost {
            let lane = Source::Lane(ready.lane.clone());
            self.put(lane, Ok(Message::Ready(ready)));
        }
        Ok(())
    }

    fn check_reachable(&self, doing: &'static str) -> Result<()> {
        if self.state().away {
            return Err(BrokerError::new(doing, "the test says so"));
        }
        Ok(())
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>> {
        if self.state().away {
            return vec![Err(PublishError::Unavailable("the test says so".to_owned())); batch.len()];
        }
        let is_silent = || self.state().lanes == Lanes::Silent;
        let is_submission = |message: &Message| matches!(message, Message::Submission(_));
        if is_silent() && !batch.iter().all(is_submission) {
            std::future::pending::<()>().await;
        }
        let bundle: Vec<Item> = batch
            .iter()
            .filter(|it| is_submission(it))
            .cloned()
            .map(Ok)
            .collect();
        if !bundle.is_empty() {
            self.put_bundle(Source::Submissions, bundle);
        }
        let publish = |message| match message {
            Message::Submission(_) => Ok(()),
            Message::Ready(ready) => self.publish_ready(ready),
        };
        batch.into_iter().map(publish).collect()
    }

    async fn consume(&self, source: Source) -> Result<Subscription> {
        self.check_reachable("consume")?;
        let number = self.consumers.fetch_add(1, Ordering::SeqCst);
        let reading = Arc::new(());
        let noted = (source.clone(), Arc::downgrade(&reading));
        self.state().reading.push(noted);
        let end = End {
            number,
            source,
            state: Arc::clone(&self.state),
            arrived: Arc::clone(&self.arrived),
            _reading: None,
        };
        let consumer = End {
            _reading: Some(reading),
            ..end.clone()
        };
        Ok(Subscription {
            consumer: Box::new(consumer),
            acks: Arc::new(end),
        })
    }

    async fn depth(&self, lane: &Lane) -> Result<Depth> {
        self.check_reachable("count")?;
        Ok(self.depth_of(&Source::Lane(lane.clone())))
    }

    async fn unrecorded(&self) -> Result<u64> {
        let depth = self.depth_of(&Source::Submissions);
        Ok(depth.waiting + depth.delivered)
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.check_reachable("signal")?;
        // Nobody need listen.
        let _ = self.signals.send(signal);
        Ok(())
    }

    async fn signals(&self) -> Result<BoxStream<'static, Signal>> {
        let stream = BroadcastStream::new(self.signals.subscribe());
        Ok(stream.filter_map(|signal| async { signal.ok() }).boxed())
    }

    async fn trim(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.check_reachable("check")
    }
}

/// Both ends of a subscription.
#[derive(Clone)]
struct End {
    number: usize,
    source: Source,
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
    _reading: Option<Arc<()>>,
}

impl End {
    /// `None` where it is deaf.
    fn take(&self, max: usize) -> Option<Result<Vec<Delivery>>> {
        let mut state = self.state.lock().unwrap();
        if self.number < state.deaf_below {
            return None;
        }
        if state.away {
            return Some(Err(BrokerError::new("receive", "the test says so")));
        }
        let line = state.lines.entry(self.source.clone()).or_default();
        let now = Instant::now();
        let late: Vec<u64> = line
            .delivered
            .iter()
            .filter(|(_, delivered)| delivered.at + ACK_WAIT < now)
            .map(|(number, _)| *number)
            .collect();
        for number in late.into_iter().rev() {
            if let Some(delivered) = line.delivered.remove(&number) {
                line.waiting.push_front((number, delivered.stored));
            }
        }
        let mut deliveries = Vec::new();
        while let Some((_, next)) = line.waiting.front()
            && deliveries.len() + next.items.len() <= max
            && let Some((number, stored)) = line.waiting.pop_front()
        {
            let token = Token(Bytes::copy_from_slice(&number.to_be_bytes()));
            deliveries.extend(stored.items.iter().map(|item| Delivery {
                message: item.clone(),
                published_at: stored.published_at,
                token: token.clone(),
            }));
            let delivered = Delivered {
                at: now,
                open: stored.items.len(),
                stored,
                handed_back: false,
            };
            line.delivered.insert(number, delivered);
        }
        Some(Ok(deliveries))
    }

    fn settle(&self, tokens: &[Token], back: bool) {
        let mut state = self.state.lock().unwrap();
        let line = state.lines.entry(self.source.clone()).or_default();
        for token in tokens.iter().rev() {
            let number = u64::from_be_bytes(token.0.as_ref().try_into().unwrap());
            let Some(delivered) = line.delivered.get_mut(&number) else {
                continue;
            };
            delivered.open -= 1;
            delivered.handed_back |= back;
            if delivered.open == 0
                && let Some(delivered) = line.delivered.remove(&number)
                && delivered.handed_back
            {
                line.waiting.push_front((number, delivered.stored));
            }
        }
        self.arrived.notify_waiters();
    }
}

#[async_trait]
impl Consumer for End {
    async fn next(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let until = Instant::now() + wait;
        loop {
            let arrived = self.arrived.notified();
            match self.take(max) {
                None => std::future::pending::<()>().await,
                Some(Ok(deliveries)) if deliveries.is_empty() => {}
                Some(answer) => return answer,
            }
            if timeout_at(until, arrived).await.is_err() {
                return self.take(max).unwrap_or_else(|| Ok(Vec::new()));
            }
        }
    }

    async fn close(&mut self) {
        self.state.lock().unwrap().closed += 1;
    }
}

#[async_trait]
impl Acknowledge for End {
    async fn ack(&self, tokens: Vec<Token>) -> Result<()> {
        self.settle(&tokens, false);
        Ok(())
    }

    async fn hand_back(&self, tokens: Vec<Token>) -> Result<()> {
        self.settle(&tokens, true);
        Ok(())
    }
}
