//! One task's starts, as its handlers wrote them down, held against the claims that the store granted.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use serde::Deserialize;

use super::{
    breach::Breach,
    edge::Edge,
    history::{Claim, History},
    windows::Windows,
};
use crate::evidence::{Moment, Start};

/// By how much the moments of two clocks may differ: the audit rounds up, and neither reads while it writes.
const SLACK: Duration = Duration::from_millis(250);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Executions {
    /// What is wrong with them, and when that showed.
    pub(super) breaches: Vec<(Moment, Breach)>,
    /// For each execution beyond the first that no script explains: the fault it is put down to.
    pub(super) repeated: Vec<Option<usize>>,
    /// How many failures were scripted.
    pub(super) scripted: usize,
    /// How many claims were never started.
    pub(super) unstarted: usize,
}

/// What of a payload says how its handler behaves.
#[derive(Debug, Default, Deserialize)]
struct Script {
    #[serde(default)]
    fail_first: bool,
}

/// Judges the starts of one task with this payload; `None` where its row is lost.
pub(super) fn judge(
    history: &History,
    starts: &[&Start],
    payload: Option<&str>,
    windows: Windows<'_>,
) -> Executions {
    let mut found = Executions::default();
    let started = found.once_each(starts);
    if !history.sound {
        return found;
    }
    for start in started.values() {
        found.hold_against(history, start);
    }
    let scripted = scripted(history, starts, payload);
    found.scripted = usize::from(scripted.is_some());
    found.failures(history, &started, scripted, windows);
    found.unstarted(history, &started, windows);
    found.repetitions(history, &started, scripted, windows);
    found
}

/// The fence of the start that failed because it was told to: the first call, where the payload says so.
fn scripted(history: &History, starts: &[&Start], payload: Option<&str>) -> Option<u32> {
    // Where the row is lost, so is the script, and the loss is told of already.
    let script = payload.map_or(Script { fail_first: true }, |payload| {
        serde_json::from_str(payload).unwrap_or_default()
    });
    let first = starts.first().filter(|_| script.fail_first)?.fence;
    endings(history)
        .any(|(claim, edge, _)| claim.fence == first && edge == Edge::Retried)
        .then_some(first)
}

impl Executions {
    /// No two starts share a fence.
    fn once_each<'a>(&mut self, starts: &[&'a Start]) -> BTreeMap<u32, &'a Start> {
        let mut first = BTreeMap::new();
        for &start in starts {
            let fence = start.fence;
            match first.entry(fence) {
                Entry::Vacant(place) => {
                    place.insert(start);
                }
                Entry::Occupied(_) => {
                    self.breaches.push((start.at, Breach::FenceShared { fence }));
                    self.repeated.push(None);
                }
            }
        }
        first
    }

    /// A start has a claim, which came before it, and agrees with it.
    fn hold_against(&mut self, history: &History, start: &Start) {
        let fence = start.fence;
        let Some(claim) = history.claims.iter().find(|claim| claim.fence == fence) else {
            self.breaches.push((start.at, Breach::StartUnclaimed { fence }));
            return;
        };
        if start.attempt != claim.attempt {
            let (told, claimed) = (start.attempt, claim.attempt);
            self.breaches
                .push((start.at, Breach::WrongAttempt { fence, told, claimed }));
        }
        if start.at.saturating_add(SLACK) < claim.at {
            let claimed = claim.at;
            self.breaches
                .push((start.at, Breach::StartTooEarly { fence, claimed }));
        }
    }

    /// A handler fails where its script or a fault says so.
    fn failures(
        &mut self,
        history: &History,
        started: &BTreeMap<u32, &Start>,
        scripted: Option<u32>,
        windows: Windows<'_>,
    ) {
        for (claim, edge, at) in endings(history) {
            let fence = claim.fence;
            let asks = edge.is_failure() && started.contains_key(&fence) && scripted != Some(fence);
            if asks && windows.cause(claim.at, at).is_none() {
                let last = edge == Edge::Failed;
                self.breaches
                    .push((at, Breach::UnexplainedFailure { fence, last }));
            }
        }
    }

    /// A claim without a start was cancelled, or cut short by a fault.
    fn unstarted(&mut self, history: &History, started: &BTreeMap<u32, &Start>, windows: Windows<'_>) {
        for (claim, ended, at) in endings(history).filter(|(claim, ..)| !started.contains_key(&claim.fence)) {
            self.unstarted += 1;
            let explained = match ended {
                Edge::Cancelled => true,
                // Where a fault kept the worker from its handler, the attempt may have failed.
                Edge::HandedBack | Edge::TakenBack | Edge::Retried | Edge::Failed => {
                    windows.cause(claim.at, at).is_some()
                }
                _ => false,
            };
            if !explained {
                let fence = claim.fence;
                self.breaches.push((at, Breach::ClaimUnstarted { fence, ended }));
            }
        }
    }

    /// An execution after another is a scripted retry, or a fault cut the other short.
    fn repetitions(
        &mut self,
        history: &History,
        started: &BTreeMap<u32, &Start>,
        scripted: Option<u32>,
        windows: Windows<'_>,
    ) {
        let executed: Vec<&Claim> = history
            .claims
            .iter()
            .filter(|claim| started.contains_key(&claim.fence))
            .collect();
        for pair in executed.windows(2) {
            let (before, again) = (pair[0], pair[1]);
            if scripted == Some(before.fence) {
                continue;
            }
            let Some((ended, ended_at)) = before.ended else {
                self.repeated.push(None);
                continue;
            };
            let cause = windows.cause(before.at, ended_at);
            self.repeated.push(cause);
            // A failure that nothing explains has been told of as such.
            if cause.is_none() && ended.is_interruption() {
                let fence = again.fence;
                self.breaches.push((
                    started[&fence].at,
                    Breach::UnexplainedRepetition {
                        fence,
                        ended,
                        ended_at,
                    },
                ));
            }
        }
    }
}

fn endings(history: &History) -> impl Iterator<Item = (&Claim, Edge, Moment)> {
    history
        .claims
        .iter()
        .filter_map(|claim| claim.ended.map(|(edge, at)| (claim, edge, at)))
}
