//! Limits: their rules, and what looks after those who wait. The single writer makes all of it simple: whoever decides is
//! alone.

mod free;
mod hold;
mod tend;

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use async_trait::async_trait;
use forebay_core::{LIMITS_MAX, LimitName, LimitRule, Rate, TaskId, Timestamp};
use forebay_store::{
    Hold, Limit, LimitUse, Limits, Mended, PutLimit, Released, Result,
    limits::{RULES_AGE_MAX, Rule, Rules},
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

pub(crate) use self::{
    free::{free, holds_of_starts, holds_of_worker, leave},
    hold::claimable,
    tend::Strays,
};
use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    row::{Fields, micros_of, micros_of_duration},
};

const ALL: &str = include_str!("../queries/limits_all.sql");
const LIST: &str = include_str!("../queries/limits_list.sql");
const PUT: &str = include_str!("../queries/limit_put.sql");
const DELETE: &str = "DELETE FROM limits WHERE name = ?1";
const NOTE_CHANGE: &str = "INSERT INTO limit_changes (name, at) VALUES (?1, ?2)";
const USE: &str = include_str!("../queries/limit_use.sql");
const HELD_BY: &str = include_str!("../queries/held_by.sql");
const READING: &str = "read limits";

/// The rules as they were read last.
pub(crate) type Cache = Arc<Mutex<Option<(Instant, Arc<Rules>)>>>;

/// A row as it is kept.
struct Kept {
    limit: Limit,
    revision: i64,
}

fn read(row: &SqliteRow) -> Result<Kept> {
    let fields = Fields(row);
    let text = |column: &str| fields.get::<Option<&str>>(column);
    let rate = match fields.get::<Option<u32>>("rate_count")? {
        None => None,
        Some(count) => Some(Rate {
            count,
            per: fields.duration("rate_per")?.unwrap_or_default(),
            burst: fields.get("rate_burst")?,
        }),
    };
    let rule = LimitRule {
        name: fields.text("name")?,
        queue: text("queue")?.map(|_| fields.text("queue")).transpose()?,
        kind: text("kind")?.map(|_| fields.text("kind")).transpose()?,
        by_key: fields.get("by_key")?,
        concurrency: fields.get("concurrency")?,
        rate,
    };
    Ok(Kept {
        limit: Limit {
            rule,
            created_at: fields.time("created_at")?,
            updated_at: fields.time("updated_at")?,
        },
        revision: fields.get("revision")?,
    })
}

async fn all(connection: &mut SqliteConnection) -> Result<Vec<Kept>> {
    let rows = sqlx::query(ALL)
        .fetch_all(connection)
        .await
        .map_err(failed(READING))?;
    rows.iter().map(read).collect()
}

/// The rules, as they were at most [`RULES_AGE_MAX`] ago.
pub(crate) async fn rules(store: &SqliteStore, connection: &mut SqliteConnection) -> Result<Arc<Rules>> {
    {
        let kept = store.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rules)) = kept.as_ref().filter(|(at, _)| at.elapsed() < RULES_AGE_MAX) {
            return Ok(Arc::clone(rules));
        }
    }
    let at = Instant::now();
    let rules = Arc::new(current_rules(connection).await?);
    *store.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, Arc::clone(&rules)));
    Ok(rules)
}

/// The rules as they are.
async fn current_rules(connection: &mut SqliteConnection) -> Result<Rules> {
    let rules = all(connection).await?.into_iter().map(|kept| Rule {
        rule: kept.limit.rule,
        revision: kept.revision,
    });
    Ok(Rules(rules.collect()))
}

impl SqliteStore {
    fn forget_rules(&self) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait]
impl Limits for SqliteStore {
    async fn put_limit(&self, rule: &LimitRule) -> Result<PutLimit> {
        const DOING: &str = "put a limit";
        let mut tx = self.begin(DOING).await?;
        let kept = all(&mut tx).await?;
        let old = kept.iter().find(|it| it.limit.rule.name == rule.name);
        if old.is_none() && kept.len() >= LIMITS_MAX {
            tx.commit().await?;
            return Ok(PutLimit::TooMany);
        }
        let now = self.clock_now();
        // Times by the clock grow, and so do numbers after the largest there was.
        let newest = kept.iter().map(|it| it.revision).max().unwrap_or(0);
        let fresh = micros_of(now).max(newest.saturating_add(1));
        let is_change = old.is_some_and(|old| !old.limit.rule.differs_in_concurrency_only(rule));
        let revision = old.filter(|_| !is_change).map_or(fresh, |old| old.revision);
        let limit = Limit {
            rule: rule.clone(),
            created_at: old.map_or(now, |old| old.limit.created_at),
            updated_at: now,
        };
        write(&mut tx, &limit, revision).await?;
        if is_change {
            note_change(&mut tx, &rule.name, now).await?;
        }
        tx.commit().await?;
        self.forget_rules();
        Ok(match old {
            Some(_) => PutLimit::Replaced(limit),
            None => PutLimit::New(limit),
        })
    }

    async fn limit(&self, name: &LimitName) -> Result<Option<Limit>> {
        let all = all(&mut *self.reader(READING).await?).await?;
        Ok(all
            .into_iter()
            .map(|kept| kept.limit)
            .find(|limit| limit.rule.name == *name))
    }

    async fn limits(&self, page_size: usize, after: Option<&LimitName>) -> Result<Vec<Limit>> {
        let rows = sqlx::query(LIST)
            .bind(after.map_or("", LimitName::as_str))
            .bind(bounded(page_size))
            .fetch_all(&mut *self.reader(READING).await?)
            .await
            .map_err(failed(READING))?;
        rows.iter().map(|row| read(row).map(|kept| kept.limit)).collect()
    }

    async fn delete_limit(&self, name: &LimitName) -> Result<bool> {
        const DOING: &str = "delete a limit";
        let mut tx = self.begin(DOING).await?;
        let deleted = sqlx::query(DELETE)
            .bind(name.as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        let deleted = deleted.rows_affected() > 0;
        if deleted {
            note_change(&mut tx, name, self.clock_now()).await?;
        }
        tx.commit().await?;
        self.forget_rules();
        Ok(deleted)
    }

    async fn limit_use(&self, name: &LimitName) -> Result<LimitUse> {
        const DOING: &str = "read how a limit is used";
        let row = sqlx::query(USE)
            .bind(name.as_str())
            .fetch_one(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        let count = |column: &str| Fields(&row).get::<i64>(column).map(i64::unsigned_abs);
        Ok(LimitUse {
            running: count("running")?,
            waiting: count("waiting")?,
        })
    }

    async fn held_by(&self, task: TaskId) -> Result<Option<Hold>> {
        const DOING: &str = "read what holds a task back";
        let row = sqlx::query(HELD_BY)
            .bind(task.as_uuid())
            .bind(i64::try_from(Hold::AHEAD_MAX).unwrap_or(i64::MAX))
            .fetch_optional(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        row.as_ref().map(held).transpose()
    }

    fn has_released(&self) -> bool {
        self.released.swap(false, Ordering::Relaxed)
    }

    async fn release_throttled(&self, after: Option<i64>, limit: usize) -> Result<Released> {
        tend::release(self, after, limit).await
    }

    async fn mend_limits(&self) -> Result<Mended> {
        tend::mend(self).await
    }
}

fn held(row: &SqliteRow) -> Result<Hold> {
    let fields = Fields(row);
    let key: String = fields.get("key")?;
    Ok(Hold {
        limit: fields.text("name")?,
        key: (!key.is_empty()).then_some(key),
        running: fields.get("running")?,
        concurrency: fields.get("concurrency")?,
        next_at: fields.maybe_time("next_at")?,
        ahead: fields.get::<i64>("ahead")?.unsigned_abs(),
    })
}

async fn write(tx: &mut SqliteConnection, limit: &Limit, revision: i64) -> Result<()> {
    let Limit {
        rule,
        created_at,
        updated_at,
    } = limit;
    sqlx::query(PUT)
        .bind(rule.name.as_str())
        .bind(revision)
        .bind(rule.queue.as_ref().map(|it| it.as_str()))
        .bind(rule.kind.as_ref().map(|it| it.as_str()))
        .bind(rule.by_key)
        .bind(rule.concurrency)
        .bind(rule.rate.map(|rate| rate.count))
        .bind(rule.rate.map(|rate| micros_of_duration(rate.per)))
        .bind(rule.rate.map(|rate| rate.burst))
        .bind(micros_of(*created_at))
        .bind(micros_of(*updated_at))
        .execute(tx)
        .await
        .map_err(failed("put a limit"))?;
    Ok(())
}

async fn note_change(tx: &mut SqliteConnection, name: &LimitName, now: Timestamp) -> Result<()> {
    sqlx::query(NOTE_CHANGE)
        .bind(name.as_str())
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed("note that a limit was changed"))?;
    Ok(())
}

/// When a turn or a start is due, as it is kept; far times are cut.
fn nanos_of(at: Timestamp) -> i64 {
    micros_of(at).saturating_mul(1_000)
}
