//! Receives from the lanes: no more than there are slots for, the more urgent lanes first.
//!
//! A lane is *wet* when its last round filled all that was asked for, so that there is probably more; else it is
//! *dry*. A dry lane is asked for a few messages and waits for them as long as it likes. A wet lane is asked for as
//! much as there is room for; that room is set aside for it, so the answer must come soon. While a wet lane is being
//! asked, no less urgent one is, except that every [`FAIR_TURN`]th turn belongs to the lane that had to wait longest:
//! at least one slot is set aside for it, too. So no lane is asked later than in the `FAIR_TURN * lanes`th turn after it
//! was last, whatever floods the others (docs/priorities.md). A hand-off past a lane that is wet is a turn, too.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use forebay_broker::{Acknowledge, Delivery, Source};
use forebay_core::Lane;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    handoff::{Backlogs, Look},
    slots::{Slots, Taken},
};
use crate::{
    shared::Shared,
    subscribe::{Leaving, Reader, Received},
};

/// Every so manieth turn is given to the lane that had to wait longest, so that none starves.
pub(super) const FAIR_TURN: u64 = 8;
/// How long a wet lane may wait for a message while room is set aside for it.
const WET_WAIT: Duration = Duration::from_millis(25);
/// The most that is asked for at once.
const ROUND_MAX: usize = 1_000;

struct LaneState {
    lane: Lane,
    /// Absent while a round is under way.
    reader: Option<Reader>,
    /// Whether its last round filled what was asked for.
    wet: bool,
    /// The turn in which it was asked last.
    asked_in_turn: u64,
    /// Whether its last round was answered, and brought nothing.
    found_empty: bool,
}

/// What one round of one lane brought.
pub(super) struct Pulled {
    /// With a slot for each; the last may have none.
    pub(super) deliveries: Vec<(Delivery, Option<Taken>)>,
    pub(super) acks: Arc<dyn Acknowledge>,
}

struct Round {
    index: usize,
    look: Look,
    asked: usize,
    reserved: Taken,
    reader: Reader,
    received: Option<Received>,
}

pub(super) struct Intake {
    lanes: Vec<LaneState>,
    slots: Arc<Slots>,
    backlogs: Arc<Backlogs>,
    rounds: JoinSet<Round>,
    turn: u64,
    wait: Duration,
}

impl Intake {
    pub(super) fn new(
        shared: &Shared,
        slots: Arc<Slots>,
        backlogs: Arc<Backlogs>,
        stop: &CancellationToken,
    ) -> Self {
        let options = &shared.options.intake;
        let mut lanes = shared.options.lanes();
        lanes.sort_by_key(|lane| lane.priority);
        let lanes = lanes.into_iter().map(|lane| {
            let reporter = shared
                .health
                .component(&format!("lane {lane}"), options.health_ttl);
            let reader = Reader::new(
                Arc::clone(&shared.broker),
                Source::Lane(lane.clone()),
                options.deaf_after,
                reporter,
                stop.clone(),
            );
            LaneState {
                lane,
                reader: Some(reader),
                wet: false,
                asked_in_turn: 0,
                found_empty: false,
            }
        });
        Self {
            lanes: lanes.collect(),
            slots,
            backlogs,
            rounds: JoinSet::new(),
            turn: 0,
            wait: options.wait,
        }
    }

    /// Asks lanes for as much as there is room for, but for those of which no more is wanted now.
    pub(super) fn ask(&mut self, is_unwanted: impl Fn(&Lane) -> bool) {
        while self.slots.free() > 0
            && let Some(index) = self.next_lane(&is_unwanted)
        {
            let is_fair = self.backlogs.is_fair_turn();
            self.begin_round(index, is_fair);
            self.turn += 1;
            self.backlogs.turn_taken(is_fair);
        }
    }

    /// Whether no round is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.rounds.is_empty()
    }

    /// Whether each of these lanes, when it was last asked, said that nothing is in it.
    pub(super) fn found_empty(&self, is_asked: impl Fn(&Lane) -> bool) -> bool {
        let mut asked = self.lanes.iter().filter(|lane| is_asked(&lane.lane));
        asked.all(|lane| lane.found_empty)
    }

    /// What the lanes said counts no more: they are to be asked again.
    pub(super) fn doubt(&mut self) {
        for lane in &mut self.lanes {
            lane.found_empty = false;
        }
    }

    /// The next round that ends; `None` where none is under way. `Some(None)` where it brought nothing.
    pub(super) async fn next(&mut self) -> Option<Option<Pulled>> {
        let round = match self.rounds.join_next().await? {
            Ok(round) => round,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Some(None),
            },
        };
        Some(self.end_round(round))
    }

    /// Lanes that are not asked are in order: for want of room those that were so before, those that must rest at all
    /// times.
    pub(super) fn report_resting(&self, must_rest: impl Fn(&Lane) -> bool) {
        for state in &self.lanes {
            match &state.reader {
                Some(reader) if must_rest(&state.lane) => reader.at_rest(),
                Some(reader) => reader.resting(),
                None => {}
            }
        }
    }

    /// Gives up the subscriptions to such lanes, so that nothing is kept in them that others could read. A lane that is
    /// being asked keeps its own until the round is over: it is for a later call.
    pub(super) fn leave(&mut self, must_rest: impl Fn(&Lane) -> bool) -> Vec<Leaving> {
        let resting = self.lanes.iter_mut().filter(|state| must_rest(&state.lane));
        let left = resting.filter_map(|state| {
            state.wet = false;
            state.reader.as_mut()?.leave()
        });
        left.collect()
    }

    /// Takes out the readers of lanes that are not being asked, to be closed.
    pub(super) fn take_idle(&mut self) -> Vec<Reader> {
        self.lanes
            .iter_mut()
            .filter_map(|lane| lane.reader.take())
            .collect()
    }

    pub(super) fn retire(&self) {
        for reader in self.lanes.iter().filter_map(|lane| lane.reader.as_ref()) {
            reader.retire();
        }
    }

    fn next_lane(&self, is_unwanted: impl Fn(&Lane) -> bool) -> Option<usize> {
        let idle = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.reader.is_some() && !is_unwanted(&lane.lane));
        if self.backlogs.is_fair_turn() {
            return idle
                .min_by_key(|(_, lane)| lane.asked_in_turn)
                .map(|(index, _)| index);
        }
        let (index, chosen) =
            idle.min_by_key(|(_, lane)| (lane.lane.priority, Reverse(lane.wet), lane.asked_in_turn))?;
        let must_wait = self.lanes.iter().any(|other| {
            other.lane.priority < chosen.lane.priority && other.wet && !is_unwanted(&other.lane)
        });
        (!must_wait).then_some(index)
    }

    fn begin_round(&mut self, index: usize, is_fair: bool) {
        let free = self.slots.free();
        let wet = self.lanes[index].wet;
        let set_aside = match (wet, is_fair) {
            (true, _) => free.div_ceil(self.wet_and_idle(index)).min(ROUND_MAX),
            (false, true) => 1,
            (false, false) => 0,
        };
        let reserved = self.slots.take(set_aside);
        let (asked, wait) = if set_aside > 0 {
            (reserved.count().max(1), WET_WAIT.min(self.wait))
        } else {
            // While slots are kept for what may be in it, it should soon be known that nothing is.
            let wait = match self.backlogs.may_have_more(&self.lanes[index].lane) {
                true => WET_WAIT.min(self.wait),
                false => self.wait,
            };
            ((free / self.lanes.len()).clamp(1, ROUND_MAX), wait)
        };
        let look = self.backlogs.begin_look(&self.lanes[index].lane);
        let state = &mut self.lanes[index];
        let Some(mut reader) = state.reader.take() else {
            return;
        };
        state.asked_in_turn = self.turn + 1;
        self.rounds.spawn(async move {
            let received = reader.round(asked, wait).await;
            Round {
                index,
                look,
                asked,
                reserved,
                reader,
                received,
            }
        });
    }

    /// How many lanes of this one's priority want as much as they can get, this one included; at least 1.
    fn wet_and_idle(&self, index: usize) -> usize {
        let priority = self.lanes[index].lane.priority;
        let equal = |lane: &&LaneState| lane.lane.priority == priority && lane.wet && lane.reader.is_some();
        self.lanes.iter().filter(equal).count().max(1)
    }

    fn end_round(&mut self, mut round: Round) -> Option<Pulled> {
        let state = &mut self.lanes[round.index];
        state.reader = Some(round.reader);
        let Some(received) = round.received else {
            state.wet = false;
            state.found_empty = false;
            return None;
        };
        state.wet = received.deliveries.len() >= round.asked;
        let count = received.deliveries.len();
        state.found_empty = count == 0;
        self.backlogs.end_look(&state.lane, round.look, count, state.wet);
        if received.deliveries.is_empty() {
            return None;
        }
        let deliveries = received.deliveries.into_iter().map(|delivery| {
            let slot = round.reserved.one();
            (delivery, slot)
        });
        Some(Pulled {
            deliveries: deliveries.collect(),
            acks: received.acks,
        })
    }
}
