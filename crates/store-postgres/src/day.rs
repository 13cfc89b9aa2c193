//! The partition of a batch, addressed by its name.
//!
//! Nearly all batches are of one day. A statement on `tasks` itself locks all partitions and makes ready for each of
//! them, which for a small batch is most of what it costs, and looks up the partition of each row; one on the
//! partition does neither. What it does is the same, so where there is no such partition, `tasks` is used.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::{Client, GenericClient, StatementCache, Transaction};
use forebay_core::Timestamp;
use tokio::time::Instant;
use tokio_postgres::{Row, Statement, error::SqlState};
use uuid::Uuid;

use crate::hot::Params;

/// What a statement calls the table that may be a partition.
const TABLE: &str = "tasks /* of the day */";

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long a partition is not asked for that was not there, and how many such are remembered.
const ABSENCE: Duration = Duration::from_secs(60);
const ABSENT_MAX: usize = 1_000;

/// How many statements a connection keeps prepared. Each day brings some of its own; past this, all are prepared anew.
const PREPARED_MAX: usize = 256;

/// A connection, or a transaction on one, that keeps its statements prepared.
pub(crate) trait Prepares: GenericClient {
    /// What is prepared.
    fn statements(&self) -> &StatementCache;
}

impl Prepares for Client {
    fn statements(&self) -> &StatementCache {
        &self.statement_cache
    }
}

impl Prepares for Transaction<'_> {
    fn statements(&self) -> &StatementCache {
        &self.statement_cache
    }
}

/// Which partitions are not there.
#[derive(Debug, Default)]
pub(crate) struct Days {
    absent: Mutex<HashMap<u64, Instant>>,
}

impl Days {
    /// Runs a statement over rows with these ids, which are sorted.
    pub(crate) async fn query(
        &self,
        client: &impl Prepares,
        sql: &'static str,
        ids: &[Uuid],
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let day = self.present_day(ids);
        match try_query(client, &on(sql, day), params).await {
            Err(error) if self.is_absence(&error, day) => try_query(client, sql, params).await,
            outcome => outcome,
        }
    }

    /// Prepares a statement over rows with these ids, before a transaction in which it is run: a partition that is not there
    /// would end that.
    pub(crate) async fn prepare(
        &self,
        client: &Client,
        sql: &'static str,
        ids: &[Uuid],
    ) -> Result<(), tokio_postgres::Error> {
        let day = self.present_day(ids);
        match prepare(client, &on(sql, day)).await {
            Err(error) if self.is_absence(&error, day) => prepare(client, sql).await.map(|_| ()),
            prepared => prepared.map(|_| ()),
        }
    }

    /// As [`Self::query`], for a statement without an answer; says how many rows it wrote.
    pub(crate) async fn execute(
        &self,
        client: &impl Prepares,
        sql: &'static str,
        ids: &[Uuid],
        params: Params<'_>,
    ) -> Result<u64, tokio_postgres::Error> {
        let day = self.present_day(ids);
        match try_execute(client, &on(sql, day), params).await {
            Err(error) if self.is_absence(&error, day) => try_execute(client, sql, params).await,
            outcome => outcome,
        }
    }

    /// The day of all of them, unless there are several or it has no partition.
    fn present_day(&self, ids: &[Uuid]) -> Option<u64> {
        let (first, last) = (day_of(ids.first()?), day_of(ids.last()?));
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_absent = absent.get(&first).is_some_and(|since| since.elapsed() < ABSENCE);
        (first == last && !is_absent).then_some(first)
    }

    fn is_absence(&self, error: &tokio_postgres::Error, day: Option<u64>) -> bool {
        let Some(day) = day.filter(|_| error.code() == Some(&SqlState::UNDEFINED_TABLE)) else {
            return false;
        };
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(day, Instant::now());
        true
    }
}

/// Days since 1970, by the time that an id begins with.
fn day_of(id: &Uuid) -> u64 {
    let [a, b, c, d, e, f, ..] = *id.as_bytes();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f]) / DAY_MS
}

/// The statement, on the partition of a day.
fn on(sql: &'static str, day: Option<u64>) -> Cow<'static, str> {
    match day.and_then(partition) {
        Some(partition) => Cow::Owned(sql.replace(TABLE, &partition)),
        None => Cow::Borrowed(sql),
    }
}

/// As `forebay_create_partitions` names it.
fn partition(day: u64) -> Option<String> {
    let midnight = i64::try_from(day * DAY_MS).ok()?;
    let midnight = Timestamp::from_millisecond(midnight).ok()?;
    let date = midnight.to_string().split('T').next()?.replace('-', "");
    (date.len() == 8).then(|| format!("tasks_{date}"))
}

async fn try_query(
    client: &impl Prepares,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let statement = prepare(client, sql).await?;
    client.query(&statement, params).await
}

async fn try_execute(
    client: &impl Prepares,
    sql: &str,
    params: Params<'_>,
) -> Result<u64, tokio_postgres::Error> {
    let statement = prepare(client, sql).await?;
    client.execute(&statement, params).await
}

async fn prepare(client: &impl Prepares, sql: &str) -> Result<Statement, tokio_postgres::Error> {
    if client.statements().size() >= PREPARED_MAX {
        client.statements().clear();
    }
    client.prepare_cached(sql).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_the_name_that_the_schema_gives_it() {
        let id = |text: &str| text.parse::<Uuid>().expect("an id");
        let first = id("018f3f5a-1c00-7000-8000-000000000000");
        assert_eq!(partition(day_of(&first)).as_deref(), Some("tasks_20240503"));
        assert_eq!(partition(0).as_deref(), Some("tasks_19700101"));
        let last = id("ffffffff-ffff-7000-8000-000000000000");
        assert_eq!(partition(day_of(&last)), None, "the year has five digits");
        assert_eq!(
            on("DELETE FROM tasks /* of the day */ t", Some(1)),
            "DELETE FROM tasks_19700102 t"
        );
        let days = Days::default();
        assert_eq!(days.present_day(&[]), None);
        assert_eq!(days.present_day(&[first, last]), None);
        assert_eq!(days.present_day(&[first, first]), Some(day_of(&first)));
    }
}
