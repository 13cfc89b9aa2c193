//! How many deliveries to one webhook are under way at once, so that one which is slow does not hold all slots.
//!
//! What is beyond that waits for a place, here, for as long as the receiver is quick: a burst passes through without
//! being handed back. It holds its slot meanwhile, so it waits for a second at most, and not at all while
//! the receiver is known to be slow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forebay_core::WebhookName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// The places of all webhooks to which something is under way.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// How long a delivery waits for a place, and how long one takes at most where its receiver is quick. With as many
    /// who wait as places, the one follows from the other.
    patience: Duration,
    lines: Mutex<HashMap<WebhookName, Line>>,
}

/// What is known of one of them, for as long as somebody is in it.
#[derive(Debug)]
struct Line {
    places: Arc<Semaphore>,
    /// How many deliveries have a place or wait for one.
    present: usize,
    /// Whether the latest word of its receiver took long, or is overdue.
    slow: bool,
    /// Whether it was noted that it fails, while those who are in it were under way.
    failing: bool,
}

/// The place of one delivery, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    since: Instant,
    present: Present,
    _permit: OwnedSemaphorePermit,
}

/// One who is in a line.
#[derive(Debug)]
struct Present {
    of: Arc<Places>,
    name: WebhookName,
}

impl Places {
    /// Of which each webhook has so many.
    pub(super) fn new(most: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            patience,
            lines: Mutex::default(),
        })
    }

    /// A place for a delivery to this webhook. `None` where there is none, nor will be soon.
    pub(super) async fn enter(self: &Arc<Self>, name: &WebhookName) -> Option<Place> {
        let (present, places, slow) = self.come(name);
        let permit = match Arc::clone(&places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if slow => return None,
            Err(_) => match timeout(self.patience, places.acquire_owned()).await {
                Ok(permit) => permit.ok()?,
                Err(_) => {
                    present.found_it(true);
                    return None;
                }
            },
        };
        Some(Place {
            since: Instant::now(),
            present,
            _permit: permit,
        })
    }

    fn come(self: &Arc<Self>, name: &WebhookName) -> (Present, Arc<Semaphore>, bool) {
        let mut lines = self.lines();
        let line = lines.entry(name.clone()).or_insert_with(|| Line {
            places: Arc::new(Semaphore::new(self.most)),
            present: 0,
            slow: false,
            failing: false,
        });
        line.present += 1;
        let present = Present {
            of: Arc::clone(self),
            name: name.clone(),
        };
        (present, Arc::clone(&line.places), line.slow)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<WebhookName, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// It is noted that the webhook fails, or that it works.
    pub(super) fn note_failing(&self, failing: bool) {
        if let Some(line) = self.present.of.lines().get_mut(&self.present.name) {
            line.failing = failing;
        }
    }

    /// Whether it was noted that the webhook fails, while this delivery or one before it was under way.
    pub(super) fn is_failing(&self) -> bool {
        let lines = self.present.of.lines();
        lines.get(&self.present.name).is_some_and(|line| line.failing)
    }
}

impl Present {
    fn found_it(&self, slow: bool) {
        if let Some(line) = self.of.lines().get_mut(&self.name) {
            line.slow = slow;
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut lines = self.of.lines();
        match lines.get_mut(&self.name) {
            Some(line) if line.present > 1 => line.present -= 1,
            _ => _ = lines.remove(&self.name),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let patience = self.present.of.patience;
        self.present.found_it(self.since.elapsed() >= patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn name(text: &str) -> WebhookName {
        text.parse().unwrap()
    }

    /// Those who are in line: one for each that is said to be present and has no place.
    async fn until_present(places: &Arc<Places>, of: &WebhookName, count: usize) {
        while places.lines().get(of).map_or(0, |line| line.present) < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_webhook_does_not_hold_all_places() {
        let places = Places::new(2, PATIENCE);
        let (a, b) = (name("a"), name("b"));
        let first = places.enter(&a).await;
        let second = places.enter(&a).await;
        assert!(first.is_some() && second.is_some());
        assert!(places.enter(&a).await.is_none());
        assert!(places.enter(&b).await.is_some(), "another has places of its own");
        drop(first);
        assert!(places.enter(&a).await.is_some());
        drop(second);
        assert!(places.lines().is_empty(), "nothing is kept of what is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_through_a_quick_receiver() {
        const BURST: usize = 2_000;
        let (places, a) = (Places::new(4, PATIENCE), name("a"));
        let mut deliveries = tokio::task::JoinSet::new();
        for _ in 0..BURST {
            let (places, a) = (Arc::clone(&places), a.clone());
            deliveries.spawn(async move {
                let place = places.enter(&a).await;
                tokio::time::sleep(Duration::from_micros(100)).await;
                place.is_some()
            });
        }
        let passed = deliveries.join_all().await;
        assert_eq!(passed.iter().filter(|passed| **passed).count(), BURST);
        assert!(places.lines().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_knows_that_it_is_slow_does_not_wait() {
        let (places, a) = (Places::new(2, PATIENCE), name("a"));
        let (first, second) = (places.enter(&a).await.unwrap(), places.enter(&a).await.unwrap());
        let began = Instant::now();
        assert!(places.enter(&a).await.is_none());
        assert!(began.elapsed() >= PATIENCE, "nobody knew yet");
        let began = Instant::now();
        assert!(places.enter(&a).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(first);
        let quick = places.enter(&a).await;
        assert!(quick.is_some(), "a place is free");
        assert!(
            places.enter(&a).await.is_none(),
            "the last that was answered took long"
        );
        drop(quick);
        let third = places.enter(&a).await.unwrap();
        let waiting = {
            let (places, a) = (Arc::clone(&places), a.clone());
            tokio::spawn(async move { places.enter(&a).await.is_some() })
        };
        until_present(&places, &a, 3).await;
        drop(third);
        assert!(waiting.await.unwrap(), "it is quick again");
        drop(second);
        assert!(places.lines().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_under_way_hears_that_it_was_noted_to_fail() {
        let (places, a) = (Places::new(2, PATIENCE), name("a"));
        let (works, fails) = (places.enter(&a).await.unwrap(), places.enter(&a).await.unwrap());
        assert!(!works.is_failing());
        fails.note_failing(true);
        drop(fails);
        assert!(works.is_failing());
        works.note_failing(false);
        assert!(!works.is_failing());
        drop(works);
        assert!(places.lines().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_is_forgotten() {
        let (places, a) = (Places::new(1, PATIENCE), name("a"));
        let place = places.enter(&a).await.unwrap();
        let waiting = {
            let (places, a) = (Arc::clone(&places), a.clone());
            tokio::spawn(async move { places.enter(&a).await.is_some() })
        };
        until_present(&places, &a, 2).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(place);
        assert!(places.lines().is_empty());
    }
}
