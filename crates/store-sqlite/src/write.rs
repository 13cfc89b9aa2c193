//! A transaction on the writing connection.
//!
//! Not the driver's own: SQLite ends a transaction by itself when the disk is full or fails, and the driver's then
//! takes the connection for one inside a transaction ever after. This one keeps a connection only if it knows that
//! its transaction ended; any other is closed, which rolls back, and the pool opens a new one.

use std::ops::{Deref, DerefMut};

use forebay_store::Result;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

use crate::error::failed;

/// An open transaction. Dropped without a commit, nothing was written.
pub(crate) struct Writing {
    connection: PoolConnection<Sqlite>,
    doing: &'static str,
    is_open: bool,
}

impl Writing {
    /// Waits in line for the connection, and begins.
    pub(crate) async fn begin(pool: &SqlitePool, doing: &'static str) -> Result<Self> {
        let mut writing = Self {
            connection: pool.acquire().await.map_err(failed(doing))?,
            doing,
            is_open: true,
        };
        let begun = writing.execute("BEGIN IMMEDIATE").await;
        writing.is_open = begun.is_ok();
        begun.map(|()| writing)
    }

    /// Makes what was written durable.
    pub(crate) async fn commit(mut self) -> Result<()> {
        self.execute("COMMIT").await?;
        self.is_open = false;
        Ok(())
    }

    async fn execute(&mut self, statement: &'static str) -> Result<()> {
        sqlx::query(statement)
            .execute(&mut *self.connection)
            .await
            .map_err(failed(self.doing))?;
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}
