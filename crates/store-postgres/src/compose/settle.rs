//! What follows from the ends of tasks that somebody waits for. It is one transaction with forgetting the note of the end,
//! so it is done once.
//!
//! Locks are taken in the order that holds everywhere: tasks by their ids, then the small tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    pin::Pin,
};

use deadpool_postgres::{Client, GenericClient, Transaction};
use forebay_core::{State, TaskEvent, TaskId};
use forebay_store::{Ended, GivenUp, MISSING_WAIT_MAX, Result, Settled, UNKNOWN_WAIT_MAX, not_run};
use uuid::Uuid;

use super::{cancel, run};
use crate::{
    PostgresStore, error,
    hot::{bounded, column, query},
    terms::after,
    values::{Instant, duration_us, word},
    webhooks, workers,
};

pub(super) const DOING: &str = "see to the ends of tasks";

/// How many of those who wait are seen to together.
const DEPENDENTS_MAX: usize = 1_000;
/// How many tasks that were not recorded are looked for together.
const UNKNOWN_MAX: usize = 500;
/// How many batches with missing tasks are made complete together.
const MISSING_MAX: i64 = 20;

/// What there is to be done.
struct Any {
    ended: bool,
    unknown: bool,
    cancelling: bool,
    missing: bool,
}

/// A look costs one statement while there is nothing to do. Each part is a transaction by itself, on a connection that the
/// others have not spoilt.
pub(super) async fn settle(store: &PostgresStore, limit: usize) -> Result<Settled> {
    let any = part(store, |client| Box::pin(any(client))).await?;
    let ends = match any.ended {
        true => Some(part(store, |client| Box::pin(see_to_ends(client, limit))).await),
        false => None,
    };
    let mut others = Vec::new();
    if any.unknown {
        others.push(part(store, |client| Box::pin(look_for_unknown(client))).await);
    }
    if any.cancelling {
        others.extend(cancel::go_on(store).await);
    }
    if any.missing {
        others.push(part(store, |client| Box::pin(make_do(client))).await);
    }
    Settled::of(ends, others)
}

type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

pub(super) async fn part<T>(
    store: &PostgresStore,
    work: impl for<'a> FnOnce(&'a mut Client) -> Work<'a, T>,
) -> Result<T> {
    let mut connection = store.hot.get(DOING).await?;
    let outcome = bounded(DOING, work(connection.client())).await;
    connection.settle(outcome)
}

async fn any(client: &mut Client) -> Result<Any> {
    let sql = include_str!("../../queries/settled_any.sql");
    let rows = query(client, DOING, sql, &[&duration_us(MISSING_WAIT_MAX)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| error::corrupt("a look that tells nothing"))?;
    Ok(Any {
        ended: column(row, "ended")?,
        unknown: column(row, "unknown")?,
        cancelling: column(row, "cancelling")?,
        missing: column(row, "missing")?,
    })
}

/// An end that was noted.
struct Note {
    id: i64,
    ended: Ended,
}

async fn see_to_ends(client: &mut Client, limit: usize) -> Result<Settled> {
    let mut transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let notes = notes(&transaction, limit).await?;
    let mut settled = match notes.as_slice() {
        [note] if limit == 1 => see_to_one(&mut transaction, note).await?,
        notes => see_to(&transaction, notes).await?,
    };
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    settled.seen = notes.len();
    settled.more |= notes.len() >= limit;
    Ok(settled)
}

/// One that can't be seen to by itself would be in the way for ever: it is forgotten.
async fn see_to_one(transaction: &mut Transaction<'_>, note: &Note) -> Result<Settled> {
    let tried = transaction
        .transaction()
        .await
        .map_err(|e| error::hot(DOING, e))?;
    match see_to(&tried, std::slice::from_ref(note)).await {
        Ok(settled) => {
            tried.commit().await.map_err(|e| error::hot(DOING, e))?;
            Ok(settled)
        }
        Err(error) if GivenUp::is_due_to(&error) => {
            tried.rollback().await.map_err(|e| error::hot(DOING, e))?;
            forget(transaction, &[note]).await?;
            Ok(Settled {
                given_up: vec![GivenUp::new(note.ended.id, &error)],
                ..Settled::default()
            })
        }
        Err(error) => Err(error),
    }
}

async fn see_to(transaction: &Transaction<'_>, notes: &[Note]) -> Result<Settled> {
    let ends: HashMap<TaskId, Option<State>> = notes
        .iter()
        .map(|note| (note.ended.id, Some(note.ended.state)))
        .collect();
    let mut followed = follow(transaction, &ends).await?;
    // Where more wait than are seen to together, the end is seen to again.
    let done: Vec<&Note> = notes
        .iter()
        .filter(|note| !followed.left.contains(&note.ended.id))
        .collect();
    followed.events.extend(count(transaction, &done).await?);
    let ended: Vec<Ended> = done.iter().map(|note| note.ended).collect();
    followed
        .events
        .extend(webhooks::enqueue(transaction, &ended).await?);
    forget(transaction, &done).await?;
    Ok(Settled {
        events: followed.events,
        more: !followed.left.is_empty(),
        ..Settled::default()
    })
}

async fn forget(transaction: &Transaction<'_>, notes: &[&Note]) -> Result<()> {
    let ids: Vec<i64> = notes.iter().map(|note| note.id).collect();
    let sql = include_str!("../../queries/settled_forget.sql");
    run(transaction, DOING, sql, &[&ids]).await
}

async fn notes(client: &impl GenericClient, limit: usize) -> Result<Vec<Note>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(
        client,
        DOING,
        include_str!("../../queries/settled_lock.sql"),
        &[&limit],
    )
    .await?;
    let note = |row: &tokio_postgres::Row| {
        Ok(Note {
            id: column(row, "id")?,
            ended: Ended {
                id: column::<Uuid>(row, "task_id")?.into(),
                state: word(column(row, "state")?)?,
                at: column::<Instant>(row, "settled_at")?.0,
            },
        })
    };
    rows.iter().map(note).collect()
}

/// What became of those who wait.
#[derive(Default)]
struct Followed {
    events: Vec<TaskEvent>,
    /// What ended, and perhaps has others waiting for it still.
    left: HashSet<TaskId>,
}

/// Releases or cancels those who wait for what has ended; `None` is what does not exist.
async fn follow(transaction: &Transaction<'_>, ends: &HashMap<TaskId, Option<State>>) -> Result<Followed> {
    let mut followed = Followed::default();
    let on = after::sorted(ends.keys().copied());
    let most = i64::try_from(DEPENDENTS_MAX).unwrap_or(i64::MAX);
    let sql = include_str!("../../queries/blockers_of.sql");
    let rows = query(transaction, DOING, sql, &[&on, &most]).await?;
    if rows.is_empty() {
        return Ok(followed);
    }
    let mut pairs: Vec<(TaskId, TaskId)> = Vec::with_capacity(rows.len());
    for row in &rows {
        pairs.push((
            column::<Uuid>(row, "on_id")?.into(),
            column::<Uuid>(row, "task_id")?.into(),
        ));
    }
    if let Some(&(last, _)) = pairs.last().filter(|_| pairs.len() >= DEPENDENTS_MAX) {
        followed.left = ends.keys().copied().filter(|on| *on >= last).collect();
    }
    let gentle = hold(transaction, &pairs).await?;
    let on: Vec<Uuid> = pairs.iter().map(|(on, _)| on.as_uuid()).collect();
    let tasks: Vec<Uuid> = pairs.iter().map(|(_, task)| task.as_uuid()).collect();
    run(
        transaction,
        DOING,
        include_str!("../../queries/blockers_drop.sql"),
        &[&on, &tasks],
    )
    .await?;
    let mut lost = BTreeMap::new();
    for (on, task) in &pairs {
        let ended = ends.get(on).copied().flatten();
        if ended != Some(State::Succeeded) && !gentle.contains(task) {
            lost.entry(task.as_uuid()).or_insert_with(|| not_run(*on, ended));
        }
    }
    let (ids, errors): (Vec<Uuid>, Vec<String>) = lost.into_iter().unzip();
    if !ids.is_empty() {
        let sql = include_str!("../../queries/tasks_not_run.sql");
        followed
            .events
            .extend(events(transaction, sql, &[&ids, &errors]).await?);
    }
    let rest = after::sorted(pairs.iter().map(|(_, task)| *task));
    followed.events.extend(release(transaction, &rest).await?);
    Ok(followed)
}

/// Holds those who wait, and says which of them run whatever became of what they wait for.
async fn hold(transaction: &Transaction<'_>, pairs: &[(TaskId, TaskId)]) -> Result<HashSet<TaskId>> {
    let tasks = after::sorted(pairs.iter().map(|(_, task)| *task));
    let sql = include_str!("../../queries/dependents_lock.sql");
    let mut gentle = HashSet::new();
    for row in query(transaction, DOING, sql, &[&tasks]).await? {
        if column::<Option<&str>>(&row, "on_failure")? == Some("run") {
            gentle.insert(column::<Uuid>(&row, "id")?.into());
        }
    }
    Ok(gentle)
}

/// Releases those of these blocked tasks that wait for nothing any more.
async fn release(transaction: &Transaction<'_>, tasks: &[Uuid]) -> Result<Vec<TaskEvent>> {
    events(
        transaction,
        include_str!("../../queries/tasks_release.sql"),
        &[&tasks],
    )
    .await
}

async fn events(
    client: &impl GenericClient,
    sql: &'static str,
    params: crate::hot::Params<'_>,
) -> Result<Vec<TaskEvent>> {
    let rows = query(client, DOING, sql, params).await?;
    rows.iter().map(workers::event).collect()
}

/// Counts ends in the batches, and completes these.
async fn count(transaction: &Transaction<'_>, notes: &[&Note]) -> Result<Vec<TaskEvent>> {
    // The last word on each task.
    let last: BTreeMap<Uuid, State> = notes
        .iter()
        .map(|note| (note.ended.id.as_uuid(), note.ended.state))
        .collect();
    let ids: Vec<Uuid> = last.keys().copied().collect();
    let states: Vec<&str> = last.values().map(|state| state.as_str()).collect();
    // One that was brought back may be all that a batch waited for: it is looked at again.
    let again = include_str!("../../queries/batch_members_end_again.sql");
    let mut batches: BTreeSet<Uuid> = BTreeSet::new();
    for row in query(transaction, DOING, again, &[&ids, &states]).await? {
        batches.insert(column(&row, "batch_id")?);
    }
    let first = include_str!("../../queries/batch_members_end.sql");
    let mut counts: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in query(transaction, DOING, first, &[&ids, &states]).await? {
        *counts.entry(column(&row, "batch_id")?).or_default() += 1;
    }
    batches.extend(counts.keys());
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let (counted, counts): (Vec<Uuid>, Vec<i64>) = counts.into_iter().unzip();
    let sql = include_str!("../../queries/batches_end.sql");
    run(transaction, DOING, sql, &[&counted, &counts]).await?;
    complete(transaction, &batches.into_iter().collect::<Vec<_>>()).await
}

/// Completes those of these batches in which nothing is to come, and releases the tasks that run then.
pub(super) async fn complete(transaction: &Transaction<'_>, batches: &[Uuid]) -> Result<Vec<TaskEvent>> {
    let sql = include_str!("../../queries/batches_complete.sql");
    let mut tasks = Vec::new();
    for row in query(transaction, DOING, sql, &[&batches]).await? {
        tasks.extend(column::<Option<Uuid>>(&row, "completion_task")?);
    }
    tasks.sort_unstable();
    match tasks.is_empty() {
        true => Ok(Vec::new()),
        false => release(transaction, &tasks).await,
    }
}

/// Completes batches some of whose tasks were announced and never came, once these were waited for long enough.
async fn make_do(client: &mut Client) -> Result<Settled> {
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let sql = include_str!("../../queries/batches_missing.sql");
    let wait = duration_us(MISSING_WAIT_MAX);
    let rows = query(&transaction, DOING, sql, &[&MISSING_MAX, &wait]).await?;
    let mut batches: Vec<Uuid> = rows.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    batches.sort_unstable();
    let sql = include_str!("../../queries/batches_make_do.sql");
    run(&transaction, DOING, sql, &[&batches]).await?;
    let events = complete(&transaction, &batches).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(Settled {
        events,
        ..Settled::default()
    })
}

/// A task that is waited for and was not recorded, the one that waits, and whether that goes on for too long.
type Asked = (TaskId, Uuid, bool);

/// Looks for tasks that are waited for and were not recorded. Those that are found tell of their ends from now on, or have
/// ended; those that were looked for too long don't exist. None is looked for again within a second, so there is never more
/// to do at once.
async fn look_for_unknown(client: &mut Client) -> Result<Settled> {
    let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
    let most = i64::try_from(UNKNOWN_MAX).unwrap_or(i64::MAX);
    let sql = include_str!("../../queries/blockers_unknown.sql");
    let rows = query(&transaction, DOING, sql, &[&most, &duration_us(UNKNOWN_WAIT_MAX)]).await?;
    let mut asked: Vec<Asked> = Vec::with_capacity(rows.len());
    for row in &rows {
        asked.push((
            column::<Uuid>(row, "on_id")?.into(),
            column(row, "task_id")?,
            column(row, "overdue")?,
        ));
    }
    let found = after::found(&transaction, asked.iter().map(|(on, ..)| *on)).await?;
    let find = |on: TaskId| after::find(&found, on);
    let real = asked.iter().filter_map(|(on, ..)| find(*on));
    let (over, living): (Vec<_>, Vec<_>) = real.partition(|(_, state)| state.is_final());
    after::watch(&transaction, living.iter().map(|(on, _)| *on)).await?;
    note_found(&transaction, &asked, &found).await?;
    // What has ended told of it when nobody waited for it: it is seen to here, and webhooks hear nothing twice.
    let mut ends: HashMap<TaskId, Option<State>> =
        over.into_iter().map(|(on, state)| (on, Some(state))).collect();
    let given_up = asked
        .iter()
        .filter(|(on, _, overdue)| *overdue && find(*on).is_none());
    ends.extend(given_up.map(|(on, ..)| (*on, None)));
    let followed = follow(&transaction, &ends).await?;
    transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
    Ok(Settled {
        events: followed.events,
        ..Settled::default()
    })
}

/// Notes what was found of what was asked for, under its own id if that is the one of its key in another window. What has
/// ended is looked for until it was seen to.
async fn note_found(
    transaction: &Transaction<'_>,
    asked: &[Asked],
    found: &HashMap<TaskId, State>,
) -> Result<()> {
    let real = |on: TaskId| after::find(found, on).map(|(real, _)| real);
    let tells = |on: TaskId| after::find(found, on).is_some_and(|(_, state)| !state.is_final());
    let (same, moved): (Vec<&Asked>, Vec<&Asked>) = asked
        .iter()
        .partition(|(on, ..)| real(*on).is_none_or(|real| real == *on));
    let on: Vec<Uuid> = same.iter().map(|(on, ..)| on.as_uuid()).collect();
    let tasks: Vec<Uuid> = same.iter().map(|(_, task, _)| *task).collect();
    let known: Vec<bool> = same.iter().map(|(on, ..)| tells(*on)).collect();
    let sql = include_str!("../../queries/blockers_asked.sql");
    run(transaction, DOING, sql, &[&on, &tasks, &known]).await?;
    if moved.is_empty() {
        return Ok(());
    }
    let on: Vec<Uuid> = moved.iter().map(|(on, ..)| on.as_uuid()).collect();
    let real: Vec<Uuid> = moved
        .iter()
        .filter_map(|(on, ..)| real(*on))
        .map(TaskId::as_uuid)
        .collect();
    let tasks: Vec<Uuid> = moved.iter().map(|(_, task, _)| *task).collect();
    let known: Vec<bool> = moved.iter().map(|(on, ..)| tells(*on)).collect();
    run(
        transaction,
        DOING,
        include_str!("../../queries/blockers_drop.sql"),
        &[&on, &tasks],
    )
    .await?;
    let sql = include_str!("../../queries/blockers_add.sql");
    run(transaction, DOING, sql, &[&real, &tasks, &known]).await
}
