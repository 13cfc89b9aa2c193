//! The hand-off: what the recorder of this process starts at once, in the statement that records it, instead of
//! publishing it into a lane. It saves a task a message, a claim and a commit, where there is a slot for it here.
//!
//! It takes no slot from what waits in a lane: what this process has left to a lane, and of which it is not known that
//! somebody has received it, keeps a slot each from tasks of that lane and of less urgent ones. While a lane brings all
//! that it is asked for, nothing of it, or less urgent, is handed over, and what is more urgent takes turns with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use forebay_core::{ClaimId, Lane, Priority, QueueName, Submission, WorkerId};
use forebay_store::{Claimed, StartRequest};
use tokio::sync::mpsc;

use super::{
    Executor,
    attempt::Attempt,
    bulkhead::{Bulkheads, Place},
    intake::FAIR_TURN,
    life::Life,
    running::{Admitted, Running, Start},
    slots::{Slots, Taken},
};
use crate::{
    handlers::{Registered, Stop},
    shared::Shared,
};

/// What may wait in the lanes that a worker reads.
#[derive(Debug)]
pub(super) struct Backlogs {
    lanes: BTreeMap<Lane, Mutex<Backlog>>,
    /// Whether deliveries wait for room in their kind's bulkhead.
    held: AtomicBool,
    /// Whether it is known which queues are paused.
    known: AtomicBool,
    /// How many turns there were since the last that belonged to whom had to wait longest.
    turns: AtomicU64,
}

/// What is known of one lane.
#[derive(Debug, Default)]
struct Backlog {
    /// Whether its last round brought all that was asked for, so that there is probably more.
    wet: bool,
    /// How many tasks were left to it.
    left: u64,
    /// How many of these are out of it again, as far as is known.
    gone: u64,
    /// Whether its queue is paused: nothing is handed over of it, and nothing kept for it.
    paused: bool,
    /// How often it was paused or resumed.
    turns: u64,
}

impl Backlog {
    fn waiting(&self) -> u64 {
        self.left - self.gone
    }
}

/// A round of a lane begins: what was left to the lane before it will be found by it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    left: u64,
    turns: u64,
}

impl Backlogs {
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        let lanes = lanes.into_iter().map(|lane| (lane, Mutex::default()));
        Self {
            lanes: lanes.collect(),
            held: AtomicBool::new(false),
            known: AtomicBool::new(false),
            turns: AtomicU64::new(0),
        }
    }

    /// Whether the turn that comes next belongs to the lane that had to wait longest.
    pub(super) fn is_fair_turn(&self) -> bool {
        self.turns.load(Ordering::Acquire) + 1 >= FAIR_TURN
    }

    /// A lane was asked in its turn, or in the one of whom had to wait longest.
    pub(super) fn turn_taken(&self, is_fair: bool) {
        if is_fair {
            self.turns.store(0, Ordering::Release);
        } else {
            self.turns.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Some tasks were handed over, past what may wait in a lane: that was a turn.
    fn handed_over(&self) {
        if self.lanes.values().any(|backlog| lock(backlog).wet) {
            self.turn_taken(false);
        }
    }

    /// These queues are paused, and no others. What is in a lane when its queue is resumed is not known, so it is taken
    /// for full of tasks until it was looked at.
    pub(super) fn heed_pauses(&self, paused: &BTreeSet<QueueName>) {
        for (lane, backlog) in &self.lanes {
            let (mut backlog, now) = (lock(backlog), paused.contains(&lane.queue));
            let before = std::mem::replace(&mut backlog.paused, now);
            if before != now {
                backlog.turns += 1;
                backlog.wet = before;
                backlog.gone = backlog.left;
            }
        }
        self.known.store(true, Ordering::Release);
    }

    fn of(&self, lane: &Lane) -> Option<MutexGuard<'_, Backlog>> {
        self.lanes.get(lane).map(lock)
    }

    fn is_read(&self, lane: &Lane) -> bool {
        self.of(lane).is_some_and(|backlog| !backlog.paused)
    }

    /// A task is, or will be, in the lane.
    pub(super) fn leave_to(&self, lane: &Lane) {
        if let Some(mut backlog) = self.of(lane) {
            backlog.left += 1;
            backlog.gone += u64::from(backlog.paused);
        }
    }

    /// Whether something may be in this lane.
    pub(super) fn may_have_more(&self, lane: &Lane) -> bool {
        self.of(lane)
            .is_some_and(|backlog| backlog.wet || backlog.waiting() > 0)
    }

    pub(super) fn begin_look(&self, lane: &Lane) -> Look {
        let look = |backlog: MutexGuard<'_, Backlog>| Look {
            left: backlog.left,
            turns: backlog.turns,
        };
        self.of(lane).map(look).unwrap_or_default()
    }

    /// The round has brought so many; `wet` where that is all that was asked for. One that brought nothing says that
    /// nothing is left of what was there when it began.
    pub(super) fn end_look(&self, lane: &Lane, look: Look, received: usize, wet: bool) {
        let Some(mut backlog) = self.of(lane) else {
            return;
        };
        // What it did not find may have come while nobody looked.
        if backlog.turns != look.turns {
            return;
        }
        backlog.wet = wet;
        backlog.gone = match received {
            0 => backlog.gone.max(look.left),
            // Some may be of other recorders, as others may have received some of ours.
            count => backlog.left.min(backlog.gone + count as u64),
        };
    }

    pub(super) fn set_held(&self, any: bool) {
        self.held.store(any, Ordering::Release);
    }

    /// From which priority on nothing is handed over.
    fn closed_from(&self) -> Option<Priority> {
        let is_held = self.held.load(Ordering::Acquire);
        let is_wet = || self.lanes.values().any(|backlog| lock(backlog).wet);
        if self.is_fair_turn() && is_wet() {
            return Some(Priority::High);
        }
        let closed = self
            .lanes
            .iter()
            .filter(|(_, backlog)| is_held || lock(backlog).wet);
        closed.map(|(lane, _)| lane.priority).min()
    }

    /// How many tasks may wait in lanes that are as urgent as this priority, or more.
    fn waiting(&self, priority: Priority) -> usize {
        let before = self.lanes.iter().filter(|(lane, _)| lane.priority <= priority);
        let waiting: u64 = before.map(|(_, backlog)| lock(backlog).waiting()).sum();
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }
}

fn lock(backlog: &Mutex<Backlog>) -> MutexGuard<'_, Backlog> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The recorder's end.
pub(crate) struct Handoff {
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    bulkheads: Arc<Bulkheads>,
    running: Arc<Running>,
    life: Arc<Life>,
    draining: Arc<AtomicBool>,
    backlogs: Arc<Backlogs>,
    started: mpsc::Sender<Started>,
}

/// Tasks that were recorded and started in one.
pub(super) struct Started {
    pub(super) worker: WorkerId,
    pub(super) claim: ClaimId,
    pub(super) attempts: Vec<Attempt>,
}

/// What a task holds from before it is recorded until its outcome is stored.
pub(crate) struct Seat {
    start: Start,
    registered: Arc<Registered>,
    stop: Stop,
    slot: Taken,
    place: Place,
}

/// The seats of a batch's tasks, in order, for those that have one, in the name of a worker.
pub(crate) struct Seats {
    pub(crate) worker: WorkerId,
    pub(crate) seats: Vec<Option<Seat>>,
}

impl Handoff {
    pub(super) fn new(executor: &Executor, started: mpsc::Sender<Started>) -> Self {
        Self {
            shared: Arc::clone(&executor.shared),
            slots: Arc::clone(&executor.slots),
            bulkheads: Arc::clone(&executor.bulkheads),
            running: Arc::clone(&executor.running),
            life: Arc::clone(&executor.life),
            draining: Arc::clone(&executor.draining),
            backlogs: Arc::clone(&executor.backlogs),
            started,
        }
    }

    /// Seats for those of a batch that can be started now, the more urgent first; `None` where none can. What gets none
    /// is left to its lane.
    pub(crate) fn seats(&self, tasks: &[Submission]) -> Option<Seats> {
        let worker = self.life.id();
        let is_known = self.backlogs.known.load(Ordering::Acquire);
        let is_open = worker.is_some()
            && is_known
            && !self.draining.load(Ordering::Acquire)
            && !self.started.is_closed();
        let closed_from = self.backlogs.closed_from();
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by_key(|&index| tasks[index].lane.priority);
        let mut seats: Vec<Option<Seat>> = tasks.iter().map(|_| None).collect();
        // How many slots are not for these, since more urgent or older tasks may wait for them.
        let mut kept = (None, 0);
        for index in order {
            let (task, lane) = (&tasks[index], &tasks[index].lane);
            let Some(registered) = self.shared.handlers.get(&task.kind) else {
                continue;
            };
            if task.run_at.is_some() || !self.backlogs.is_read(lane) {
                continue;
            }
            let is_closed = closed_from.is_some_and(|priority| lane.priority >= priority);
            if kept.0 != Some(lane.priority) {
                kept = (Some(lane.priority), self.backlogs.waiting(lane.priority));
            }
            if is_open && !is_closed && self.slots.free() > kept.1 {
                seats[index] = self.seat(task, registered);
            }
            if seats[index].is_none() {
                self.backlogs.leave_to(lane);
                kept.1 += 1;
            }
        }
        let worker = worker.filter(|_| seats.iter().any(Option::is_some))?;
        self.backlogs.handed_over();
        Some(Seats { worker, seats })
    }

    /// A seat for a task without a key, of which the terms have to do with nothing else, if there is room for it. Whether one with
    /// a key is new, and where one on other terms stands, is not known yet.
    fn seat(&self, task: &Submission, registered: &Arc<Registered>) -> Option<Seat> {
        if task.fingerprint.is_some() || task.terms.as_ref().is_some_and(|terms| !terms.stand_alone()) {
            return None;
        }
        let place = self.bulkheads.unsuspected(&task.kind)?;
        let slot = self.slots.take(1);
        if slot.count() == 0 {
            return None;
        }
        let start = (task.id, 1);
        // What is held was recorded before.
        let Admitted::New(stop) = self.running.admit(start, &task.lane.queue) else {
            return None;
        };
        Some(Seat {
            start,
            registered: Arc::clone(registered),
            stop,
            slot,
            place,
        })
    }

    /// The store has answered: hands over what it granted.
    pub(crate) async fn start(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        answers: impl Iterator<Item = (Seat, Option<Claimed>)>,
    ) {
        let mut attempts = Vec::new();
        let mut turned_away = Vec::new();
        for (seat, claimed) in answers {
            match claimed {
                Some(claimed) => attempts.push(Attempt {
                    claimed,
                    registered: seat.registered,
                    stop: seat.stop,
                    slot: seat.slot,
                    place: seat.place,
                    claim,
                    worker,
                }),
                None => turned_away.push(seat.start),
            }
        }
        self.running.release(turned_away);
        let started = Started {
            worker,
            claim,
            attempts,
        };
        // An executor that has ended has handed back what it held.
        let _ = self.started.send(started).await;
    }

    /// Leaves the seats: their tasks are not started here.
    pub(crate) fn leave(&self, seats: Vec<Seat>) {
        self.running.release(seats.into_iter().map(|seat| seat.start));
    }

    /// The store says that the worker is dead.
    pub(crate) fn question_life(&self) {
        self.life.question();
    }
}

impl Seat {
    /// What is asked of the store.
    pub(crate) fn request(&self, task: Submission) -> StartRequest {
        let settings = &self.registered.settings;
        StartRequest {
            task,
            max_attempts: settings.retry.attempts_max.max(1),
            timeout: settings.timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes() -> (Backlogs, Lane, Lane) {
        let queue = QueueName::default();
        let backlogs = Backlogs::new(Lane::all_of(&queue).to_vec());
        let high = Lane::new(queue.clone(), Priority::High);
        (backlogs, Lane::new(queue, Priority::Default), high)
    }

    #[test]
    fn what_was_left_waits_until_it_is_received_or_a_later_round_finds_nothing() {
        let (backlogs, lane, high) = lanes();
        let before = backlogs.begin_look(&lane);
        for _ in 0..5 {
            backlogs.leave_to(&lane);
        }
        backlogs.leave_to(&high);
        let waiting =
            || [Priority::High, Priority::Default, Priority::Low].map(|priority| backlogs.waiting(priority));
        assert_eq!(waiting(), [1, 6, 6]);
        backlogs.end_look(&lane, before, 0, false);
        assert_eq!(waiting(), [1, 6, 6], "it had begun before");
        backlogs.end_look(&lane, before, 2, false);
        assert_eq!(waiting(), [1, 4, 4]);
        let after = backlogs.begin_look(&lane);
        backlogs.leave_to(&lane);
        backlogs.end_look(&lane, after, 0, false);
        assert_eq!(waiting(), [1, 2, 2]);
        backlogs.end_look(&lane, after, 9, false);
        assert_eq!(waiting(), [1, 1, 1], "some were left by others");
        assert!(!backlogs.may_have_more(&lane) && backlogs.may_have_more(&high));
    }

    #[test]
    fn a_lane_that_brings_all_that_is_asked_for_closes_it_from_its_priority_on() {
        let (backlogs, lane, high) = lanes();
        assert_eq!(backlogs.closed_from(), None);
        let look = backlogs.begin_look(&lane);
        backlogs.end_look(&lane, look, 3, true);
        assert_eq!(backlogs.closed_from(), Some(Priority::Default));
        backlogs.end_look(&high, look, 3, true);
        assert_eq!(backlogs.closed_from(), Some(Priority::High));
        backlogs.end_look(&high, look, 2, false);
        backlogs.end_look(&lane, look, 2, false);
        assert_eq!(backlogs.closed_from(), None);
        backlogs.set_held(true);
        assert_eq!(backlogs.closed_from(), Some(Priority::High));
    }

    #[test]
    fn what_is_more_urgent_than_a_lane_that_waits_takes_turns_with_it() {
        let (backlogs, lane, _) = lanes();
        for _ in 0..2 * FAIR_TURN {
            backlogs.handed_over();
        }
        assert!(!backlogs.is_fair_turn(), "nobody waits");
        let look = backlogs.begin_look(&lane);
        backlogs.end_look(&lane, look, 3, true);
        for _ in 1..FAIR_TURN {
            assert_eq!(backlogs.closed_from(), Some(Priority::Default));
            backlogs.handed_over();
        }
        assert_eq!(backlogs.closed_from(), Some(Priority::High));
        assert!(backlogs.is_fair_turn());
        backlogs.turn_taken(true);
        assert_eq!(backlogs.closed_from(), Some(Priority::Default));
        (1..FAIR_TURN).for_each(|_| backlogs.turn_taken(false));
        assert_eq!(backlogs.closed_from(), Some(Priority::High));
        backlogs.end_look(&lane, look, 2, false);
        assert_eq!(backlogs.closed_from(), None, "nobody waits any more");
    }

    #[test]
    fn a_paused_queue_keeps_nothing_and_is_looked_at_before_anything_is_handed_over() {
        let (backlogs, lane, high) = lanes();
        let begun = backlogs.begin_look(&lane);
        backlogs.end_look(&lane, begun, 3, true);
        backlogs.leave_to(&high);
        backlogs.heed_pauses(&BTreeSet::from([lane.queue.clone()]));
        backlogs.leave_to(&lane);
        backlogs.end_look(&lane, begun, 9, true);
        assert!(!backlogs.is_read(&lane) && !backlogs.is_read(&high));
        assert_eq!(
            (backlogs.closed_from(), backlogs.waiting(Priority::Low)),
            (None, 0)
        );
        backlogs.heed_pauses(&BTreeSet::new());
        assert!(backlogs.is_read(&lane) && backlogs.may_have_more(&high));
        assert_eq!(backlogs.waiting(Priority::Low), 0);
        for (priority, closed_from) in [
            (Priority::High, Some(Priority::Default)),
            (Priority::Default, Some(Priority::Low)),
            (Priority::Low, None),
        ] {
            let lane = Lane::new(lane.queue.clone(), priority);
            let before = backlogs.closed_from();
            backlogs.end_look(&lane, begun, 0, false);
            assert_eq!(backlogs.closed_from(), before, "it began before the pause");
            let look = backlogs.begin_look(&lane);
            backlogs.end_look(&lane, look, 0, false);
            assert_eq!(backlogs.closed_from(), closed_from);
        }
    }

    #[test]
    fn lanes_of_others_do_not_matter() {
        let (backlogs, ..) = lanes();
        let elsewhere: Lane = "other.high".parse().expect("a lane");
        backlogs.leave_to(&elsewhere);
        assert!(!backlogs.may_have_more(&elsewhere) && !backlogs.is_read(&elsewhere));
        assert_eq!(backlogs.waiting(Priority::Low), 0);
    }
}
