//! The database behind the server, where its URL is given: its figures while the load runs.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, NoTls};

const FIGURES: &str = "
    SELECT coalesce(sum(n_live_tup), 0)::bigint, coalesce(sum(n_dead_tup), 0)::bigint,
           coalesce(sum(pg_total_relation_size(relid)), 0)::bigint,
           (SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname = current_database())
    FROM pg_stat_user_tables WHERE relname IN ('tasks', 'due', 'claims') OR relname LIKE 'tasks\\_%'";

/// Connects to PostgreSQL.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    ensure!(
        url.starts_with("postgres://") || url.starts_with("postgresql://"),
        "--database-url must be that of a PostgreSQL server"
    );
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.context("connect to the database")?;
    // Ends with the client.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// Figures of the tables of tasks, as the database's own statistics have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Rows.
    pub(crate) live_tuples: i64,
    /// Former versions of rows that were not vacuumed yet.
    pub(crate) dead_tuples: i64,
    /// With indexes, in bytes.
    pub(crate) bytes: i64,
    /// Connections that do something.
    pub(crate) active: i64,
}

/// Reads the figures; `None` where the database does not answer.
pub(crate) async fn figures(client: &Client) -> Option<Figures> {
    let row = client.query_one(FIGURES, &[]).await.ok()?;
    Some(Figures {
        live_tuples: row.try_get(0).ok()?,
        dead_tuples: row.try_get(1).ok()?,
        bytes: row.try_get(2).ok()?,
        active: row.try_get(3).ok()?,
    })
}

/// Which server it is.
pub(crate) async fn version(client: &Client) -> Option<String> {
    let row = client.query_one("SHOW server_version", &[]).await.ok()?;
    row.try_get(0).ok()
}
