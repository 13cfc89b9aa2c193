//! What goes wrong between a worker and the store in memory.

use super::MemoryStore;

/// What goes wrong on one connection.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Nothing is answered.
    pub(super) away: bool,
    /// So many calls are obeyed, and not answered.
    pub(super) lost_answers: usize,
    pub(super) lost_claims: bool,
    /// Which queues are paused is not answered.
    pub(super) hidden_pauses: bool,
    /// Calls that were refused because it is away.
    pub(super) refused: usize,
    /// What was said of progress while it is away.
    pub(super) unheard: usize,
}

impl MemoryStore {
    pub(crate) fn set_away(&self, away: bool) {
        self.faults.lock().unwrap().away = away;
    }

    pub(crate) fn lose_answers(&self, count: usize) {
        self.faults.lock().unwrap().lost_answers = count;
    }

    /// The answers to claims are lost, those that refuse excepted.
    pub(crate) fn lose_claims(&self, lost: bool) {
        self.faults.lock().unwrap().lost_claims = lost;
    }

    pub(crate) fn hide_pauses(&self, hidden: bool) {
        self.faults.lock().unwrap().hidden_pauses = hidden;
    }

    /// How often it was said in vain how far a task is.
    pub(crate) fn unheard_notes(&self) -> usize {
        self.faults.lock().unwrap().unheard
    }

    /// How many calls were refused, or made while it was away.
    pub(crate) fn refused_calls(&self) -> usize {
        self.faults.lock().unwrap().refused
    }
}
