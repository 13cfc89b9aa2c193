//! Schedules: tasks by the clock. What a schedule may say is checked in `forebay_core`; the dispatcher fires it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use forebay_core::{Schedule, ScheduleName, ScheduleRequest, Timestamp, Violation};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{list::check_page_size, once, read, submit::Asked as AskedTask},
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

/// A page of schedules, and the token of the next one.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) next: Option<String>,
}

/// Parses a schedule's name as a door received it.
pub(crate) fn parse_name(text: &str) -> Result<ScheduleName> {
    text.parse()
        .map_err(|error| ApiError::at(Code::InvalidParameter, "/name", error))
}

/// Makes a schedule, or replaces the one of that name. Returns it as it is now, and whether it is new. To put the same
/// twice changes nothing, so it may be tried again.
pub(crate) async fn put(app: &App, name: ScheduleName, asked: Asked) -> Result<(Schedule, bool)> {
    let schedule = check(app.clock.now(), name, asked)?;
    let put = read(app, || app.store.put_schedule(&schedule)).await?;
    if put.is_new {
        tracing::info!(schedule = %schedule.name, "a schedule was made");
    }
    Ok((put.schedule, put.is_new))
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

/// Lists a page of schedules, by name.
pub(crate) async fn list(app: &App, page_size: Option<i64>, page_token: Option<String>) -> Result<Listed> {
    let page_size = check_page_size(page_size)?;
    let after = page_token.map(|token| parse_token(&token)).transpose()?;
    // One more tells whether there is a next page.
    let found = read(app, || app.store.schedules(page_size + 1, after.as_ref())).await;
    let mut schedules = found?;
    let more = schedules.len() > page_size;
    schedules.truncate(page_size);
    let next = schedules.last().filter(|_| more);
    Ok(Listed {
        next: next.map(|last| URL_SAFE_NO_PAD.encode(last.name.as_str())),
        schedules,
    })
}

fn parse_token(token: &str) -> Result<ScheduleName> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    name.ok_or_else(|| {
        let detail = "must be a next_page_token as it was given";
        ApiError::at(Code::InvalidPageToken, "/page_token", detail)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_one_that_was_given() {
        let token = URL_SAFE_NO_PAD.encode("nightly.report");
        assert_eq!(parse_token(&token).unwrap().as_str(), "nightly.report");
        for bad in [
            "",
            "!",
            "A",
            &URL_SAFE_NO_PAD.encode("Not A Name"),
            &URL_SAFE_NO_PAD.encode([0xff]),
        ] {
            assert_eq!(
                parse_token(bad).unwrap_err().code,
                Code::InvalidPageToken,
                "{bad:?}"
            );
        }
    }
}
