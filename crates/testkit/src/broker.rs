//! A private broker server of either kind, for tests that must hold on both.

use anyhow::Result;

use crate::{nats::Nats, rabbitmq::RabbitMq};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// NATS JetStream.
    Nats,
    /// RabbitMQ.
    RabbitMq,
}

/// A broker server of one's own. It keeps its port and its data through all restarts, and is gone when dropped.
#[derive(Debug)]
pub enum BrokerServer {
    /// NATS JetStream, which syncs every write.
    Nats(Nats),
    /// RabbitMQ.
    RabbitMq(RabbitMq),
}

impl BrokerServer {
    /// Starts a server.
    ///
    /// # Errors
    /// Where it does not start, or is not installed.
    pub async fn start(kind: BrokerKind) -> Result<Self> {
        match kind {
            BrokerKind::Nats => Nats::start().await.map(Self::Nats),
            BrokerKind::RabbitMq => RabbitMq::start().await.map(Self::RabbitMq),
        }
    }

    /// Where it listens, as Forebay's configuration has it.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Nats(server) => server.url(),
            Self::RabbitMq(server) => server.url(),
        }
    }

    /// Sees to it that queues which were just made survive a kill: RabbitMQ 3.10 notes them half a second after it has
    /// made them, and one that is killed before that has queues that never work again.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn settle(&self) -> Result<()> {
        match self {
            Self::Nats(_) => Ok(()),
            Self::RabbitMq(server) => {
                server.eval("[ok = dets:sync(T) || T <- dets:all()]").await?;
                Ok(())
            }
        }
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// Where it can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.kill(),
            Self::RabbitMq(server) => server.kill(),
        }
    }

    /// Shuts it down properly.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.stop().await,
            Self::RabbitMq(server) => server.stop().await,
        }
    }

    /// Starts it again on its data.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.restart().await,
            Self::RabbitMq(server) => server.restart().await,
        }
    }

    /// Deletes all its data; it must not run.
    ///
    /// # Errors
    /// Where it runs, or the data can't be deleted.
    pub fn wipe(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.wipe(),
            Self::RabbitMq(server) => server.wipe(),
        }
    }

    /// Makes it hang: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pause(&self) -> Result<()> {
        match self {
            Self::Nats(server) => server.pause(),
            Self::RabbitMq(server) => server.pause(),
        }
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// Where it does not run.
    pub fn resume(&self) -> Result<()> {
        match self {
            Self::Nats(server) => server.resume(),
            Self::RabbitMq(server) => server.resume(),
        }
    }
}
