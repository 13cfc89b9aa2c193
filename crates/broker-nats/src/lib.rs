//! Forebay's broker on NATS JetStream.
//!
//! Two streams with file storage and limits retention. The intake (`FOREBAY`, subject `submit`) holds submissions, many
//! in one message, since the server syncs its disk once a message; the durable pull consumer `recorder` reads it. The
//! lanes (`FOREBAY_READY`, subjects `ready.<queue>.<priority>`) hold what is ready, and one durable pull consumer for
//! each lane reads it; all of it is in the store and is published again where it is lost, so that stream is not synced
//! where the server can do without (2.12 and later).
//!
//! Nothing is deleted by an acknowledgement: the dispatcher calls [`Broker::trim`], which purges what its reader has
//! acknowledged. A stream refuses messages when it is full; it never drops one.

mod api;
mod connection;
mod consume;
mod publish;
mod topology;
mod trim;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_broker::{Broker, BrokerError, Depth, Message, PublishError, Result, Source, Subscription, wire};
use forebay_core::{Lane, Signal};
use futures::{StreamExt, stream::BoxStream};

use crate::{connection::Connection, topology::Topology, trim::Trimmer};

/// How long one look at the server may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the making of streams and consumers, which the server syncs to disk, may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How much smaller than the intake the lanes' stream may be: what is ready is only named in it.
const READY_SHARE: i64 = 4;

/// Where the server is, and how the streams are set up.
#[derive(Clone)]
pub struct NatsOptions {
    /// `nats://` or `tls://` URLs of the server, or of several in one cluster, separated by commas.
    pub url: String,
    /// The name of the stream of submissions. That of the lanes has `_READY` behind it.
    pub stream: String,
    /// How large the stream of submissions may become, and that of the lanes a quarter of it. Past it, publishing fails
    /// with [`PublishError::Full`].
    pub stream_bytes_max: i64,
    /// On how many servers of a cluster each message is kept.
    pub replicas: usize,
    /// How long [`Broker::publish`] may take.
    pub publish_timeout: Duration,
    /// After which time a message that was neither acknowledged nor handed back is delivered again.
    pub ack_wait: Duration,
}

impl NatsOptions {
    /// The defaults, with the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            stream: "FOREBAY".to_owned(),
            stream_bytes_max: 4 * 1024 * 1024 * 1024,
            replicas: 1,
            publish_timeout: Duration::from_millis(1_500),
            ack_wait: Duration::from_secs(30),
        }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("stream", &self.stream)
            .field("stream_bytes_max", &self.stream_bytes_max)
            .field("replicas", &self.replicas)
            .field("publish_timeout", &self.publish_timeout)
            .field("ack_wait", &self.ack_wait)
            .finish_non_exhaustive()
    }
}

/// A connection to NATS. Reconnects by itself, for ever, with backoff and jitter; meanwhile all methods fail fast.
pub struct NatsBroker {
    connection: Connection,
    topology: Arc<Topology>,
    publisher: publish::Publisher,
    trimmer: Trimmer,
    signal_subject: String,
}

impl fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBroker")
            .field("stream", &self.topology.intake())
            .finish_non_exhaustive()
    }
}

impl NatsBroker {
    /// Connects, and makes the streams or brings their settings up to date.
    ///
    /// # Errors
    /// Where the server can't be reached within five seconds, has no JetStream, or refuses the settings.
    pub async fn connect(options: &NatsOptions) -> Result<Self> {
        let connection = Connection::open(&options.url).await?;
        let topology = Arc::new(Topology::new(connection.clone(), options));
        topology
            .ensure_streams(SETUP_TIMEOUT)
            .await
            .map_err(|error| BrokerError::new("set up the streams", error))?;
        Ok(Self {
            publisher: publish::Publisher::new(
                connection.clone(),
                Arc::clone(&topology),
                options.publish_timeout,
            ),
            trimmer: Trimmer::default(),
            signal_subject: format!("{}.signal", options.stream.to_lowercase()),
            connection,
            topology,
        })
    }
}

#[async_trait]
impl Broker for NatsBroker {
    async fn publish(&self, batch: Vec<Message>) -> Vec<std::result::Result<(), PublishError>> {
        self.publisher.publish(batch).await
    }

    async fn consume(&self, source: Source) -> Result<Subscription> {
        consume::subscribe(&self.connection, &self.topology, &source).await
    }

    async fn depth(&self, lane: &Lane) -> Result<Depth> {
        self.topology
            .depth(lane)
            .await
            .map_err(|error| BrokerError::new("count a lane", error))
    }

    async fn unrecorded(&self) -> Result<u64> {
        let unrecorded = self.topology.unrecorded().await;
        unrecorded.map_err(|error| BrokerError::new("count what is unrecorded", error))
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let fail = |error| BrokerError::new("send a signal", error);
        self.connection.check().map_err(fail)?;
        let body = wire::encode_signal(&signal);
        let sent = self.connection.client.publish(self.signal_subject.clone(), body);
        self.connection.within(LOOK_TIMEOUT, sent).await.map_err(fail)
    }

    async fn signals(&self) -> Result<BoxStream<'static, Signal>> {
        let fail = |error| BrokerError::new("listen for signals", error);
        let subscribed = self.connection.client.subscribe(self.signal_subject.clone());
        let messages = self
            .connection
            .within(LOOK_TIMEOUT, subscribed)
            .await
            .map_err(fail)?;
        // The server knows of the subscription once it has answered a later message.
        self.topology
            .look()
            .await
            .map_err(|error| fail(error.to_string()))?;
        Ok(messages
            .filter_map(|message| async move {
                wire::decode_signal(message.payload)
                    .inspect_err(|error| tracing::warn!(%error, "a signal could not be read"))
                    .ok()
            })
            .boxed())
    }

    async fn trim(&self) -> Result<()> {
        self.trimmer
            .trim(&self.topology)
            .await
            .map_err(|error| BrokerError::new("trim the streams", error))
    }

    async fn check(&self) -> Result<()> {
        let looked = self.topology.look().await;
        looked.map_err(|error| BrokerError::new("answer", error))
    }
}
