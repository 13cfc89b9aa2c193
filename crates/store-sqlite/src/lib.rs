//! The embedded store: one SQLite file in WAL mode.
//!
//! One connection writes, and every writing method is one transaction on it that begins with `BEGIN IMMEDIATE`, so
//! there are no deadlocks and no serialization failures: writers wait in line. A few other connections read. What is
//! committed is synced, so an answer is as durable as the disk.
//!
//! No transaction is open while a [`forebay_store::ReadySink`] publishes. PostgreSQL must lock what it dispatches,
//! since several dispatchers compete for it; here there is one, and the guards of the statements suffice: a claim that
//! comes before the dispatcher's commit finds the task due, takes it, and the dispatcher's update then finds it
//! running and leaves it alone.

mod admin;
mod backlog;
mod claim;
mod complete;
mod compose;
mod dispatch;
mod error;
mod execute;
mod explain;
mod kinds;
mod limits;
mod operate;
mod operations;
mod read;
mod record;
mod row;
mod schedules;
mod terms;
mod webhooks;
mod workers;
mod write;

use std::{
    path::Path,
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use forebay_core::{Clock, SystemClock, Timestamp};
use forebay_store::{Result, StoreError};
use sqlx::{
    Sqlite, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use crate::{
    error::{failed, with_path},
    write::Writing,
};

/// How many connections read.
const READERS: u32 = 4;
/// How long to wait for another process that holds the file.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two attempts to open a file that is locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
/// How long to wait in line for a connection.
const LINE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long the write-ahead log may stay after a burst, in bytes.
const WAL_BYTES_KEPT: &str = "67108864";

/// A store in one SQLite file. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    clock: SystemClock,
    rules: limits::Cache,
    strays: limits::Strays,
    /// See [`forebay_store::Limits::has_released`].
    released: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens the file at `path`, and makes it and its folder where they are missing. The schema is brought up to date
    /// by [`forebay_store::Admin::migrate`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the file can't be opened and written to, [`StoreError::Corrupt`] where it is no
    /// database or a damaged one. Both name the file.
    pub async fn open(path: &Path) -> Result<Self> {
        Self::connect(SqliteConnectOptions::new().filename(path), BUSY_WAIT_MAX).await
    }

    /// Opens the file that a URL names: `sqlite://relative/path` or `sqlite:///absolute/path`.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::Refused`] where the URL names no file.
    pub async fn open_url(url: &str) -> Result<Self> {
        let refused = |reason: &str| StoreError::Refused {
            doing: "open the database",
            source: format!("{reason}: expected sqlite:// and the path of a file, without parameters").into(),
        };
        let Some(path) = url.strip_prefix("sqlite:") else {
            return Err(refused("the URL does not begin with sqlite://"));
        };
        if path.trim_start_matches('/').is_empty() || path.contains(['?', '#']) || path.contains(":memory:") {
            return Err(refused("the URL names no file"));
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|e| refused(&e.to_string()))?;
        Self::connect(options, BUSY_WAIT_MAX).await
    }

    async fn connect(options: SqliteConnectOptions, busy_wait: Duration) -> Result<Self> {
        let path = options.get_filename().to_owned();
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|e| with_path(&path, e.into()))?;
        }
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(busy_wait)
            .pragma("journal_size_limit", WAL_BYTES_KEPT);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(LINE_WAIT_MAX)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = connect_patiently(busy_wait, || pool(1).connect_with(options.clone()))
            .await
            .map_err(|e| with_path(&path, e))?;
        try_writing(&writer).await.map_err(|e| with_path(&path, e))?;
        let readers = pool(READERS)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(|e| with_path(&path, e))?;
        Ok(Self {
            writer,
            readers,
            clock: SystemClock,
            rules: limits::Cache::default(),
            strays: limits::Strays::default(),
            released: Arc::default(),
        })
    }

    /// Closes all connections, and folds the write-ahead log into the file. Not needed for durability.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins to write.
    async fn begin(&self, doing: &'static str) -> Result<Writing> {
        Writing::begin(&self.writer, doing).await
    }

    /// A connection to read with.
    async fn reader(&self, doing: &'static str) -> Result<PoolConnection<Sqlite>> {
        self.readers.acquire().await.map_err(failed(doing))
    }

    /// The store's time.
    fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Connects again while the file is locked: where two programs make a file at once, one of them is refused the change
/// to a write-ahead log, whatever its busy timeout says.
async fn connect_patiently<C: Future<Output = sqlx::Result<SqlitePool>>>(
    patience: Duration,
    connect: impl Fn() -> C,
) -> sqlx::Result<SqlitePool> {
    let deadline = Instant::now() + patience;
    loop {
        match connect().await {
            Err(error) if is_locked(&error) && Instant::now() < deadline => sleep(LOCKED_PAUSE).await,
            connected => return connected,
        }
    }
}

fn is_locked(error: &sqlx::Error) -> bool {
    const SQLITE_BUSY: &str = "5";
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(SQLITE_BUSY)
}

/// Finds out about a file that can be read but not written to, which is better done now than with the first task.
async fn try_writing(writer: &SqlitePool) -> sqlx::Result<()> {
    let mut trial = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("CREATE TABLE forebay_trial (at INTEGER)")
        .execute(&mut *trial)
        .await?;
    trial.rollback().await
}

#[cfg(test)]
mod tests;
