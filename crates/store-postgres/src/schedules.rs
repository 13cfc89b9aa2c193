//! Schedules: what is kept of them, and firing. A schedule is held while its tasks are recorded and it is moved on, in
//! one transaction: what dies in the middle has done nothing, and nobody else has fired the tick meanwhile.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use forebay_core::{
    Json, Lane, QueueName, Schedule, ScheduleName, ScheduledTask, TaskId, TimeZone, Timestamp,
};
use forebay_store::{
    Fired, Firing, LISTED_BYTES_MAX, PutSchedule, Result, Schedules, StoreError, UNREADABLE_PAUSE, queues_of,
    readable,
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    PostgresStore, dispatch, error,
    hot::{Params, bounded, column, query},
    record,
    values::{Instant, count, duration, duration_us, int, terms, word},
};

/// How often a schedule is tried to be put, should it come and go all the time.
const PUT_TRIES: usize = 5;

#[async_trait]
impl Schedules for PostgresStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<PutSchedule> {
        const DOING: &str = "put a schedule";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, put(connection.client(), schedule)).await;
        connection.settle(outcome)
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>> {
        const DOING: &str = "read a schedule";
        let sql = include_str!("../queries/schedules_get.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&name.as_str()])).await;
        let rows = connection.settle(outcome)?;
        rows.first().map(read).transpose()
    }

    async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Option<Schedule>> {
        const DOING: &str = "pause a schedule";
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, pause(connection.client(), DOING, name, paused)).await;
        connection.settle(outcome)
    }

    async fn schedules(&self, page_size: usize, after: Option<&ScheduleName>) -> Result<Vec<Schedule>> {
        const DOING: &str = "list schedules";
        let sql = include_str!("../queries/schedules_list.sql");
        let limit = i64::try_from(page_size).unwrap_or(i64::MAX);
        let bytes = i64::try_from(LISTED_BYTES_MAX).unwrap_or(i64::MAX);
        let after = after.map_or("", ScheduleName::as_str);
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(
            DOING,
            query(connection.client(), DOING, sql, &[&after, &limit, &bytes]),
        )
        .await;
        let rows = connection.settle(outcome)?;
        rows.iter().map(read).collect()
    }

    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool> {
        const DOING: &str = "delete a schedule";
        let sql = include_str!("../queries/schedules_delete.sql");
        let mut connection = self.hot.get(DOING).await?;
        let outcome = bounded(DOING, query(connection.client(), DOING, sql, &[&name.as_str()])).await;
        connection.settle(outcome).map(|rows| !rows.is_empty())
    }

    async fn fire_schedules(&self, limit: usize, now: Option<Timestamp>) -> Result<Fired> {
        let mut connection = self.hot.get(FIRING).await?;
        let outcome = bounded(FIRING, fire(connection.client(), limit, now.map(Instant))).await;
        connection.settle(outcome)
    }
}

const FIRING: &str = "fire schedules";

/// A look costs one statement while nothing is due.
async fn fire(client: &mut Client, limit: usize, now: Option<Instant>) -> Result<Fired> {
    let rows = query(
        client,
        FIRING,
        include_str!("../queries/schedules_next.sql"),
        &[&now],
    )
    .await?;
    let Some(row) = rows.first() else {
        return Ok(Fired::default());
    };
    if let Ok(in_us @ 1..) = u64::try_from(column::<i64>(row, "in_us")?) {
        return Ok(Fired {
            next_in: Some(Duration::from_micros(in_us)),
            ..Fired::default()
        });
    }
    let transaction = client.transaction().await.map_err(|e| error::hot(FIRING, e))?;
    let fired = fire_due(&transaction, limit, now).await?;
    transaction.commit().await.map_err(|e| error::hot(FIRING, e))?;
    Ok(fired)
}

async fn fire_due(client: &impl GenericClient, limit: usize, now: Option<Instant>) -> Result<Fired> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(
        client,
        FIRING,
        include_str!("../queries/schedules_lock.sql"),
        &[&most, &now],
    )
    .await?;
    let Some(first) = rows.first() else {
        return Ok(Fired::default());
    };
    let now = column::<Instant>(first, "now")?.0;
    let (mut locked, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        match read(row).and_then(readable) {
            Ok(schedule) => locked.push(schedule),
            Err(error) => unreadable.push((column::<&str>(row, "name")?, error)),
        }
    }
    leave(client, &unreadable, now).await?;
    let unfinished = unfinished(client, &locked).await?;
    let firing = Firing::new(locked, &unfinished, now, limit);
    let new = submit(client, &firing).await?;
    move_on(client, &firing).await?;
    let unreadable = unreadable.iter().map(|(name, error)| format!("{name}: {error}"));
    Ok(firing.done(&new, unreadable.collect()))
}

async fn leave(client: &impl GenericClient, unreadable: &[(&str, StoreError)], now: Timestamp) -> Result<()> {
    if unreadable.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = unreadable.iter().map(|(name, _)| *name).collect();
    let again = Instant(now.saturating_add(UNREADABLE_PAUSE).unwrap_or(now));
    let sql = include_str!("../queries/schedules_leave.sql");
    query(client, FIRING, sql, &[&names, &again]).await.map(|_| ())
}

/// The last tasks of these schedules that are not final, where that matters.
async fn unfinished(client: &impl GenericClient, locked: &[Schedule]) -> Result<HashSet<TaskId>> {
    let minding = locked.iter().filter(|schedule| schedule.minds_overlap());
    let last: Vec<Uuid> = minding
        .filter_map(|schedule| schedule.last_tick)
        .map(|(_, task)| task.as_uuid())
        .collect();
    if last.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = include_str!("../queries/schedules_unfinished.sql");
    let rows = query(client, FIRING, sql, &[&last]).await?;
    rows.iter()
        .map(|row| column::<Uuid>(row, "id").map(TaskId::from))
        .collect()
}

/// Records the tasks, and says which were new.
async fn submit(client: &impl GenericClient, firing: &Firing) -> Result<HashSet<TaskId>> {
    if firing.tasks.is_empty() {
        return Ok(HashSet::new());
    }
    let queues = queues_of(&firing.tasks);
    let queues: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
    query(
        client,
        FIRING,
        include_str!("../queries/queues_add.sql"),
        &[&queues],
    )
    .await?;
    let mut sorted: Vec<_> = firing.tasks.iter().collect();
    sorted.sort_by_key(|task| task.id);
    // No key leads to the id of a tick: there is nothing to be found in the windows before and after.
    let new = record::insert_unknown(client, &sorted, record::Windows::Own).await?;
    Ok(new.into_iter().collect())
}

async fn move_on(client: &impl GenericClient, firing: &Firing) -> Result<()> {
    let schedules = &firing.moved_on;
    let names: Vec<&str> = schedules.iter().map(|schedule| schedule.name.as_str()).collect();
    let times = |of: fn(&Schedule, Timestamp) -> Option<Timestamp>| -> Vec<Option<Instant>> {
        schedules
            .iter()
            .map(|schedule| of(schedule, firing.now).map(Instant))
            .collect()
    };
    let last_tasks: Vec<Option<Uuid>> = schedules.iter().map(last_task).collect();
    let params: Params<'_> = &[
        &names,
        &times(Schedule::look_at),
        &times(|schedule, _| schedule.next_tick),
        &times(|schedule, _| schedule.waiting),
        &times(|schedule, _| schedule.last_tick.map(|(tick, _)| tick)),
        &last_tasks,
    ];
    let sql = include_str!("../queries/schedules_move.sql");
    query(client, FIRING, sql, params).await.map(|_| ())
}

fn last_task(schedule: &Schedule) -> Option<Uuid> {
    schedule.last_tick.map(|(_, task)| task.as_uuid())
}

async fn put(client: &mut Client, schedule: &Schedule) -> Result<PutSchedule> {
    const DOING: &str = "put a schedule";
    for _ in 0..PUT_TRIES {
        let transaction = client.transaction().await.map_err(|e| error::hot(DOING, e))?;
        let put = try_to_put(&transaction, DOING, schedule).await?;
        transaction.commit().await.map_err(|e| error::hot(DOING, e))?;
        if let Some(put) = put {
            return Ok(put);
        }
    }
    Err(error::unavailable(DOING, "it comes and goes all the time"))
}

async fn pause(
    client: &mut Client,
    doing: &'static str,
    name: &ScheduleName,
    paused: bool,
) -> Result<Option<Schedule>> {
    let transaction = client.transaction().await.map_err(|e| error::hot(doing, e))?;
    let held = include_str!("../queries/schedules_hold.sql");
    let rows = query(&transaction, doing, held, &[&name.as_str()]).await?;
    let Some(old) = rows.first().map(read).transpose()? else {
        return Ok(None);
    };
    let old = if paused { old } else { readable(old)? };
    let now = dispatch::now(&transaction).await?;
    let kept = old.resting(paused, now);
    let replace = include_str!("../queries/schedules_replace.sql");
    write(&transaction, doing, replace, &kept, now).await?;
    transaction.commit().await.map_err(|e| error::hot(doing, e))?;
    Ok(Some(kept))
}

/// `None` where somebody else has made it in this moment.
async fn try_to_put(
    client: &impl GenericClient,
    doing: &'static str,
    schedule: &Schedule,
) -> Result<Option<PutSchedule>> {
    let held = include_str!("../queries/schedules_hold.sql");
    let rows = query(client, doing, held, &[&schedule.name.as_str()]).await?;
    let is_new = rows.is_empty();
    // One that cannot be read is replaced as if it were new.
    let old = rows.first().and_then(|row| read(row).ok());
    let now = dispatch::now(client).await?;
    let kept = schedule.clone().replacing(old.as_ref(), now);
    let sql = match is_new {
        true => include_str!("../queries/schedules_add.sql"),
        false => include_str!("../queries/schedules_replace.sql"),
    };
    let written = write(client, doing, sql, &kept, now).await?;
    Ok(written.then_some(PutSchedule {
        schedule: kept,
        is_new,
    }))
}

async fn write(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &'static str,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<bool> {
    let task = &schedule.task;
    let terms = task.terms.as_ref().map(|terms| terms.to_json());
    let params: Params<'_> = &[
        &schedule.name.as_str(),
        &schedule.look_at(now).map(Instant),
        &schedule.next_tick.map(Instant),
        &schedule.waiting.map(Instant),
        &schedule.last_tick.map(|(tick, _)| Instant(tick)),
        &last_task(schedule),
        &Instant(schedule.created_at),
        &Instant(schedule.updated_at),
        &duration_us(schedule.catch_up),
        &duration_us(schedule.jitter),
        &schedule.paused,
        &schedule.cron.as_str(),
        &schedule.time_zone.as_str(),
        &schedule.overlap.as_str(),
        &task.max_attempts.map(int),
        &task.timeout.map(duration_us),
        &task.lane.priority.as_str(),
        &task.project.as_str(),
        &task.kind.as_str(),
        &task.lane.queue.as_str(),
        &task.tags,
        &task.payload.as_str(),
        &terms,
    ];
    Ok(!query(client, doing, sql, params).await?.is_empty())
}

fn read(row: &Row) -> Result<Schedule> {
    let time = |name: &str| Ok(column::<Option<Instant>>(row, name)?.map(|at| at.0));
    let last_task = column::<Option<Uuid>>(row, "last_task")?.map(TaskId::from);
    Ok(Schedule {
        name: word(column(row, "name")?)?,
        cron: word(column(row, "cron")?)?,
        time_zone: TimeZone::kept(column(row, "time_zone")?),
        task: task(row)?,
        overlap: word(column(row, "overlap")?)?,
        catch_up: duration(column(row, "catch_up_us")?),
        jitter: duration(column(row, "jitter_us")?),
        paused: column(row, "paused")?,
        next_tick: time("next_tick")?,
        waiting: time("waiting")?,
        last_tick: time("last_tick")?.zip(last_task),
        created_at: column::<Instant>(row, "created_at")?.0,
        updated_at: column::<Instant>(row, "updated_at")?.0,
    })
}

fn task(row: &Row) -> Result<ScheduledTask> {
    let payload: String = column(row, "payload")?;
    Ok(ScheduledTask {
        project: word(column(row, "project")?)?,
        kind: word(column(row, "kind")?)?,
        lane: Lane::new(word(column(row, "queue")?)?, word(column(row, "priority")?)?),
        payload: Json::from_trusted(payload.into_bytes().into()).map_err(error::corrupt)?,
        tags: column(row, "tags")?,
        max_attempts: column::<Option<i32>>(row, "max_attempts")?
            .map(count)
            .transpose()?,
        timeout: column::<Option<i64>>(row, "timeout_us")?.map(duration),
        terms: terms(column(row, "terms")?)?,
    })
}

#[cfg(test)]
mod tests;
