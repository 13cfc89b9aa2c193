use std::{str::FromStr, time::Duration};

use super::{Cron, Overlap, Schedule, ScheduledTask, TimeZone};
use crate::{ScheduleName, SubmitRequest, Timestamp, Violation, micros};

/// How late a tick may be fired at most.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// By how much a tick may be moved at most.
pub const JITTER_MAX: Duration = Duration::from_secs(60 * 60);
/// How late a tick may be fired unless said.
const CATCH_UP: Duration = Duration::from_secs(60);
/// With less, a busy second of a dispatcher would cost ticks.
const CATCH_UP_MIN: Duration = Duration::from_secs(1);

/// A request to make a schedule, with the right types but not yet checked.
#[derive(Debug, Clone, Default)]
pub struct ScheduleRequest {
    /// See [`Cron`].
    pub cron: String,
    /// See [`TimeZone`]; UTC unless said.
    pub time_zone: Option<String>,
    /// What is submitted at each tick: without a time and without an idempotency key.
    pub task: SubmitRequest,
    /// See [`Overlap`]; `skip` unless said.
    pub overlap: Option<String>,
    /// How late a tick may be fired, from a second to a day; a minute unless said.
    pub catch_up_seconds: Option<f64>,
    /// By how much a tick is moved at most, up to an hour; not at all unless said.
    pub jitter_seconds: Option<f64>,
    /// Whether it rests.
    pub paused: bool,
}

impl ScheduleRequest {
    /// Checks the request and makes it a schedule. Its next tick is counted from `now`; the store, whose clock decides,
    /// counts it anew.
    ///
    /// # Errors
    /// With all that is wrong with it, not just the first.
    pub fn accept(self, name: ScheduleName, now: Timestamp) -> Result<Schedule, Vec<Violation>> {
        let mut wrong = Vec::new();
        let cron = parse::<Cron>(&self.cron, "/cron", &mut wrong);
        let time_zone = match &self.time_zone {
            Some(zone) => parse::<TimeZone>(zone, "/time_zone", &mut wrong),
            None => Some(TimeZone::default()),
        };
        let overlap = match &self.overlap {
            Some(overlap) => parse::<Overlap>(overlap, "/overlap", &mut wrong),
            None => Some(Overlap::default()),
        };
        let catch_up = seconds(self.catch_up_seconds, CATCH_UP, CATCH_UP_MIN..=CATCH_UP_MAX).or_else(|| {
            let allowed = "must be from 1 to 86400, a day";
            wrong.push(Violation::invalid("/catch_up_seconds", allowed));
            None
        });
        let jitter =
            seconds(self.jitter_seconds, Duration::ZERO, Duration::ZERO..=JITTER_MAX).or_else(|| {
                let allowed = "must be from 0 to 3600, an hour";
                wrong.push(Violation::invalid("/jitter_seconds", allowed));
                None
            });
        let task = accept_task(self.task, now, &mut wrong);
        let (Some(cron), Some(time_zone), Some(overlap), Some(catch_up), Some(jitter), Some(task)) =
            (cron, time_zone, overlap, catch_up, jitter, task)
        else {
            return Err(wrong);
        };
        let schedule = Schedule {
            name,
            cron,
            time_zone,
            task,
            overlap,
            catch_up,
            jitter,
            paused: self.paused,
            next_tick: None,
            waiting: None,
            last_tick: None,
            created_at: now,
            updated_at: now,
        };
        Ok(schedule.replacing(None, micros(now)))
    }
}

fn parse<T: FromStr>(text: &str, pointer: &str, wrong: &mut Vec<Violation>) -> Option<T>
where
    T::Err: ToString,
{
    text.parse()
        .map_err(|error: T::Err| wrong.push(Violation::invalid(pointer, error.to_string())))
        .ok()
}

fn seconds(
    asked: Option<f64>,
    unless_said: Duration,
    allowed: std::ops::RangeInclusive<Duration>,
) -> Option<Duration> {
    let Some(asked) = asked else {
        return Some(unless_said);
    };
    // To the microsecond, which is what the stores keep.
    let asked = Duration::try_from_secs_f64(asked).ok()?;
    let asked = Duration::from_micros(u64::try_from(asked.as_micros()).ok()?);
    allowed.contains(&asked).then_some(asked)
}

fn accept_task(mut task: SubmitRequest, now: Timestamp, wrong: &mut Vec<Violation>) -> Option<ScheduledTask> {
    let before = wrong.len();
    let mut given_by_the_tick = |given: bool, pointer: &str| {
        if given {
            wrong.push(Violation::invalid(pointer, "must not be given: it is the tick's"));
        }
    };
    given_by_the_tick(task.run_at.take().is_some(), "/task/run_at");
    given_by_the_tick(task.delay_seconds.take().is_some(), "/task/delay_seconds");
    given_by_the_tick(task.idempotency_key.take().is_some(), "/task/idempotency_key");
    let terms = &task.terms;
    for (given, member) in [
        (terms.expires_at.is_some(), "expires_at"),
        (
            terms.schedule_to_start_timeout_seconds.is_some(),
            "schedule_to_start_timeout_seconds",
        ),
        (terms.unique.is_some(), "unique"),
        (!terms.after.is_empty(), "after"),
    ] {
        if given {
            let detail = "must not be given: it is possible for a single task only";
            wrong.push(Violation::invalid(format!("/task/{member}"), detail));
        }
    }
    match task.accept(now, &[0; 10]) {
        Ok(task) => (wrong.len() == before).then(|| ScheduledTask {
            project: task.project,
            kind: task.kind,
            lane: task.lane,
            payload: task.payload,
            tags: task.tags,
            max_attempts: task.max_attempts,
            timeout: task.timeout,
            terms: task.terms,
        }),
        Err(violations) => {
            wrong.extend(violations.into_iter().map(|violation| Violation {
                pointer: format!("/task{}", violation.pointer),
                ..violation
            }));
            None
        }
    }
}
