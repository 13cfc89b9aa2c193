//! What a transition was. Forebay's own model of a task decides what is legal: each of its operations is tried on the
//! side before, and one that gives the side after is what happened.

use std::{fmt, str::FromStr, time::Duration};

use forebay_core::{Decision, Lifecycle, State, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::evidence::Transition;

/// What of a row the transitions are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its state.
    pub state: String,
    /// How often it was started.
    pub fence: u32,
    /// How many of these were charged.
    pub attempt: u32,
    /// How many of its workers were lost.
    pub lost: u32,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            fence,
            attempt,
            lost,
        } = self;
        write!(f, "{state} with fence {fence}, attempt {attempt}, lost {lost}")
    }
}

impl Standing {
    /// The side before; `None` for an insert.
    pub(super) fn before(t: &Transition) -> Option<Self> {
        t.from.as_ref().map(|state| Self {
            state: state.clone(),
            fence: t.fence.0,
            attempt: t.attempt.0,
            lost: t.lost.0,
        })
    }

    /// The side after.
    pub(super) fn after(t: &Transition) -> Self {
        Self {
            state: t.to.clone(),
            fence: t.fence.1,
            attempt: t.attempt.1,
            lost: t.lost.1,
        }
    }

    /// Whether nothing may follow.
    pub(super) fn is_final(&self) -> bool {
        is_final(&self.state)
    }

    /// As the model has it. `None` where the model can't be there, and would count below nothing or beyond its range.
    fn model(&self, cancel_requested: bool) -> Option<Lifecycle> {
        let state = State::from_str(&self.state).ok()?;
        if (state == State::Running && self.attempt == 0) || self.fence == u32::MAX || self.lost == u32::MAX {
            return None;
        }
        Some(Lifecycle {
            state,
            fence: self.fence,
            attempt: self.attempt,
            lost: self.lost,
            worker: Some(worker()),
            // Due: when it was to be is not part of the evidence.
            run_at: state.waits_for_a_time().then_some(Timestamp::UNIX_EPOCH),
            cancel_requested,
        })
    }
}

/// Whether a state, as the database spells it, is final.
pub(super) fn is_final(state: &str) -> bool {
    State::from_str(state).is_ok_and(State::is_final)
}

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edge {
    /// It was inserted, and waits.
    Recorded,
    /// A worker took it, perhaps as it was recorded.
    Claimed,
    /// It became ready.
    Dispatched,
    /// Its handler returned a result.
    Succeeded,
    /// Its handler failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its handler failed, and is called again.
    Retried,
    /// Its worker gave it back.
    HandedBack,
    /// Its worker was taken for dead.
    TakenBack,
}

impl Edge {
    /// Whether it cut an execution short.
    pub(super) fn is_interruption(self) -> bool {
        matches!(self, Self::HandedBack | Self::TakenBack)
    }

    /// Whether the handler, or the call to it, failed.
    pub(super) fn is_failure(self) -> bool {
        matches!(self, Self::Retried | Self::Failed)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recorded => "recorded",
            Self::Claimed => "claimed",
            Self::Dispatched => "dispatched",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "was cancelled",
            Self::Retried => "failed and was to be tried again",
            Self::HandedBack => "was handed back by its worker",
            Self::TakenBack => "was taken back from its worker",
        })
    }
}

/// What a transition says that happened, if the model knows such a thing.
pub(super) fn edge_of(t: &Transition) -> Option<Edge> {
    let after = Standing::after(t);
    steps_from(Standing::before(t).as_ref(), (t.fence.0, t.attempt.0, t.lost.0))
        .into_iter()
        .find(|(_, end)| standing(end) == after)
        .map(|(edge, _)| edge)
}

/// Whether the model knows a way from the one state to the other, with whatever counts.
pub(super) fn is_known_way(t: &Transition) -> bool {
    let before = Standing::before(t);
    let any_counts = before.map(|it| Standing {
        fence: 1,
        attempt: 1,
        lost: 0,
        ..it
    });
    steps_from(any_counts.as_ref(), (0, 0, 0))
        .iter()
        .any(|(_, end)| end.state.as_str() == t.to)
}

/// Everything that may happen next. What an operator may do (bring back what has failed) is not part of a run.
fn steps_from(before: Option<&Standing>, counts: (u32, u32, u32)) -> Vec<(Edge, Lifecycle)> {
    let Some(before) = before else {
        return if counts == (0, 0, 0) {
            insertions()
        } else {
            Vec::new()
        };
    };
    [false, true]
        .into_iter()
        .filter_map(|cancel_requested| before.model(cancel_requested))
        .flat_map(|start| operations(&start))
        .collect()
}

fn insertions() -> Vec<(Edge, Lifecycle)> {
    let mut claimed = Lifecycle::accepted(None);
    let mut all = vec![
        (Edge::Recorded, Lifecycle::accepted(None)),
        (Edge::Recorded, Lifecycle::accepted(Some(Timestamp::UNIX_EPOCH))),
    ];
    if claimed.claim(0, worker(), Timestamp::UNIX_EPOCH).is_ok() {
        all.push((Edge::Claimed, claimed));
    }
    all
}

fn operations(start: &Lifecycle) -> Vec<(Edge, Lifecycle)> {
    let now = Timestamp::UNIX_EPOCH;
    let delay = Duration::ZERO;
    let (who, fence) = (worker(), start.fence);
    let mut all = Vec::new();
    let mut add = |edge, end: Option<Lifecycle>| {
        if let Some(end) = end.filter(|end| standing(end) != standing(start)) {
            let obeyed = end.state == State::Cancelled && edge == Edge::Retried;
            all.push((if obeyed { Edge::Cancelled } else { edge }, end));
        }
    };
    let tried = |step: &dyn Fn(&mut Lifecycle) -> bool| {
        let mut end = start.clone();
        step(&mut end).then_some(end)
    };
    add(Edge::Claimed, tried(&|it| it.claim(fence, who, now).is_ok()));
    add(Edge::Dispatched, tried(&|it| it.dispatch(now).is_ok()));
    for (edge, decision) in [
        (Edge::Succeeded, Decision::Succeed),
        (Edge::Failed, Decision::Fail),
        (Edge::Cancelled, Decision::Cancel),
        (Edge::Retried, Decision::Retry { delay }),
        (Edge::HandedBack, Decision::HandBack { delay }),
    ] {
        add(edge, tried(&|it| it.complete(fence, who, decision, now).is_ok()));
    }
    for lost_max in [1, u32::MAX] {
        add(
            Edge::TakenBack,
            tried(&|it| it.take_back(who, lost_max, now).is_ok()),
        );
    }
    add(Edge::Cancelled, tried(&|it| it.cancel().is_ok()));
    all
}

fn standing(end: &Lifecycle) -> Standing {
    Standing {
        state: end.state.as_str().to_owned(),
        fence: end.fence,
        attempt: end.attempt,
        lost: end.lost,
    }
}

/// Who did it is not in the evidence; the model wants somebody.
fn worker() -> WorkerId {
    WorkerId::from(Uuid::nil())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(from: Option<&str>, to: &str, counts: [(u32, u32); 3]) -> Transition {
        let [fence, attempt, lost] = counts;
        Transition {
            seq: 1,
            id: Uuid::nil(),
            from: from.map(str::to_owned),
            to: to.to_owned(),
            fence,
            attempt,
            lost,
            result_changed: false,
            at: Duration::ZERO,
        }
    }

    /// From, to, the counts before and after, and the name.
    type Way = (Option<&'static str>, &'static str, [(u32, u32); 3], Edge);

    /// The legal ways, written out by hand: the model is asked, but not believed blindly.
    const LEGAL: &[Way] = &[
        (None, "queued", [(0, 0), (0, 0), (0, 0)], Edge::Recorded),
        (None, "scheduled", [(0, 0), (0, 0), (0, 0)], Edge::Recorded),
        (None, "running", [(0, 1), (0, 1), (0, 0)], Edge::Claimed),
        (Some("queued"), "running", [(0, 1), (0, 1), (0, 0)], Edge::Claimed),
        (
            Some("scheduled"),
            "running",
            [(0, 1), (0, 1), (0, 0)],
            Edge::Claimed,
        ),
        (
            Some("retrying"),
            "running",
            [(3, 4), (1, 2), (2, 2)],
            Edge::Claimed,
        ),
        (
            Some("scheduled"),
            "queued",
            [(0, 0), (0, 0), (0, 0)],
            Edge::Dispatched,
        ),
        (
            Some("retrying"),
            "queued",
            [(2, 2), (1, 1), (1, 1)],
            Edge::Dispatched,
        ),
        (
            Some("running"),
            "succeeded",
            [(2, 2), (2, 2), (0, 0)],
            Edge::Succeeded,
        ),
        (Some("running"), "failed", [(2, 2), (2, 2), (0, 0)], Edge::Failed),
        (
            Some("running"),
            "failed",
            [(3, 3), (1, 1), (2, 3)],
            Edge::TakenBack,
        ),
        (
            Some("running"),
            "cancelled",
            [(1, 1), (1, 1), (0, 0)],
            Edge::Cancelled,
        ),
        (
            Some("running"),
            "cancelled",
            [(1, 1), (1, 0), (0, 0)],
            Edge::HandedBack,
        ),
        (
            Some("running"),
            "cancelled",
            [(1, 1), (1, 0), (0, 1)],
            Edge::TakenBack,
        ),
        (
            Some("running"),
            "retrying",
            [(1, 1), (1, 1), (0, 0)],
            Edge::Retried,
        ),
        (
            Some("running"),
            "retrying",
            [(1, 1), (1, 0), (0, 0)],
            Edge::HandedBack,
        ),
        (
            Some("running"),
            "retrying",
            [(1, 1), (1, 0), (0, 1)],
            Edge::TakenBack,
        ),
        (
            Some("queued"),
            "cancelled",
            [(0, 0), (0, 0), (0, 0)],
            Edge::Cancelled,
        ),
        (
            Some("scheduled"),
            "cancelled",
            [(0, 0), (0, 0), (0, 0)],
            Edge::Cancelled,
        ),
        (
            Some("retrying"),
            "cancelled",
            [(1, 1), (1, 1), (0, 0)],
            Edge::Cancelled,
        ),
    ];

    #[test]
    fn each_legal_way_is_known_by_its_name() {
        for &(from, to, counts, edge) in LEGAL {
            let t = transition(from, to, counts);
            assert_eq!(edge_of(&t), Some(edge), "{t:?}");
            assert!(is_known_way(&t), "{t:?}");
        }
    }

    #[test]
    fn no_other_pair_of_states_is_a_way() {
        let states = || State::ALL.into_iter().map(State::as_str);
        for from in states().map(Some).chain([None]) {
            for to in states() {
                // Nothing in a run makes a task wait for others or for a limit. One that did would go on like any that waits.
                let legal = LEGAL.iter().any(|&(f, t, ..)| (f, t) == (from, to))
                    || matches!((from, to), (Some("blocked" | "throttled"), "cancelled"))
                    || matches!((from, to), (Some("throttled"), "queued" | "running"));
                assert_eq!(
                    is_known_way(&transition(from, to, [(0, 0); 3])),
                    legal,
                    "{from:?} → {to}"
                );
            }
        }
    }

    #[test]
    fn a_legal_way_with_wrong_counts_is_none() {
        for counts in [
            [(1, 1), (1, 2), (0, 0)],
            [(1, 1), (1, 1), (0, 1)],
            [(1, 2), (1, 1), (0, 0)],
            [(2, 1), (1, 1), (0, 0)],
            [(1, 1), (1, 0), (0, 2)],
            [(1, 1), (0, 0), (0, 0)],
        ] {
            assert_eq!(
                edge_of(&transition(Some("running"), "retrying", counts)),
                None,
                "{counts:?}"
            );
        }
        let huge = [(u32::MAX, u32::MAX), (1, 1), (0, 0)];
        assert_eq!(edge_of(&transition(Some("running"), "succeeded", huge)), None);
        assert_eq!(
            edge_of(&transition(Some("asleep"), "succeeded", [(0, 0); 3])),
            None
        );
        assert_eq!(
            edge_of(&transition(None, "queued", [(1, 0), (0, 0), (0, 0)])),
            None
        );
    }
}
