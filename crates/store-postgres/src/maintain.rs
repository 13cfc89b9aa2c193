//! The schema, and the partitions of `tasks`: what is done rarely, and may take its time.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use forebay_core::{TaskId, Timestamp};
use forebay_store::{Admin, Result, StoreError};
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgPoolOptions,
};

use crate::{
    PostgresStore,
    connect::CONNECT_TIME_MAX,
    error,
    hot::{bounded, query},
    terms,
    values::duration_us,
};

/// A schema that a newer program has brought up to date is left as it is: replicas are replaced one by one.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../../migrations/postgres");
    migrator.set_ignore_missing(true);
    migrator
});

/// How many messages that were set aside are kept, the latest.
const REJECTS_KEPT: i64 = 10_000;

/// How many notes of deliveries are forgotten by one statement, and by how many of these at a time.
const DELIVERIES_FORGOTTEN: u64 = 10_000;
const FORGET_ROUNDS_MAX: usize = 1_000;

/// How long maintenance waits for a lock. Whoever comes after it waits with it, so that is short: it tries again later.
const LOCK_TIME_MAX: &str = "SET lock_timeout = '1s'";

/// In how many slices a day is looked at, and how many times as long as a look the rest after it is.
const SLICES: u64 = 96;
const RESTS: u32 = 4;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// The version of the schema that this program was made for.
pub(crate) fn schema_version() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

#[async_trait]
impl Admin for PostgresStore {
    async fn migrate(&self) -> Result<()> {
        const DOING: &str = "migrate the schema";
        // A pool of one, since the migrator does not take a bare connection where futures must be `Send`.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIME_MAX);
        let pool = pool.connect_lazy_with(self.unhurried.clone());
        let outcome = MIGRATOR.run(&pool).await;
        pool.close().await;
        outcome.map_err(|e| match e {
            MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => error::read(DOING, e),
            other => error::refused(DOING, other),
        })
    }

    /// On a connection of the hot statements: users' lists may hold all of the others for seconds, and it is this that
    /// tells whether the database is away.
    async fn check(&self) -> Result<()> {
        const DOING: &str = "check the schema";
        let sql = include_str!("../queries/schema_version.sql");
        let mut connection = self.hot.get(DOING).await?;
        let rows = bounded(DOING, query(connection.client(), DOING, sql, &[])).await;
        let rows = connection.settle(rows)?;
        let row = rows.first().ok_or_else(|| error::corrupt("no version"))?;
        let found: i64 = row.try_get(0).map_err(error::corrupt)?;
        let needed = schema_version();
        // A newer schema serves older programs, too: that is a rule of the migrations.
        match found < needed {
            true => Err(StoreError::Schema { found, needed }),
            false => Ok(()),
        }
    }
}

impl PostgresStore {
    /// Creates the partitions of the days to come, and drops those past the retention and old rejects.
    pub(crate) async fn maintain_partitions(&self, retention: Option<Duration>) -> Result<()> {
        const DOING: &str = "maintain the partitions";
        let failed = |e| error::read(DOING, e);
        let mut connection = self.unhurried_connection(DOING).await?;
        sqlx::query(LOCK_TIME_MAX)
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        let create = sqlx::query(include_str!("../queries/partitions_create.sql"));
        create.execute(&mut connection).await.map_err(failed)?;
        let forget = sqlx::query(include_str!("../queries/rejects_forget.sql")).bind(REJECTS_KEPT);
        forget.execute(&mut connection).await.map_err(failed)?;
        terms::unique::forget_finished(&mut connection)
            .await
            .map_err(failed)?;
        terms::expiry::forget_over(&mut connection)
            .await
            .map_err(failed)?;
        let past = duration_us(retention.unwrap_or(Duration::MAX));
        forget_deliveries(&mut connection, past).await.map_err(failed)?;
        if let Some(retention) = retention {
            let batches = sqlx::query(include_str!("../queries/batches_forget.sql"));
            let batches = batches.bind(duration_us(retention));
            batches.execute(&mut connection).await.map_err(failed)?;
            drop_expired(&mut connection, duration_us(retention))
                .await
                .map_err(failed)?;
        }
        connection.close().await.map_err(failed)
    }

    async fn unhurried_connection(&self, doing: &'static str) -> Result<PgConnection> {
        let connect = PgConnection::connect_with(&self.unhurried);
        match tokio::time::timeout(CONNECT_TIME_MAX, connect).await {
            Ok(connection) => connection.map_err(|e| error::read(doing, e)),
            Err(slow) => Err(error::unavailable(doing, slow)),
        }
    }
}

async fn forget_deliveries(connection: &mut PgConnection, past: i64) -> sqlx::Result<()> {
    for _ in 0..FORGET_ROUNDS_MAX {
        let forget = sqlx::query(include_str!("../queries/webhook_deliveries_forget.sql"))
            .bind(past)
            .bind(i64::try_from(DELIVERIES_FORGOTTEN).unwrap_or(i64::MAX));
        if forget.execute(&mut *connection).await?.rows_affected() < DELIVERIES_FORGOTTEN {
            break;
        }
    }
    Ok(())
}

/// Day by day, each in a transaction of its own, so that no lock is held for long.
async fn drop_expired(
    connection: &mut PgConnection,
    retention_us: i64,
) -> std::result::Result<(), sqlx::Error> {
    let days: Vec<String> = sqlx::query_scalar(include_str!("../queries/partitions_expired.sql"))
        .bind(retention_us)
        .fetch_all(&mut *connection)
        .await?;
    for day in days {
        if has_unfinished(connection, &day).await? {
            continue;
        }
        let drop = sqlx::query(include_str!("../queries/partitions_drop.sql")).bind(day);
        drop.execute(&mut *connection).await?;
    }
    let stray = sqlx::query(include_str!("../queries/tasks_drop_stray.sql")).bind(retention_us);
    stray.execute(&mut *connection).await?;
    Ok(())
}

/// Whether a task of a day is not final. A day that is to be dropped is mostly not in memory any more: it is read slice by
/// slice, with rests in between, so that those who write to the same disk have the most of it. The function that drops it
/// looks again, at what was just read.
async fn has_unfinished(connection: &mut PgConnection, day: &str) -> std::result::Result<bool, sqlx::Error> {
    let midnight: Timestamp = format!("{day}T00:00:00Z").parse().map_err(sqlx::Error::decode)?;
    let midnight = midnight.as_millisecond().unsigned_abs();
    let slice_ms = DAY_MS / SLICES;
    for slice in 0..SLICES {
        let began = Instant::now();
        let from = midnight + slice * slice_ms;
        let found: bool = sqlx::query_scalar(include_str!("../queries/partitions_unfinished.sql"))
            .bind(TaskId::lower_bound(from))
            .bind(TaskId::lower_bound(from + slice_ms))
            .fetch_one(&mut *connection)
            .await?;
        if found {
            return Ok(true);
        }
        tokio::time::sleep(began.elapsed() * RESTS).await;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use forebay_testkit::postgres::Postgres;

    use super::*;
    use crate::PostgresOptions;

    #[tokio::test]
    async fn it_is_found_there_while_users_hold_all_connections_for_reads() {
        let url = Postgres::shared().await.fresh_database().expect("a database");
        let options = PostgresOptions {
            read_connections: 1,
            ..PostgresOptions::new(url)
        };
        let store = PostgresStore::connect(&options).await.expect("connect");
        store.migrate().await.expect("migrate");
        let _held = store.reads.acquire().await.expect("the only one");
        store.check().await.expect("it is there");
    }
}
