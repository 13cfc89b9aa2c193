//! The production store, on PostgreSQL 14 or later.
//!
//! The hot statements go through prepared statements with array parameters on connections of their own;
//! reads and operators' commands through sqlx. All SQL is in `queries/`, one file a statement, and the schema in
//! `migrations/postgres`. It knows nothing of brokers: what it publishes, it gives to a sink.

mod claim;
mod complete;
mod compose;
mod connect;
mod day;
mod dispatch;
mod error;
mod execute;
mod explain;
mod hot;
mod kinds;
mod limits;
mod maintain;
mod oldest;
mod operate;
mod operations;
#[cfg(test)]
mod plans;
mod read;
mod record;
mod schedules;
mod start;
mod terms;
mod tls;
mod values;
mod webhooks;
mod workers;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use forebay_core::{QueueName, Timestamp};
use forebay_store::Result;
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::{connect::Target, hot::HotPool};

/// How long the first connection may take; later ones have less.
const FIRST_CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);

/// Where the database is, and how many connections to it are held.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=…`. With `sslmode=require` the connection is encrypted,
    /// with `verify-ca` or `verify-full` the server's certificate is checked, too, against `sslrootcert` or the
    /// system's roots; with any other mode it is plain.
    pub url: String,
    /// How many connections the hot statements share.
    pub hot_connections: usize,
    /// How many connections reads and operators' commands share.
    pub read_connections: u32,
}

impl PostgresOptions {
    /// The database at `url`, with eight connections of each sort.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            hot_connections: 8,
            read_connections: 8,
        }
    }
}

impl std::fmt::Debug for PostgresOptions {
    /// Leaves out the URL, which has a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("hot_connections", &self.hot_connections)
            .field("read_connections", &self.read_connections)
            .finish_non_exhaustive()
    }
}

/// The store. Share it; it holds the pools of connections.
pub struct PostgresStore {
    hot: HotPool,
    reads: PgPool,
    /// For migrations and maintenance, which may take longer than any pool's connection lets a statement.
    unhurried: PgConnectOptions,
    /// Queues that are in the table, so that they are not inserted with each batch.
    seen: Mutex<HashSet<QueueName>>,
    /// How far the walk for lost messages has come, while it is not at its end.
    walked: Mutex<Option<Timestamp>>,
    days: day::Days,
    rules: limits::Cache,
    use_ids: Arc<limits::UseIds>,
    allotments: Arc<limits::Allotments>,
    strays: limits::Strays,
    /// See [`forebay_store::Limits::has_released`].
    released: AtomicBool,
}

impl PostgresStore {
    /// Connects. Later outages surface as [`forebay_store::StoreError::Unavailable`], and pass by themselves.
    ///
    /// # Errors
    /// [`forebay_store::StoreError::Refused`] where the options make no sense, and [`forebay_store::StoreError::Unavailable`] where the server can't
    /// be reached within five seconds. Whether the schema is right is for [`forebay_store::Admin::check`] to say.
    pub async fn connect(options: &PostgresOptions) -> Result<Self> {
        let target = Target::parse(&options.url)?;
        let use_ids = Arc::new(limits::UseIds::default());
        let allotments = Arc::new(limits::Allotments::default());
        let known = (Arc::clone(&use_ids), Arc::clone(&allotments));
        let connected = move || {
            known.0.forget();
            known.1.forget_all();
        };
        let store = Self {
            hot: HotPool::new(&target, options.hot_connections, connected)?,
            reads: target.read_pool(options.read_connections)?,
            unhurried: target.unhurried()?,
            seen: Mutex::default(),
            walked: Mutex::default(),
            days: day::Days::default(),
            rules: limits::Cache::default(),
            use_ids,
            allotments,
            strays: limits::Strays::default(),
            released: AtomicBool::default(),
        };
        let first = store.hot.get("connect to the database");
        match tokio::time::timeout(FIRST_CONNECTION_TIME_MAX, first).await {
            Ok(connection) => connection?.settle(Ok(())).map(|()| store),
            Err(slow) => Err(error::unavailable("connect to the database", slow)),
        }
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
