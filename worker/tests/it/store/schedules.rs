//! Schedules of the store in memory.

use std::collections::HashSet;

use async_trait::async_trait;
use forebay_core::{Schedule, ScheduleName, TaskId, Timestamp};
use forebay_store::{Fired, Firing, PutSchedule, Recorded, Result, Schedules};

use super::{MemoryStore, State, insert, now};

/// A schedule, and when it is to be looked at.
pub(super) struct Kept {
    schedule: Schedule,
    look_at: Option<Timestamp>,
}

impl Kept {
    fn new(schedule: Schedule, now: Timestamp) -> Self {
        Self {
            look_at: schedule.look_at(now),
            schedule,
        }
    }
}

fn fire(state: &mut State, limit: usize, now: Timestamp) -> Fired {
    let mut due: Vec<&Kept> = state
        .schedules
        .values()
        .filter(|kept| kept.look_at.is_some_and(|at| at <= now))
        .collect();
    due.sort_by_key(|kept| kept.look_at);
    let due: Vec<Schedule> = due
        .into_iter()
        .take(limit)
        .map(|kept| kept.schedule.clone())
        .collect();
    if due.is_empty() {
        let next = state.schedules.values().filter_map(|kept| kept.look_at).min();
        return Fired {
            next_in: next.and_then(|at| at.duration_since(now).try_into().ok()),
            ..Fired::default()
        };
    }
    let is_unfinished = |id: &TaskId| {
        let row = state.tasks.get(id);
        row.is_some_and(|row| !row.lifecycle.state.is_final())
    };
    let last = due.iter().filter_map(|schedule| schedule.last_tick);
    let unfinished: HashSet<TaskId> = last.map(|(_, task)| task).filter(is_unfinished).collect();
    let firing = Firing::new(due, &unfinished, now, limit);
    let new = |task: &&forebay_core::Submission| insert(state, task) == Recorded::New;
    let new: HashSet<TaskId> = firing.tasks.iter().filter(new).map(|task| task.id).collect();
    for schedule in &firing.moved_on {
        let kept = Kept::new(schedule.clone(), now);
        state.schedules.insert(schedule.name.clone(), kept);
    }
    firing.done(&new, Vec::new())
}

#[async_trait]
impl Schedules for MemoryStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<PutSchedule> {
        self.call("put a schedule", |state| {
            let old = state.schedules.remove(&schedule.name);
            let now = now();
            let schedule = schedule
                .clone()
                .replacing(old.as_ref().map(|kept| &kept.schedule), now);
            let kept = Kept::new(schedule.clone(), now);
            state.schedules.insert(schedule.name.clone(), kept);
            Ok(PutSchedule {
                schedule,
                is_new: old.is_none(),
            })
        })
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>> {
        self.call("read a schedule", |state| {
            Ok(state.schedules.get(name).map(|kept| kept.schedule.clone()))
        })
    }

    async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Option<Schedule>> {
        self.call("pause a schedule", |state| {
            let now = now();
            Ok(state.schedules.get_mut(name).map(|kept| {
                *kept = Kept::new(kept.schedule.resting(paused, now), now);
                kept.schedule.clone()
            }))
        })
    }

    async fn schedules(&self, page_size: usize, after: Option<&ScheduleName>) -> Result<Vec<Schedule>> {
        self.call("list schedules", |state| {
            let schedules = state.schedules.iter();
            let rest = schedules.filter(|(name, _)| after.is_none_or(|after| *name > after));
            Ok(rest
                .take(page_size)
                .map(|(_, kept)| kept.schedule.clone())
                .collect())
        })
    }

    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool> {
        self.call("delete a schedule", |state| {
            Ok(state.schedules.remove(name).is_some())
        })
    }

    async fn fire_schedules(&self, limit: usize, at: Option<Timestamp>) -> Result<Fired> {
        self.call("fire schedules", |state| {
            Ok(fire(state, limit, at.unwrap_or_else(now)))
        })
    }
}
