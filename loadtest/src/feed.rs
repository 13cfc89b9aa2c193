//! Between the pacer, which knows when tasks are due, and the connections, which send them: a bounded queue.

use std::{
    collections::{BinaryHeap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

/// One task to submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shot {
    /// When it should be sent. Latency is counted from here, whatever held it up.
    pub(crate) due: Instant,
    /// Which of the run's tasks it is.
    pub(crate) number: u64,
    /// How often it was refused.
    pub(crate) refusals: u32,
}

/// What is due and not yet answered, a bounded number of it.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    /// Something to send.
    work: Notify,
    /// Room for something more, or all answered.
    room: Notify,
    in_flight_max: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Shot>,
    /// What was refused, with the time to try again; the earliest first.
    again: BinaryHeap<std::cmp::Reverse<(Instant, Shot)>>,
    /// Pushed and not settled.
    outstanding: usize,
    /// Somebody waits for room; otherwise nobody need be woken for each answer.
    room_wanted: bool,
    closed: bool,
}

impl Feed {
    /// A feed in which at most `in_flight_max` tasks are unanswered.
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
            in_flight_max,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tasks are unanswered.
    pub(crate) fn outstanding(&self) -> usize {
        self.state().outstanding
    }

    /// Adds a task, where there is room for it.
    pub(crate) fn push(&self, shot: Shot) -> bool {
        let mut state = self.state();
        if state.outstanding >= self.in_flight_max {
            return false;
        }
        state.outstanding += 1;
        state.queue.push_back(shot);
        drop(state);
        self.work.notify_one();
        true
    }

    /// Ends when a task was settled. May end early.
    pub(crate) async fn room(&self) {
        self.state().room_wanted = true;
        self.room.notified().await;
    }

    /// Ends when a task is to be sent again. May end early.
    pub(crate) async fn refusal(&self) {
        self.room.notified().await;
    }

    /// Takes up to `most` tasks, and waits for the first. Takes none only when there will be no more.
    pub(crate) async fn take(&self, most: usize, taken: &mut Vec<Shot>) {
        loop {
            let work = self.work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            {
                let mut state = self.state();
                let count = most.min(state.queue.len());
                taken.extend(state.queue.drain(..count));
                if count > 0 || state.closed {
                    return;
                }
            }
            work.await;
        }
    }

    /// Gives a task back that was refused, to be sent again at `at`.
    pub(crate) fn again(&self, shot: Shot, at: Instant) {
        self.state().again.push(std::cmp::Reverse((at, shot)));
        // The pacer may have nothing else to wait for.
        self.room.notify_one();
    }

    /// When the first of the refused ones is to be sent again.
    pub(crate) fn next_again(&self) -> Option<Instant> {
        self.state().again.peek().map(|first| first.0.0)
    }

    /// Puts those refused ones in line whose time has come.
    pub(crate) fn release_again(&self, now: Instant) {
        let mut state = self.state();
        while let Some(first) = state.again.peek()
            && first.0.0 <= now
        {
            let Some(std::cmp::Reverse((_, shot))) = state.again.pop() else {
                break;
            };
            state.queue.push_back(shot);
            self.work.notify_one();
        }
    }

    /// Says that a task is answered, or given up.
    pub(crate) fn settled(&self) {
        let mut state = self.state();
        state.outstanding = state.outstanding.saturating_sub(1);
        let wanted = std::mem::take(&mut state.room_wanted);
        drop(state);
        if wanted {
            self.room.notify_one();
        }
    }

    /// Lets the connections end. Returns how many tasks were never sent.
    pub(crate) fn close(&self) -> u64 {
        let mut state = self.state();
        state.closed = true;
        let unsent = state.queue.len() + state.again.len();
        state.queue.clear();
        state.again.clear();
        state.outstanding = state.outstanding.saturating_sub(unsent);
        drop(state);
        self.work.notify_waiters();
        // For one that is just about to wait.
        self.work.notify_one();
        unsent as u64
    }

    /// Whether the connections are to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shot(number: u64) -> Shot {
        Shot {
            due: Instant::now(),
            number,
            refusals: 0,
        }
    }

    #[tokio::test]
    async fn is_bounded_and_first_in_first_out() {
        let feed = Feed::new(2);
        assert!(feed.push(shot(1)) && feed.push(shot(2)) && !feed.push(shot(3)));
        let mut taken = Vec::new();
        feed.take(1, &mut taken).await;
        assert_eq!(taken[0].number, 1);
        assert!(!feed.push(shot(3)), "what was taken is still unanswered");
        feed.settled();
        assert!(feed.push(shot(3)));
        taken.clear();
        feed.take(10, &mut taken).await;
        assert_eq!(taken.iter().map(|shot| shot.number).collect::<Vec<_>>(), [2, 3]);
    }

    #[tokio::test]
    async fn what_was_refused_comes_back_at_its_time_and_keeps_its_due_time() {
        let feed = Feed::new(10);
        let (now, refused) = (Instant::now(), shot(1));
        feed.push(refused);
        feed.take(1, &mut Vec::new()).await;
        feed.again(refused, now + Duration::from_secs(1));
        feed.release_again(now);
        assert_eq!(feed.next_again(), Some(now + Duration::from_secs(1)));
        feed.release_again(now + Duration::from_secs(1));
        let mut taken = Vec::new();
        feed.take(1, &mut taken).await;
        assert_eq!(taken, [refused]);
    }

    #[tokio::test]
    async fn closing_ends_all_who_wait_and_counts_what_was_not_sent() {
        let feed = std::sync::Arc::new(Feed::new(10));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let feed = std::sync::Arc::clone(&feed);
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    feed.take(1, &mut taken).await;
                    taken.len()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(feed.close(), 0);
        for task in waiting {
            assert_eq!(task.await.unwrap(), 0);
        }
        let full = Feed::new(10);
        full.push(shot(1));
        assert_eq!(full.close(), 1);
    }
}
