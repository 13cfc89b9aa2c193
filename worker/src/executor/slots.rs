use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// How many tasks a worker may hold. A slot is taken before a task is claimed, and free again only when its
/// outcome is stored: this bounds everything in the executor.
///
/// Where the worker is to run only so many tasks, a slot in which one has run comes back only while more tasks may follow
/// than there are slots.
#[derive(Debug)]
pub(super) struct Slots {
    free: AtomicUsize,
    /// How many there still are, free or taken.
    total: AtomicUsize,
    /// How many slots in which a task has run may come back; `None` for all of them.
    returns: Option<AtomicUsize>,
    freed: Notify,
}

/// Some slots that are taken. Dropping it frees them.
#[derive(Debug)]
pub(super) struct Taken {
    slots: Arc<Slots>,
    count: usize,
    /// In how many of them a task has run, where that is limited.
    spent: usize,
}

impl Slots {
    /// So many slots, for `tasks_max` tasks in all where that is given.
    pub(super) fn new(slots: usize, tasks_max: Option<usize>) -> Arc<Self> {
        let total = slots.min(tasks_max.unwrap_or(slots));
        Arc::new(Self {
            free: AtomicUsize::new(total),
            total: AtomicUsize::new(total),
            returns: tasks_max.map(|tasks| AtomicUsize::new(tasks - total)),
            freed: Notify::new(),
        })
    }

    /// How many there still are; none once as many tasks have run as may.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Acquire)
    }

    pub(super) fn free(&self) -> usize {
        self.free.load(Ordering::Acquire)
    }

    /// Takes as many as are free, up to `max`; perhaps none.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Taken {
        let mut count = 0;
        // The closure never refuses.
        let _ = self
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                count = free.min(max);
                Some(free - count)
            });
        Taken {
            slots: Arc::clone(self),
            count,
            spent: 0,
        }
    }

    /// How many of these slots, in which a task has run, are not needed any more.
    fn worn_out(&self, spent: usize) -> usize {
        let Some(returns) = self.returns.as_ref().filter(|_| spent > 0) else {
            return 0;
        };
        let mut back = 0;
        // The closure never refuses.
        let _ = returns.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
            back = left.min(spent);
            Some(left - back)
        });
        spent - back
    }

    /// Returns when slots were freed since the last call.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Taken {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A task has been started in each of them.
    pub(super) fn spend(&mut self) {
        if self.slots.returns.is_some() {
            self.spent = self.count;
        }
    }

    /// One of them; takes another where there is none left. `None` where that is impossible.
    pub(super) fn one(&mut self) -> Option<Self> {
        if self.count == 0 {
            let another = self.slots.take(1);
            return (another.count == 1).then_some(another);
        }
        self.count -= 1;
        Some(Self {
            slots: Arc::clone(&self.slots),
            count: 1,
            spent: 0,
        })
    }

    /// Joins the two, so that they become free at the same moment: what is free together is filled together.
    pub(super) fn join(&mut self, mut other: Self) {
        self.count += std::mem::take(&mut other.count);
        self.spent += std::mem::take(&mut other.spent);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.count > 0 {
            let gone = self.slots.worn_out(self.spent);
            self.slots.total.fetch_sub(gone, Ordering::AcqRel);
            self.slots.free.fetch_add(self.count - gone, Ordering::AcqRel);
            self.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_comes_back() {
        let slots = Slots::new(3, None);
        let mut two = slots.take(2);
        assert_eq!((two.count(), slots.free()), (2, 1));
        let one = two.one().unwrap();
        let mut rest = slots.take(9);
        assert_eq!((rest.count(), slots.free()), (1, 0));
        assert_eq!(slots.take(1).count(), 0);
        drop(two);
        slots.freed().await;
        assert_eq!(slots.free(), 1);
        rest.join(one);
        drop(rest);
        assert_eq!(slots.free(), 3);
    }

    #[test]
    fn an_empty_handful_finds_one_where_one_is_free() {
        let slots = Slots::new(1, None);
        let mut none = slots.take(0);
        let one = none.one().unwrap();
        assert!(none.one().is_none());
        drop(one);
        assert!(none.one().is_some());
    }

    #[test]
    fn as_many_tasks_are_started_as_may_be_and_no_more() {
        let slots = Slots::new(2, Some(3));
        assert_eq!((slots.total(), slots.free()), (2, 2));
        let mut started = slots.take(2);
        started.spend();
        drop(started);
        assert_eq!((slots.total(), slots.free()), (1, 1), "one more may start");
        drop(slots.take(1));
        assert_eq!((slots.total(), slots.free()), (1, 1), "none was started in it");
        let mut last = slots.take(1);
        last.spend();
        let mut joined = slots.take(0);
        joined.join(last);
        drop(joined);
        assert_eq!((slots.total(), slots.free()), (0, 0));
        assert_eq!(Slots::new(5, Some(2)).total(), 2);
    }
}
