//! Saying what nobody has to confirm: signals, and answers to a census.

use std::sync::Arc;

use lapin::{BasicProperties, options::BasicPublishOptions, types::ShortString};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    LOOK_TIMEOUT,
    connection::{Link, Owned},
    failure::Failure,
};

/// What speaks, on the connection that publishes.
pub(crate) struct Speaker {
    link: Arc<Link>,
    channel: Mutex<Option<Owned>>,
}

impl Speaker {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            channel: Mutex::default(),
        }
    }

    /// Says it to whoever listens. `Ok` means that it was written, no more.
    pub(crate) async fn say(
        &self,
        exchange: &str,
        routing_key: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), Failure> {
        let live = self.link.live()?;
        if let Some(reason) = live.blocked() {
            return Err(Failure::unreachable(format!(
                "RabbitMQ has blocked publishers: {reason}"
            )));
        }
        let saying = async {
            let mut place = self.channel.lock().await;
            let channel = match place.take() {
                Some(channel) if channel.0.status().connected() => channel,
                _ => Owned(live.open_channel(LOOK_TIMEOUT).await?),
            };
            let options = BasicPublishOptions::default();
            let said = channel
                .0
                .basic_publish(exchange.into(), routing_key, options, body, properties);
            said.await.map_err(Failure::from)?;
            *place = Some(channel);
            Ok(())
        };
        timeout(LOOK_TIMEOUT, saying)
            .await
            .unwrap_or_else(|_| Err(Failure::no_answer(LOOK_TIMEOUT)))
    }
}
