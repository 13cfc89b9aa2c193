//! Forebay's broker on RabbitMQ.
//!
//! Messages go through one topic exchange to durable quorum queues: one for the recorder, which gets every submission,
//! many in one message, and one for each lane, which gets what is ready in it. They are persistent, published with
//! confirms, and acknowledged by hand. No plug-in is needed, and nothing waits, expires or dies in the broker.
//!
//! There are two connections: the server stops reading from one that publishes when it runs short of disk or memory,
//! and must go on to read acknowledgements from the other. Both come back by themselves.

mod acks;
mod census;
mod connection;
mod consume;
mod failure;
mod listen;
mod looks;
mod publish;
mod recorder;
mod signals;
mod speak;
mod topology;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_broker::{Broker, BrokerError, Depth, Message, PublishError, Result, Source, Subscription, wire};
use forebay_core::{Lane, Signal};
use futures::stream::BoxStream;
use lapin::BasicProperties;

use crate::{
    acks::Holdings,
    census::{Census, Voice},
    connection::{Link, Purpose, Servers},
    failure::Failure,
    looks::Looks,
    publish::Publisher,
    speak::Speaker,
    topology::{Plan, Topology},
};

/// How long one look at the server may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the making of queues, which the server syncs to disk, may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(4);

/// Where the server is, and how the queues are set up.
#[derive(Clone)]
pub struct RabbitMqOptions {
    /// `amqp://` or `amqps://` URLs of the server, or of several in one cluster, separated by commas; the path is
    /// the virtual host.
    pub url: String,
    /// What the names of exchanges and queues begin with.
    pub prefix: String,
    /// How many bytes of messages each queue may hold. Past it, publishing to it fails with [`PublishError::Full`].
    pub queue_bytes_max: u64,
    /// On how many servers of a cluster each message is kept; where absent, the server decides.
    pub group_size: Option<u32>,
    /// How long [`Broker::publish`] may take.
    pub publish_timeout: Duration,
}

impl RabbitMqOptions {
    /// The defaults, with the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "forebay".to_owned(),
            queue_bytes_max: 4 * 1024 * 1024 * 1024,
            group_size: None,
            publish_timeout: Duration::from_millis(1_500),
        }
    }
}

/// Without the URL, which holds a password.
impl fmt::Debug for RabbitMqOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqOptions")
            .field("prefix", &self.prefix)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("group_size", &self.group_size)
            .field("publish_timeout", &self.publish_timeout)
            .finish_non_exhaustive()
    }
}

/// Connections to RabbitMQ. They come back by themselves, for ever, with backoff and jitter; meanwhile all methods
/// fail fast.
pub struct RabbitMqBroker {
    consuming: Arc<Link>,
    /// What exists, as the connection that consumes saw it.
    topology: Arc<Topology>,
    publisher: Publisher,
    looks: Arc<Looks>,
    census: Census,
    speaker: Arc<Speaker>,
    holdings: Holdings,
}

impl fmt::Debug for RabbitMqBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqBroker")
            .field("plan", self.topology.plan())
            .finish_non_exhaustive()
    }
}

impl RabbitMqBroker {
    /// Connects, and makes the exchanges and the recorder's queue.
    ///
    /// # Errors
    /// Where the server can't be reached within five seconds, or refuses the settings.
    pub async fn connect(options: &RabbitMqOptions) -> Result<Self> {
        let wrong = |error| {
            BrokerError::new(
                "connect to RabbitMQ",
                format!("the broker's URL is wrong: {error}"),
            )
        };
        let servers = Servers::parse(&options.url).map_err(wrong)?;
        let plan = Plan::new(options);
        let (publishing, consuming) = tokio::try_join!(
            Link::open(servers.clone(), Purpose::Publish),
            Link::open(servers, Purpose::Consume),
        )?;
        let (publishing, consuming) = (Arc::new(publishing), Arc::new(consuming));
        let topology = Arc::new(Topology::new(plan));
        let published = Arc::new(topology.beside());
        let looks = Arc::new(Looks::new(Arc::clone(&consuming)));
        let census = Census::new(
            Arc::clone(&publishing),
            Arc::clone(&published),
            Arc::clone(&looks),
        );
        let broker = Self {
            publisher: Publisher::new(Arc::clone(&publishing), published, options.publish_timeout),
            speaker: Arc::new(Speaker::new(publishing)),
            holdings: Holdings::default(),
            consuming,
            topology,
            looks,
            census,
        };
        let set_up = |error: Failure| BrokerError::new("set up the queues", error);
        let live = broker.consuming.live().map_err(set_up)?;
        let ensured = broker.topology.ensure(&live, &Source::Submissions, SETUP_TIMEOUT);
        ensured.await.map_err(set_up)?;
        Ok(broker)
    }
}

#[async_trait]
impl Broker for RabbitMqBroker {
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>> {
        self.publisher.publish(batch).await
    }

    async fn consume(&self, source: Source) -> Result<Subscription> {
        match source {
            Source::Submissions => {
                let voice = Voice(Arc::clone(&self.speaker));
                recorder::subscribe(&self.consuming, &self.topology, voice).await
            }
            Source::Lane(_) => {
                consume::subscribe(&self.consuming, &self.topology, &self.holdings, &source).await
            }
        }
    }

    /// What other processes hold is not visible over AMQP, so `delivered` is what this one holds. A worker holds a
    /// delivery until it has claimed its task, or for seconds where its kind has no room.
    async fn depth(&self, lane: &Lane) -> Result<Depth> {
        let fail = |error| BrokerError::new("count a lane", error);
        let source = Source::Lane(lane.clone());
        let queue = self.topology.plan().queue_of(&source);
        // Asked for a queue that is missing, the server would close the channel and log an error, each time.
        let live = self.consuming.live().map_err(fail)?;
        let ensured = self.topology.ensure(&live, &source, LOOK_TIMEOUT);
        ensured.await.map_err(fail)?;
        let Some(seen) = self.looks.look(&queue).await.map_err(fail)? else {
            self.topology.forget_all();
            return Ok(Depth::default());
        };
        Ok(Depth {
            waiting: seen.ready,
            delivered: self.holdings.held(&queue),
        })
    }

    /// What was published together counts as one until all of it is recorded.
    async fn unrecorded(&self) -> Result<u64> {
        let counted = self.census.unrecorded().await;
        counted.map_err(|error| BrokerError::new("count what is unrecorded", error))
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let exchange = self.topology.plan().signals();
        let body = wire::encode_signal(&signal);
        let said = self
            .speaker
            .say(&exchange, "".into(), &body, BasicProperties::default());
        said.await
            .map_err(|error| BrokerError::new("send a signal", error))
    }

    async fn signals(&self) -> Result<BoxStream<'static, Signal>> {
        signals::hear(&self.consuming, &self.topology).await
    }

    /// An acknowledgement deletes: there is nothing to do.
    async fn trim(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let checked = self.publisher.check().await;
        checked.map_err(|error| BrokerError::new("take a message", error))
    }
}
