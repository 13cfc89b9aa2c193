//! What is known of a lane beside what the store has: which deliveries are under way.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forebay_core::{Ready, TaskId, Timestamp};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

/// After this time a delivery that was neither acknowledged nor handed back is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// For so long a task that was left to the store is not delivered, so that others are seen. Elsewhere a dispatcher
/// publishes it again after about that time.
const LEFT: Duration = Duration::from_secs(5);
/// How many such tasks are remembered; of more, the rest comes again at once.
const LEFT_MAX: usize = 10_000;

/// One delivery: a task, and how often it had been started. Its next start is another delivery.
pub(crate) type Key = (TaskId, u32);

#[derive(Debug)]
struct InFlight {
    subscription: u64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    subscriptions: u64,
    in_flight: HashMap<Key, InFlight>,
    /// Reads of the store that are under way, by number. Each may have seen a task as queued that has been claimed
    /// since; so what is acknowledged meanwhile must be remembered until they are over.
    reads: BTreeMap<u64, ()>,
    next_read: u64,
    /// What was acknowledged, and the number of the first read that began after.
    acknowledged: HashMap<Key, u64>,
    /// What was left to the store, until when it is passed over; the oldest first, since all are left for as long.
    left: HashMap<Key, Instant>,
    left_in_order: VecDeque<(Instant, Key)>,
}

impl Inner {
    /// Forgets what was left to the store long enough ago.
    fn recall(&mut self, now: Instant) {
        while let Some((_, key)) = self.left_in_order.pop_front_if(|(until, _)| *until <= now) {
            self.left.remove(&key);
        }
    }
}

/// A lane's deliveries, and the bell of its readers.
#[derive(Debug, Default)]
pub(crate) struct LaneState {
    inner: Mutex<Inner>,
    bell: Notify,
    last_wake: Mutex<Option<Instant>>,
}

impl LaneState {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new subscription.
    pub(crate) fn subscribe(&self) -> u64 {
        let mut inner = self.inner();
        inner.subscriptions += 1;
        inner.subscriptions
    }

    /// Wakes the readers: something came, or comes when what is under way in the store commits.
    pub(crate) fn wake(&self) {
        *self.last_wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.bell.notify_waiters();
    }

    /// Resolves at the next [`Self::wake`] after this call.
    pub(crate) fn woken(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// How long ago the readers were last woken.
    pub(crate) fn quiet_for(&self) -> Duration {
        let last = *self.last_wake.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// How many deliveries are under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.inner().in_flight.len() as u64
    }

    /// Begins a read of the store.
    pub(crate) fn begin_read(&self) -> Read<'_> {
        let mut inner = self.inner();
        let number = inner.next_read;
        inner.next_read += 1;
        inner.reads.insert(number, ());
        Read { lane: self, number }
    }

    /// These are done.
    pub(crate) fn acknowledge(&self, keys: impl Iterator<Item = Key>) {
        let mut inner = self.inner();
        let next_read = inner.next_read;
        let reading = !inner.reads.is_empty();
        for key in keys {
            inner.in_flight.remove(&key);
            if reading {
                inner.acknowledged.insert(key, next_read);
            }
        }
    }

    /// These are for nobody, for a while.
    pub(crate) fn leave(&self, keys: impl Iterator<Item = Key>) {
        let mut inner = self.inner();
        let until = Instant::now() + LEFT;
        for key in keys {
            inner.in_flight.remove(&key);
            if inner.left.len() < LEFT_MAX && inner.left.insert(key, until).is_none() {
                inner.left_in_order.push_back((until, key));
            }
        }
    }

    /// How many of the lane's queued tasks are not to be delivered now.
    pub(crate) fn passed_over(&self) -> usize {
        let inner = self.inner();
        inner.in_flight.len() + inner.left.len()
    }

    /// These are free for others.
    pub(crate) fn release(&self, keys: &HashSet<Key>) {
        self.inner().in_flight.retain(|key, _| !keys.contains(key));
        self.wake();
    }

    /// All that this subscription holds is free for others.
    pub(crate) fn release_all_of(&self, subscription: u64) {
        self.inner()
            .in_flight
            .retain(|_, held| held.subscription != subscription);
        self.wake();
    }
}

/// A read of the store that is under way. Over when dropped.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    lane: &'a LaneState,
    number: u64,
}

impl Read<'_> {
    /// Of what was read, gives the first `max` that nobody else has to this subscription.
    pub(crate) fn assign(
        self,
        rows: Vec<(Ready, Timestamp)>,
        max: usize,
        subscription: u64,
    ) -> Vec<(Ready, Timestamp)> {
        let mut inner = self.lane.inner();
        let now = Instant::now();
        let mut assigned = Vec::new();
        inner.in_flight.retain(|_, held| now - held.since < ACK_WAIT);
        inner.recall(now);
        for (task, since) in rows {
            if assigned.len() == max {
                break;
            }
            let key = (task.id, task.fence);
            let held = inner.in_flight.contains_key(&key) || inner.left.contains_key(&key);
            let done = inner
                .acknowledged
                .get(&key)
                .is_some_and(|&first| self.number < first);
            if !held && !done {
                inner.in_flight.insert(
                    key,
                    InFlight {
                        subscription,
                        since: now,
                    },
                );
                assigned.push((task, since));
            }
        }
        drop(inner);
        assigned
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        let mut inner = self.lane.inner();
        inner.reads.remove(&self.number);
        let oldest = inner.reads.keys().next().copied().unwrap_or(u64::MAX);
        inner.acknowledged.retain(|_, first| oldest < *first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u8) -> (Ready, Timestamp) {
        let task = Ready {
            id: TaskId::from_bytes([number; 16]),
            kind: "echo".parse().unwrap(),
            lane: "default.default".parse().unwrap(),
            fence: 0,
            lost: 0,
        };
        (task, Timestamp::UNIX_EPOCH)
    }

    fn key(number: u8) -> Key {
        (TaskId::from_bytes([number; 16]), 0)
    }

    #[test]
    fn a_read_that_began_before_an_acknowledgement_does_not_deliver_again() {
        let lane = LaneState::default();
        assert_eq!(lane.begin_read().assign(vec![row(1)], 10, 1).len(), 1);
        let slow = lane.begin_read();
        lane.acknowledge([key(1)].into_iter());
        let fresh = lane.begin_read();
        assert_eq!(
            slow.assign(vec![row(1)], 10, 2),
            [],
            "it was queued when this read began"
        );
        assert_eq!(
            fresh.assign(vec![row(1)], 10, 2).len(),
            1,
            "it is queued after its acknowledgement"
        );
        assert!(
            lane.inner().acknowledged.is_empty(),
            "what no read needs is forgotten"
        );
    }

    #[test]
    fn what_a_subscription_held_is_free_when_it_is_gone() {
        let lane = LaneState::default();
        assert_eq!(lane.begin_read().assign(vec![row(1), row(2)], 1, 1), [row(1)]);
        assert_eq!(lane.begin_read().assign(vec![row(1), row(2)], 5, 2), [row(2)]);
        lane.release_all_of(1);
        assert_eq!(lane.begin_read().assign(vec![row(1), row(2)], 5, 3), [row(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_to_the_store_lets_others_pass() {
        let lane = LaneState::default();
        assert_eq!(lane.begin_read().assign(vec![row(1), row(2)], 1, 1), [row(1)]);
        lane.leave([key(1)].into_iter());
        assert_eq!((lane.in_flight(), lane.passed_over()), (0, 1));
        assert_eq!(lane.begin_read().assign(vec![row(1), row(2)], 9, 1), [row(2)]);
        tokio::time::advance(LEFT).await;
        assert_eq!(lane.begin_read().assign(vec![row(1), row(2)], 9, 1), [row(1)]);
        assert_eq!(lane.passed_over(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_that_nobody_answers_is_made_again() {
        let lane = LaneState::default();
        assert_eq!(lane.begin_read().assign(vec![row(1)], 1, 1), [row(1)]);
        tokio::time::advance(ACK_WAIT - Duration::from_millis(1)).await;
        assert_eq!(lane.begin_read().assign(vec![row(1)], 1, 2), []);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(lane.begin_read().assign(vec![row(1)], 1, 2), [row(1)]);
    }
}
