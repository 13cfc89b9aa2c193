//! Looking after limits: what waits although there is room, and counters that are not what they count.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool_postgres::{Client, GenericClient, Transaction};
use forebay_store::{
    GivenUp, Mended, Released, Result,
    limits::{CHANGE_KEPT, Rules, TURN_KEPT},
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    allot::take_back_old,
    current_rules,
    free::{self, free},
    uses,
};
use crate::{
    dispatch, error,
    hot::{Params, bounded, column, query},
    values::duration_us,
};

const DOING: &str = "look after limits";

/// How many lines are let go on in one transaction: of each of them so many tasks go on that it is not a short one.
const LINES_TOGETHER: usize = 10;
/// How long a pass goes along the lines, and how long it follows changes; the next goes on from there.
const PASS_TIME_MAX: Duration = Duration::from_secs(1);
/// How many tasks are let go together whose limit was changed.
const CHANGED_AT_ONCE: i64 = 500;
/// How many rows a pass looks at, of those that say what is held back, for ones that say nothing any more.
const STRAYS_AT_ONCE: i64 = 10_000;
/// How many rows are mended or forgotten in one transaction.
const ROWS_AT_ONCE: i64 = 1_000;
/// How many such transactions a pass makes.
const ROUNDS_MAX: usize = 20;

/// How far the walk along what is held back has come.
pub(crate) type Strays = Mutex<Uuid>;

async fn begin(client: &mut Client) -> Result<Transaction<'_>> {
    client.transaction().await.map_err(|e| error::hot(DOING, e))
}

async fn commit(transaction: Transaction<'_>) -> Result<()> {
    transaction.commit().await.map_err(|e| error::hot(DOING, e))
}

/// See [`forebay_store::Limits::release_throttled`]. While nothing waits, that is two small statements.
pub(super) async fn release(client: &mut Client, after: Option<i64>, limit: usize) -> Result<Released> {
    let sql = include_str!("../../queries/limit_changes_any.sql");
    let changed = bounded(DOING, query(client, DOING, sql, &[])).await?;
    let has_change = changed
        .first()
        .map(|row| column::<bool>(row, "found"))
        .transpose()?;
    let mut released = Released {
        next: after,
        ..Released::default()
    };
    let walked = walk(client, after, limit, &mut released).await;
    released.add(walked.map(|()| 0));
    // Whatever became of the lines: what waits for neither is not kept by a trouble with the other.
    if has_change == Some(true) {
        follow_for_a_while(client, &mut released).await;
    }
    Ok(released)
}

async fn follow_for_a_while(client: &mut Client, released: &mut Released) {
    let began = Instant::now();
    while began.elapsed() < PASS_TIME_MAX {
        let followed = bounded(DOING, follow_changes(client)).await;
        let has_more = matches!(followed, Ok(count) if count >= CHANGED_AT_ONCE.unsigned_abs());
        released.add(followed);
        if !has_more {
            break;
        }
    }
}

/// Goes along the lines, and lets those go on for whom there is room. Lines that fail are left behind, for the next time
/// round: those after them do not wait for that.
async fn walk(client: &mut Client, after: Option<i64>, limit: usize, released: &mut Released) -> Result<()> {
    let began = Instant::now();
    let (lines, with_room) = bounded(DOING, look(client, after, limit)).await?;
    released.next = lines.last().copied().filter(|_| lines.len() >= limit);
    for together in with_room.chunks(LINES_TOGETHER) {
        let done = bounded(DOING, release_lines(client, together)).await;
        let has_bad = done.as_ref().is_err_and(GivenUp::is_due_to);
        released.add(done);
        if has_bad && together.len() > 1 {
            for line in together.chunks(1) {
                released.add(bounded(DOING, release_lines(client, line)).await);
            }
        }
        if began.elapsed() >= PASS_TIME_MAX {
            let last = with_room.last();
            released.next = together
                .last()
                .filter(|&at| Some(at) != last)
                .copied()
                .or(released.next);
            break;
        }
    }
    Ok(())
}

/// The next lines, and those of them in which somebody waits for whom there is room, as far as one sees without a lock.
async fn look(client: &Client, after: Option<i64>, limit: usize) -> Result<(Vec<i64>, Vec<i64>)> {
    let sql = include_str!("../../queries/throttled_lines.sql");
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(client, DOING, sql, &[&after.unwrap_or(i64::MIN), &most]).await?;
    let lines: Vec<i64> = rows.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    if lines.is_empty() {
        return Ok((lines, Vec::new()));
    }
    let rules = current_rules(client).await?;
    let seen = uses::look(client, DOING, &rules, &lines).await?;
    let has_room = |it: &&uses::Use| it.state.has_line && it.state.room() > 0;
    let mut with_room: Vec<i64> = seen.iter().filter(has_room).map(|it| it.state.id).collect();
    with_room.sort_unstable();
    Ok((lines, with_room))
}

async fn release_lines(client: &mut Client, lines: &[i64]) -> Result<u64> {
    let transaction = begin(client).await?;
    let rules = current_rules(&transaction).await?;
    let mut uses = uses::lock(&transaction, DOING, &rules, ((&[], &[]), lines)).await?;
    let count = free::release(&transaction, &mut uses).await?;
    uses::write(&transaction, DOING, &uses).await?;
    commit(transaction).await?;
    Ok(count)
}

/// What waits by earlier revisions of limits is let go, and looked at anew when it is claimed.
async fn follow_changes(client: &mut Client) -> Result<u64> {
    let transaction = begin(client).await?;
    let sql = include_str!("../../queries/limit_changes_lock.sql");
    let changes = query(&transaction, DOING, sql, &[&duration_us(CHANGE_KEPT)]).await?;
    let mut revisions: BTreeMap<&str, i64> = BTreeMap::new();
    let rules = current_rules(&transaction).await?;
    for change in &changes {
        let name: &str = column(change, "name")?;
        let rule = rules.0.iter().find(|it| it.rule.name.as_str() == name);
        revisions.insert(name, rule.map_or(i64::MAX, |it| it.revision));
    }
    let (names, before): (Vec<&str>, Vec<i64>) = revisions.into_iter().unzip();
    let sql = include_str!("../../queries/throttled_of_change.sql");
    let found = query(&transaction, DOING, sql, &[&names, &before, &CHANGED_AT_ONCE]).await?;
    let (tasks, places) = hold_free(&transaction, &found).await?;
    let count = let_go(&transaction, tasks, &places).await?;
    if i64::try_from(found.len()).is_ok_and(|found| found < CHANGED_AT_ONCE) {
        drop_followed(&transaction, &changes, &found).await?;
    }
    commit(transaction).await?;
    Ok(count)
}

/// Forgets changes that are old enough, and of which nothing was found any more.
async fn drop_followed(transaction: &Transaction<'_>, changes: &[Row], found: &[Row]) -> Result<()> {
    let found: BTreeSet<&str> = found
        .iter()
        .map(|row| column(row, "name"))
        .collect::<Result<_>>()?;
    let mut followed: Vec<i64> = Vec::new();
    for change in changes {
        if column::<bool>(change, "is_old")? && !found.contains(column::<&str>(change, "name")?) {
            followed.push(column(change, "id")?);
        }
    }
    let sql = include_str!("../../queries/limit_changes_drop.sql");
    query(transaction, DOING, sql, &[&followed]).await?;
    Ok(())
}

/// Those of these tasks that nobody holds, with their places. In the order of locks: their `due` rows, then they, then the
/// counters. Without the last, somebody who lets the line go on could meet them in the midst of it.
async fn hold_free(transaction: &Transaction<'_>, found: &[Row]) -> Result<(Vec<Uuid>, Vec<i64>)> {
    let mut ids: Vec<Uuid> = found
        .iter()
        .map(|row| column(row, "task_id"))
        .collect::<Result<_>>()?;
    ids.sort_unstable();
    let sql = include_str!("../../queries/due_hold_free.sql");
    let due = query(transaction, DOING, sql, &[&ids]).await?;
    let due: Vec<Uuid> = due
        .iter()
        .map(|row| column(row, "task_id"))
        .collect::<Result<_>>()?;
    let sql = include_str!("../../queries/throttled_hold.sql");
    let rows = query(transaction, DOING, sql, &[&ids, &due]).await?;
    let (tasks, places) = tasks_and_places(&rows)?;
    let mut uses = places.clone();
    for row in &rows {
        uses.push(column(row, "use_id")?);
    }
    uses.sort_unstable();
    uses.dedup();
    let none: &[&str] = &[];
    query(transaction, DOING, uses::LOCK, &[&none, &none, &uses]).await?;
    Ok((tasks, places))
}

fn tasks_and_places(rows: &[Row]) -> Result<(Vec<Uuid>, Vec<i64>)> {
    let (mut tasks, mut places) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        tasks.push(column(row, "task_id")?);
        places.extend(column::<Option<Vec<i64>>>(row, "holds")?.unwrap_or_default());
    }
    tasks.sort_unstable();
    Ok((tasks, places))
}

async fn let_go(transaction: &Transaction<'_>, tasks: Vec<Uuid>, places: &[i64]) -> Result<u64> {
    if tasks.is_empty() {
        return Ok(0);
    }
    let sql = include_str!("../../queries/throttled_let_go.sql");
    let gone = query(transaction, DOING, sql, &[&tasks]).await?;
    let sql = include_str!("../../queries/tasks_drop_holds.sql");
    query(transaction, DOING, sql, &[&tasks]).await?;
    free(transaction, places).await?;
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

/// See [`forebay_store::Limits::mend_limits`]. What does not succeed, or takes too long, keeps nothing else from being done.
pub(super) async fn mend(client: &mut Client, strays: &Strays) -> Result<Mended> {
    let dropped = bounded(DOING, drop_strays(client, strays)).await;
    let late = bounded(DOING, give_up_late(client)).await;
    let allotted = bounded(DOING, take_back_old(client)).await;
    let counters = bounded(DOING, mend_counters(client)).await;
    let turns = bounded(DOING, take_turns_back(client)).await;
    let forgotten = bounded(DOING, forget_unused(client)).await;
    dropped?;
    late?;
    allotted?;
    turns?;
    Ok(Mended {
        counters: counters?,
        forgotten: forgotten?,
    })
}

async fn drop_strays(client: &Client, strays: &Strays) -> Result<()> {
    let after = *strays.lock().unwrap_or_else(PoisonError::into_inner);
    let sql = include_str!("../../queries/throttled_stray.sql");
    let rows = query(client, DOING, sql, &[&after, &STRAYS_AT_ONCE]).await?;
    let last = rows.first().map(|row| column(row, "last")).transpose()?;
    *strays.lock().unwrap_or_else(PoisonError::into_inner) = last.unwrap_or_default();
    Ok(())
}

async fn mend_counters(client: &mut Client) -> Result<u64> {
    let wrong = wrong(client).await?;
    match wrong.is_empty() {
        true => Ok(0),
        false => set_right(client, wrong.into_keys().collect()).await,
    }
}

/// What was cancelled, or has expired, leaves a gap in the turns of a rate. Where nobody has a turn any more, nobody waits
/// for those that were given out.
async fn take_turns_back(client: &mut Client) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let transaction = begin(client).await?;
        let sql = include_str!("../../queries/limit_uses_unclaimed.sql");
        let (ids, is_full) = held(&transaction, sql, &[&ROWS_AT_ONCE]).await?;
        let sql = include_str!("../../queries/limit_uses_turn_back.sql");
        query(&transaction, DOING, sql, &[&ids]).await?;
        commit(transaction).await?;
        if !is_full {
            break;
        }
    }
    Ok(())
}

/// As many as there are, up to a bound: keys may come faster than a few at a time. In two statements: the second sees who
/// began to wait before the first got hold of the counter.
async fn forget_unused(client: &mut Client) -> Result<u64> {
    let now = dispatch::now(client)
        .await?
        .as_microsecond()
        .saturating_mul(1_000);
    let mut all = 0;
    for _ in 0..ROUNDS_MAX {
        let transaction = begin(client).await?;
        let sql = include_str!("../../queries/limit_uses_unused.sql");
        let (ids, is_full) = held(&transaction, sql, &[&now, &ROWS_AT_ONCE]).await?;
        let sql = include_str!("../../queries/limit_uses_forget.sql");
        let forgotten = crate::hot::execute(&transaction, sql, &[&ids]).await;
        all += forgotten.map_err(|e| error::hot(DOING, e))?;
        commit(transaction).await?;
        if !is_full {
            break;
        }
    }
    Ok(all)
}

/// The uses that a statement holds, and whether there may be more of them.
async fn held(
    transaction: &Transaction<'_>,
    sql: &'static str,
    params: Params<'_>,
) -> Result<(Vec<i64>, bool)> {
    let rows = query(transaction, DOING, sql, params).await?;
    let ids: Vec<i64> = rows.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    let is_full = i64::try_from(ids.len()).is_ok_and(|held| held >= ROWS_AT_ONCE);
    Ok((ids, is_full))
}

/// The counters that are wrong as far as one sees without a lock, and what is right.
async fn wrong(client: &impl GenericClient) -> Result<HashMap<i64, i32>> {
    let sql = include_str!("../../queries/limit_uses_counted.sql");
    let rows = query(client, DOING, sql, &[]).await?;
    rows.iter()
        .map(|row| Ok((column(row, "id")?, column(row, "number")?)))
        .collect()
}

/// Counts again with the counters locked: whoever changes what they count has to wait. Whom there is room for then, the
/// next pass along the lines lets go on.
async fn set_right(client: &mut Client, mut ids: Vec<i64>) -> Result<u64> {
    ids.sort_unstable();
    let transaction = begin(client).await?;
    let rules: Rules = current_rules(&transaction).await?;
    let mut uses = uses::lock(&transaction, DOING, &rules, ((&[], &[]), &ids)).await?;
    let wrong = wrong(&transaction).await?;
    let mut count = 0;
    for it in &mut uses {
        if let Some(right) = wrong.get(&it.state.id) {
            it.state.running = u32::try_from(*right).unwrap_or(0);
            count += 1;
        }
    }
    uses::write(&transaction, DOING, &uses).await?;
    commit(transaction).await?;
    Ok(count)
}

/// Who had a turn, and does not come, keeps no place from others.
async fn give_up_late(client: &mut Client) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let transaction = begin(client).await?;
        let sql = include_str!("../../queries/throttled_late.sql");
        let params: Params<'_> = &[&duration_us(TURN_KEPT), &ROWS_AT_ONCE];
        let rows = query(&transaction, DOING, sql, params).await?;
        let (tasks, places) = tasks_and_places(&rows)?;
        if !tasks.is_empty() {
            let sql = include_str!("../../queries/tasks_drop_holds.sql");
            query(&transaction, DOING, sql, &[&tasks]).await?;
            free(&transaction, &places).await?;
        }
        commit(transaction).await?;
        if i64::try_from(rows.len()).is_ok_and(|found| found < ROWS_AT_ONCE) {
            break;
        }
    }
    Ok(())
}
