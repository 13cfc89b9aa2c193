//! What submitters were told.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use forebay_chaos::evidence::{Accepted, Moment};
use uuid::Uuid;

/// Every acceptance, and how often what else was answered.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    accepted: Vec<Accepted>,
    distinct: HashSet<Uuid>,
    refused: BTreeMap<String, u64>,
}

impl Ledger {
    /// A task was answered with 202.
    pub(crate) fn accept(&self, id: Uuid, at: Moment, key: Option<&str>) {
        let mut pages = self.pages();
        pages.distinct.insert(id);
        pages.accepted.push(Accepted {
            id,
            at,
            key: key.map(str::to_owned),
        });
    }

    /// A submission was answered otherwise, or not at all.
    pub(crate) fn refuse(&self, answer: &str) {
        let mut pages = self.pages();
        *pages.refused.entry(answer.to_owned()).or_default() += 1;
    }

    /// How many tasks were accepted; the same task under the same key counts once.
    pub(crate) fn count(&self) -> usize {
        self.pages().distinct.len()
    }

    /// The accepted tasks, each once.
    pub(crate) fn ids(&self) -> HashSet<Uuid> {
        self.pages().distinct.clone()
    }

    /// All acceptances in the order of their answers.
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        let mut accepted = self.pages().accepted.clone();
        accepted.sort_by_key(|each| each.at);
        accepted
    }

    /// How often what else was answered.
    pub(crate) fn refused(&self) -> BTreeMap<String, u64> {
        self.pages().refused.clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_task_that_is_accepted_twice_under_its_key_is_one_task_with_two_acceptances() {
        let ledger = Ledger::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        ledger.accept(two, Duration::from_secs(5), Some("key"));
        ledger.accept(one, Duration::from_secs(1), None);
        ledger.accept(two, Duration::from_secs(9), Some("key"));
        assert_eq!(ledger.count(), 2);
        assert_eq!(ledger.ids(), HashSet::from([one, two]));
        let order: Vec<Uuid> = ledger.accepted().iter().map(|each| each.id).collect();
        assert_eq!(order, [one, two, two]);
        assert_eq!(ledger.accepted()[1].key.as_deref(), Some("key"));
    }

    #[test]
    fn refusals_are_counted_by_their_answer() {
        let ledger = Ledger::default();
        for answer in ["503", "no answer", "503"] {
            ledger.refuse(answer);
        }
        assert_eq!(
            ledger.refused(),
            BTreeMap::from([("503".to_owned(), 2), ("no answer".to_owned(), 1)])
        );
        assert_eq!(ledger.count(), 0);
    }
}
