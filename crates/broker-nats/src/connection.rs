//! The connection: how it is made, how it comes back, and who is told when it was lost.

use std::{error::Error, future::Future, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, connection::State};
use forebay_broker::BrokerError;
use rand::Rng;
use tokio::{sync::watch, time::timeout};

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to reconnect may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time between two attempts to reconnect doubles from the first of these to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often a silent server is asked whether it lives. The third question without an answer ends the connection.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How many messages wait to be written to the socket, at most. Those that are large are few: what publishes them waits
/// for their confirmations.
const OUTBOX_MAX: usize = 1_024;

/// A shared connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    losses: watch::Receiver<u64>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(url: &str) -> forebay_broker::Result<Self> {
        let fail = |error: String| BrokerError::new("connect to NATS", error);
        let servers: Vec<ServerAddr> = url
            .split(',')
            .map(|server| server.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|error| fail(format!("the broker's URL is wrong: {error}")))?;
        let (lost, losses) = watch::channel(0);
        let connected = timeout(CONNECT_TIMEOUT, options(lost).connect(servers)).await;
        let client = connected
            .map_err(|_| fail(format!("no answer within {CONNECT_TIMEOUT:?}")))?
            .map_err(|error| fail(with_causes(&error)))?;
        Ok(Self { client, losses })
    }

    /// Fails at once while there is no connection: what is sent then would wait in a buffer until there is.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => {
                Err("there is no connection to NATS at the moment".to_owned())
            }
        }
    }

    /// Counts how often the connection was lost. What was known of the server's state before is doubtful after.
    pub(crate) fn losses(&self) -> u64 {
        *self.losses.borrow()
    }

    /// Follows [`Self::losses`].
    pub(crate) fn watch_losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
    }

    /// The largest body that the server takes.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Waits for something to be written or answered, for a bounded time.
    pub(crate) async fn within<T, E: Error>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        match timeout(limit, work).await {
            Ok(done) => done.map_err(|error| with_causes(&error)),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }
}

fn options(lost: watch::Sender<u64>) -> ConnectOptions {
    ConnectOptions::new()
        .name("forebay")
        .connection_timeout(ATTEMPT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .client_capacity(OUTBOX_MAX)
        // They are made of names that were parsed, and of what the server sent.
        .skip_subject_validation(true)
        .request_timeout(None)
        .reconnect_delay_callback(backoff)
        .event_callback(move |event| {
            note(&event, &lost);
            std::future::ready(())
        })
}

fn note(event: &Event, lost: &watch::Sender<u64>) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => {
            lost.send_modify(|times| *times += 1);
            tracing::warn!("lost the connection to NATS");
        }
        Event::SlowConsumer(_) => {
            tracing::warn!("a subscription is too slow, messages will be delivered again");
        }
        Event::ClientError(error) => tracing::debug!(%error, "NATS can't be reached"),
        other => tracing::info!(event = %other, "NATS says"),
    }
}

/// The first attempt comes at once; then they come at doubling times, spread so that clients do not come together.
fn backoff(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX).min(16);
    let longest = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// An error with what caused it: the client's own messages say little by themselves.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_to_its_limit_and_is_spread() {
        assert_eq!(backoff(1), Duration::ZERO);
        assert!(backoff(2) <= BACKOFF_MIN);
        for attempt in [20, 1_000, usize::MAX] {
            assert!(
                (BACKOFF_MAX / 2..=BACKOFF_MAX).contains(&backoff(attempt)),
                "attempt {attempt}"
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_clear_error() {
        let port = forebay_testkit::process::free_port().unwrap();
        let opened = Connection::open(&format!("nats://127.0.0.1:{port}")).await;
        let text = with_causes(&opened.err().unwrap());
        assert!(
            text.contains("connect to NATS") && text.contains("refused"),
            "{text}"
        );
    }
}
