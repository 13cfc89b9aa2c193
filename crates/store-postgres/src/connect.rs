//! From a URL to connections: one understanding of it for both drivers.

use std::{str::FromStr, time::Duration};

use forebay_store::Result;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio_postgres::config::SslMode;
use url::Url;

use crate::{
    error, hot,
    tls::{self, Trust},
};

/// How long a new connection, or the wait for a free one, may take.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// After how long without an answer a connection is probed, or given up where data is underway.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What is said to the database of us.
const APPLICATION_NAME: &str = "forebay";

const PARSING: &str = "understand the database URL";

/// A database, and how to reach it.
pub(crate) struct Target {
    /// The URL without the parameters of TLS, which the drivers understand differently.
    url: Url,
    trust: Option<Trust>,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut url = Url::parse(text).map_err(|e| error::refused(PARSING, e))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(error::refused(PARSING, "it must begin with postgres://"));
        }
        let (mut mode, mut roots, mut others) = (None, None, Vec::new());
        for (key, value) in url.query_pairs() {
            match &*key {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => roots = Some(value.into_owned()),
                _ => others.push((key.into_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let trust = match mode.as_deref() {
            None | Some("disable" | "allow" | "prefer") => None,
            Some("require") => Some(Trust::Anyone),
            Some("verify-ca" | "verify-full") => Some(Trust::Roots(roots.map(Into::into))),
            Some(_) => {
                return Err(error::refused(
                    PARSING,
                    "sslmode must be disable, prefer, require, verify-ca or verify-full",
                ));
            }
        };
        Ok(Self { url, trust })
    }

    pub(crate) fn tls(&self) -> Result<Option<rustls::ClientConfig>> {
        self.trust.as_ref().map(tls::client_config).transpose()
    }

    /// For the hot statements.
    pub(crate) fn hot_config(&self) -> Result<tokio_postgres::Config> {
        let mut config =
            tokio_postgres::Config::from_str(self.url.as_str()).map_err(|e| error::refused(PARSING, e))?;
        let session = match config.get_options() {
            Some(asked) => format!("{asked} {}", hot::SESSION),
            None => hot::SESSION.to_owned(),
        };
        config
            .options(session)
            .application_name(APPLICATION_NAME)
            .connect_timeout(CONNECT_TIME_MAX)
            .keepalives_idle(SILENCE_MAX)
            .tcp_user_timeout(SILENCE_MAX)
            .ssl_mode(match self.trust {
                Some(_) => SslMode::Require,
                None => SslMode::Disable,
            });
        Ok(config)
    }

    /// For reads and operators' commands. Connects when it is first used.
    pub(crate) fn read_pool(&self, connections: u32) -> Result<PgPool> {
        let options = self.sqlx_options()?.options([
            ("statement_timeout", "5000"),
            ("lock_timeout", "4000"),
            ("idle_in_transaction_session_timeout", "10000"),
            ("jit", "off"),
        ]);
        Ok(PgPoolOptions::new()
            .max_connections(connections.max(1))
            .acquire_timeout(CONNECT_TIME_MAX)
            .connect_lazy_with(options))
    }

    /// For migrations and maintenance, each on a connection of its own.
    pub(crate) fn unhurried(&self) -> Result<PgConnectOptions> {
        Ok(self.sqlx_options()?.options([("statement_timeout", "600000")]))
    }

    fn sqlx_options(&self) -> Result<PgConnectOptions> {
        let options = PgConnectOptions::from_str(self.url.as_str())
            .map_err(|e| error::refused(PARSING, e))?
            .application_name(APPLICATION_NAME);
        Ok(match &self.trust {
            None => options.ssl_mode(PgSslMode::Disable),
            Some(Trust::Anyone) => options.ssl_mode(PgSslMode::Require),
            Some(Trust::Roots(None)) => options.ssl_mode(PgSslMode::VerifyFull),
            Some(Trust::Roots(Some(file))) => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_used_where_the_url_asks_for_it() {
        let trust = |mode: &str| {
            Target::parse(&format!("postgres://u:p@h/d?sslmode={mode}"))
                .unwrap()
                .trust
        };
        assert!(trust("prefer").is_none());
        assert!(matches!(trust("require"), Some(Trust::Anyone)));
        assert!(matches!(trust("verify-full"), Some(Trust::Roots(None))));
        assert!(Target::parse("postgres://u:p@h/d?sslmode=perhaps").is_err());
        assert!(Target::parse("mysql://h/d").is_err());
    }

    #[test]
    fn what_else_the_url_says_is_kept() {
        let target = Target::parse("postgres://u:p@h:6432/d?sslmode=require&application_name=x").unwrap();
        assert_eq!(target.url.as_str(), "postgres://u:p@h:6432/d?application_name=x");
        assert!(target.hot_config().is_ok() && target.sqlx_options().is_ok());
    }
}
