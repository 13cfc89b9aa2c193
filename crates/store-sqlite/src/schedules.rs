//! Schedules: what is kept of them, and firing, which is one transaction.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use forebay_core::{
    Json, Schedule, ScheduleName, ScheduledTask, TaskId, TimeZone, Timestamp, from_unix_micros,
};
use forebay_store::{
    Fired, Firing, LISTED_BYTES_MAX, PutSchedule, Result, Schedules, StoreError, UNREADABLE_PAUSE, queues_of,
    readable,
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{
    SqliteStore,
    dispatch::bounded,
    error::failed,
    record,
    row::{Fields, micros_of, micros_of_duration, to_json},
};

const ONE: &str = include_str!("../queries/schedule.sql");
const LIST: &str = include_str!("../queries/schedules_list.sql");
const NEXT: &str = include_str!("../queries/schedules_next.sql");
const DUE: &str = include_str!("../queries/schedules_due.sql");
const PUT: &str = include_str!("../queries/schedule_put.sql");
const MOVE: &str = include_str!("../queries/schedule_move.sql");
const LEAVE: &str = include_str!("../queries/schedule_leave.sql");
const DELETE: &str = include_str!("../queries/schedule_delete.sql");
const UNFINISHED: &str = include_str!("../queries/unfinished.sql");
const FIRING: &str = "fire schedules";

#[async_trait]
impl Schedules for SqliteStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<PutSchedule> {
        const DOING: &str = "put a schedule";
        let mut tx = self.begin(DOING).await?;
        let row = row(&mut tx, DOING, &schedule.name).await?;
        // One that cannot be read is replaced as if it were new.
        let old = row.as_ref().and_then(|row| read(row).ok());
        let now = self.clock_now();
        let kept = schedule.clone().replacing(old.as_ref(), now);
        write(&mut tx, DOING, &kept, now).await?;
        tx.commit().await?;
        Ok(PutSchedule {
            schedule: kept,
            is_new: row.is_none(),
        })
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>> {
        const DOING: &str = "read a schedule";
        let row = row(&mut *self.reader(DOING).await?, DOING, name).await?;
        row.as_ref().map(read).transpose()
    }

    async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Option<Schedule>> {
        const DOING: &str = "pause a schedule";
        let mut tx = self.begin(DOING).await?;
        let Some(old) = row(&mut tx, DOING, name).await?.as_ref().map(read).transpose()? else {
            return Ok(None);
        };
        let old = if paused { old } else { readable(old)? };
        let now = self.clock_now();
        let kept = old.resting(paused, now);
        write(&mut tx, DOING, &kept, now).await?;
        tx.commit().await?;
        Ok(Some(kept))
    }

    async fn schedules(&self, page_size: usize, after: Option<&ScheduleName>) -> Result<Vec<Schedule>> {
        const DOING: &str = "list schedules";
        let rows = sqlx::query(LIST)
            .bind(after.map_or("", ScheduleName::as_str))
            .bind(bounded(page_size))
            .bind(bounded(LISTED_BYTES_MAX))
            .fetch_all(&mut *self.reader(DOING).await?)
            .await
            .map_err(failed(DOING))?;
        rows.iter().map(read).collect()
    }

    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool> {
        const DOING: &str = "delete a schedule";
        let mut tx = self.begin(DOING).await?;
        let deleted = sqlx::query(DELETE)
            .bind(name.as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        tx.commit().await?;
        Ok(deleted.rows_affected() > 0)
    }

    async fn fire_schedules(&self, limit: usize, now: Option<Timestamp>) -> Result<Fired> {
        let Some(first) = next(&mut *self.reader(FIRING).await?).await? else {
            return Ok(Fired::default());
        };
        let by = now.unwrap_or_else(|| self.clock_now());
        if let Ok(next_in @ 1..) = u64::try_from(micros_of(first) - micros_of(by)) {
            return Ok(Fired {
                next_in: Some(Duration::from_micros(next_in)),
                ..Fired::default()
            });
        }
        let mut tx = self.begin(FIRING).await?;
        let fired = fire(&mut tx, limit, now.unwrap_or_else(|| self.clock_now())).await?;
        tx.commit().await?;
        Ok(fired)
    }
}

/// When the first schedule is to be looked at.
async fn next(connection: &mut SqliteConnection) -> Result<Option<Timestamp>> {
    let first: Option<i64> = sqlx::query_scalar(NEXT)
        .fetch_one(connection)
        .await
        .map_err(failed(FIRING))?;
    Ok(first.map(from_unix_micros))
}

async fn fire(tx: &mut SqliteConnection, limit: usize, now: Timestamp) -> Result<Fired> {
    let rows = sqlx::query(DUE)
        .bind(micros_of(now))
        .bind(bounded(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(FIRING))?;
    let (mut due, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        match read(row).and_then(readable) {
            Ok(schedule) => due.push(schedule),
            Err(error) => unreadable.push(leave(tx, Fields(row).get("name")?, &error, now).await?),
        }
    }
    let unfinished = unfinished(tx, &due).await?;
    let firing = Firing::new(due, &unfinished, now, limit);
    let mut new = HashSet::new();
    if !firing.tasks.is_empty() {
        new = record::insert_unkeyed(tx, &firing.tasks, now).await?;
        record::note_queues(tx, &queues_of(&firing.tasks), now).await?;
    }
    for schedule in &firing.moved_on {
        move_on(tx, schedule, now).await?;
    }
    Ok(firing.done(&new, unreadable))
}

/// What cannot be read here is left alone for a while.
async fn leave(tx: &mut SqliteConnection, name: &str, error: &StoreError, now: Timestamp) -> Result<String> {
    let again = now.saturating_add(UNREADABLE_PAUSE).unwrap_or(now);
    sqlx::query(LEAVE)
        .bind(name)
        .bind(micros_of(again))
        .execute(tx)
        .await
        .map_err(failed(FIRING))?;
    Ok(format!("{name}: {error}"))
}

/// The last tasks of these schedules that are not final, where that matters.
async fn unfinished(tx: &mut SqliteConnection, due: &[Schedule]) -> Result<HashSet<TaskId>> {
    let mut unfinished = HashSet::new();
    for schedule in due.iter().filter(|schedule| schedule.minds_overlap()) {
        let Some((_, task)) = schedule.last_tick else {
            continue;
        };
        let is_unfinished: bool = sqlx::query_scalar(UNFINISHED)
            .bind(task.as_uuid())
            .fetch_one(&mut *tx)
            .await
            .map_err(failed(FIRING))?;
        if is_unfinished {
            unfinished.insert(task);
        }
    }
    Ok(unfinished)
}

async fn move_on(tx: &mut SqliteConnection, schedule: &Schedule, now: Timestamp) -> Result<()> {
    sqlx::query(MOVE)
        .bind(schedule.name.as_str())
        .bind(schedule.look_at(now).map(micros_of))
        .bind(schedule.next_tick.map(micros_of))
        .bind(schedule.waiting.map(micros_of))
        .bind(schedule.last_tick.map(|(tick, _)| micros_of(tick)))
        .bind(last_task(schedule))
        .execute(tx)
        .await
        .map_err(failed(FIRING))?;
    Ok(())
}

fn last_task(schedule: &Schedule) -> Option<Uuid> {
    schedule.last_tick.map(|(_, task)| task.as_uuid())
}

async fn write(
    tx: &mut SqliteConnection,
    doing: &'static str,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<()> {
    let task = &schedule.task;
    sqlx::query(PUT)
        .bind(schedule.name.as_str())
        .bind(schedule.look_at(now).map(micros_of))
        .bind(schedule.next_tick.map(micros_of))
        .bind(schedule.waiting.map(micros_of))
        .bind(schedule.last_tick.map(|(tick, _)| micros_of(tick)))
        .bind(last_task(schedule))
        .bind(micros_of(schedule.created_at))
        .bind(micros_of(schedule.updated_at))
        .bind(micros_of_duration(schedule.catch_up))
        .bind(micros_of_duration(schedule.jitter))
        .bind(schedule.paused)
        .bind(schedule.cron.as_str())
        .bind(schedule.time_zone.as_str())
        .bind(schedule.overlap.as_str())
        .bind(task.max_attempts)
        .bind(task.timeout.map(micros_of_duration))
        .bind(task.lane.priority.as_str())
        .bind(task.project.as_str())
        .bind(task.kind.as_str())
        .bind(task.lane.queue.as_str())
        .bind(to_json(&task.tags)?)
        .bind(task.payload.as_str())
        .bind(task.terms.as_ref().map(|terms| terms.to_json()))
        .execute(tx)
        .await
        .map_err(failed(doing))?;
    Ok(())
}

async fn row(
    connection: &mut SqliteConnection,
    doing: &'static str,
    name: &ScheduleName,
) -> Result<Option<SqliteRow>> {
    sqlx::query(ONE)
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(failed(doing))
}

fn read(row: &SqliteRow) -> Result<Schedule> {
    let fields = Fields(row);
    let last_task = fields.get::<Option<Uuid>>("last_task")?.map(TaskId::from);
    Ok(Schedule {
        name: fields.text("name")?,
        cron: fields.text("cron")?,
        time_zone: TimeZone::kept(fields.get("time_zone")?),
        task: task(&fields)?,
        overlap: fields.text("overlap")?,
        catch_up: fields.duration("catch_up")?.unwrap_or_default(),
        jitter: fields.duration("jitter")?.unwrap_or_default(),
        paused: fields.get("paused")?,
        next_tick: fields.maybe_time("next_tick")?,
        waiting: fields.maybe_time("waiting")?,
        last_tick: fields.maybe_time("last_tick")?.zip(last_task),
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

fn task(fields: &Fields<'_>) -> Result<ScheduledTask> {
    Ok(ScheduledTask {
        project: fields.text("project")?,
        kind: fields.text("kind")?,
        lane: fields.lane()?,
        payload: fields.json("payload")?.unwrap_or_else(Json::null),
        tags: fields.list("tags")?,
        max_attempts: fields.get("max_attempts")?,
        timeout: fields.duration("timeout")?,
        terms: fields.terms()?,
    })
}
