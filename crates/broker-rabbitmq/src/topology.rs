//! The exchanges and queues: what they are called, how they are set up, and that they exist.
//!
//! `<prefix>` is a topic exchange. The quorum queue `<prefix>.recorder` gets what has the routing key `submit`, the quorum
//! queue `<prefix>.lane.<queue>.<priority>` what has `ready.<queue>.<priority>`: no message has two queues. The fanout
//! exchanges `<prefix>.signals` and `<prefix>.census` reach who listens.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use forebay_broker::Source;
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    RabbitMqOptions,
    connection::{Live, Owned},
    failure::{Failure, within},
    looks::glance,
};

/// How often a message may be delivered before RabbitMQ drops it: as good as never. Left out, this is 20 from 4.0 on;
/// and what means "never" there, -1, drops a message that is handed back once on 3.10.
const DELIVERIES_MAX: i64 = i32::MAX as i64;
/// How long the recorder's queue is left alone once this process has made it; shorter than any caller's patience.
///
/// RabbitMQ 3.10 writes down half a second later where on its disk a new quorum queue is. If it is killed before that,
/// the queue comes back empty, whatever was confirmed, and without a leader: nothing but deleting it, or an election
/// by hand, helps. The wait protects what this process publishes. It does not protect what another process publishes,
/// which finds the queue there and uses it at once; nor lanes, which nobody waits for: what one of them loses is in
/// the store, and is published again once the queue can be used.
const SETTLING: Duration = Duration::from_millis(700);

/// What things are called, and how queues are set up.
#[derive(Debug)]
pub(crate) struct Plan {
    prefix: String,
    queue_bytes_max: u64,
    group_size: Option<u32>,
}

impl Plan {
    pub(crate) fn new(options: &RabbitMqOptions) -> Arc<Self> {
        Arc::new(Self {
            prefix: options.prefix.clone(),
            queue_bytes_max: options.queue_bytes_max,
            group_size: options.group_size,
        })
    }

    /// The exchange that all messages go through.
    pub(crate) fn exchange(&self) -> &str {
        &self.prefix
    }

    /// The exchange that signals go through.
    pub(crate) fn signals(&self) -> String {
        format!("{}.signals", self.prefix)
    }

    /// The exchange that asks all recorders.
    pub(crate) fn census(&self) -> String {
        format!("{}.census", self.prefix)
    }

    /// The queue of `source`.
    pub(crate) fn queue_of(&self, source: &Source) -> String {
        match source {
            Source::Submissions => format!("{}.recorder", self.prefix),
            Source::Lane(lane) => format!("{}.lane.{lane}", self.prefix),
        }
    }

    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            arguments.insert(name.into(), value);
        };
        set("x-queue-type", AMQPValue::LongString("quorum".into()));
        set("x-overflow", AMQPValue::LongString("reject-publish".into()));
        let bytes = i64::try_from(self.queue_bytes_max).unwrap_or(i64::MAX);
        set("x-max-length-bytes", bytes.into());
        if let Some(size) = self.group_size {
            set("x-quorum-initial-group-size", i64::from(size).into());
        }
        set("x-delivery-limit", DELIVERIES_MAX.into());
        arguments
    }
}

/// The routing key of what `source` reads.
pub(crate) fn routing_key(source: &Source) -> String {
    match source {
        Source::Submissions => "submit".to_owned(),
        Source::Lane(lane) => format!("ready.{lane}"),
    }
}

/// The queues that are known to exist, as long as the connection is the one they were seen on.
#[derive(Default)]
struct Known {
    generation: u64,
    queues: HashSet<String>,
    exchanges: bool,
}

/// Knows what exists on the server as one connection saw it, and makes what does not.
pub(crate) struct Topology {
    plan: Arc<Plan>,
    known: Mutex<Known>,
    /// One sets up at a time: after a reconnect many want the same.
    turn: tokio::sync::Mutex<()>,
    /// The queues whose settings were complained about.
    complained: Mutex<HashSet<String>>,
    settling: Arc<Settling>,
}

/// Until when the recorder's queue is left alone, on all connections of this process.
#[derive(Default)]
struct Settling(Mutex<Option<Instant>>);

impl Settling {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SETTLING);
    }

    async fn end(&self) {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }
}

impl Topology {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            complained: Mutex::default(),
            settling: Arc::default(),
        }
    }

    /// One for another connection of this process.
    pub(crate) fn beside(&self) -> Self {
        Self {
            settling: Arc::clone(&self.settling),
            ..Self::new(Arc::clone(&self.plan))
        }
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Sees to it that the exchanges, the recorder's queue and that of `source` exist.
    pub(crate) async fn ensure(&self, live: &Live, source: &Source, limit: Duration) -> Result<(), Failure> {
        if self.is_known(live, source) {
            return Ok(());
        }
        timeout(limit, self.set_up(live, source, limit))
            .await
            .unwrap_or_else(|_| Err(Failure::no_answer(limit)))
    }

    async fn set_up(&self, live: &Live, source: &Source, limit: Duration) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        if !self.knows(live, |known| known.exchanges) {
            self.declare_exchanges(live, limit).await?;
        }
        let recorder = Source::Submissions;
        if !self.is_known(live, &recorder) {
            self.set_up_recorder(live, &recorder, limit).await?;
        }
        if !self.is_known(live, source) {
            self.declare_queue(live, source, limit).await?;
            self.note_queue(live, source);
        }
        Ok(())
    }

    /// The queue is known only once it has settled: a caller that gives up before does not spare the next one the wait.
    async fn set_up_recorder(&self, live: &Live, recorder: &Source, limit: Duration) -> Result<(), Failure> {
        let is_new = !self.exists(live, recorder, limit).await?;
        if is_new {
            // It may be made though the answer never comes.
            self.settling.begin();
        }
        self.declare_queue(live, recorder, limit).await?;
        if is_new {
            self.settling.begin();
        }
        self.settling.end().await;
        self.note_queue(live, recorder);
        Ok(())
    }

    async fn declare_exchanges(&self, live: &Live, limit: Duration) -> Result<(), Failure> {
        let channel = Owned(live.open_channel(limit).await?);
        let exchanges = [
            (self.plan.prefix.clone(), ExchangeKind::Topic),
            (self.plan.signals(), ExchangeKind::Fanout),
            (self.plan.census(), ExchangeKind::Fanout),
        ];
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        for (name, kind) in exchanges {
            let declared = channel
                .0
                .exchange_declare(name.into(), kind, options, FieldTable::default());
            within(limit, declared).await?;
        }
        self.note(live, |known| known.exchanges = true);
        Ok(())
    }

    async fn declare_queue(&self, live: &Live, source: &Source, limit: Duration) -> Result<(), Failure> {
        let name = self.plan.queue_of(source);
        let channel = match self.declare(live, &name, limit).await {
            Err(error) if error.is_different() => {
                self.complain(&name, &error);
                Owned(live.open_channel(limit).await?)
            }
            declared => declared?,
        };
        let bound = channel.0.queue_bind(
            name.into(),
            self.plan.exchange().into(),
            routing_key(source).into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(limit, bound).await
    }

    fn note_queue(&self, live: &Live, source: &Source) {
        self.note(live, |known| known.queues.insert(self.plan.queue_of(source)));
    }

    async fn exists(&self, live: &Live, source: &Source, limit: Duration) -> Result<bool, Failure> {
        let channel = Owned(live.open_channel(limit).await?);
        match glance(&channel.0, &self.plan.queue_of(source), limit).await {
            Err(error) if error.is_missing() => Ok(false),
            seen => seen.map(|_| true),
        }
    }

    /// Declares on a channel of its own, since a refusal costs the channel.
    async fn declare(&self, live: &Live, name: &str, limit: Duration) -> Result<Owned, Failure> {
        let channel = Owned(live.open_channel(limit).await?);
        let arguments = self.plan.arguments();
        let declared = channel
            .0
            .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
        within(limit, declared).await?;
        Ok(channel)
    }

    fn complain(&self, queue: &str, error: &Failure) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.insert(queue.to_owned()) {
            tracing::warn!(
                queue,
                %error,
                "the queue exists with other settings and is used as it is; where it has a delivery limit, RabbitMQ drops \
                 messages that are delivered too often: make it anew, or raise its delivery-limit by a policy"
            );
        }
    }

    fn is_known(&self, live: &Live, source: &Source) -> bool {
        self.knows(live, |known| {
            known.exchanges && known.queues.contains(&self.plan.queue_of(source))
        })
    }

    fn knows(&self, live: &Live, what: impl FnOnce(&Known) -> bool) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.generation == live.generation() && what(&known)
    }

    fn note<T>(&self, live: &Live, what: impl FnOnce(&mut Known) -> T) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != live.generation() {
            *known = Known {
                generation: live.generation(),
                ..Known::default()
            };
        }
        what(&mut known);
    }

    /// Forgets that anything exists: somebody deleted something, and then perhaps more than that.
    pub(crate) fn forget_all(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known {
            generation: u64::MAX,
            ..Known::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::Lane;

    use super::*;

    #[test]
    fn every_lane_has_a_queue_and_a_routing_key_of_its_own() {
        let plan = Plan::new(&RabbitMqOptions::new("amqp://localhost"));
        let mut names = HashSet::from([plan.queue_of(&Source::Submissions)]);
        let mut keys = HashSet::from([routing_key(&Source::Submissions)]);
        for queue in ["a", "a_high", "a_low_high", "a-b", "default", "recorder", "lane"] {
            for lane in Lane::all_of(&queue.parse().unwrap()) {
                let source = Source::Lane(lane);
                assert!(keys.insert(routing_key(&source)), "{source:?}");
                assert!(names.insert(plan.queue_of(&source)), "{source:?}");
            }
        }
    }

    #[test]
    fn no_queue_drops_what_is_delivered_often_or_does_not_fit() {
        let plan = Plan::new(&RabbitMqOptions::new("amqp://localhost"));
        let arguments = plan.arguments();
        let table = arguments.inner();
        assert_eq!(table.get("x-delivery-limit"), Some(&2_147_483_647_i64.into()));
        assert_eq!(
            table.get("x-overflow"),
            Some(&AMQPValue::LongString("reject-publish".into()))
        );
    }
}
