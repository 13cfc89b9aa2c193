//! One task's transitions, walked in their order.

use super::{
    breach::Breach,
    edge::{Edge, Standing, edge_of, is_known_way},
};
use crate::evidence::{Moment, Transition};

/// A start that the store granted.
#[derive(Debug)]
pub(super) struct Claim {
    /// Its fencing token.
    pub(super) fence: u32,
    /// The charged attempts with it.
    pub(super) attempt: u32,
    /// When.
    pub(super) at: Moment,
    /// How and when it ended; `None` where it never did.
    pub(super) ended: Option<(Edge, Moment)>,
}

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct History {
    /// In their order.
    pub(super) claims: Vec<Claim>,
    /// Where the last transition left the task.
    pub(super) last: Option<Standing>,
    /// What is wrong with it, and when that showed.
    pub(super) breaches: Vec<(Moment, Breach)>,
    /// When it first ended.
    pub(super) finished: Option<Moment>,
    /// When an outcome was written after the first.
    pub(super) doubled: Vec<Moment>,
    /// Whether the claims are what they say. Where the transitions do not fit together they prove nothing, and what
    /// follows from that is not listed again.
    pub(super) sound: bool,
}

impl History {
    /// Walks the transitions of one task, which are in their order.
    pub(super) fn of(transitions: &[&Transition]) -> Self {
        let mut history = Self {
            sound: true,
            ..Self::default()
        };
        for t in transitions {
            history.step(t);
        }
        history
    }

    fn step(&mut self, t: &Transition) {
        match self.judge(t) {
            Ok(edge) => self.note(edge, t),
            Err(breach) => {
                self.sound &= matches!(
                    breach,
                    Breach::OutcomeTwice { .. } | Breach::Reopened { .. } | Breach::ResultWritten { .. }
                );
                self.breaches.push((t.at, breach));
            }
        }
        let after = Standing::after(t);
        match self.finished {
            Some(_) if after.is_final() => self.doubled.push(t.at),
            None if after.is_final() => self.finished = Some(t.at),
            _ => {}
        }
        self.last = Some(after);
    }

    /// One breach for a transition at most: the first that holds is the cause of the others.
    fn judge(&self, t: &Transition) -> Result<Edge, Breach> {
        let (from, to) = (Standing::before(t), Standing::after(t));
        if let Some(last) = self.last.as_ref().filter(|last| last.is_final()) {
            return Err(after_the_end(last, to));
        }
        if from != self.last {
            return Err(Breach::Hole {
                begins: from,
                ended: self.last.clone(),
            });
        }
        judge_fence(t)?;
        if t.result_changed && t.to != "succeeded" {
            return Err(Breach::ResultWritten { to: t.to.clone() });
        }
        match edge_of(t) {
            Some(edge) => Ok(edge),
            None if is_known_way(t) => Err(Breach::Miscounted { from, to }),
            None => Err(Breach::IllegalWay { from, to }),
        }
    }

    fn note(&mut self, edge: Edge, t: &Transition) {
        if edge == Edge::Claimed {
            self.claims.push(Claim {
                fence: t.fence.1,
                attempt: t.attempt.1,
                at: t.at,
                ended: None,
            });
        } else if t.from.as_deref() == Some("running")
            && let Some(claim) = self.claims.last_mut()
        {
            claim.ended = Some((edge, t.at));
        }
    }
}

fn after_the_end(last: &Standing, to: Standing) -> Breach {
    let first = last.state.clone();
    if to.is_final() {
        let second = to.state;
        Breach::OutcomeTwice { first, second }
    } else {
        Breach::Reopened { first, to: to.state }
    }
}

/// The fence grows by exactly one at each claim, and at nothing else.
fn judge_fence(t: &Transition) -> Result<(), Breach> {
    let (before, after) = t.fence;
    let claim = t.to == "running" && t.from.as_deref() != Some("running");
    if after < before {
        return Err(Breach::StaleWrite { fence: t.fence });
    }
    if after - before != u32::from(claim) {
        return Err(Breach::FenceStep {
            fence: t.fence,
            claim,
        });
    }
    Ok(())
}
