use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use forebay_core::{QueueName, TaskId};

use tokio::time::Instant;

use super::news::News;
use crate::{
    handlers::{Stop, StopReason},
    worker::Load,
};

/// One start of one task.
pub(super) type Start = (TaskId, u32);

#[derive(Debug)]
struct Held {
    queue: QueueName,
    stop: Stop,
    /// When the store has granted it; `None` while it is still being asked.
    claimed_at: Option<Instant>,
}

/// Whether a delivery is for a start that this worker holds already.
#[derive(Debug)]
pub(super) enum Admitted {
    /// It is not: it is held from now on, and this ends it.
    New(Stop),
    /// It is claimed already: the message is not needed any more.
    Claimed,
    /// It is being claimed: whether the message is still needed is not known yet.
    Claiming,
}

/// What this worker holds: from before it is claimed until its outcome is stored. What is held is never claimed a
/// second time, since the store would grant that, taking it for a repeated question.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) news: News,
    held: Mutex<HashMap<Start, Held>>,
}

impl Running {
    pub(super) fn admit(&self, start: Start, queue: &QueueName) -> Admitted {
        match self.lock().entry(start) {
            Entry::Occupied(held) if held.get().claimed_at.is_some() => Admitted::Claimed,
            Entry::Occupied(_) => Admitted::Claiming,
            Entry::Vacant(place) => {
                let stop = Stop::new();
                place.insert(Held {
                    queue: queue.clone(),
                    stop: stop.clone(),
                    claimed_at: None,
                });
                Admitted::New(stop)
            }
        }
    }

    /// Whether a start that is held is claimed already; `None` where it is not held.
    pub(super) fn is_claimed(&self, start: Start) -> Option<bool> {
        self.lock().get(&start).map(|held| held.claimed_at.is_some())
    }

    /// The store has granted these.
    pub(super) fn claimed(&self, starts: impl IntoIterator<Item = Start>) {
        let now = Instant::now();
        let mut all = self.lock();
        for start in starts {
            if let Some(held) = all.get_mut(&start) {
                held.claimed_at = Some(now);
            }
        }
        drop(all);
        self.news.happened();
    }

    /// These are held no more.
    pub(super) fn release(&self, starts: impl IntoIterator<Item = Start>) {
        let mut all = self.lock();
        for start in starts {
            all.remove(&start);
        }
        drop(all);
        self.news.happened();
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Ends these tasks where they are held.
    pub(super) fn cancel(&self, ids: &[TaskId]) {
        if ids.is_empty() {
            return;
        }
        let ids: HashSet<&TaskId> = ids.iter().collect();
        for ((id, _), held) in self.lock().iter() {
            if ids.contains(id) {
                held.stop.ask(StopReason::Cancelled);
            }
        }
    }

    /// Ends all of them.
    pub(super) fn stop_all(&self) {
        for held in self.lock().values() {
            held.stop.ask(StopReason::Shutdown);
        }
    }

    /// How many run, of each queue.
    pub(super) fn busy(&self) -> Vec<(QueueName, u32)> {
        let mut busy: BTreeMap<QueueName, u32> = BTreeMap::new();
        for held in self.lock().values().filter(|held| held.claimed_at.is_some()) {
            *busy.entry(held.queue.clone()).or_default() += 1;
        }
        busy.into_iter().collect()
    }

    /// How many run, and for how long the longest of them has.
    pub(super) fn load(&self) -> Load {
        let now = Instant::now();
        let all = self.lock();
        let mut load = Load::default();
        for since in all.values().filter_map(|held| held.claimed_at) {
            load.busy += 1;
            load.longest = load.longest.max(now.duration_since(since));
        }
        load
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Start, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_start_is_held_once_and_a_later_one_beside_it() {
        let running = Running::default();
        let id = TaskId::from_bytes([1; 16]);
        let queue = QueueName::default();
        let Admitted::New(first) = running.admit((id, 1), &queue) else {
            panic!("it was not held");
        };
        assert!(matches!(running.admit((id, 1), &queue), Admitted::Claiming));
        assert_eq!((running.busy(), running.load().busy), (vec![], 0));
        running.claimed([(id, 1)]);
        assert!(matches!(running.admit((id, 1), &queue), Admitted::Claimed));
        assert!(matches!(running.admit((id, 2), &queue), Admitted::New(_)));
        assert_eq!(
            (running.busy(), running.load().busy),
            (vec![(queue.clone(), 1)], 1)
        );
        running.cancel(&[id, TaskId::from_bytes([2; 16])]);
        assert_eq!(first.reason(), Some(StopReason::Cancelled));
        running.release([(id, 1)]);
        assert!(matches!(running.admit((id, 1), &queue), Admitted::New(_)));
    }
}
