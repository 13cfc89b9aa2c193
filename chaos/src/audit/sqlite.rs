//! The audit on SQLite.
//!
//! A trigger of SQLite has no clock but the machine's, so a run whose clock leaps can't be audited here: it is refused.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use super::{Noted, count};
use crate::evidence::{Row, Transition};

/// The grain of the clock. Moments are rounded up by it.
const GRAIN: Duration = Duration::from_millis(1);

/// How far the clock may go back between two transitions: it is set right now and then.
const BACK_MAX_SECONDS: f64 = 0.5;

const INSTALL: &str = include_str!("sqlite.sql");

const TRANSITIONS: &str = "SELECT seq, id, from_state, to_state, fence_before, fence_after, attempt_before,
        attempt_after, lost_before, lost_after, result_changed, clock
    FROM chaos_transitions ORDER BY seq";

const ROWS: &str = "SELECT id, state, fence, attempt, lost, result, payload
    FROM tasks LEFT JOIN payloads USING (seq) ORDER BY id";

/// Makes the database in a file, which is migrated, write down every transition from now on. Done twice, it is done
/// once.
///
/// # Errors
/// Where the file is not there or has no tasks.
pub async fn install_sqlite(file: &Path) -> Result<()> {
    let mut connection = open(file).await?;
    sqlx::raw_sql(INSTALL)
        .execute(&mut connection)
        .await
        .context("install the audit")?;
    connection.close().await.context("leave the audited database")
}

/// Reads all transitions and all rows, as of one moment. `t0` is the beginning of the run.
///
/// # Errors
/// Where the file is not there, the audit was not installed, a count is below zero, or the clock leapt.
pub async fn read_sqlite(file: &Path, t0: Instant) -> Result<(Vec<Transition>, Vec<Row>)> {
    let mut connection = open(file).await?;
    let mut snapshot = connection.begin().await?;
    let noted: Vec<Noted> = sqlx::query_as(TRANSITIONS)
        .fetch_all(&mut *snapshot)
        .await
        .context("read the transitions")?;
    let rows: Vec<Task> = sqlx::query_as(ROWS)
        .fetch_all(&mut *snapshot)
        .await
        .context("read the rows")?;
    snapshot.commit().await?;
    connection.close().await?;
    let moment = t0.elapsed() + GRAIN;
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs_f64();
    check_clock(&noted, clock)?;
    let transitions = noted.into_iter().map(|it| it.transition(clock, moment));
    let rows = rows.into_iter().map(Task::row);
    Ok((transitions.collect::<Result<_>>()?, rows.collect::<Result<_>>()?))
}

/// Writers wait in line, so a clock that is right only goes on from one transition to the next.
fn check_clock(noted: &[Noted], now: f64) -> Result<()> {
    let clocks = noted.iter().map(|it| it.clock).chain([now]);
    let mut latest = 0.0_f64;
    for clock in clocks {
        anyhow::ensure!(
            clock > latest - BACK_MAX_SECONDS,
            "the clock leapt by {:.3} s during the run: its moments can't be told",
            clock - latest
        );
        latest = latest.max(clock);
    }
    Ok(())
}

async fn open(file: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(10));
    SqliteConnection::connect_with(&options)
        .await
        .with_context(|| format!("open {}", file.display()))
}

#[derive(Debug, sqlx::FromRow)]
struct Task {
    id: Uuid,
    state: String,
    fence: i64,
    attempt: i64,
    lost: i64,
    result: Option<String>,
    payload: Option<String>,
}

impl Task {
    fn row(self) -> Result<Row> {
        Ok(Row {
            id: self.id,
            state: self.state,
            fence: count(self.fence)?,
            attempt: count(self.attempt)?,
            lost: count(self.lost)?,
            result: self.result,
            payload: self.payload.context("a task without a payload")?,
        })
    }
}
