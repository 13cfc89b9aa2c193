//! Schema, health and retention.

use std::time::Duration;

use async_trait::async_trait;
use forebay_store::{Admin, Result, StoreError};
use sqlx::{
    Connection,
    migrate::{MigrateError, Migrator},
};

use crate::{
    SqliteStore, compose,
    error::failed,
    row::{micros_of, micros_of_duration},
    terms,
};

const SCHEMA_VERSION: &str = include_str!("../queries/schema_version.sql");
const FORGET_TASKS: &str = include_str!("../queries/forget_tasks.sql");
const FORGET_DELIVERIES: &str = include_str!("../queries/webhook_deliveries_forget.sql");
const FORGET_REJECTS: &str = include_str!("../queries/forget_rejects.sql");

/// How many tasks are forgotten in one transaction, so that others need not wait long, and in one call.
const FORGOTTEN_AT_ONCE: u64 = 500;
const FORGET_ROUNDS_MAX: usize = 200;
/// How long a task with an idempotency key is kept at the least: its window and the next.
const KEY_KEPT: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// How many notes of deliveries are forgotten at a time.
const DELIVERIES_FORGOTTEN: u64 = 5_000;
/// How many undecodable messages are kept, the latest.
const REJECTS_KEPT: i64 = 10_000;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// The version of the schema that this program was made for.
pub(crate) fn schema_needed() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

#[async_trait]
impl Admin for SqliteStore {
    /// All of it is one transaction, so two at once wait for each other, and a crash leaves nothing half done.
    async fn migrate(&self) -> Result<()> {
        const DOING: &str = "bring the schema up to date";
        let mut connection = self.writer.acquire().await.map_err(failed(DOING))?;
        // See `write`: a transaction of the driver's that failed leaves a connection of no use. The migrator needs it.
        connection.close_on_drop();
        let mut tx = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed(DOING))?;
        // A newer program may have been here: what it added does no harm to this one.
        Migrator {
            ignore_missing: true,
            ..Migrator::with_migrations(MIGRATOR.migrations.to_vec())
        }
        .run_direct(None, &mut *tx, false)
        .await
        .map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(DOING)(error),
            other => StoreError::Corrupt(other.to_string()),
        })?;
        tx.commit().await.map_err(failed(DOING))
    }

    async fn check(&self) -> Result<()> {
        const DOING: &str = "read the schema's version";
        let found: i64 = sqlx::query_scalar(SCHEMA_VERSION)
            .fetch_one(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let needed = schema_needed();
        if found < needed {
            return Err(StoreError::Schema { found, needed });
        }
        Ok(())
    }
}

/// Forgets tasks that ended longer ago than `retention`, and old undecodable messages.
pub(crate) async fn maintain(store: &SqliteStore, retention: Option<Duration>) -> Result<()> {
    const DOING: &str = "forget old tasks";
    if let Some(retention) = retention {
        for _ in 0..FORGET_ROUNDS_MAX {
            if forget_tasks(store, retention).await? < FORGOTTEN_AT_ONCE {
                break;
            }
        }
    }
    let mut tx = store.begin(DOING).await?;
    let past = retention.map_or(i64::MIN, |retention| {
        micros_of(store.clock_now()).saturating_sub(micros_of_duration(retention))
    });
    compose::forget(
        &mut tx,
        past,
        micros_of(store.clock_now()) - micros_of_duration(KEY_KEPT),
    )
    .await?;
    sqlx::query(FORGET_REJECTS)
        .bind(REJECTS_KEPT)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    tx.commit().await?;
    for _ in 0..FORGET_ROUNDS_MAX {
        if forget_deliveries(store, past).await? < DELIVERIES_FORGOTTEN {
            break;
        }
    }
    terms::unique::forget_finished(store).await?;
    terms::expiry::forget_over(store).await
}

async fn forget_deliveries(store: &SqliteStore, past: i64) -> Result<u64> {
    const DOING: &str = "forget old deliveries";
    let mut tx = store.begin(DOING).await?;
    let forgotten = sqlx::query(FORGET_DELIVERIES)
        .bind(past)
        .bind(i64::try_from(DELIVERIES_FORGOTTEN).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    tx.commit().await?;
    Ok(forgotten.rows_affected())
}

async fn forget_tasks(store: &SqliteStore, retention: Duration) -> Result<u64> {
    const DOING: &str = "forget old tasks";
    let mut tx = store.begin(DOING).await?;
    let now = micros_of(store.clock_now());
    let forgotten = sqlx::query(FORGET_TASKS)
        .bind(now.saturating_sub(micros_of_duration(retention)))
        .bind(now.saturating_sub(micros_of_duration(KEY_KEPT)))
        .bind(i64::try_from(FORGOTTEN_AT_ONCE).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    tx.commit().await?;
    Ok(forgotten.rows_affected())
}
