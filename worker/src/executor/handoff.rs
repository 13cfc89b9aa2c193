//! The hand-off: what the recorder of this process starts at once, in the statement that records it, instead of
//! publishing it into a lane. It saves a task a message, a claim and a commit, where there is a slot for it here.
//!
//! It never overtakes what waits in a lane: while a lane that this worker reads has more than it takes, nothing of
//! that lane, or less urgent than it, is handed over.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use forebay_broker::Message;
use forebay_core::{ClaimId, Lane, Priority, Ready, Submission, WorkerId};
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

/// Which of the lanes that a worker reads have more than it takes.
#[derive(Debug)]
pub(super) struct Backlogs {
    lanes: Vec<(Lane, AtomicBool)>,
    /// Whether deliveries wait for room in their kind's bulkhead.
    held: AtomicBool,
}

impl Backlogs {
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        Self {
            lanes: lanes
                .into_iter()
                .map(|lane| (lane, AtomicBool::new(false)))
                .collect(),
            held: AtomicBool::new(false),
        }
    }

    pub(super) fn set(&self, lane: &Lane, has_more: bool) {
        if let Some((_, backlog)) = self.lanes.iter().find(|(known, _)| known == lane) {
            backlog.store(has_more, Ordering::Release);
        }
    }

    pub(super) fn set_held(&self, any: bool) {
        self.held.store(any, Ordering::Release);
    }

    /// The most urgent priority of which something waits.
    fn most_urgent(&self) -> Option<Priority> {
        if self.held.load(Ordering::Acquire) {
            return self.lanes.iter().map(|(lane, _)| lane.priority).min();
        }
        let backlogs = self
            .lanes
            .iter()
            .filter(|(_, backlog)| backlog.load(Ordering::Acquire));
        backlogs.map(|(lane, _)| lane.priority).min()
    }

    fn is_read(&self, lane: &Lane) -> bool {
        self.lanes.iter().any(|(known, _)| known == lane)
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

    /// Seats for those of a batch that can be started now; `None` where none can.
    pub(crate) fn seats(&self, tasks: &[Submission]) -> Option<Seats> {
        if self.draining.load(Ordering::Acquire) {
            return None;
        }
        let worker = self.life.id()?;
        let behind = self.backlogs.most_urgent();
        let mut slots = self.slots.take(tasks.len());
        let seats: Vec<Option<Seat>> = tasks
            .iter()
            .map(|task| self.seat(task, behind, &mut slots))
            .collect();
        seats
            .iter()
            .any(Option::is_some)
            .then_some(Seats { worker, seats })
    }

    /// A seat for a task without a key and without a time, if there is room for it and it overtakes nothing.
    fn seat(&self, task: &Submission, behind: Option<Priority>, slots: &mut Taken) -> Option<Seat> {
        let lane = &task.lane;
        let is_behind = behind.is_some_and(|priority| lane.priority >= priority);
        let is_plain = task.run_at.is_none() && task.fingerprint.is_none();
        if is_behind || !is_plain || slots.count() == 0 || !self.backlogs.is_read(lane) {
            return None;
        }
        let registered = Arc::clone(self.shared.handlers.get(&task.kind)?);
        let place = self.bulkheads.unsuspected(&task.kind)?;
        let start = (task.id, 1);
        // What is held was recorded before.
        let Admitted::New(stop) = self.running.admit(start, &lane.queue) else {
            return None;
        };
        Some(Seat {
            start,
            registered,
            stop,
            slot: slots.one()?,
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

    /// These are about to be published: nothing that comes after them may overtake them in their lanes.
    pub(crate) fn note_published(&self, batch: &[Message]) {
        let mut last: Option<&Lane> = None;
        for message in batch {
            let Message::Ready(Ready { lane, .. }) = message else {
                continue;
            };
            if last.replace(lane) != Some(lane) {
                self.backlogs.set(lane, true);
            }
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
