//! What the executors of one process know of each other: which kinds of which queues are run here.
//!
//! A broker hands a task to anybody who asks for its queue, handler or not. Who has none hands it back once, and then
//! leaves it to the store, since nobody may have one. Where a neighbour has one it is worth to try again, and all the
//! more while that has room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use forebay_core::{Kind, QueueName};

/// The executors of this process. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    next: u64,
    executors: BTreeMap<u64, Runs>,
}

/// What one executor runs.
struct Runs {
    queues: BTreeSet<QueueName>,
    kinds: BTreeSet<Kind>,
    has_room: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs")
            .field("queues", &self.queues)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

/// Who else runs such tasks in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// Nobody.
    None,
    /// Somebody who has no free slot.
    Busy,
    /// Somebody who has.
    Free,
}

/// An executor is known, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Announced {
    neighbours: Neighbours,
    number: u64,
}

impl Neighbours {
    /// `has_room` says whether the executor could take a task at this moment.
    pub(crate) fn announce(
        &self,
        queues: BTreeSet<QueueName>,
        kinds: BTreeSet<Kind>,
        has_room: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Announced {
        let has_room = Box::new(has_room);
        let mut known = self.lock();
        let number = known.next;
        known.next += 1;
        known.executors.insert(
            number,
            Runs {
                queues,
                kinds,
                has_room,
            },
        );
        Announced {
            neighbours: self.clone(),
            number,
        }
    }

    /// Whether anybody in this process runs such tasks.
    pub(crate) fn of(&self, queue: &QueueName, kind: &Kind) -> Neighbour {
        let known = self.lock();
        let executors = known.executors.values();
        let who = executors.filter(|runs| runs.kinds.contains(kind) && runs.queues.contains(queue));
        let mut found = Neighbour::None;
        for runs in who {
            if (runs.has_room)() {
                return Neighbour::Free;
            }
            found = Neighbour::Busy;
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.neighbours.lock().executors.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_is_known_until_the_last_one_ends() {
        use Neighbour::{Busy, Free, None};

        let neighbours = Neighbours::default();
        let queue = |name: &str| name.parse::<QueueName>().unwrap();
        let kind = |name: &str| name.parse::<Kind>().unwrap();
        let first = neighbours.announce([queue("a")].into(), [kind("one"), kind("two")].into(), || false);
        let second = neighbours.announce([queue("a"), queue("b")].into(), [kind("one")].into(), || true);
        let known = || {
            [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two")]
                .map(|(its_queue, its_kind)| neighbours.of(&queue(its_queue), &kind(its_kind)))
        };
        assert_eq!(known(), [Free, Busy, Free, None]);
        drop(first);
        assert_eq!(known(), [Free, None, Free, None]);
        drop(second);
        assert_eq!(known(), [None; 4]);
    }
}
