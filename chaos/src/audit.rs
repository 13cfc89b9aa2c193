//! What the database says: triggers that write down every transition of a task, in the transaction that makes it, into
//! a table of their own. The suite installs them into its own databases; no migration knows of them.
//!
//! Their moments are true although the clocks of a run leap: on PostgreSQL the trigger reads the machine's time since
//! boot, which no clock setting moves, from `/proc/uptime`. Transitions are ordered by a sequence. After a crash it may
//! skip numbers, but never goes back.

mod postgres;
mod sqlite;

use std::time::Duration;

use anyhow::{Context, Result};
use uuid::Uuid;

pub use self::{
    postgres::{install_postgres, read_postgres},
    sqlite::{install_sqlite, read_sqlite},
};
use crate::evidence::Transition;

/// A row of `chaos_transitions`.
#[derive(Debug, sqlx::FromRow)]
struct Noted {
    seq: i64,
    id: Uuid,
    from_state: Option<String>,
    to_state: String,
    fence_before: i64,
    fence_after: i64,
    attempt_before: i64,
    attempt_after: i64,
    lost_before: i64,
    lost_after: i64,
    result_changed: bool,
    clock: f64,
}

impl Noted {
    /// As evidence, where a reading of the noting clock, in seconds, is this moment of the run.
    fn transition(self, reading: f64, moment: Duration) -> Result<Transition> {
        let pair = |before, after| Ok::<_, anyhow::Error>((count(before)?, count(after)?));
        Ok(Transition {
            seq: self.seq,
            id: self.id,
            fence: pair(self.fence_before, self.fence_after)?,
            attempt: pair(self.attempt_before, self.attempt_after)?,
            lost: pair(self.lost_before, self.lost_after)?,
            from: self.from_state,
            to: self.to_state,
            result_changed: self.result_changed,
            at: Duration::try_from_secs_f64((moment.as_secs_f64() - (reading - self.clock)).max(0.0))
                .context("a transition without a moment")?,
        })
    }
}

/// What counts starts, attempts or workers. One below zero is worth an error of its own.
fn count(value: i64) -> Result<u32> {
    u32::try_from(value).with_context(|| format!("a count of {value}"))
}

#[cfg(test)]
mod tests;
