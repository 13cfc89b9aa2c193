//! What follows from the ends of tasks that somebody waits for. It is one transaction with forgetting the note of the end,
//! so it is done once.

use std::pin::Pin;

use forebay_core::{BatchId, State, TaskEvent, TaskId, Timestamp};
use forebay_store::{Ended, GivenUp, MISSING_WAIT_MAX, Result, Settled, UNKNOWN_WAIT_MAX, not_run};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::cancel;
use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    row::{Fields, micros_of, micros_of_duration, to_json},
    terms::after,
    webhooks,
};

pub(super) const DOING: &str = "see to the ends of tasks";

/// How many of those who wait are seen to together, and how many tasks that were not recorded are looked for.
const DEPENDENTS_MAX: usize = 1_000;
const UNKNOWN_MAX: usize = 500;
/// How many batches with missing tasks are made complete together.
const MISSING_MAX: usize = 20;
/// Between two looks for a task that was not recorded.
const ASK_EVERY_US: i64 = 1_000_000;

const ANY: &str = "SELECT EXISTS (SELECT 1 FROM settled) AS ended,
    EXISTS (SELECT 1 FROM blockers WHERE NOT known AND asked_at < ?1) AS unknown,
    EXISTS (SELECT 1 FROM batches WHERE cancel_from IS NOT NULL) AS cancelling,
    EXISTS (SELECT 1 FROM batches WHERE grown_at < ?2 AND closed_at IS NOT NULL) AS missing";
const ENDED: &str = "SELECT seq, task_id, state, settled_at FROM settled ORDER BY seq LIMIT ?1";
const FORGET: &str = "DELETE FROM settled WHERE seq = ?1";
const WAITING: &str = "SELECT b.task_id AS id, t.terms -> '$.after' ->> '$.on_failure' AS on_failure
    FROM blockers b LEFT JOIN tasks t ON t.id = b.task_id
    WHERE b.on_id = ?1 ORDER BY b.task_id LIMIT ?2";
const DROP: &str = "DELETE FROM blockers WHERE on_id = ?1 AND task_id = ?2";
const FREE: &str = "DELETE FROM blockers WHERE task_id = ?1";
const NOT_RUN: &str =
    "UPDATE tasks SET state = 'cancelled', run_at = NULL, finished_at = ?2, errors = json_insert(errors, '$[#]', json(?3))
    WHERE id = ?1 AND state = 'blocked'
    RETURNING id, kind, queue, state, attempt";
const RELEASE: &str = "UPDATE tasks SET state = 'scheduled', run_at = max(coalesce(run_at, ?2), ?2)
    WHERE id = ?1 AND state = 'blocked' AND NOT EXISTS (SELECT 1 FROM blockers WHERE task_id = ?1)
    RETURNING id, kind, queue, state, attempt";
const BATCH_OF: &str = "SELECT unhex(replace(terms ->> '$.batch', '-', '')) FROM tasks WHERE id = ?1";
const END: &str =
    "UPDATE batch_members SET state = ?3 WHERE batch_id = ?1 AND task_id = ?2 AND state IS NULL";
const END_AGAIN: &str = "UPDATE batch_members SET state = ?3 WHERE batch_id = ?1 AND task_id = ?2";
const COUNT: &str = "UPDATE batches SET ended = ended + 1 WHERE id = ?1";
const COMPLETE: &str = "UPDATE batches SET completed_at = ?2, grown_at = NULL
    WHERE id = ?1 AND completed_at IS NULL AND closed_at IS NOT NULL AND cancel_from IS NULL AND ended >= total
        AND NOT EXISTS (SELECT 1 FROM batch_members WHERE batch_id = ?1 AND state IS NULL)
        AND NOT EXISTS (SELECT 1 FROM batch_members m CROSS JOIN tasks t ON t.id = m.task_id
            WHERE m.batch_id = ?1 AND t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
    RETURNING completion_task";
const MISSING: &str =
    "SELECT id FROM batches WHERE grown_at < ?1 AND closed_at IS NOT NULL ORDER BY grown_at LIMIT ?2";
const MAKE_DO: &str = "UPDATE batches
    SET grown_at = NULL, total = (SELECT count(*) FROM batch_members WHERE batch_id = ?1)
    WHERE id = ?1";
const UNKNOWN: &str =
    "SELECT on_id, task_id, since FROM blockers WHERE NOT known AND asked_at < ?1 ORDER BY asked_at LIMIT ?2";
const ASKED: &str = "UPDATE blockers SET asked_at = ?3 WHERE on_id = ?1 AND task_id = ?2";

/// What there is to be done.
struct Any {
    ended: bool,
    unknown: bool,
    cancelling: bool,
    missing: bool,
}

/// A look takes no turn at writing while there is nothing to do. Each part is a transaction by itself.
pub(super) async fn settle(store: &SqliteStore, limit: usize) -> Result<Settled> {
    let any = any(store).await?;
    let ends = match any.ended {
        true => Some(see_to_ends(store, limit).await),
        false => None,
    };
    let mut others = Vec::new();
    if any.unknown {
        others.push(part(store, |tx, now| Box::pin(look_for_unknown(tx, now))).await);
    }
    if any.cancelling {
        others.push(part(store, |tx, now| Box::pin(cancel::go_on(tx, now))).await);
    }
    if any.missing {
        others.push(part(store, |tx, now| Box::pin(make_do(tx, now))).await);
    }
    Settled::of(ends, others)
}

async fn any(store: &SqliteStore) -> Result<Any> {
    let now = micros_of(store.clock_now());
    let row = sqlx::query(ANY)
        .bind(now - ASK_EVERY_US)
        .bind(now - micros_of_duration(MISSING_WAIT_MAX))
        .fetch_one(&mut *store.reader(DOING).await?)
        .await
        .map_err(failed(DOING))?;
    let any = Fields(&row);
    Ok(Any {
        ended: any.get("ended")?,
        unknown: any.get("unknown")?,
        cancelling: any.get("cancelling")?,
        missing: any.get("missing")?,
    })
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<Settled>> + Send + 'a>>;

async fn part(
    store: &SqliteStore,
    work: impl for<'a> FnOnce(&'a mut SqliteConnection, Timestamp) -> Work<'a>,
) -> Result<Settled> {
    let mut tx = store.begin(DOING).await?;
    let settled = work(&mut tx, store.clock_now()).await?;
    tx.commit().await?;
    Ok(settled)
}

/// An end that was noted.
struct Note {
    seq: i64,
    ended: Ended,
}

async fn see_to_ends(store: &SqliteStore, limit: usize) -> Result<Settled> {
    let mut tx = store.begin(DOING).await?;
    let rows = sqlx::query(ENDED)
        .bind(bounded(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let notes: Vec<Note> = rows.iter().map(note).collect::<Result<_>>()?;
    let settled = see_to(&mut tx, &notes, store.clock_now()).await;
    let mut settled = match (settled, notes.as_slice()) {
        // One that can't be seen to by itself would be in the way for ever: it is forgotten.
        (Err(error), [note]) if limit == 1 && GivenUp::is_due_to(&error) => {
            drop(tx);
            tx = store.begin(DOING).await?;
            forget(&mut tx, note).await?;
            Settled {
                given_up: vec![GivenUp::new(note.ended.id, &error)],
                ..Settled::default()
            }
        }
        (settled, _) => settled?,
    };
    tx.commit().await?;
    settled.seen = notes.len();
    settled.more |= notes.len() >= limit;
    Ok(settled)
}

async fn see_to(tx: &mut SqliteConnection, notes: &[Note], now: Timestamp) -> Result<Settled> {
    let mut settled = Settled::default();
    let mut left = DEPENDENTS_MAX;
    let mut done = Vec::with_capacity(notes.len());
    for note in notes {
        let ended = note.ended;
        if !follow(
            tx,
            ended.id,
            Some(ended.state),
            now,
            &mut left,
            &mut settled.events,
        )
        .await?
        {
            // More wait than are seen to together: the end is seen to again, and what comes after it.
            settled.more = true;
            break;
        }
        count(tx, &ended, now, &mut settled.events).await?;
        forget(tx, note).await?;
        done.push(ended);
    }
    settled.events.extend(webhooks::enqueue(tx, &done, now).await?);
    Ok(settled)
}

async fn forget(tx: &mut SqliteConnection, note: &Note) -> Result<()> {
    sqlx::query(FORGET)
        .bind(note.seq)
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

fn note(row: &SqliteRow) -> Result<Note> {
    let fields = Fields(row);
    Ok(Note {
        seq: fields.get("seq")?,
        ended: Ended {
            id: fields.get::<Uuid>("task_id")?.into(),
            state: fields.text("state")?,
            at: fields.time("settled_at")?,
        },
    })
}

/// Releases or cancels those who wait for what has ended; `None` is what does not exist. Takes no more than `left` of them, which
/// is for a whole pass, and says whether these are all.
async fn follow(
    tx: &mut SqliteConnection,
    on: TaskId,
    ended: Option<State>,
    now: Timestamp,
    left: &mut usize,
    events: &mut Vec<TaskEvent>,
) -> Result<bool> {
    let rows = sqlx::query(WAITING)
        .bind(on.as_uuid())
        .bind(bounded(*left))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    for row in &rows {
        let task = Fields(row).task_id()?;
        drop_blocker(tx, on, task).await?;
        let is_gentle = Fields(row).get::<Option<&str>>("on_failure")? == Some("run");
        match ended == Some(State::Succeeded) || is_gentle {
            true => events.extend(release(tx, task, now).await?),
            false => events.extend(give_up(tx, task, &not_run(on, ended), now).await?),
        }
    }
    *left = left.saturating_sub(rows.len());
    Ok(*left > 0)
}

async fn drop_blocker(tx: &mut SqliteConnection, on: TaskId, task: TaskId) -> Result<()> {
    sqlx::query(DROP)
        .bind(on.as_uuid())
        .bind(task.as_uuid())
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}

/// Cancels a task that waited for one that did not succeed.
pub(super) async fn give_up(
    tx: &mut SqliteConnection,
    task: TaskId,
    why: &str,
    now: Timestamp,
) -> Result<Option<TaskEvent>> {
    let error = forebay_core::AttemptError::new(0, forebay_core::Outcome::Cancelled, why, now);
    let row = sqlx::query(NOT_RUN)
        .bind(task.as_uuid())
        .bind(micros_of(now))
        .bind(to_json(&error)?)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    sqlx::query(FREE)
        .bind(task.as_uuid())
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    row.map(|row| Fields(&row).event(now)).transpose()
}

/// Releases a blocked task, unless it waits for anything else.
async fn release(tx: &mut SqliteConnection, task: TaskId, now: Timestamp) -> Result<Option<TaskEvent>> {
    let row = sqlx::query(RELEASE)
        .bind(task.as_uuid())
        .bind(micros_of(now))
        .fetch_optional(tx)
        .await
        .map_err(failed(DOING))?;
    row.map(|row| Fields(&row).event(now)).transpose()
}

/// Counts an end in its batch, and completes that.
async fn count(
    tx: &mut SqliteConnection,
    ended: &Ended,
    now: Timestamp,
    events: &mut Vec<TaskEvent>,
) -> Result<()> {
    let batch: Option<Option<Uuid>> = sqlx::query_scalar(BATCH_OF)
        .bind(ended.id.as_uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let Some(batch) = batch.flatten() else {
        return Ok(());
    };
    let note = |sql: &'static str| {
        let note = sqlx::query(sql).bind(batch);
        note.bind(ended.id.as_uuid()).bind(ended.state.as_str())
    };
    let first = note(END).execute(&mut *tx).await.map_err(failed(DOING))?;
    // One that was brought back may be all that its batch waited for, which is looked at again.
    let counted = match first.rows_affected() {
        0 => note(END_AGAIN),
        _ => sqlx::query(COUNT).bind(batch),
    };
    counted.execute(&mut *tx).await.map_err(failed(DOING))?;
    events.extend(complete(tx, batch.into(), now).await?);
    Ok(())
}

/// Completes a batch if nothing of it is to come, and releases the task that runs then.
pub(super) async fn complete(
    tx: &mut SqliteConnection,
    batch: BatchId,
    now: Timestamp,
) -> Result<Option<TaskEvent>> {
    let completed: Option<Option<Uuid>> = sqlx::query_scalar(COMPLETE)
        .bind(batch.as_uuid())
        .bind(micros_of(now))
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    match completed.flatten() {
        Some(task) => release(tx, task.into(), now).await,
        None => Ok(None),
    }
}

/// Completes batches some of whose tasks were announced and never came, once these were waited for long enough.
async fn make_do(tx: &mut SqliteConnection, now: Timestamp) -> Result<Settled> {
    let mut settled = Settled::default();
    let batches: Vec<Uuid> = sqlx::query_scalar(MISSING)
        .bind(micros_of(now) - micros_of_duration(MISSING_WAIT_MAX))
        .bind(bounded(MISSING_MAX))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    for batch in batches {
        sqlx::query(MAKE_DO)
            .bind(batch)
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        settled.events.extend(complete(tx, batch.into(), now).await?);
    }
    Ok(settled)
}

/// Looks for tasks that are waited for and were not recorded. Those that are found tell of their ends from now on, or have
/// ended; those that were looked for too long don't exist. None is looked for again within a second, so there is never more
/// to do at once.
async fn look_for_unknown(tx: &mut SqliteConnection, now: Timestamp) -> Result<Settled> {
    let mut settled = Settled::default();
    let rows = sqlx::query(UNKNOWN)
        .bind(micros_of(now) - ASK_EVERY_US)
        .bind(bounded(UNKNOWN_MAX))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let mut left = DEPENDENTS_MAX;
    for row in &rows {
        let fields = Fields(row);
        let on: TaskId = fields.get::<Uuid>("on_id")?.into();
        let task: TaskId = fields.get::<Uuid>("task_id")?.into();
        let waited = micros_of(now) - fields.get::<i64>("since")?;
        asked(tx, on, task, now).await?;
        match after::find(tx, on).await? {
            Some((real, state)) => {
                let is_over = state.is_final();
                // Under the id of its key in another window it is another row. What has ended is looked for until it was
                // seen to.
                if real != on || !is_over {
                    drop_blocker(tx, on, task).await?;
                    after::add(tx, real, task, !is_over, now).await?;
                }
                if is_over {
                    // It told of its end when nobody waited for it: it is seen to here, and webhooks hear nothing twice.
                    follow(tx, real, Some(state), now, &mut left, &mut settled.events).await?;
                } else {
                    after::watch(tx, real).await?;
                }
            }
            None if waited > micros_of_duration(UNKNOWN_WAIT_MAX) => {
                follow(tx, on, None, now, &mut left, &mut settled.events).await?;
            }
            None => {}
        }
        if left == 0 {
            break;
        }
    }
    Ok(settled)
}

/// Notes that a task was looked for.
async fn asked(tx: &mut SqliteConnection, on: TaskId, task: TaskId, now: Timestamp) -> Result<()> {
    sqlx::query(ASKED)
        .bind(on.as_uuid())
        .bind(task.as_uuid())
        .bind(micros_of(now))
        .execute(tx)
        .await
        .map_err(failed(DOING))?;
    Ok(())
}
