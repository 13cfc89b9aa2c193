use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use forebay_core::ClaimId;

use super::Rest;

/// How many tasks of each claim are not stored yet. The store keeps a note of each claim, by which the tasks of a dead
/// worker are found: it must not be forgotten before all of them are stored, in whichever order that happens.
#[derive(Debug, Default)]
pub(in super::super) struct Claims {
    left: Mutex<HashMap<ClaimId, usize>>,
}

impl Claims {
    pub(in super::super) fn begin(&self, claim: ClaimId, tasks: usize) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert(claim, tasks);
    }

    /// The claims of which nothing is left but what is in this batch: it may say so to the store.
    pub(super) fn ended_by(&self, batch: &[Rest]) -> Vec<ClaimId> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = |(claim, count): &(ClaimId, usize)| left.get(claim) == Some(count);
        let ended = counted(batch).into_iter().filter(is_last);
        ended.map(|(claim, _)| claim).collect()
    }

    /// This batch is stored, and the store was told of `released`. The claims of which nothing is left now, and of which
    /// it was not told: their last batches were under way together.
    pub(super) fn stored(&self, batch: &[Rest], released: &[ClaimId]) -> Vec<ClaimId> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut untold = Vec::new();
        for (claim, count) in counted(batch) {
            let Some(tasks) = left.get_mut(&claim) else {
                continue;
            };
            *tasks = tasks.saturating_sub(count);
            if *tasks == 0 {
                left.remove(&claim);
                if !released.contains(&claim) {
                    untold.push(claim);
                }
            }
        }
        untold
    }
}

/// The claims of a batch, with how many of its tasks are of each. Those of one claim mostly come in a row.
fn counted(batch: &[Rest]) -> HashMap<ClaimId, usize> {
    let mut counted = HashMap::new();
    for row in batch.chunk_by(|one, next| one.claim == next.claim) {
        if let Some(first) = row.first() {
            *counted.entry(first.claim).or_default() += row.len();
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_core::{Clock, Kind, QueueName, SystemClock, WorkerId};

    use super::*;
    use crate::{
        HandlerSettings, Handlers,
        executor::{bulkhead::Bulkheads, slots::Slots},
    };

    fn id(byte: u8) -> ClaimId {
        ClaimId::new(SystemClock.now(), &[byte; 10])
    }

    fn batch(claims: &[ClaimId]) -> Vec<Rest> {
        let kind: Kind = "test".parse().expect("a kind");
        let handlers = Handlers::new()
            .function("test", HandlerSettings::default(), |(): (), _| async { Ok(()) })
            .expect("the only one");
        let bulkheads = Bulkheads::new(&handlers, 100, 3);
        let slots = Slots::new(100, None);
        let ready = forebay_core::Ready {
            id: forebay_core::TaskId::from_bytes([1; 16]),
            kind: kind.clone(),
            lane: "default.default".parse().expect("a lane"),
            fence: 0,
            lost: 0,
        };
        let rest = |claim: &ClaimId| Rest {
            kind: kind.clone(),
            queue: QueueName::default(),
            claim: *claim,
            worker: WorkerId::new(SystemClock.now(), &[0; 10]),
            slot: slots.take(1),
            place: bulkheads.place(&bulkheads.cell(&ready)).expect("room"),
            ran: Duration::ZERO,
        };
        claims.iter().map(rest).collect()
    }

    #[test]
    fn a_note_goes_with_the_last_batch() {
        let (claims, one, two) = (Claims::default(), id(1), id(2));
        claims.begin(one, 2);
        claims.begin(two, 2);
        let first = batch(&[one, two]);
        assert_eq!(claims.ended_by(&first), []);
        assert_eq!(claims.stored(&first, &[]), []);
        let second = batch(&[two]);
        assert_eq!(claims.ended_by(&second), [two]);
        assert_eq!(claims.stored(&second, &[two]), []);
    }

    #[test]
    fn a_note_is_kept_while_any_batch_is_under_way() {
        let (claims, one) = (Claims::default(), id(1));
        claims.begin(one, 3);
        let (first, second) = (batch(&[one, one]), batch(&[one]));
        assert_eq!(claims.ended_by(&first), []);
        assert_eq!(claims.ended_by(&second), [], "the first is not stored yet");
        assert_eq!(claims.stored(&second, &[]), []);
        assert_eq!(claims.stored(&first, &[]), [one], "none of them could tell");
    }
}
