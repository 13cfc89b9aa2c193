use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// How many tasks a worker may hold. A slot is taken before a task is claimed, and free again only when its
/// outcome is stored: this bounds everything in the executor.
#[derive(Debug)]
pub(super) struct Slots {
    free: AtomicUsize,
    total: usize,
    freed: Notify,
}

/// Some slots that are taken. Dropping it frees them.
#[derive(Debug)]
pub(super) struct Taken {
    slots: Arc<Slots>,
    count: usize,
}

impl Slots {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            free: AtomicUsize::new(total),
            total,
            freed: Notify::new(),
        })
    }

    pub(super) fn total(&self) -> usize {
        self.total
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
        }
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
        })
    }

    /// Joins the two, so that they become free at the same moment: what is free together is filled together.
    pub(super) fn join(&mut self, mut other: Self) {
        self.count += std::mem::take(&mut other.count);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.count > 0 {
            self.slots.free.fetch_add(self.count, Ordering::AcqRel);
            self.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_comes_back() {
        let slots = Slots::new(3);
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
        let slots = Slots::new(1);
        let mut none = slots.take(0);
        let one = none.one().unwrap();
        assert!(none.one().is_none());
        drop(one);
        assert!(none.one().is_some());
    }
}
