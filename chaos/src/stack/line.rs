//! The ways from one process to its servers, each through a proxy of its own.

use anyhow::{Context, Result};
use forebay_testkit::proxy::{Mode, Proxy};

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// To the broker.
    Broker,
    /// To Postgres.
    Postgres,
}

impl End {
    /// What is at its end.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Postgres => "Postgres",
        }
    }
}

/// Both ways of one process.
#[derive(Debug)]
pub(crate) struct Line {
    broker: Proxy,
    postgres: Proxy,
    /// The URLs that lead through them.
    pub(crate) broker_url: String,
    pub(crate) postgres_url: String,
}

impl Line {
    /// Lays both.
    pub(crate) async fn lay(broker_url: &str, postgres_url: &str) -> Result<Self> {
        let (broker, broker_url) = through(broker_url).await?;
        let (postgres, postgres_url) = through(postgres_url).await?;
        Ok(Self {
            broker,
            postgres,
            broker_url,
            postgres_url,
        })
    }

    /// Disturbs one of them, or heals it with [`Mode::Pass`].
    pub(crate) fn set(&self, end: End, mode: Mode) {
        match end {
            End::Broker => self.broker.set(mode),
            End::Postgres => self.postgres.set(mode),
        }
    }
}

/// A proxy before the server of a URL, and the URL that leads through it.
async fn through(url: &str) -> Result<(Proxy, String)> {
    let server = server_of(url).with_context(|| format!("{url} names no server of this machine"))?;
    let proxy = Proxy::start(server).await?;
    let ours = format!("127.0.0.1:{}", proxy.port());
    Ok((proxy, url.replace(server, &ours)))
}

fn server_of(url: &str) -> Option<&str> {
    let from = url.find("127.0.0.1:")?;
    let server = &url[from..];
    let port = &server["127.0.0.1:".len()..];
    let digits = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
    Some(&server[.."127.0.0.1:".len() + digits])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_server_in_a_url() {
        for (url, server) in [
            ("nats://127.0.0.1:4222", Some("127.0.0.1:4222")),
            ("amqp://guest:guest@127.0.0.1:5672/%2f", Some("127.0.0.1:5672")),
            (
                "postgres://postgres@127.0.0.1:5432/postgres",
                Some("127.0.0.1:5432"),
            ),
            ("nats://example.com:4222", None),
        ] {
            assert_eq!(server_of(url), server);
        }
    }
}
