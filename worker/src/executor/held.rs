//! Deliveries of kinds that hold all the slots they may, kept at hand until there is room for them.
//!
//! A lane is first in, first out, and its kinds share it. What comes out of it and has no room yet is held here,
//! unacknowledged and without a slot, and started in its turn. Few are held of a lane, so that they are not kept from
//! other workers, and not for long. Past that the lane is not read, but other lanes are: there is still room for what
//! they bring. Kinds that must not wait for each other need lanes, or queues, of their own.
//!
//! The more urgent of what is held comes first, but every [`FAIR_TURN`]th turn belongs to the priority that had to wait
//! longest, as it is with lanes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use forebay_broker::{Acknowledge, Token};
use forebay_core::{Lane, Priority, Ready, Timestamp};
use tokio::time::Instant;

use super::{bulkhead::Cell, claim::start_of, intake::FAIR_TURN, running::Start};
use crate::{handlers::Registered, subscribe::Receipts};

/// So many deliveries may be held, of all lanes; past it nothing more is received.
const HELD_MAX: usize = 1_000;

/// A delivery that waits for room in its kind's bulkhead.
pub(super) struct Waiting {
    pub(super) ready: Ready,
    pub(super) registered: Arc<Registered>,
    pub(super) acks: Arc<dyn Acknowledge>,
    pub(super) token: Token,
    pub(super) published_at: Timestamp,
}

struct Entry {
    since: Instant,
    cell: Cell,
    waiting: Waiting,
}

/// Whose turn it is in a cell.
#[derive(Debug, Default)]
struct Turns {
    taken: u64,
    /// The turn in which one of each priority was taken last.
    last: BTreeMap<Priority, u64>,
}

impl Turns {
    /// The one that comes next. There are few priorities, so each is looked at.
    fn next(&mut self, waiting: &BTreeSet<(Priority, u64)>) -> Option<u64> {
        let first = *waiting.first()?;
        self.taken += 1;
        let (priority, number) = if self.taken.is_multiple_of(FAIR_TURN) {
            let of_each = Priority::ALL.iter().filter_map(|&priority| {
                let found = waiting.range((priority, 0)..=(priority, u64::MAX)).next();
                found.copied()
            });
            let waited = |(priority, _): &(Priority, u64)| self.last.get(priority).copied();
            of_each.min_by_key(waited).unwrap_or(first)
        } else {
            first
        };
        self.last.insert(priority, self.taken);
        Some(number)
    }
}

pub(super) struct Held {
    /// Of how many of one lane on it is not read.
    lane_max: usize,
    longest: Duration,
    next: u64,
    entries: BTreeMap<u64, Entry>,
    by_start: HashMap<Start, u64>,
    /// The more urgent of a cell first, then the older.
    by_cell: BTreeMap<Cell, BTreeSet<(Priority, u64)>>,
    /// Whose turn it is in each cell in which something was held. There is no cell without a handler.
    turns: BTreeMap<Cell, Turns>,
    /// How many of each lane, without suspects: they wait long for their turn, and a lane must not wait with them.
    by_lane: BTreeMap<Lane, usize>,
}

impl Held {
    /// Up to `lane_max` are held of a lane, each for `longest`.
    pub(super) fn new(lane_max: usize, longest: Duration) -> Self {
        Self {
            lane_max,
            longest,
            next: 0,
            entries: BTreeMap::new(),
            by_start: HashMap::new(),
            by_cell: BTreeMap::new(),
            turns: BTreeMap::new(),
            by_lane: BTreeMap::new(),
        }
    }

    /// Whether so much of this lane is held that no more of it should be received.
    pub(super) fn is_full(&self, lane: &Lane) -> bool {
        self.entries.len() >= HELD_MAX
            || self
                .by_lane
                .get(lane)
                .is_some_and(|&count| count >= self.lane_max)
    }

    /// Where another delivery for the same start is held, holds this one in its place (the other may be of a connection
    /// that is no more), and turns it into the one that is not needed.
    pub(super) fn renew(&mut self, waiting: &mut Waiting) -> bool {
        let number = self.by_start.get(&start_of(&waiting.ready));
        let Some(entry) = number.and_then(|number| self.entries.get_mut(number)) else {
            return false;
        };
        std::mem::swap(&mut entry.waiting.acks, &mut waiting.acks);
        std::mem::swap(&mut entry.waiting.token, &mut waiting.token);
        true
    }

    pub(super) fn add(&mut self, cell: Cell, waiting: Waiting) {
        let number = self.next;
        self.next += 1;
        self.by_start.insert(start_of(&waiting.ready), number);
        let lane = waiting.ready.lane.clone();
        let turn = (lane.priority, number);
        self.by_cell.entry(cell.clone()).or_default().insert(turn);
        if !cell.is_suspect() {
            *self.by_lane.entry(lane).or_default() += 1;
        }
        let since = Instant::now();
        self.entries.insert(number, Entry { since, cell, waiting });
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether anything but suspects is: they wait for each other, and nobody waits for them.
    pub(super) fn has_unsuspected(&self) -> bool {
        self.by_lane.values().any(|&count| count > 0)
    }

    /// The cells of what is held. Suspects first: one of them runs at a time, and a flood of others would never end.
    pub(super) fn cells(&self) -> Vec<Cell> {
        self.by_cell.keys().rev().cloned().collect()
    }

    /// Whether anything of this cell is.
    pub(super) fn has(&self, cell: &Cell) -> bool {
        self.by_cell.contains_key(cell)
    }

    /// The one of this cell whose turn it is.
    pub(super) fn take(&mut self, cell: &Cell) -> Option<Waiting> {
        let waiting = self.by_cell.get(cell)?;
        let number = self.turns.entry(cell.clone()).or_default().next(waiting)?;
        self.remove(number)
    }

    /// Waits until some were held long enough; for ever where nothing is held.
    pub(super) async fn due(&self) {
        match self.entries.first_key_value() {
            Some((_, oldest)) => tokio::time::sleep_until(oldest.since + self.longest).await,
            None => std::future::pending().await,
        }
    }

    /// Those that were held long enough: another worker may have room.
    pub(super) fn take_due(&mut self) -> Receipts {
        let now = Instant::now();
        let mut back = Receipts::default();
        while let Some((&number, oldest)) = self.entries.first_key_value()
            && oldest.since + self.longest <= now
            && let Some(waiting) = self.remove(number)
        {
            back.add(&waiting.acks, waiting.token);
        }
        back
    }

    /// Those of such lanes.
    pub(super) fn take_of(&mut self, is_meant: impl Fn(&Lane) -> bool) -> Receipts {
        let meant = self
            .entries
            .iter()
            .filter(|(_, entry)| is_meant(&entry.waiting.ready.lane));
        let numbers: Vec<u64> = meant.map(|(number, _)| *number).collect();
        let mut back = Receipts::default();
        for waiting in numbers.into_iter().filter_map(|number| self.remove(number)) {
            back.add(&waiting.acks, waiting.token);
        }
        back
    }

    /// All.
    pub(super) fn take_all(&mut self) -> Receipts {
        let mut receipts = Receipts::default();
        for entry in std::mem::take(&mut self.entries).into_values() {
            receipts.add(&entry.waiting.acks, entry.waiting.token);
        }
        self.by_start.clear();
        self.by_cell.clear();
        self.by_lane.clear();
        receipts
    }

    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let Entry { cell, waiting, .. } = self.entries.remove(&number)?;
        self.by_start.remove(&start_of(&waiting.ready));
        let lane = &waiting.ready.lane;
        if let Some(turns) = self.by_cell.get_mut(&cell) {
            turns.remove(&(lane.priority, number));
            if turns.is_empty() {
                self.by_cell.remove(&cell);
            }
        }
        if !cell.is_suspect()
            && let Some(count) = self.by_lane.get_mut(lane)
        {
            *count -= 1;
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_come_first_and_each_priority_has_its_turn() {
        let mut turns = Turns::default();
        let mut waiting: BTreeSet<(Priority, u64)> = BTreeSet::new();
        waiting.extend((0..1_000).map(|number| (Priority::High, number)));
        waiting.extend((1_000..1_100).map(|number| (Priority::Default, number)));
        waiting.extend((2_000..2_100).map(|number| (Priority::Low, number)));
        let mut order = Vec::new();
        for _ in 0..160 {
            let number = turns.next(&waiting).expect("some wait");
            let taken = *waiting
                .iter()
                .find(|(_, waits)| *waits == number)
                .expect("it waits");
            waiting.remove(&taken);
            order.push(taken.0);
        }
        let of = |priority| order.iter().filter(|taken| **taken == priority).count();
        assert_eq!((of(Priority::Default), of(Priority::Low)), (10, 10));
        let lows = order
            .iter()
            .enumerate()
            .filter(|(_, taken)| **taken == Priority::Low);
        let lows: Vec<usize> = lows.map(|(index, _)| index).collect();
        assert!(
            lows[0] < 16 && lows.windows(2).all(|pair| pair[1] - pair[0] == 16),
            "{lows:?}"
        );
        assert_eq!(turns.next(&BTreeSet::new()), None);
    }
}
