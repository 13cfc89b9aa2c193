use std::time::Duration;

use super::{Overlap, Schedule, Tick};
use crate::Timestamp;

/// How many ticks are looked at together: after an outage, a schedule of seconds has many.
const TICKS_MAX: usize = 100;
/// How many missed ticks are counted: hundreds of schedules may have missed some.
const MISSED_MAX: u32 = 100;

/// What is to be done about a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The ticks whose tasks are to be submitted, the earliest first.
    pub fire: Vec<Tick>,
    /// The tick that waits for the last task to finish.
    pub waiting: Option<Timestamp>,
    /// The first tick that was not looked at. If it has come already, there is more to be done.
    pub next_tick: Option<Timestamp>,
    /// How many ticks were left out since a task was unfinished.
    pub skipped: u32,
    /// The ticks for which it is too late, if there are any.
    pub missed: Option<Missed>,
}

/// Ticks for which it was too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// The first of them.
    pub first: Timestamp,
    /// How many they are, as far as they were counted: to a hundred or two.
    pub count: u32,
}

/// What is to be done about `schedule` at `now`, by the clock of its store. `previous_unfinished` is whether the task of
/// its last tick is there and not final; with [`Overlap::Allow`] it does not matter.
///
/// Ticks are looked at in their order, each once, and each is followed by the next: what an outage has left is decided
/// as if time went by faster. A tick is too late once its task would be later than the schedule allows.
#[must_use]
pub fn plan(schedule: &Schedule, now: Timestamp, previous_unfinished: bool) -> Plan {
    if schedule.paused {
        return Plan::default();
    }
    let mut planned = Planned {
        schedule,
        busy: previous_unfinished,
        plan: Plan {
            waiting: schedule.waiting,
            ..Plan::default()
        },
    };
    planned.fire_waiting();
    let mut next = planned.skip_what_is_too_late(now);
    for _ in 0..TICKS_MAX {
        let Some(tick) = next.filter(|&tick| tick <= now) else {
            break;
        };
        planned.decide(schedule.tick(tick), now);
        next = schedule.cron.next(&schedule.time_zone, tick);
    }
    planned.plan.next_tick = next;
    planned.plan
}

struct Planned<'a> {
    schedule: &'a Schedule,
    /// Whether the task of the last tick is unfinished.
    busy: bool,
    plan: Plan,
}

impl Planned<'_> {
    /// What had to wait was in time when it began to.
    fn fire_waiting(&mut self) {
        if !self.busy
            && let Some(tick) = self.plan.waiting.take()
        {
            self.fire(self.schedule.tick(tick));
        }
    }

    fn fire(&mut self, tick: Tick) {
        self.plan.fire.push(tick);
        self.busy = true;
    }

    /// The first tick that may be in time. After a long outage there is no end to those before.
    fn skip_what_is_too_late(&mut self, now: Timestamp) -> Option<Timestamp> {
        let schedule = self.schedule;
        let next = schedule.next_tick?;
        let longest = schedule.catch_up + schedule.jitter + Duration::from_secs(1);
        let horizon = now.saturating_sub(longest).unwrap_or(Timestamp::MIN);
        if next >= horizon {
            return Some(next);
        }
        let mut tick = Some(next);
        for _ in 0..MISSED_MAX {
            match tick.filter(|&tick| tick < horizon) {
                Some(late) => self.miss(late),
                None => return tick,
            }
            tick = tick.and_then(|late| schedule.cron.next(&schedule.time_zone, late));
        }
        schedule.cron.next(&schedule.time_zone, horizon)
    }

    fn miss(&mut self, tick: Timestamp) {
        let missed = self.plan.missed.get_or_insert(Missed {
            first: tick,
            count: 0,
        });
        missed.count += 1;
    }

    fn decide(&mut self, tick: Tick, now: Timestamp) {
        let latest = tick.run_at.saturating_add(self.schedule.catch_up);
        if now > latest.unwrap_or(Timestamp::MAX) {
            self.miss(tick.at);
            return;
        }
        match (self.busy, self.schedule.overlap) {
            (false, _) | (true, Overlap::Allow) => self.fire(tick),
            (true, Overlap::Skip) => self.plan.skipped += 1,
            (true, Overlap::Queue) => {
                let replaced = self.plan.waiting.replace(tick.at);
                self.plan.skipped += u32::from(replaced.is_some());
            }
        }
    }
}
