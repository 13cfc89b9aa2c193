//! What the executors of one process know of each other: which kinds of which queues are run here.
//!
//! A broker hands a task to anybody who asks for its queue, handler or not. Who has none hands it back once, and then
//! leaves it to the store, since nobody may have one. Where a neighbour has one it is worth to try again.

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
#[derive(Debug)]
struct Runs {
    queues: BTreeSet<QueueName>,
    kinds: BTreeSet<Kind>,
}

/// An executor is known, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Announced {
    neighbours: Neighbours,
    number: u64,
}

impl Neighbours {
    pub(crate) fn announce(&self, queues: BTreeSet<QueueName>, kinds: BTreeSet<Kind>) -> Announced {
        let mut known = self.lock();
        let number = known.next;
        known.next += 1;
        known.executors.insert(number, Runs { queues, kinds });
        Announced {
            neighbours: self.clone(),
            number,
        }
    }

    /// Whether anybody in this process runs such tasks.
    pub(crate) fn run(&self, queue: &QueueName, kind: &Kind) -> bool {
        let known = self.lock();
        let mut executors = known.executors.values();
        executors.any(|runs| runs.kinds.contains(kind) && runs.queues.contains(queue))
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
        let neighbours = Neighbours::default();
        let queue = |name: &str| name.parse::<QueueName>().unwrap();
        let kind = |name: &str| name.parse::<Kind>().unwrap();
        let first = neighbours.announce([queue("a")].into(), [kind("one"), kind("two")].into());
        let second = neighbours.announce([queue("a"), queue("b")].into(), [kind("one")].into());
        let known = || {
            [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two")]
                .map(|(its_queue, its_kind)| neighbours.run(&queue(its_queue), &kind(its_kind)))
        };
        assert_eq!(known(), [true, true, true, false]);
        drop(first);
        assert_eq!(known(), [true, false, true, false]);
        drop(second);
        assert_eq!(known(), [false; 4]);
    }
}
