//! Every accepted id, and what became of it. The promise: accepted = succeeded + failed + cancelled + expired.

use std::collections::HashSet;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::tally::{Id, histogram};

/// How many ids of each fault are named.
const NAMED_MAX: usize = 20;
/// How many tasks that nobody was told of are told apart.
const STRANGERS_MAX: usize = 1_000_000;

/// A task as the store has it; times in microseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its id.
    pub(crate) id: Id,
    /// Where it stands.
    pub(crate) state: State,
    /// When it was accepted.
    pub(crate) created_us: i64,
    /// When it was last started.
    pub(crate) started_us: Option<i64>,
    /// When it ended.
    pub(crate) finished_us: Option<i64>,
    /// How often it was started, as far as the source knows.
    pub(crate) starts: u64,
    /// How many attempts are on record as not successful.
    pub(crate) errors: u64,
}

impl Row {
    /// Starts for which there is no reason on record: the task was executed twice.
    fn unexplained_starts(&self) -> u64 {
        let explained = self.errors + u64::from(self.state == State::Succeeded);
        // Only the latest ten errors are kept.
        if self.errors >= 10 {
            return 0;
        }
        match self.state {
            State::Succeeded | State::Failed => self.starts.saturating_sub(explained),
            // A running task may be cancelled, which ends an attempt without an error.
            _ => self.starts.saturating_sub(explained + 1),
        }
    }
}

/// Where a task stands, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not heard of.
    Unknown,
    /// Not final.
    Open,
    /// Final.
    Succeeded,
    /// Final.
    Failed,
    /// Final.
    Cancelled,
    /// Final.
    Expired,
}

impl State {
    /// Reads a state's name.
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "expired" => Self::Expired,
            _ => Self::Open,
        }
    }

    /// Whether it stays so.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::Unknown | Self::Open)
    }
}

/// What became of all accepted tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Where it was looked up: `api` or `database`.
    pub(crate) checked_by: String,
    /// Answers with an id.
    pub(crate) accepted: u64,
    /// Final.
    pub(crate) succeeded: u64,
    /// Final.
    pub(crate) failed: u64,
    /// Final.
    pub(crate) cancelled: u64,
    /// Final.
    pub(crate) expired: u64,
    /// Accepted, and unknown to the server: a broken promise.
    pub(crate) lost: u64,
    /// Accepted, known, and not final when the wait was over.
    pub(crate) unfinished: u64,
    /// Answers with an id that another answer had, too.
    pub(crate) answered_twice: u64,
    /// Tasks that were started again with no reason on record.
    pub(crate) executed_twice: u64,
    /// Tasks that were started more than once, for a recorded reason: a retry, a lost worker.
    pub(crate) restarted: u64,
    /// Tasks with this run's tag that no answer named: submissions that failed halfway, as far as there were such.
    pub(crate) strangers: u64,
    /// Some of the ids at fault.
    pub(crate) examples: Vec<String>,
    /// Whether the sum is right, and nothing is lost or doubled.
    pub(crate) holds: bool,
}

impl Account {
    /// How many are final.
    pub(crate) fn finished(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.expired
    }
}

/// The accepted ids, and what is known of each.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// In order, each once.
    ids: Vec<Id>,
    states: Vec<State>,
    open: usize,
    answered_twice: Vec<Id>,
    executed_twice: Vec<Id>,
    restarted: u64,
    strangers: HashSet<Id>,
    /// From acceptance to the start of the last attempt, in microseconds by the server's clock.
    pub(crate) wait: Histogram<u64>,
    /// From acceptance to the end.
    pub(crate) turnaround: Histogram<u64>,
    /// When tasks ended, in microseconds since 1970.
    pub(crate) finished_us: Vec<i64>,
}

impl Ledger {
    /// The ids of all answers.
    pub(crate) fn new(mut ids: Vec<Id>) -> Self {
        ids.sort_unstable();
        let twice = ids
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0]);
        let answered_twice = twice.collect();
        ids.dedup();
        Self {
            states: vec![State::Unknown; ids.len()],
            open: ids.len(),
            finished_us: Vec::with_capacity(ids.len()),
            ids,
            answered_twice,
            executed_twice: Vec::new(),
            restarted: 0,
            strangers: HashSet::new(),
            wait: histogram(),
            turnaround: histogram(),
        }
    }

    /// All ids, in order.
    pub(crate) fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// How many are not known to be final.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Those of a range that are not known to be final.
    pub(crate) fn open_in(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = Id> + '_ {
        let ids = self.ids[range.clone()].iter().zip(&self.states[range]);
        ids.filter(|(_, state)| !state.is_final()).map(|(id, _)| *id)
    }

    /// Notes what a task has become. `ours` says that it surely belongs to this run.
    pub(crate) fn note(&mut self, row: &Row, ours: bool) {
        let Ok(index) = self.ids.binary_search(&row.id) else {
            if ours && self.strangers.len() < STRANGERS_MAX {
                self.strangers.insert(row.id);
            }
            return;
        };
        if self.states[index].is_final() {
            return;
        }
        self.states[index] = row.state;
        if row.state.is_final() {
            self.open -= 1;
            self.note_end(row);
        }
    }

    fn note_end(&mut self, row: &Row) {
        let since = |end: Option<i64>| end.and_then(|end| u64::try_from(end - row.created_us).ok());
        if let Some(us) = since(row.started_us) {
            self.wait.saturating_record(us.max(1));
        }
        if let Some(us) = since(row.finished_us) {
            self.turnaround.saturating_record(us.max(1));
        }
        self.finished_us.extend(row.finished_us);
        if row.unexplained_starts() > 0 {
            self.executed_twice.push(row.id);
        } else if row.starts > 1 {
            self.restarted += 1;
        }
    }

    /// The account. What is not known at this point is lost.
    pub(crate) fn account(&self, checked_by: &str) -> Account {
        let count = |wanted| self.states.iter().filter(|&&state| state == wanted).count() as u64;
        let at_fault = self
            .ids
            .iter()
            .zip(&self.states)
            .filter(|(_, state)| !state.is_final());
        let named = at_fault.map(|(id, _)| id).take(NAMED_MAX);
        let named = named
            .chain(self.answered_twice.iter().take(NAMED_MAX))
            .chain(self.executed_twice.iter().take(NAMED_MAX))
            .map(|id| uuid::Uuid::from_bytes(*id).to_string());
        let mut account = Account {
            checked_by: checked_by.to_owned(),
            accepted: (self.ids.len() + self.answered_twice.len()) as u64,
            succeeded: count(State::Succeeded),
            failed: count(State::Failed),
            cancelled: count(State::Cancelled),
            expired: count(State::Expired),
            lost: count(State::Unknown),
            unfinished: count(State::Open),
            answered_twice: self.answered_twice.len() as u64,
            executed_twice: self.executed_twice.len() as u64,
            restarted: self.restarted,
            strangers: self.strangers.len() as u64,
            examples: named.collect(),
            holds: false,
        };
        account.holds = account.finished() == account.accepted && account.executed_twice == 0;
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u8, state: State) -> Row {
        Row {
            id: [id; 16],
            state,
            created_us: 1_000_000,
            started_us: Some(1_002_000),
            finished_us: Some(1_005_000),
            starts: 1,
            errors: u64::from(state == State::Failed),
        }
    }

    #[test]
    fn the_sum_must_be_right() {
        let mut ledger = Ledger::new((1..=4).map(|id| [id; 16]).collect());
        for (id, state) in [(1, State::Succeeded), (2, State::Failed), (3, State::Cancelled)] {
            ledger.note(&row(id, state), true);
        }
        ledger.note(&row(4, State::Open), true);
        assert_eq!((ledger.open(), ledger.account("api").unfinished), (1, 1));
        assert!(!ledger.account("api").holds);
        ledger.note(&row(4, State::Expired), true);
        ledger.note(&row(4, State::Expired), true);
        let account = ledger.account("api");
        assert!(account.holds && account.finished() == 4, "{account:?}");
        assert_eq!(ledger.turnaround.value_at_quantile(1.0) / 10, 500, "5 ms");
    }

    #[test]
    fn losses_and_doubles_are_counted() {
        let mut ledger = Ledger::new(vec![[1; 16], [2; 16], [1; 16], [3; 16]]);
        ledger.note(&row(1, State::Succeeded), true);
        let twice = Row {
            starts: 2,
            ..row(2, State::Succeeded)
        };
        ledger.note(&twice, true);
        ledger.note(&row(9, State::Succeeded), true);
        let account = ledger.account("api");
        assert_eq!((account.accepted, account.lost, account.strangers), (4, 1, 1));
        assert_eq!((account.answered_twice, account.executed_twice), (1, 1));
        assert!(!account.holds);
        assert_eq!(account.examples.len(), 3);
    }

    #[test]
    fn a_start_with_a_reason_on_record_is_no_double() {
        let mut ledger = Ledger::new(vec![[1; 16], [2; 16]]);
        let retried = Row {
            starts: 3,
            errors: 2,
            ..row(1, State::Succeeded)
        };
        ledger.note(&retried, true);
        let cancelled = Row {
            starts: 1,
            ..row(2, State::Cancelled)
        };
        ledger.note(&cancelled, true);
        let account = ledger.account("api");
        assert!(account.holds, "{account:?}");
        assert_eq!(account.restarted, 1);
    }
}
