//! Bulkheads: how many slots one kind may hold, so that a flood of one, however slow, leaves room for the others.
//!
//! And one for suspects: a task that has failed if it loses one more worker is run with no other such task beside it.
//! Tasks that a poisoned one took down with it come back together with it; run together to the end, they would fail
//! together, too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use forebay_core::{Kind, Ready};

use crate::Handlers;

/// Where a worker serves several kinds, one slot in so many is out of reach for any one of them; at least one slot is.
const KEPT_FREE: usize = 10;

/// The bulkheads of a worker, by kind.
#[derive(Debug)]
pub(super) struct Bulkheads {
    by_kind: BTreeMap<Kind, Arc<AtomicUsize>>,
    suspects: Arc<AtomicUsize>,
    lost_max: u32,
}

/// What is counted together: a kind, and whether it is about its suspects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    kind: Kind,
    suspect: bool,
}

impl Cell {
    /// Whether it is about tasks of which one runs at a time.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }
}

/// A place in a kind's bulkhead. It is held from before a task is claimed until its outcome is stored, as its slot is.
/// Dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    _kind: Count,
    _suspects: Option<Count>,
}

/// One of those that a counter has. Dropping it gives it back.
#[derive(Debug)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn take(free: &Arc<AtomicUsize>) -> Option<Self> {
        let taken = free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.is_ok().then(|| Self(Arc::clone(free)))
    }
}

impl Bulkheads {
    /// Each kind may have what its handler's settings say, and otherwise what [`share`] says.
    pub(super) fn new(handlers: &Handlers, slots: usize, lost_max: u32) -> Self {
        let share = share(slots, handlers.kinds().count());
        let places = |kind: &Kind| {
            let said = handlers.get(kind).and_then(|found| found.settings.concurrency);
            said.map_or(share, |said| said.clamp(1, slots))
        };
        let by_kind = handlers
            .kinds()
            .map(|kind| (kind.clone(), Arc::new(AtomicUsize::new(places(kind)))))
            .collect();
        Self {
            by_kind,
            suspects: Arc::new(AtomicUsize::new(1)),
            lost_max,
        }
    }

    /// Where a delivery belongs.
    pub(super) fn cell(&self, ready: &Ready) -> Cell {
        Cell {
            kind: ready.kind.clone(),
            suspect: ready.lost > 0 && ready.lost.saturating_add(1) >= self.lost_max,
        }
    }

    /// A place; `None` while those that are in the cell hold all they may.
    pub(super) fn place(&self, cell: &Cell) -> Option<Place> {
        let suspects = match cell.suspect {
            true => Some(Count::take(&self.suspects)?),
            false => None,
        };
        Some(Place {
            _suspects: suspects,
            ..self.unsuspected(&cell.kind)?
        })
    }

    /// A place for a task of a kind that was never lost.
    pub(super) fn unsuspected(&self, kind: &Kind) -> Option<Place> {
        Some(Place {
            _kind: Count::take(self.by_kind.get(kind)?)?,
            _suspects: None,
        })
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// How many of a worker's slots one of its kinds may hold.
fn share(slots: usize, kinds: usize) -> usize {
    if kinds < 2 || slots < 2 {
        return slots;
    }
    slots - kept_free(slots)
}

/// How many of a worker's slots are out of reach for any one of several kinds.
pub(super) fn kept_free(slots: usize) -> usize {
    (slots / KEPT_FREE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HandlerSettings;

    #[test]
    fn no_kind_among_several_may_hold_the_last_slots() {
        for (slots, kinds, expected) in [
            (1, 5, 1),
            (2, 2, 1),
            (3, 2, 2),
            (10, 2, 9),
            (100, 7, 90),
            (109, 2, 99),
            (100, 1, 100),
            (100, 0, 100),
        ] {
            assert_eq!(share(slots, kinds), expected, "{slots} slots, {kinds} kinds");
        }
    }

    fn ready(kind: &str, lost: u32) -> Ready {
        Ready {
            id: forebay_core::TaskId::from_bytes([1; 16]),
            kind: kind.parse().expect("a kind"),
            lane: "default.default".parse().expect("a lane"),
            fence: lost,
            lost,
        }
    }

    #[test]
    fn of_those_that_may_be_lost_once_more_one_runs_at_a_time() {
        let handlers = || {
            let add = |it: Handlers, kind| {
                it.function(kind, HandlerSettings::default(), |(): (), _| async { Ok(()) })
            };
            add(Handlers::new(), "a")
                .and_then(|it| add(it, "b"))
                .expect("the kinds differ")
        };
        let bulkheads = Bulkheads::new(&handlers(), 20, 3);
        let place = |kind, lost| bulkheads.place(&bulkheads.cell(&ready(kind, lost)));
        let _unsuspected = (place("a", 0), place("a", 1));
        let suspect = place("a", 2);
        assert!(suspect.is_some());
        assert!(place("a", 2).is_none() && place("b", 2).is_none() && place("b", 9).is_none());
        assert!(place("a", 1).is_some() && place("b", 0).is_some());
        drop(suspect);
        assert!(place("b", 2).is_some());
        let without_a_second_chance = Bulkheads::new(&handlers(), 20, 1);
        let cell = without_a_second_chance.cell(&ready("a", 0));
        assert!(
            [(); 3]
                .map(|()| without_a_second_chance.place(&cell))
                .iter()
                .all(Option::is_some)
        );
    }

    #[test]
    fn what_a_handlers_settings_say_counts() {
        let with = |concurrency| HandlerSettings {
            concurrency,
            ..HandlerSettings::default()
        };
        let handlers = Handlers::new()
            .function("few", with(Some(2)), |(): (), _| async { Ok(()) })
            .and_then(|it| it.function("all", with(Some(500)), |(): (), _| async { Ok(()) }))
            .and_then(|it| it.function("most", with(None), |(): (), _| async { Ok(()) }))
            .expect("the kinds differ");
        let bulkheads = Bulkheads::new(&handlers, 20, 3);
        for (kind, expected) in [("few", 2), ("all", 20), ("most", 18)] {
            let cell = bulkheads.cell(&ready(kind, 0));
            let places: Vec<Place> = std::iter::from_fn(|| bulkheads.place(&cell)).collect();
            assert_eq!(places.len(), expected, "{kind}");
            drop(places);
            assert!(bulkheads.place(&cell).is_some(), "{kind} has room again");
        }
    }
}
