//! Looking after limits: what waits although there is room, and counters that are not what they count. There is one writer, so
//! all of it is done in small steps, between which others come to write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use forebay_core::{TaskId, Timestamp};
use forebay_store::{
    GivenUp, Mended, Released, Result,
    limits::{CHANGE_KEPT, TURN_KEPT},
};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    current_rules,
    free::{forget, free, let_go, release as release_lines},
    hold::read_uses,
    nanos_of,
};
use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    row::{Fields, micros_of, micros_of_duration, to_json},
};

const LINES: &str = include_str!("../../queries/throttled_lines.sql");
// As many as there may be limits: those after them would wait for as long as these are kept in mind.
const CHANGES: &str = "SELECT id, name, at FROM limit_changes ORDER BY id LIMIT 1000";
const CHANGES_DONE: &str = "DELETE FROM limit_changes WHERE id IN (SELECT value FROM json_each(?1))";
const OF_CHANGE: &str = include_str!("../../queries/throttled_of_change.sql");
const LATE: &str = include_str!("../../queries/holds_of_late.sql");
const STRETCH_END: &str =
    "SELECT task_id FROM throttled WHERE task_id > ?1 ORDER BY task_id LIMIT 1 OFFSET ?2 - 1";
const STRAY: &str = include_str!("../../queries/throttled_stray.sql");
const COUNTED: &str = include_str!("../../queries/holds_counted.sql");
const KEPT: &str = "SELECT id, running FROM limit_uses WHERE running > 0";
const SET: &str = "UPDATE limit_uses SET running = ?2 WHERE id = ?1";
const TURN_BACK: &str = include_str!("../../queries/limit_uses_turn_back.sql");
const DROP_HOLDS: &str = "UPDATE tasks SET holds = NULL WHERE id = ?1 AND state <> 'running'";
const FORGET_UNUSED: &str = include_str!("../../queries/limit_uses_forget.sql");
const DOING: &str = "look after limits";

/// How many lines are let go on in one transaction: of each of them so many tasks go on that it is not a short one.
const LINES_TOGETHER: usize = 10;
/// How many tasks are let go together whose limit was changed.
const CHANGED_AT_ONCE: i64 = 500;
/// How many rows a pass looks at, of those that say what is held back, for ones that say nothing any more.
const STRAYS_AT_ONCE: i64 = 10_000;
/// How many rows are mended or forgotten in one transaction.
const ROWS_AT_ONCE: i64 = 1_000;
/// How many such transactions a pass makes.
const ROUNDS_MAX: usize = 20;

/// How far the walk along what is held back has come.
pub(crate) type Strays = Arc<Mutex<Uuid>>;

/// See [`forebay_store::Limits::release_throttled`].
pub(super) async fn release(store: &SqliteStore, after: Option<i64>, limit: usize) -> Result<Released> {
    let (lines, with_room, has_change) = look(store, after, limit).await?;
    let mut released = Released {
        next: lines.last().copied().filter(|_| lines.len() >= limit),
        ..Released::default()
    };
    // Lines that fail are left behind, for the next time round: those after them do not wait for that.
    for together in with_room.chunks(LINES_TOGETHER) {
        let done = release_together(store, together).await;
        let has_bad = done.as_ref().is_err_and(GivenUp::is_due_to);
        released.add(done);
        if has_bad && together.len() > 1 {
            for line in together.chunks(1) {
                released.add(release_together(store, line).await);
            }
        }
    }
    if has_change {
        released.add(follow_changes(store).await);
    }
    Ok(released)
}

async fn release_together(store: &SqliteStore, lines: &[i64]) -> Result<u64> {
    let mut tx = store.begin(DOING).await?;
    let rules = current_rules(&mut tx).await?;
    let count = release_lines(&mut tx, &rules, lines, store.clock_now()).await?;
    tx.commit().await?;
    Ok(count)
}

/// The next lines, those of them in which somebody waits for whom there is room, and whether a limit was changed.
async fn look(store: &SqliteStore, after: Option<i64>, limit: usize) -> Result<(Vec<i64>, Vec<i64>, bool)> {
    let mut reader = store.reader(DOING).await?;
    let lines: Vec<i64> = sqlx::query_scalar(LINES)
        .bind(after.unwrap_or(i64::MIN))
        .bind(bounded(limit))
        .fetch_all(&mut *reader)
        .await
        .map_err(failed(DOING))?;
    let mut with_room = Vec::new();
    if !lines.is_empty() {
        let rules = current_rules(&mut reader).await?;
        let seen = read_uses(&mut reader, &rules, &[], &lines, store.clock_now()).await?;
        let has_room = seen.iter().filter(|it| it.state.has_line && it.state.room() > 0);
        with_room.extend(has_room.map(|it| it.state.id));
    }
    let has_change = !changes(&mut reader).await?.is_empty();
    Ok((lines, with_room, has_change))
}

async fn changes(connection: &mut SqliteConnection) -> Result<Vec<SqliteRow>> {
    let changes = sqlx::query(CHANGES).fetch_all(connection).await;
    changes.map_err(failed(DOING))
}

/// What waits by earlier revisions of limits is let go, and looked at anew when it is claimed.
async fn follow_changes(store: &SqliteStore) -> Result<u64> {
    let mut tx = store.begin(DOING).await?;
    let now = store.clock_now();
    let changes = changes(&mut tx).await?;
    let rules = current_rules(&mut tx).await?;
    let mut before: BTreeMap<&str, i64> = BTreeMap::new();
    for change in &changes {
        let name = Fields(change).get("name")?;
        let rule = rules.0.iter().find(|it| it.rule.name.as_str() == name);
        before.insert(name, rule.map_or(i64::MAX, |it| it.revision));
    }
    let before: Vec<Value> = before.into_iter().map(|it| json!([it.0, it.1])).collect();
    let rows = sqlx::query(OF_CHANGE)
        .bind(to_json(&before)?)
        .bind(CHANGED_AT_ONCE)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    let (mut count, mut places) = (0, Vec::new());
    for row in &rows {
        let task = TaskId::from(Fields(row).get::<Uuid>("task_id")?);
        if Fields(row).get::<Option<&str>>("holds")?.is_some() {
            places.append(&mut Fields(row).list("holds")?);
            drop_holds(&mut tx, task).await?;
        }
        forget(&mut tx, task).await?;
        count += u64::from(let_go(&mut tx, task, now).await?);
    }
    free(&mut tx, &places, now).await?;
    if is_less(rows.len(), CHANGED_AT_ONCE) {
        drop_followed(&mut tx, &changes, &rows, now).await?;
    }
    tx.commit().await?;
    Ok(count)
}

/// Forgets changes that are old enough, and of which nothing was found any more.
async fn drop_followed(
    tx: &mut SqliteConnection,
    changes: &[SqliteRow],
    found: &[SqliteRow],
    now: Timestamp,
) -> Result<()> {
    let found: BTreeSet<&str> = found
        .iter()
        .map(|row| Fields(row).get("name"))
        .collect::<Result<_>>()?;
    let mut followed: Vec<i64> = Vec::new();
    for change in changes {
        let at = Fields(change).time("at")?;
        let is_old = at.saturating_add(CHANGE_KEPT).is_ok_and(|until| until < now);
        if is_old && !found.contains(Fields(change).get::<&str>("name")?) {
            followed.push(Fields(change).get("id")?);
        }
    }
    let done = sqlx::query(CHANGES_DONE)
        .bind(to_json(&followed)?)
        .execute(tx)
        .await;
    done.map(|_| ()).map_err(failed(DOING))
}

async fn drop_holds(tx: &mut SqliteConnection, task: TaskId) -> Result<()> {
    let dropped = sqlx::query(DROP_HOLDS).bind(task.as_uuid()).execute(tx).await;
    dropped.map(|_| ()).map_err(failed(DOING))
}

/// See [`forebay_store::Limits::mend_limits`]. What does not succeed keeps nothing else from being done.
pub(super) async fn mend(store: &SqliteStore) -> Result<Mended> {
    let dropped = drop_strays(store).await;
    let late = give_up_late(store).await;
    let counters = mend_counters(store).await;
    let turns = take_turns_back(store).await;
    let forgotten = forget_unused(store).await;
    dropped?;
    late?;
    turns?;
    Ok(Mended {
        counters: counters?,
        forgotten: forgotten?,
    })
}

async fn drop_strays(store: &SqliteStore) -> Result<()> {
    let after = *store.strays.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tx = store.begin(DOING).await?;
    let end: Option<Uuid> = sqlx::query_scalar(STRETCH_END)
        .bind(after)
        .bind(STRAYS_AT_ONCE)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    sqlx::query(STRAY)
        .bind(after)
        .bind(end)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
    tx.commit().await?;
    *store.strays.lock().unwrap_or_else(PoisonError::into_inner) = end.unwrap_or_default();
    Ok(())
}

/// Looks first, and counts again where it writes.
async fn mend_counters(store: &SqliteStore) -> Result<u64> {
    if wrong(&mut *store.reader(DOING).await?).await?.is_empty() {
        return Ok(0);
    }
    let mut tx = store.begin(DOING).await?;
    let mut count = 0;
    for (id, right) in wrong(&mut tx).await? {
        let set = sqlx::query(SET).bind(id).bind(right).execute(&mut *tx).await;
        count += set.map_err(failed(DOING))?.rows_affected();
    }
    tx.commit().await?;
    Ok(count)
}

/// The counters that are wrong, and what is right.
async fn wrong(connection: &mut SqliteConnection) -> Result<BTreeMap<i64, i64>> {
    let counted = pairs(connection, COUNTED).await?;
    let kept = pairs(connection, KEPT).await?;
    let ids = counted.keys().chain(kept.keys());
    let right = |id: &i64| (*id, counted.get(id).copied().unwrap_or(0));
    Ok(ids
        .filter(|id| counted.get(id) != kept.get(id))
        .map(right)
        .collect())
}

async fn pairs(connection: &mut SqliteConnection, sql: &'static str) -> Result<BTreeMap<i64, i64>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(sql)
        .fetch_all(connection)
        .await
        .map_err(failed(DOING))?;
    Ok(rows.into_iter().collect())
}

/// What was cancelled, or has expired, leaves a gap in the turns of a rate.
async fn take_turns_back(store: &SqliteStore) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let mut tx = store.begin(DOING).await?;
        let back = sqlx::query(TURN_BACK).bind(ROWS_AT_ONCE).execute(&mut *tx).await;
        let back = back.map_err(failed(DOING))?.rows_affected();
        tx.commit().await?;
        if back < ROWS_AT_ONCE.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

/// As many as there are, up to a bound: keys may come faster than a few at a time.
async fn forget_unused(store: &SqliteStore) -> Result<u64> {
    let mut all = 0;
    for _ in 0..ROUNDS_MAX {
        let mut tx = store.begin(DOING).await?;
        let forgotten = sqlx::query(FORGET_UNUSED)
            .bind(nanos_of(store.clock_now()))
            .bind(ROWS_AT_ONCE)
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?
            .rows_affected();
        tx.commit().await?;
        all += forgotten;
        if forgotten < ROWS_AT_ONCE.unsigned_abs() {
            break;
        }
    }
    Ok(all)
}

/// Who had a turn, and does not come, keeps no place from others.
async fn give_up_late(store: &SqliteStore) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let mut tx = store.begin(DOING).await?;
        let now = store.clock_now();
        let rows = sqlx::query(LATE)
            .bind(micros_of(now).saturating_sub(micros_of_duration(TURN_KEPT)))
            .bind(ROWS_AT_ONCE)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        let mut places = Vec::new();
        for row in &rows {
            places.append(&mut Fields(row).list("holds")?);
            drop_holds(&mut tx, TaskId::from(Fields(row).get::<Uuid>("task_id")?)).await?;
        }
        free(&mut tx, &places, now).await?;
        tx.commit().await?;
        if is_less(rows.len(), ROWS_AT_ONCE) {
            break;
        }
    }
    Ok(())
}

fn is_less(found: usize, most: i64) -> bool {
    i64::try_from(found).is_ok_and(|found| found < most)
}
