//! The audit on PostgreSQL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Noted, count};
use crate::evidence::{Row, Transition};

/// The grain of `/proc/uptime`. Moments are rounded up by it, so that nothing seems to precede its cause.
const GRAIN: Duration = Duration::from_millis(10);

const INSTALL: &str = include_str!("postgres.sql");

const TRANSITIONS: &str = "SELECT seq, id, from_state, to_state, fence_before, fence_after, attempt_before,
        attempt_after, lost_before, lost_after, result_changed, clock
    FROM chaos_transitions ORDER BY seq";

const ROWS: &str = "SELECT id, state::text, fence, attempt, lost, result, payload FROM tasks ORDER BY id";

const UPTIME: &str = "SELECT chaos_uptime()";

/// Makes a migrated database write down every transition from now on. Done twice, it is done once.
///
/// # Errors
/// Where the database can't be reached or has no tasks, and where its role may not read the server's files.
pub async fn install_postgres(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await.context("connect to audit")?;
    sqlx::raw_sql(INSTALL)
        .execute(&mut connection)
        .await
        .context("install the audit")?;
    let uptime: f64 = sqlx::query_scalar(UPTIME)
        .fetch_one(&mut connection)
        .await
        .context("read the server's uptime")?;
    anyhow::ensure!(uptime > 0.0, "the server's uptime is {uptime}");
    connection.close().await.context("leave the audited database")
}

/// Reads all transitions and all rows, as of one moment. `t0` is the beginning of the run.
///
/// # Errors
/// Where the database can't be reached, the audit was not installed, or a count is below zero.
pub async fn read_postgres(url: &str, t0: Instant) -> Result<(Vec<Transition>, Vec<Row>)> {
    let mut connection = PgConnection::connect(url).await.context("connect to the audit")?;
    let mut snapshot = connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let uptime: f64 = sqlx::query_scalar(UPTIME).fetch_one(&mut *snapshot).await?;
    let moment = t0.elapsed() + GRAIN;
    let noted: Vec<Noted> = sqlx::query_as(TRANSITIONS)
        .fetch_all(&mut *snapshot)
        .await
        .context("read the transitions")?;
    let rows: Vec<Task> = sqlx::query_as(ROWS)
        .fetch_all(&mut *snapshot)
        .await
        .context("read the rows")?;
    snapshot.commit().await?;
    let transitions = noted.into_iter().map(|it| it.transition(uptime, moment));
    let rows = rows.into_iter().map(Task::row);
    Ok((transitions.collect::<Result<_>>()?, rows.collect::<Result<_>>()?))
}

#[derive(Debug, sqlx::FromRow)]
struct Task {
    id: Uuid,
    state: String,
    fence: i32,
    attempt: i32,
    lost: i32,
    result: Option<String>,
    payload: String,
}

impl Task {
    fn row(self) -> Result<Row> {
        Ok(Row {
            id: self.id,
            state: self.state,
            fence: count(self.fence.into())?,
            attempt: count(self.attempt.into())?,
            lost: count(self.lost.into())?,
            result: self.result,
            payload: self.payload,
        })
    }
}
