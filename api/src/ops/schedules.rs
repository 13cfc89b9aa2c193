//! Schedules: tasks by the clock. What a schedule may say is checked in `forebay_core`; the dispatcher fires it.

use std::time::Duration;

use forebay_core::{Schedule, ScheduleName, ScheduleRequest, Timestamp, Violation};
use forebay_store::LISTED_BYTES_MAX;

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{
        notify, once,
        page::{self, Page},
        read,
        submit::Asked as AskedTask,
    },
};

/// How many of its next ticks are told of a schedule: unless said, and at most.
pub(crate) const UPCOMING: usize = 5;
const UPCOMING_MAX: usize = 100;

/// A schedule as a door read it: what it says, and what the door already found wrong with it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: ScheduleRequest,
    pub(crate) violations: Vec<Violation>,
}

impl Asked {
    /// What is wrong with the task, as what is wrong with the schedule.
    pub(crate) fn task_violations(task: &mut AskedTask) -> Vec<Violation> {
        let found = std::mem::take(&mut task.violations).into_iter();
        found
            .map(|violation| Violation {
                pointer: format!("/task{}", violation.pointer),
                ..violation
            })
            .collect()
    }
}

/// Parses a schedule's name as a door received it.
pub(crate) fn parse_name(text: &str) -> Result<ScheduleName> {
    text.parse()
        .map_err(|error| ApiError::at(Code::InvalidParameter, "/name", error))
}

/// Makes a schedule, or replaces the one of that name. Returns it as it is now, and whether it is new. To put the same
/// twice changes nothing, so it may be tried again.
pub(crate) async fn put(app: &App, name: ScheduleName, mut asked: Asked) -> Result<(Schedule, bool)> {
    look_at_webhooks(app, &mut asked).await;
    let schedule = check(app.clock.now(), name, asked)?;
    let put = read(app, || app.store.put_schedule(&schedule)).await?;
    if put.is_new {
        tracing::info!(schedule = %schedule.name, "a schedule was made");
    }
    Ok((put.schedule, put.is_new))
}

async fn look_at_webhooks(app: &App, asked: &mut Asked) {
    let notify = &asked.request.task.terms.notify;
    if notify.is_empty() {
        return;
    }
    let mut task = AskedTask::default();
    task.request.terms.notify.clone_from(notify);
    notify::check(app, &mut [&mut task]).await;
    asked.violations.extend(Asked::task_violations(&mut task));
}

fn check(now: Timestamp, name: ScheduleName, asked: Asked) -> Result<Schedule> {
    let Asked {
        request,
        mut violations,
    } = asked;
    match request.accept(name, now) {
        Ok(schedule) if violations.is_empty() => Ok(schedule),
        Ok(_) => Err(ApiError::violations(violations)),
        Err(more) => {
            violations.extend(more);
            Err(ApiError::violations(violations))
        }
    }
}

/// Reads a schedule.
pub(crate) async fn get(app: &App, name: &ScheduleName) -> Result<Schedule> {
    let found = read(app, || app.store.schedule(name)).await?;
    found.ok_or_else(|| unknown(name))
}

/// Lists a page of schedules, by name. It is shorter where their payloads are long.
pub(crate) async fn list(app: &App, asked: page::Asked) -> Result<Page<Schedule>> {
    let wanted = asked.check::<ScheduleName>()?;
    let found = read(app, || app.store.schedules(wanted.count(), wanted.after.as_ref())).await?;
    let bytes = found
        .iter()
        .map(|schedule| schedule.task.payload.as_bytes().len());
    let is_part = bytes.sum::<usize>() >= LISTED_BYTES_MAX;
    Ok(wanted.page_of_part(found, is_part, |last| last.name.to_string()))
}

/// Lets a schedule rest, or go on with the next tick; to do so twice changes nothing. One that would be refused for its zone
/// if it were put here is not resumed here, either.
pub(crate) async fn set_paused(app: &App, name: &ScheduleName, paused: bool) -> Result<Schedule> {
    if !paused {
        let zone = get(app, name).await?.time_zone;
        if !zone.is_known() {
            let detail = format!("its time zone {zone} is not known here");
            return Err(ApiError::new(Code::InvalidRequest, detail));
        }
    }
    let found = read(app, || app.store.pause_schedule(name, paused)).await?;
    found.ok_or_else(|| unknown(name))
}

/// Deletes a schedule. The tasks that it has submitted stay.
pub(crate) async fn delete(app: &App, name: &ScheduleName) -> Result<()> {
    // Once: where only the answer was lost, a second try would find nothing.
    match once(app, app.store.delete_schedule(name)).await? {
        true => {
            tracing::info!(schedule = %name, "a schedule was deleted");
            Ok(())
        }
        false => Err(unknown(name)),
    }
}

/// How many of the next ticks are to be told.
pub(crate) fn check_upcoming(asked: Option<i64>) -> Result<usize> {
    let Some(asked) = asked else { return Ok(UPCOMING) };
    let count = usize::try_from(asked).ok().filter(|count| *count <= UPCOMING_MAX);
    count.ok_or_else(|| {
        let detail = format!("must be from 0 to {UPCOMING_MAX}");
        ApiError::at(Code::InvalidParameter, "/upcoming", detail)
    })
}

/// The next ticks of a schedule; none while it is paused.
pub(crate) fn upcoming(app: &App, schedule: &Schedule, count: usize) -> Vec<Timestamp> {
    // What a clock that had leapt ahead has moved on over does not come.
    let moved_on = schedule
        .next_tick
        .and_then(|tick| tick.checked_sub(Duration::from_secs(1)).ok());
    let now = app.clock.now();
    schedule.upcoming(moved_on.map_or(now, |moved_on| moved_on.max(now)), count)
}

fn unknown(name: &ScheduleName) -> ApiError {
    ApiError::new(Code::ScheduleNotFound, format!("there is no schedule {name}"))
}
