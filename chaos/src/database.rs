//! The database, asked directly: not through Forebay, and not through the proxies.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use forebay_chaos::{
    audit,
    evidence::{Row, Transition},
};
use tokio::time::sleep;
use tokio_postgres::{NoTls, types::FromSql};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::watch::Watch;

/// How many ids are asked for at once.
const IDS_MAX: usize = 5_000;
/// How often it is asked.
const POLL: Duration = Duration::from_millis(500);

/// The states that a task never leaves by itself.
const FINAL: [&str; 4] = ["succeeded", "failed", "cancelled", "expired"];

/// Which of some tasks are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that have a row.
    Recorded,
    /// Those in a final state.
    Finished,
}

/// Where tasks are stored.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// The URL.
    Postgres(String),
    /// The file.
    Sqlite(PathBuf),
}

impl Database {
    /// Those of `ids` that are as asked.
    pub(crate) async fn find(
        &self,
        which: Which,
        ids: &HashSet<Uuid>,
        watch: Watch,
    ) -> Result<HashSet<Uuid>> {
        match self {
            Self::Postgres(url) => find_in_postgres(url, which, ids).await,
            Self::Sqlite(_) => {
                let (_, rows) = self.read(watch).await?;
                let rows = rows
                    .into_iter()
                    .filter(|row| which == Which::Recorded || FINAL.contains(&row.state.as_str()));
                Ok(rows.map(|row| row.id).filter(|id| ids.contains(id)).collect())
            }
        }
    }

    /// Waits until all of `ids` are as asked; returns those that are not `within` that time. An outage counts as
    /// "not yet".
    pub(crate) async fn wait_for(
        &self,
        which: Which,
        mut ids: HashSet<Uuid>,
        within: Duration,
        watch: Watch,
    ) -> HashSet<Uuid> {
        let began = Instant::now();
        loop {
            if let Ok(found) = self.find(which, &ids, watch).await {
                ids.retain(|id| !found.contains(id));
            }
            if ids.is_empty() || began.elapsed() > within {
                return ids;
            }
            sleep(POLL).await;
        }
    }

    /// All rows, and how they came to be what they are.
    pub(crate) async fn read(&self, watch: Watch) -> Result<(Vec<Transition>, Vec<Row>)> {
        match self {
            Self::Postgres(url) => audit::read_postgres(url, watch.began()).await,
            Self::Sqlite(path) => audit::read_sqlite(path, watch.began()).await,
        }
    }

    /// How many rows there are, whatever their state.
    pub(crate) async fn count(&self) -> Result<i64> {
        self.ask("SELECT count(*) FROM tasks").await
    }

    /// The server, with its version.
    pub(crate) async fn version(&self) -> Result<String> {
        let version: String = self.ask("SELECT current_setting('server_version')").await?;
        let number = version.split_whitespace().next().unwrap_or_default();
        Ok(format!("PostgreSQL {number}"))
    }

    /// The answer to a question with one.
    async fn ask<T: for<'a> FromSql<'a>>(&self, sql: &str) -> Result<T> {
        let Self::Postgres(url) = self else {
            bail!("only Postgres is asked");
        };
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(client.query_one(sql, &[]).await?.try_get(0)?)
    }
}

async fn find_in_postgres(url: &str, which: Which, ids: &HashSet<Uuid>) -> Result<HashSet<Uuid>> {
    let sql = match which {
        Which::Recorded => "SELECT id FROM tasks WHERE id = ANY($1)",
        Which::Finished => {
            "SELECT id FROM tasks WHERE id = ANY($1) AND state IN ('succeeded', 'failed', 'cancelled', 'expired')"
        }
    };
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let mut found = HashSet::new();
    for some in ids.chunks(IDS_MAX) {
        let rows = client.query(sql, &[&some]).await?;
        found.extend(rows.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    Ok(found)
}
