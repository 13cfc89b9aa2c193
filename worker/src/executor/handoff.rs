//! The hand-off: what the recorder of this process starts at once, in the statement that records it, instead of
//! publishing it into a lane. It saves a task a message, a claim and a commit, where there is a slot for it here.
//!
//! It overtakes nothing that waits in a lane: while a lane that this worker reads may have more than it takes, nothing
//! of that lane, or less urgent than it, is handed over.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use forebay_core::{ClaimId, Lane, Priority, Submission, TaskId, WorkerId};
use forebay_store::{Claimed, StartRequest};
use tokio::sync::mpsc;

use super::{
    Executor,
    attempt::Attempt,
    bulkhead::{Bulkheads, Place},
    life::Life,
    running::{Admitted, Running, Start},
    slots::{Slots, Taken},
};
use crate::{
    handlers::{Registered, Stop},
    shared::Shared,
};

/// Which of the lanes that a worker reads may have more than it takes.
#[derive(Debug)]
pub(super) struct Backlogs {
    lanes: Vec<(Lane, Mutex<Backlog>)>,
    /// Whether deliveries wait for room in their kind's bulkhead.
    held: AtomicBool,
}

/// What is known of one lane.
#[derive(Debug, Default)]
struct Backlog {
    /// Whether its last round brought so much that there is probably more.
    has_more: bool,
    /// How often something was left to it.
    left: u64,
    /// Of how much of that it is known that it was taken out again, by this worker or another.
    gone: u64,
    /// What was left to it last, while this worker has not received it.
    last: Option<TaskId>,
}

impl Backlog {
    fn may_have_more(&self) -> bool {
        self.has_more || self.gone < self.left
    }
}

/// A round of a lane begins: what was left to the lane before it will be found by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look(u64);

impl Backlogs {
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        let lanes = lanes.into_iter().map(|lane| (lane, Mutex::default()));
        Self {
            lanes: lanes.collect(),
            held: AtomicBool::new(false),
        }
    }

    fn of(&self, lane: &Lane) -> Option<MutexGuard<'_, Backlog>> {
        let (_, backlog) = self.lanes.iter().find(|(known, _)| known == lane)?;
        Some(backlog.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_read(&self, lane: &Lane) -> bool {
        self.lanes.iter().any(|(known, _)| known == lane)
    }

    /// This task is, or will be, in the lane.
    pub(super) fn leave_to(&self, lane: &Lane, task: TaskId) {
        if let Some(mut backlog) = self.of(lane) {
            backlog.left += 1;
            backlog.last = Some(task);
        }
    }

    /// This task, which was left to the lane, is in it only now: who looked before did not find it.
    fn note_published(&self, lane: &Lane, task: TaskId) {
        if let Some(mut backlog) = self.of(lane)
            && backlog.last == Some(task)
        {
            backlog.left += 1;
        }
    }

    /// Whether something may be in this lane.
    pub(super) fn may_have_more(&self, lane: &Lane) -> bool {
        self.of(lane).is_some_and(|backlog| backlog.may_have_more())
    }

    pub(super) fn begin_look(&self, lane: &Lane) -> Look {
        Look(self.of(lane).map_or(0, |backlog| backlog.left))
    }

    /// The round has ended with these; `has_more` where there are probably more.
    pub(super) fn end_look(
        &self,
        lane: &Lane,
        look: Look,
        has_more: bool,
        received: impl IntoIterator<Item = TaskId>,
    ) {
        let Some(mut backlog) = self.of(lane) else {
            return;
        };
        backlog.has_more = has_more;
        let mut is_empty = true;
        for task in received {
            is_empty = false;
            // A lane is first in, first out: what was left before this one came out before it.
            if backlog.last == Some(task) {
                backlog.gone = backlog.left;
                backlog.last = None;
            }
        }
        if is_empty {
            backlog.gone = backlog.gone.max(look.0);
        }
    }

    pub(super) fn set_held(&self, any: bool) {
        self.held.store(any, Ordering::Release);
    }

    /// The most urgent priority of which something may wait.
    fn most_urgent(&self) -> Option<Priority> {
        let is_held = self.held.load(Ordering::Acquire);
        let waits = |lane: &Lane| is_held || self.may_have_more(lane);
        let lanes = self.lanes.iter().map(|(lane, _)| lane);
        lanes.filter(|lane| waits(lane)).map(|lane| lane.priority).min()
    }
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
    /// is left to its lane, and nothing that comes after it may overtake it there.
    pub(crate) fn seats(&self, tasks: &[Submission]) -> Option<Seats> {
        let worker = self.life.id();
        let is_open = !self.draining.load(Ordering::Acquire) && !self.started.is_closed();
        let mut behind = self.backlogs.most_urgent();
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by_key(|&index| tasks[index].lane.priority);
        let mut seats: Vec<Option<Seat>> = tasks.iter().map(|_| None).collect();
        for index in order {
            let (task, lane) = (&tasks[index], &tasks[index].lane);
            let Some(registered) = self.shared.handlers.get(&task.kind) else {
                continue;
            };
            if task.run_at.is_some() || !self.backlogs.is_read(lane) {
                continue;
            }
            let is_behind = behind.is_some_and(|priority| lane.priority >= priority);
            if is_open && worker.is_some() && !is_behind {
                seats[index] = self.seat(task, registered);
            }
            if seats[index].is_none() {
                behind = Some(behind.map_or(lane.priority, |priority| priority.min(lane.priority)));
                self.backlogs.leave_to(lane, task.id);
            }
        }
        let worker = worker.filter(|_| seats.iter().any(Option::is_some))?;
        Some(Seats { worker, seats })
    }

    /// A seat for a task without a key, if there is room for it. Whether one with a key is new is not known yet.
    fn seat(&self, task: &Submission, registered: &Arc<Registered>) -> Option<Seat> {
        if task.fingerprint.is_some() {
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

    /// These are the last that were published into their lanes now, or left to the dispatcher.
    pub(crate) fn note_published(&self, last: &[(Lane, TaskId)]) {
        for (lane, task) in last {
            self.backlogs.note_published(lane, *task);
        }
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
    use forebay_core::QueueName;

    use super::*;

    const NOTHING: [TaskId; 0] = [];

    fn task(number: u8) -> TaskId {
        TaskId::from_bytes([number; 16])
    }

    fn lanes() -> (Backlogs, Lane, Lane) {
        let queue = QueueName::default();
        let backlogs = Backlogs::new(Lane::all_of(&queue).to_vec());
        let high = Lane::new(queue.clone(), Priority::High);
        (backlogs, Lane::new(queue, Priority::Default), high)
    }

    #[test]
    fn only_a_round_that_began_afterwards_can_say_that_nothing_is_left() {
        let (backlogs, lane, high) = lanes();
        assert_eq!(backlogs.most_urgent(), None);
        let before = backlogs.begin_look(&lane);
        backlogs.leave_to(&lane, task(1));
        assert_eq!(backlogs.most_urgent(), Some(Priority::Default));
        backlogs.end_look(&lane, before, false, NOTHING);
        assert_eq!(backlogs.most_urgent(), Some(Priority::Default));
        let after = backlogs.begin_look(&lane);
        backlogs.end_look(&lane, after, true, [task(8)]);
        assert!(backlogs.may_have_more(&lane), "it says so");
        backlogs.end_look(&lane, after, false, [task(9)]);
        assert!(
            backlogs.may_have_more(&lane),
            "a round that brings something does not say that there is nothing more"
        );
        backlogs.end_look(&lane, after, false, NOTHING);
        assert_eq!(backlogs.most_urgent(), None);
        backlogs.note_published(&lane, task(1));
        assert!(backlogs.may_have_more(&lane), "who looked came too soon");
        let after = backlogs.begin_look(&lane);
        backlogs.end_look(&lane, after, false, NOTHING);
        assert_eq!(backlogs.most_urgent(), None);
        backlogs.leave_to(&high, task(2));
        backlogs.leave_to(&lane, task(3));
        assert_eq!(backlogs.most_urgent(), Some(Priority::High));
    }

    #[test]
    fn what_came_last_out_of_a_lane_says_that_nothing_is_left() {
        let (backlogs, lane, _) = lanes();
        let look = backlogs.begin_look(&lane);
        for number in 1..=3 {
            backlogs.leave_to(&lane, task(number));
        }
        backlogs.end_look(&lane, look, false, [task(1), task(2)]);
        assert!(backlogs.may_have_more(&lane));
        backlogs.end_look(&lane, look, true, [task(3)]);
        assert!(backlogs.may_have_more(&lane), "others may have left something");
        backlogs.end_look(&lane, look, false, NOTHING);
        assert!(!backlogs.may_have_more(&lane));
        backlogs.note_published(&lane, task(3));
        assert!(!backlogs.may_have_more(&lane), "it came before its confirmation");
    }

    #[test]
    fn what_is_held_is_behind_nobody() {
        let (backlogs, _, _) = lanes();
        backlogs.set_held(true);
        assert_eq!(backlogs.most_urgent(), Some(Priority::High));
        backlogs.set_held(false);
        let elsewhere: Lane = "other.high".parse().expect("a lane");
        backlogs.leave_to(&elsewhere, task(1));
        assert!(!backlogs.may_have_more(&elsewhere));
        assert_eq!(backlogs.most_urgent(), None);
    }
}
