//! Listening to what is said to all processes.

use futures::{FutureExt, StreamExt};
use lapin::{
    message::Delivery as Received,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use crate::{
    LOOK_TIMEOUT, SETUP_TIMEOUT,
    connection::{Live, Owned},
    failure::{Failure, within},
};

/// How much waits at the server for one who is slow; then the oldest is dropped.
const WAITING_MAX: i64 = 10_000;
/// How much waits here.
const CREDIT: u16 = 1_000;
/// How much is acknowledged together.
const TOGETHER: u16 = CREDIT / 4;

/// A queue of one's own that gets what an exchange says to all, as long as the connection lasts.
pub(crate) struct Listener {
    channel: Owned,
    heard: lapin::Consumer,
    unanswered: u16,
    last: u64,
}

impl Listener {
    pub(crate) async fn open(live: &Live, exchange: &str) -> Result<Self, Failure> {
        let channel = Owned(live.open_channel(LOOK_TIMEOUT).await?);
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), WAITING_MAX.into());
        let own = QueueDeclareOptions::exclusive().auto_delete();
        let declared = channel.0.queue_declare("".into(), own, arguments);
        let queue = within(SETUP_TIMEOUT, declared).await?.name().clone();
        let bound = channel.0.queue_bind(
            queue.clone(),
            exchange.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(LOOK_TIMEOUT, bound).await?;
        let limited = channel.0.basic_qos(CREDIT, BasicQosOptions::default());
        within(LOOK_TIMEOUT, limited).await?;
        let options = BasicConsumeOptions::default();
        let consumed = channel
            .0
            .basic_consume(queue, "".into(), options, FieldTable::default());
        let heard = within(LOOK_TIMEOUT, consumed).await?;
        Ok(Self {
            channel,
            heard,
            unanswered: 0,
            last: 0,
        })
    }

    /// What is said next. `None` where nothing will ever be heard again. May be dropped at any moment.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        if self.unanswered >= TOGETHER {
            self.answer().await?;
        }
        let received = match self.heard.next().now_or_never() {
            Some(received) => received,
            None => {
                // The server closes a channel on which something is unanswered for long.
                self.answer().await?;
                self.heard.next().await
            }
        };
        // An error is followed by the end.
        let received = received?.ok()?;
        self.unanswered += 1;
        self.last = received.delivery_tag;
        Some(received)
    }

    async fn answer(&mut self) -> Option<()> {
        // Before the wait: where this call is dropped, the frame is in line all the same.
        if std::mem::take(&mut self.unanswered) > 0 {
            let up_to = BasicAckOptions { multiple: true };
            self.channel.0.basic_ack(self.last, up_to).await.ok()?;
        }
        Some(())
    }
}
