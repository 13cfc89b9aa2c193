//! Places that can be taken in the very statement that starts tasks: those of uses that nobody waits for, and that are known by
//! their ids.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use forebay_core::{Kind, LimitKey, QueueName};
use forebay_store::limits::Rule;

use super::{Known, allot::Allotted};
use crate::values::int;

/// How many ids of uses are remembered. Past that all are forgotten, and learnt anew where tasks count to them.
const IDS_MAX: usize = 50_000;

/// The ids of uses, by their names and keys. One that is not there any more is found by nobody, and so does no harm.
#[derive(Debug, Default)]
pub(crate) struct UseIds(Mutex<HashMap<String, HashMap<String, i64>>>);

impl UseIds {
    fn get(&self, name: &str, key: &str) -> Option<i64> {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.get(name)?.get(key).copied()
    }

    /// A server that has taken the place of another may know less than that did, and give the ids out anew.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn learn<'a>(&self, uses: impl Iterator<Item = (&'a str, &'a str, i64)>) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.values().map(HashMap::len).sum::<usize>() >= IDS_MAX {
            ids.clear();
        }
        for (name, key, id) in uses {
            ids.entry(name.to_owned()).or_default().insert(key.to_owned(), id);
        }
    }
}

/// A place in a use of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which use.
    pub(crate) of: i64,
    /// How many may be taken in it.
    pub(crate) most: u32,
}

/// What a task needs of limits to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No limit counts it.
    Nothing,
    /// These places, which its worker has in advance.
    Allotted(Vec<Place>),
    /// These places.
    Places(Vec<Place>),
    /// A closer look: at a rate, or at a use that is not known here.
    Look,
}

impl Needs {
    /// What a task of this queue and kind needs, that has this key, of a worker that was allotted this.
    pub(crate) fn of(
        known: Known<'_>,
        allotted: &Allotted,
        (queue, kind): (&QueueName, &Kind),
        key: Option<&LimitKey>,
    ) -> Self {
        let place = |(rule, key): (&Rule, &str)| {
            let (Some(most), None) = (rule.rule.concurrency, rule.rule.rate) else {
                return None;
            };
            let of = known.ids.get(rule.rule.name.as_str(), key)?;
            Some(Place { of, most })
        };
        match known
            .rules
            .counting(queue, kind, key)
            .map(place)
            .collect::<Option<Vec<_>>>()
        {
            None => Self::Look,
            Some(places) if places.is_empty() => Self::Nothing,
            Some(places) if places.iter().all(|place| allotted.has(place)) => Self::Allotted(places),
            Some(places) => Self::Places(places),
        }
    }

    pub(crate) fn places(&self) -> &[Place] {
        match self {
            Self::Places(places) => places,
            Self::Nothing | Self::Allotted(_) | Self::Look => &[],
        }
    }

    /// The ids of the uses as an array, as text: `unnest` can't take arrays of different lengths.
    pub(crate) fn array(&self) -> Option<String> {
        array(self.places().iter().map(|place| place.of))
    }

    /// As [`Self::array`], of the places that its worker has in advance.
    pub(crate) fn allotted(&self) -> Option<String> {
        match self {
            Self::Allotted(places) => array(places.iter().map(|place| place.of)),
            Self::Nothing | Self::Places(_) | Self::Look => None,
        }
    }
}

/// Numbers as an array, as text; none where there are none.
pub(super) fn array(numbers: impl Iterator<Item = i64>) -> Option<String> {
    let numbers: Vec<String> = numbers.map(|it| it.to_string()).collect();
    (!numbers.is_empty()).then(|| format!("{{{}}}", numbers.join(",")))
}

/// How many of a batch need a place in each use, by the ids of these.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) ids: Vec<i64>,
    pub(crate) numbers: Vec<i32>,
    pub(crate) most: Vec<i32>,
}

impl Uses {
    pub(crate) fn needed<'a>(needs: impl Iterator<Item = &'a Needs>) -> Self {
        let mut places: Vec<Place> = needs.flat_map(|it| it.places()).copied().collect();
        places.sort_unstable();
        let mut all = Self::default();
        for Place { of, most } in places {
            match all.numbers.last_mut().filter(|_| all.ids.last() == Some(&of)) {
                Some(number) => *number += 1,
                None => {
                    all.ids.push(of);
                    all.numbers.push(1);
                    all.most.push(int(most));
                }
            }
        }
        all
    }

    /// Keeps the first `most` of those that `is_kept`, which is asked for each, with how many need a place in it.
    pub(super) fn retain(&mut self, most: usize, mut is_kept: impl FnMut(i64, i32) -> bool) {
        let mut kept = Self::default();
        for (at, &id) in self.ids.iter().enumerate() {
            if kept.ids.len() < most && is_kept(id, self.numbers[at]) {
                kept.ids.push(id);
                kept.numbers.push(self.numbers[at]);
                kept.most.push(self.most[at]);
            }
        }
        *self = kept;
    }

    /// How many may be taken in this use, if it is one of them.
    pub(super) fn most_of(&self, id: i64) -> Option<u32> {
        let at = self.ids.binary_search(&id).ok()?;
        u32::try_from(self.most[at]).ok()
    }
}

/// Whether a statement that took places failed since somebody had been quicker: nothing was done.
pub(crate) fn is_beaten(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "FB001")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_use() {
        let places = |all: &[i64]| Needs::Places(all.iter().map(|&of| Place { of, most: 9 }).collect());
        let needs = [places(&[7]), Needs::Nothing, places(&[3, 7]), Needs::Look];
        let wanted = Uses {
            ids: vec![3, 7],
            numbers: vec![1, 2],
            most: vec![9, 9],
        };
        assert_eq!(Uses::needed(needs.iter()), wanted);
        assert_eq!(needs[2].array().as_deref(), Some("{3,7}"));
        assert_eq!(needs[3].array(), None);
    }

    #[test]
    fn ids_are_forgotten_before_they_are_too_many() {
        let ids = UseIds::default();
        let keys: Vec<String> = (0..IDS_MAX).map(|n| n.to_string()).collect();
        ids.learn(keys.iter().map(|key| ("a", key.as_str(), 1)));
        assert_eq!(ids.get("a", "0"), Some(1));
        ids.learn([("b", "", 2)].into_iter());
        assert_eq!((ids.get("a", "0"), ids.get("b", "")), (None, Some(2)));
    }
}
