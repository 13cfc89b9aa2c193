use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use forebay_core::{Missed, Schedule, ScheduleName, State, Submission, TaskEvent, TaskId, Timestamp, plan};

use crate::{Result, StoreError};

/// A schedule that was put.
#[derive(Debug, Clone, PartialEq)]
pub struct PutSchedule {
    /// As it is kept.
    pub schedule: Schedule,
    /// Whether there was none of that name.
    pub is_new: bool,
}

/// What one pass over the schedules did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fired {
    /// The tasks that were submitted. All of them are scheduled, and most are due.
    pub events: Vec<TaskEvent>,
    /// How many ticks were left out since a task was unfinished.
    pub skipped: u64,
    /// The schedules with ticks for which it was too late.
    pub missed: Vec<(ScheduleName, Missed)>,
    /// What keeps schedules from being read here, each with its name. They are looked at again in a few seconds.
    pub unreadable: Vec<String>,
    /// How long it is until there is something to be done; nothing where there is already. `None` where nothing is to
    /// come, or others are at it.
    pub next_in: Option<Duration>,
}

/// How many bytes of payloads are submitted together, but for the last schedule's.
const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How many bytes of payloads are listed together, but for the last schedule's: so that all of a page is less than the 4 MiB
/// that a gRPC client takes unless told otherwise.
pub const LISTED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How long a schedule that cannot be read is left alone.
pub const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);

/// A schedule whose ticks can be told here.
///
/// # Errors
/// Where this machine does not know its time zone.
pub fn readable(schedule: Schedule) -> Result<Schedule> {
    match schedule.time_zone.is_known() {
        true => Ok(schedule),
        false => Err(StoreError::Corrupt(format!(
            "the time zone {} is not known here",
            schedule.time_zone
        ))),
    }
}

/// What a store is to write for the schedules that it has locked: the tasks that are new, and the schedules as they are
/// then. All stores ask here, so that they do the same.
#[derive(Debug)]
pub struct Firing {
    /// To be recorded, unless they are known.
    pub tasks: Vec<Submission>,
    /// To be kept in the place of those that were locked. Those for which there was no room are not among them: they are
    /// as they were.
    pub moved_on: Vec<Schedule>,
    /// By which time it was decided.
    pub now: Timestamp,
    fired: Fired,
}

impl Firing {
    /// What is to be done about `locked` at `now`. `unfinished` are the last tasks of these that are not final. It ends at
    /// the schedule with which there are `limit` tasks.
    #[must_use]
    pub fn new(locked: Vec<Schedule>, unfinished: &HashSet<TaskId>, now: Timestamp, limit: usize) -> Self {
        let mut firing = Self {
            tasks: Vec::new(),
            moved_on: Vec::with_capacity(locked.len()),
            now,
            fired: Fired::default(),
        };
        let mut payload_bytes = 0;
        for schedule in locked {
            if firing.tasks.len() >= limit || payload_bytes >= PAYLOAD_BYTES_MAX {
                break;
            }
            let last = schedule.last_tick.map(|(_, task)| task);
            let plan = plan(
                &schedule,
                now,
                last.is_some_and(|task| unfinished.contains(&task)),
            );
            let tasks = plan.fire.iter().map(|&tick| schedule.submission(tick, now));
            firing.tasks.extend(tasks);
            payload_bytes += plan.fire.len() * schedule.task.payload.as_bytes().len();
            firing.fired.skipped += u64::from(plan.skipped);
            if let Some(missed) = plan.missed {
                firing.fired.missed.push((schedule.name.clone(), missed));
            }
            firing.moved_on.push(schedule.after(&plan));
        }
        firing
    }

    /// What was done, once it is written. `new` are the tasks that were not known.
    #[must_use]
    pub fn done(self, new: &HashSet<TaskId>, unreadable: Vec<String>) -> Fired {
        let events = self.tasks.into_iter().filter(|task| new.contains(&task.id));
        let events = events.map(|task| TaskEvent {
            id: task.id,
            kind: task.kind,
            queue: task.lane.queue,
            state: State::Scheduled,
            attempt: 0,
            at: self.now,
        });
        Fired {
            events: events.collect(),
            unreadable,
            next_in: (!self.moved_on.is_empty()).then_some(Duration::ZERO),
            ..self.fired
        }
    }
}

/// Schedules: what is kept of them, and firing. The clock of the store decides what is due, never a caller's, except
/// where one is held on purpose.
#[async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// Makes a schedule, or replaces the one of its name as [`Schedule::replacing`] says.
    async fn put_schedule(&self, schedule: &Schedule) -> Result<PutSchedule>;

    /// Reads a schedule.
    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>>;

    /// Lets a schedule rest, or go on, and leaves all else that it says as it is; `None` where there is none. Twice is as once.
    /// One whose ticks cannot be told here can only rest: see [`readable`].
    async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Option<Schedule>>;

    /// Lists up to `page_size` schedules by name, those that come after `after`. It ends with the one with which there are
    /// [`LISTED_BYTES_MAX`] of payloads.
    async fn schedules(&self, page_size: usize, after: Option<&ScheduleName>) -> Result<Vec<Schedule>>;

    /// Deletes a schedule; says whether there was one. The tasks that it has submitted stay. Once this has returned, no
    /// tick of it is fired.
    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool>;

    /// Fires ticks that are due, of up to `limit` schedules: submits their tasks as [`forebay_core::plan`] says, and moves the
    /// schedules on, in one transaction. So a tick is fired once, however many dispatchers call this at once and whenever
    /// one of them dies. The tasks become `scheduled`, for [`crate::Dispatch::dispatch_due`] to make them ready.
    ///
    /// `now` is for simulations; `None` is the store's clock, which is the only one that dispatchers share. A schedule that
    /// cannot be read here (it needs a time zone that this machine lacks, say) does not keep the others.
    async fn fire_schedules(&self, limit: usize, now: Option<Timestamp>) -> Result<Fired>;
}

#[cfg(test)]
mod tests {
    use forebay_core::{Json, PAYLOAD_BYTES_MAX, ScheduleRequest, SubmitRequest};

    use super::*;

    fn heavy(number: usize) -> Schedule {
        let payload = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
        let request = ScheduleRequest {
            cron: "0 3 * * *".into(),
            task: SubmitRequest {
                kind: "report".into(),
                payload: Json::parse(payload.as_bytes()).ok(),
                ..SubmitRequest::default()
            },
            ..ScheduleRequest::default()
        };
        let name = format!("s{number}").parse().expect("a name");
        request.accept(name, Timestamp::UNIX_EPOCH).expect("a schedule")
    }

    #[test]
    fn a_batch_has_as_many_bytes_as_it_may_and_leaves_the_rest_as_it_is() {
        let locked: Vec<Schedule> = (0..40).map(heavy).collect();
        let now = locked[0].next_tick.expect("it is not paused");
        let firing = Firing::new(locked.clone(), &HashSet::new(), now, 500);
        assert_eq!((firing.tasks.len(), firing.moved_on.len()), (32, 32));
        let new = firing.tasks.iter().map(|task| task.id).collect();
        let fired = firing.done(&new, Vec::new());
        assert_eq!((fired.events.len(), fired.next_in), (32, Some(Duration::ZERO)));
        let few = Firing::new(locked, &HashSet::new(), now, 3);
        assert_eq!((few.tasks.len(), few.moved_on.len()), (3, 3));
    }
}
