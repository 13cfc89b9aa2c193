//! How many tasks of a batch are in which state. Counting reads each task, so it is done when somebody asks; of a large batch,
//! which many may look at for long, one at a time counts for all of them, and what it found is kept for two seconds. It is a
//! shortcut: another replica counts for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use forebay_core::BatchId;
use forebay_store::{Batch, BatchCounts};
use tokio::{
    sync::Mutex as Turn,
    time::{Instant, timeout},
};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::read,
};

/// From how many tasks on a batch is large. To count fewer takes some 30 ms at the most.
const LARGE: u64 = 10_000;
/// For how long the counts of a large batch are kept.
const KEPT: Duration = Duration::from_secs(2);
/// Of how many batches they are kept.
const KEPT_MAX: usize = 100;

/// The counts of large batches that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct RecentCounts(Mutex<HashMap<BatchId, Slot>>);

/// The counts of a batch, held by whoever counts: others who ask wait for that.
type Slot = Arc<Turn<Option<Kept>>>;

#[derive(Debug)]
struct Kept {
    counts: BatchCounts,
    since: Instant,
    was_complete: bool,
}

impl Kept {
    fn new(batch: &Batch, counts: &BatchCounts) -> Self {
        Self {
            counts: counts.clone(),
            since: Instant::now(),
            was_complete: batch.completed_at.is_some(),
        }
    }

    fn is_young(&self) -> bool {
        self.since.elapsed() < KEPT
    }

    /// Not where it has been completed since: then there is a last word.
    fn will_do(&self, batch: &Batch) -> bool {
        self.is_young() && self.was_complete == batch.completed_at.is_some()
    }
}

impl RecentCounts {
    /// Where the counts of a batch are kept; `None` where there is no room for them.
    fn slot(&self, id: BatchId) -> Option<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| match Arc::get_mut(slot) {
            Some(unused) => unused.get_mut().as_ref().is_some_and(Kept::is_young),
            None => true,
        });
        let has_room = slots.len() < KEPT_MAX || slots.contains_key(&id);
        has_room.then(|| Arc::clone(slots.entry(id).or_default()))
    }
}

/// Counts the tasks of a batch.
pub(crate) async fn of(app: &App, batch: &Batch) -> Result<BatchCounts> {
    let is_large = batch.total >= LARGE;
    let Some(slot) = is_large.then(|| app.counts.slot(batch.id)).flatten() else {
        return count(app, batch).await;
    };
    let Ok(mut kept) = timeout(app.bounds.read, slot.lock()).await else {
        return Err(ApiError::of(Code::StoreUnavailable));
    };
    if let Some(kept) = kept.as_ref().filter(|kept| kept.will_do(batch)) {
        return Ok(kept.counts.clone());
    }
    let counts = count(app, batch).await?;
    *kept = Some(Kept::new(batch, &counts));
    Ok(counts)
}

async fn count(app: &App, batch: &Batch) -> Result<BatchCounts> {
    read(app, || app.store.batch_counts(batch.id)).await
}

#[cfg(test)]
mod tests {
    use forebay_core::{Project, State, Timestamp};

    use super::*;

    fn batch(number: u16, completed: bool) -> Batch {
        let at = Timestamp::UNIX_EPOCH;
        let mut random = [0; 10];
        random[8..].copy_from_slice(&number.to_be_bytes());
        Batch {
            id: BatchId::new(at, &random),
            project: Project::default(),
            name: None,
            fingerprint: None,
            total: LARGE,
            ended: 0,
            completion: None,
            created_at: at,
            closed_at: Some(at),
            cancelled_at: None,
            completed_at: completed.then_some(at),
        }
    }

    fn keep(recent: &RecentCounts, batch: &Batch) -> bool {
        let counts = BatchCounts {
            of: [(State::Queued, 7)].into(),
        };
        let Some(slot) = recent.slot(batch.id) else {
            return false;
        };
        *slot.try_lock().expect("nobody counts") = Some(Kept::new(batch, &counts));
        true
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_kept_for_a_moment_unless_the_batch_is_completed() {
        let recent = RecentCounts::default();
        let will_do = |batch: &Batch| {
            let slot = recent.slot(batch.id).expect("there is room");
            let kept = slot.try_lock().expect("nobody counts");
            kept.as_ref().is_some_and(|kept| kept.will_do(batch))
        };
        keep(&recent, &batch(1, false));
        assert!(will_do(&batch(1, false)));
        assert!(!will_do(&batch(1, true)), "there is a last word");
        assert!(!will_do(&batch(2, false)));
        tokio::time::advance(KEPT).await;
        assert!(!will_do(&batch(1, false)), "they are old");
        keep(&recent, &batch(1, true));
        assert!(will_do(&batch(1, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_kept_than_there_is_room_for() {
        let recent = RecentCounts::default();
        let counted = recent.slot(batch(999, false).id).expect("there is room");
        let kept = (0..200).filter(|&number| keep(&recent, &batch(number, false)));
        assert_eq!(kept.count(), KEPT_MAX - 1);
        tokio::time::advance(KEPT).await;
        assert!(keep(&recent, &batch(200, false)), "what is old makes room");
        let len = recent.0.lock().expect("nobody panics").len();
        assert_eq!(len, 2, "what is being counted stays");
        drop(counted);
    }
}
