//! Looking at queues.
//!
//! Looks are made on the connection that consumes: the other one is not read by the server while publishers are
//! blocked. A look at a queue that is missing costs the channel, so there is one for looks only.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel,
    options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    LOOK_TIMEOUT,
    connection::{Link, Owned},
    failure::{Failure, within},
};

/// A server that waits for a queue gives up after 250 ms, and says that it is empty and unused. What it says in less
/// than this is what the queue said.
const HONEST: Duration = Duration::from_millis(200);

/// What a look at a queue shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Messages that wait to be delivered.
    pub(crate) ready: u64,
    /// Consumers that have it open or hold messages of it.
    pub(crate) consumers: u32,
    /// Whether "no consumers" may be the server's word alone.
    pub(crate) doubtful: bool,
}

impl Seen {
    /// Whether it shows neither messages nor consumers.
    pub(crate) fn is_nothing(self) -> bool {
        self.ready == 0 && self.consumers == 0
    }
}

/// What looks.
pub(crate) struct Looks {
    link: Arc<Link>,
    channel: Mutex<Option<Owned>>,
}

impl Looks {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            channel: Mutex::default(),
        }
    }

    /// Looks at a queue. `None` where it does not exist.
    pub(crate) async fn look(&self, queue: &str) -> Result<Option<Seen>, Failure> {
        let looked = timeout(LOOK_TIMEOUT, self.try_look(queue)).await;
        match looked.unwrap_or_else(|_| Err(Failure::no_answer(LOOK_TIMEOUT))) {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn try_look(&self, queue: &str) -> Result<Seen, Failure> {
        let live = self.link.live()?;
        let mut place = self.channel.lock().await;
        // Put back only after all went well: a look that was given up leaves an answer that nobody waits for.
        let channel = match place.take() {
            Some(channel) if channel.0.status().connected() => channel,
            _ => Owned(live.open_channel(LOOK_TIMEOUT).await?),
        };
        let seen = examine(&channel.0, queue).await?;
        *place = Some(channel);
        Ok(seen)
    }
}

/// Where a quorum queue does not answer its own server in time, that server says that it is empty and unused. So
/// that it is empty is not believed until a `get`, which needs the queue's assent, found nothing. This does not tell
/// whether it has consumers: that is looked at again, and doubtful where it took long.
async fn examine(channel: &Channel, queue: &str) -> Result<Seen, Failure> {
    let seen = glance(channel, queue, LOOK_TIMEOUT).await?;
    if !seen.is_nothing() {
        return Ok(seen);
    }
    let got = channel.basic_get(queue.into(), BasicGetOptions::default());
    let Some(message) = within(LOOK_TIMEOUT, got).await? else {
        let looked = Instant::now();
        let seen = glance(channel, queue, LOOK_TIMEOUT).await?;
        let doubtful = seen.is_nothing() && looked.elapsed() >= HONEST;
        return Ok(Seen { doubtful, ..seen });
    };
    let requeue = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    within(LOOK_TIMEOUT, channel.basic_nack(message.delivery_tag, requeue)).await?;
    Ok(Seen {
        ready: u64::from(message.message_count) + 1,
        consumers: 0,
        doubtful: true,
    })
}

/// What the server says of a queue, without more ado.
pub(crate) async fn glance(channel: &Channel, queue: &str, limit: Duration) -> Result<Seen, Failure> {
    let passive = QueueDeclareOptions::durable().passive();
    let declared = within(
        limit,
        channel.queue_declare(queue.into(), passive, FieldTable::default()),
    )
    .await?;
    Ok(Seen {
        ready: u64::from(declared.message_count()),
        consumers: declared.consumer_count(),
        doubtful: false,
    })
}
