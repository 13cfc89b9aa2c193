//! How many workers a queue takes: a pure function of what was seen of it in the last half minute.
//!
//! ```text
//! mu       = attempts that ended / length of the window         (summed over workers, each by its own counter)
//! lambda   = mu + change of (ready + running) / length, not below 0                               tasks that came
//! S        = mean of running / mu                                (Little's law)                   service time
//! capacity = slots of a worker / S, and not more than a worker has ended while there was always something ready
//! desired  = ceil((lambda + ready / 10 s) / capacity)
//! ```
//!
//! So that many workers keep up with what comes, and work off what waits in ten seconds. Between these bounds:
//!
//! - 0 where nothing is ready or running, and else at least 1;
//! - never less than `running / slots`: what runs needs its slots;
//! - never more than `(ready + running + lambda * 10 s) / slots`: on so many, all that there is and all that comes in ten
//!   seconds would run at once. Where a task takes minutes, nothing is gained by the attempt to be done in ten seconds;
//! - 1, or what runs needs, while nothing was measured: no worker has ended anything, and nothing runs.
//!
//! Where nothing has ended yet, S is at least as long as the queue has been running something: capacity is then
//! overrated, and the answer grows as time goes by.
//!
//! Limits. The window forgets: after an idle half minute the first answer is 1 again, so that every observer says the
//! same, whenever it was started. A burst counts as arrivals, too, until it leaves the window, which errs on the side of
//! more. Workers with several queues give all their slots to each. Where all workers wait for one thing (a database),
//! each ends less the more there are, which looks like a reason for more: the most replicas that a pool may have is
//! what bounds that. Tasks that are gated are not in `ready`, and count for nothing. Workers that end by themselves
//! (`--once`) are not measured well: what one has ended since its last heartbeat goes with it, and few live long enough to
//! be seen twice. A worker that was killed is among those that take tasks, and what it ran is in `running`, until its lease
//! ends.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use forebay_core::{QueueName, WorkerId, WorkerInfo};
use tokio::time::Instant;

/// How long what was seen counts.
const WINDOW: Duration = Duration::from_secs(30);
/// A window shorter than this measures nothing.
const SPAN_MIN: f64 = 2.0;
/// In how many seconds what is ready should be worked off.
const DRAIN_SECONDS: f64 = 10.0;
/// For how many seconds there must have been something ready to say what a worker can do at the most, and how many
/// attempts must have ended.
const SATURATED_SECONDS_MIN: f64 = 5.0;
const SATURATED_FINISHED_MIN: u64 = 10;
/// No service time is taken to be shorter: workers say what runs only once a second.
const SERVICE_SECONDS_MIN: f64 = 0.001;
/// What a quotient may be above a whole number and still count as that.
const ROUNDING: f64 = 1e-9;

/// A worker of the queue, by its latest word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// This life of it.
    pub id: WorkerId,
    /// How many tasks it runs at once, of all its queues.
    pub slots: u32,
    /// How many attempts of this queue it has ended in its life.
    pub finished: u64,
    /// Whether it takes tasks; one that drains does not.
    pub takes: bool,
}

/// What is seen of a queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What is ready, and not gated.
    pub ready: u64,
    /// What runs.
    pub running: u64,
    /// Who works for it.
    pub workers: Vec<Worker>,
}

impl Load {
    /// What the workers say of `queue`.
    #[must_use]
    pub fn of(queue: &QueueName, ready: u64, running: u64, workers: &[WorkerInfo]) -> Self {
        let of_queue = workers.iter().filter(|worker| worker.queues.contains(queue));
        let workers = of_queue.map(|worker| {
            let finished = worker.finished.iter().find(|(name, _)| name == queue);
            Worker {
                id: worker.id,
                slots: worker.slots,
                finished: finished.map_or(0, |(_, count)| *count),
                takes: !worker.draining,
            }
        });
        Self {
            ready,
            running,
            workers: workers.collect(),
        }
    }
}

/// What was seen at one moment, and what happened since the one before.
#[derive(Debug, Clone, Copy)]
struct Step {
    at: Instant,
    seconds: f64,
    ready: u64,
    running: u64,
    /// How many take tasks, and their slots.
    workers: u64,
    slots: u64,
    finished: u64,
    /// The same, by workers that take tasks and did so before, and how many these are.
    settled_finished: u64,
    settled: u64,
}

/// What was seen of a queue lately.
#[derive(Debug, Clone, Default)]
pub struct Window {
    steps: VecDeque<Step>,
    /// What each worker had finished when it was seen last.
    seen: BTreeMap<WorkerId, Worker>,
}

impl Window {
    /// The queue is seen again, at `now`, later than before.
    pub fn push(&mut self, now: Instant, load: &Load) {
        let seconds = match self.steps.back() {
            Some(last) if now.duration_since(last.at) <= WINDOW => now.duration_since(last.at).as_secs_f64(),
            _ => {
                self.steps.clear();
                0.0
            }
        };
        let mut step = Step {
            at: now,
            seconds,
            ready: load.ready,
            running: load.running,
            workers: 0,
            slots: 0,
            finished: 0,
            settled_finished: 0,
            settled: 0,
        };
        for worker in &load.workers {
            let before = self.seen.get(&worker.id);
            // One that was not seen before has begun since, and its counter at zero.
            let finished = worker.finished.saturating_sub(before.map_or(0, |it| it.finished));
            step.finished = step.finished.saturating_add(finished);
            if worker.takes {
                step.workers += 1;
                step.slots += u64::from(worker.slots);
            }
            if worker.takes && before.is_some_and(|it| it.takes) {
                step.settled += 1;
                step.settled_finished = step.settled_finished.saturating_add(finished);
            }
        }
        self.seen = load.workers.iter().map(|worker| (worker.id, *worker)).collect();
        self.steps.push_back(step);
        while self
            .steps
            .front()
            .is_some_and(|first| now.duration_since(first.at) > WINDOW)
        {
            self.steps.pop_front();
        }
    }

    /// How many workers the queue takes.
    #[must_use]
    pub fn desired(&self) -> u64 {
        let Some(last) = self.steps.back() else { return 0 };
        if last.ready == 0 && last.running == 0 {
            return 0;
        }
        let Some(slots) = self.slots() else { return 1 };
        let least = rounded_up(last.running as f64 / slots).max(1);
        let Some(rates) = self.rates() else { return least };
        let Some(capacity) = self.capacity(slots, &rates) else {
            return least;
        };
        let wanted = (rates.arrival + last.ready as f64 / DRAIN_SECONDS) / capacity;
        let at_once = (last.ready as f64 + last.running as f64 + rates.arrival * DRAIN_SECONDS) / slots;
        rounded_up(wanted.min(at_once)).max(least)
    }

    /// The slots of a worker, as of the last time that there was one.
    fn slots(&self) -> Option<f64> {
        let step = self.steps.iter().rev().find(|step| step.slots > 0)?;
        Some(step.slots as f64 / step.workers as f64)
    }

    /// What the steps after the first one say; the first is where they begin.
    fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.steps.front()?, self.steps.back()?);
        let mut rates = Rates::default();
        let mut running = first.running as f64;
        for step in self.steps.iter().skip(1) {
            rates.seconds += step.seconds;
            rates.finished = rates.finished.saturating_add(step.finished);
            rates.worked += (running + step.running as f64) / 2.0 * step.seconds;
            running = step.running as f64;
        }
        if rates.seconds < SPAN_MIN {
            return None;
        }
        let held = |step: &Step| step.ready as f64 + step.running as f64;
        let came = rates.finished as f64 + held(last) - held(first);
        rates.arrival = (came / rates.seconds).max(0.0);
        Some(rates)
    }

    /// How many tasks a worker ends in a second.
    fn capacity(&self, slots: f64, rates: &Rates) -> Option<f64> {
        let service = match rates.finished {
            0 => self.seconds_while(|step| step.running > 0),
            finished => rates.worked / finished as f64,
        };
        if rates.finished == 0 && service <= 0.0 {
            return None;
        }
        let by_slots = slots / service.max(SERVICE_SECONDS_MIN);
        Some(self.saturated().map_or(by_slots, |most| most.min(by_slots)))
    }

    /// How many a worker has ended in a second while there was always something ready.
    fn saturated(&self) -> Option<f64> {
        if self.seconds_while(|step| step.ready > 0) < SATURATED_SECONDS_MIN {
            return None;
        }
        let (mut finished, mut worker_seconds) = (0_u64, 0.0);
        for step in self.latest_while(|step| step.ready > 0) {
            finished = finished.saturating_add(step.settled_finished);
            worker_seconds += step.settled as f64 * step.seconds;
        }
        (finished >= SATURATED_FINISHED_MIN && worker_seconds > 0.0).then(|| finished as f64 / worker_seconds)
    }

    /// The latest steps that hold, from one on that held before, too.
    fn latest_while(&self, holds: impl Fn(&Step) -> bool) -> impl Iterator<Item = &Step> {
        let before = self.steps.iter().rev().skip(1);
        self.steps
            .iter()
            .rev()
            .zip(before)
            .take_while(move |(step, before)| holds(step) && holds(before))
            .map(|(step, _)| step)
    }

    fn seconds_while(&self, holds: impl Fn(&Step) -> bool) -> f64 {
        self.latest_while(holds).map(|step| step.seconds).sum()
    }
}

/// What happened in a window.
#[derive(Debug, Default)]
struct Rates {
    seconds: f64,
    finished: u64,
    /// Seconds in which a task ran, summed over tasks.
    worked: f64,
    arrival: f64,
}

fn rounded_up(workers: f64) -> u64 {
    // Cut to what fits; there are no negative ones.
    (workers - ROUNDING).ceil() as u64
}

#[cfg(test)]
mod tests;
