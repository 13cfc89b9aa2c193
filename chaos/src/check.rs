//! The judge of a run: holds what submitters were told, what handlers saw and what the database says against each
//! other, and lists every promise that was not kept. It takes nothing on trust but the evidence, knows nothing of how
//! the faults were injected, and finds fault with an empty run.

mod breach;
mod edge;
mod executions;
mod history;
mod windows;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    breach::{Breach, Violation},
    edge::{Edge, Standing},
};
use self::{history::History, windows::Windows};
use crate::evidence::{Accepted, Evidence, Injected, Moment, Row, Start, Transition};

/// How much of a result a violation shows.
const SHOWN_CHARS_MAX: usize = 80;

/// What is to be said of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Every promise that was not kept, in the order in which it showed.
    pub violations: Vec<Violation>,
    /// A line for each kind of fault, in the order in which it was first injected.
    pub faults: Vec<FaultLine>,
    /// The figures of the whole run.
    pub totals: Totals,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

/// What one kind of fault did. What was lost, doubled or repeated is put down to one fault each, the likeliest of
/// those in whose windows it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultLine {
    /// What was done.
    pub fault: String,
    /// To whom.
    pub target: String,
    /// How often.
    pub times: usize,
    /// How many submissions were accepted while it lasted.
    pub accepted: usize,
    /// How many tasks that were accepted in its window came to no end.
    pub lost: usize,
    /// How many outcomes were written after a first one, in its window.
    pub doubled: usize,
    /// How many executions were repeated because of it.
    pub repeated: usize,
    /// The longest time from its end until something submitted afterwards was finished.
    pub longest_stall: Duration,
}

/// The figures of a whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Faults injected.
    pub faults: usize,
    /// Submissions that were accepted.
    pub answers: usize,
    /// Tasks they made: several submissions under one key make one.
    pub accepted: usize,
    /// Tasks that were recorded although nobody was told so: the answer did not arrive.
    pub untold: usize,
    /// Accepted tasks that came to no end.
    pub lost: usize,
    /// Outcomes that were written after a first one.
    pub doubled: usize,
    /// Calls of a handler.
    pub starts: usize,
    /// Of them, those that follow an interrupted execution of the same task.
    pub repeated: usize,
    /// Attempts that failed because they were told to.
    pub scripted: usize,
    /// Claims whose handler was never called.
    pub unstarted: usize,
    /// Tasks by the state they ended in.
    pub finished: BTreeMap<String, usize>,
    /// The longest time from a fault's end until something submitted afterwards was finished.
    pub longest_stall: Duration,
    /// The longest time from the first acceptance of a task to its end, through all faults and retries.
    pub slowest: Duration,
}

/// All the evidence about one task.
#[derive(Debug, Default)]
struct Task<'a> {
    accepted: Vec<&'a Accepted>,
    starts: Vec<&'a Start>,
    transitions: Vec<&'a Transition>,
    rows: Vec<&'a Row>,
}

/// Judges a run.
#[must_use]
pub fn check(evidence: &Evidence) -> Verdict {
    let mut trial = Trial::of(evidence);
    trial.nothing_to_judge();
    trial.keys();
    let tasks = by_task(evidence);
    let mut finished = Vec::new();
    for (&id, task) in &tasks {
        let history = History::of(&task.transitions);
        trial.task(id, task, &history);
        if let (Some(told), Some(end)) = (task.accepted.first(), history.finished) {
            finished.push((told.at, end));
        }
    }
    trial.totals.accepted = tasks.values().filter(|task| !task.accepted.is_empty()).count();
    trial.stalls(&finished);
    trial.close()
}

fn by_task(evidence: &Evidence) -> BTreeMap<Uuid, Task<'_>> {
    let mut tasks: BTreeMap<Uuid, Task<'_>> = BTreeMap::new();
    for it in &evidence.accepted {
        tasks.entry(it.id).or_default().accepted.push(it);
    }
    for it in &evidence.starts {
        tasks.entry(it.id).or_default().starts.push(it);
    }
    for it in &evidence.transitions {
        tasks.entry(it.id).or_default().transitions.push(it);
    }
    for it in &evidence.rows {
        tasks.entry(it.id).or_default().rows.push(it);
    }
    for task in tasks.values_mut() {
        task.transitions.sort_by_key(|it| it.seq);
        task.accepted.sort_by_key(|it| it.at);
    }
    tasks
}

/// A verdict in the making.
struct Trial<'a> {
    evidence: &'a Evidence,
    windows: Windows<'a>,
    lines: Vec<FaultLine>,
    /// The line of each fault.
    line_of: Vec<usize>,
    violations: Vec<Violation>,
    totals: Totals,
}

impl<'a> Trial<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut lines: Vec<FaultLine> = Vec::new();
        let mut line_of = Vec::new();
        for fault in &evidence.faults {
            let known = lines
                .iter()
                .position(|line| (&line.fault, &line.target) == (&fault.fault, &fault.target));
            line_of.push(known.unwrap_or(lines.len()));
            if known.is_none() {
                lines.push(line_for(fault, evidence));
            }
        }
        for &line in &line_of {
            lines[line].times += 1;
        }
        Self {
            evidence,
            windows: Windows::new(&evidence.faults, evidence.aftermath),
            lines,
            line_of,
            violations: Vec::new(),
            totals: Totals {
                faults: evidence.faults.len(),
                answers: evidence.accepted.len(),
                starts: evidence.starts.len(),
                ..Totals::default()
            },
        }
    }

    fn breach(&mut self, at: Moment, task: Option<Uuid>, breach: Breach) {
        self.violations.push(Violation { at, task, breach });
    }

    /// The line of the fault that something is put down to.
    fn line(&mut self, fault: Option<usize>) -> Option<&mut FaultLine> {
        fault.map(|it| &mut self.lines[self.line_of[it]])
    }

    /// A run in which nothing happened keeps every promise, and proves none.
    fn nothing_to_judge(&mut self) {
        let empty = [
            (self.evidence.accepted.is_empty(), "accepted tasks"),
            (self.evidence.starts.is_empty(), "starts"),
            (self.evidence.transitions.is_empty(), "transitions"),
            (self.evidence.rows.is_empty(), "rows"),
        ];
        for (_, what) in empty.into_iter().filter(|(is_empty, _)| *is_empty) {
            let what = what.to_owned();
            self.breach(Moment::ZERO, None, Breach::NothingToJudge { what });
        }
    }

    /// The same key names the same task.
    fn keys(&mut self) {
        let mut named: HashMap<&str, Uuid> = HashMap::new();
        for it in &self.evidence.accepted {
            let Some(key) = it.key.as_deref() else { continue };
            let first = *named.entry(key).or_insert(it.id);
            if first != it.id {
                let key = key.to_owned();
                self.breach(it.at, Some(it.id), Breach::KeyTwice { key, first });
            }
        }
    }

    fn task(&mut self, id: Uuid, task: &Task<'_>, history: &History) {
        for (at, breach) in &history.breaches {
            self.breach(*at, Some(id), breach.clone());
        }
        for &at in &history.doubled {
            self.totals.doubled += 1;
            let cause = self.windows.around(at);
            if let Some(line) = self.line(cause) {
                line.doubled += 1;
            }
        }
        if let (Some(told), Some(end)) = (task.accepted.first(), history.finished) {
            self.totals.slowest = self.totals.slowest.max(end.saturating_sub(told.at));
        }
        self.row(id, task, history);
        // A row without a history has been told of; that its starts have no claims follows from that.
        if !task.transitions.is_empty() || task.rows.is_empty() {
            self.executions(id, task, history);
        }
    }

    /// There is exactly one row of it, in exactly one final state, as its history left it.
    fn row(&mut self, id: Uuid, task: &Task<'_>, history: &History) {
        let seen = task.transitions.last().map_or(Moment::ZERO, |it| it.at);
        let told = task.accepted.first().map(|it| it.at);
        let Some(row) = task.rows.first() else {
            match told {
                Some(at) => self.lost(id, at, None),
                None if !task.transitions.is_empty() => self.breach(seen, Some(id), Breach::RowGone),
                None => {}
            }
            return;
        };
        if task.rows.len() > 1 {
            self.breach(seen, Some(id), Breach::RowTwice);
        }
        self.totals.untold += usize::from(told.is_none());
        let state = row.state.clone();
        if edge::is_final(&state) {
            *self.totals.finished.entry(state).or_default() += 1;
        } else if let Some(at) = told {
            self.lost(id, at, Some(state));
        } else {
            self.breach(seen, Some(id), Breach::NeverFinished { state });
        }
        if let Some(breach) = disagreement(row, history) {
            self.breach(seen, Some(id), breach);
        }
        if let Some(breach) = wrong_result(row) {
            self.breach(seen, Some(id), breach);
        }
    }

    fn lost(&mut self, id: Uuid, at: Moment, state: Option<String>) {
        self.breach(at, Some(id), Breach::Lost { state });
        self.totals.lost += 1;
        let cause = self.windows.around(at);
        if let Some(line) = self.line(cause) {
            line.lost += 1;
        }
    }

    fn executions(&mut self, id: Uuid, task: &Task<'_>, history: &History) {
        let payload = task.rows.first().map(|row| row.payload.as_str());
        let found = executions::judge(history, &task.starts, payload, self.windows);
        for (at, breach) in found.breaches {
            self.breach(at, Some(id), breach);
        }
        self.totals.scripted += found.scripted;
        self.totals.unstarted += found.unstarted;
        self.totals.repeated += found.repeated.len();
        for cause in found.repeated {
            if let Some(line) = self.line(cause) {
                line.repeated += 1;
            }
        }
    }

    /// After each fault work goes on within the limit. `finished` has for each accepted task when it was accepted and
    /// when it ended: a fault is over no earlier than they say, whatever the driver noted.
    fn stalls(&mut self, finished: &[(Moment, Moment)]) {
        let limit = self.evidence.aftermath;
        for (index, fault) in self.evidence.faults.iter().enumerate() {
            let seen = finished
                .iter()
                .filter(|(told, _)| *told >= fault.until)
                .map(|(_, end)| *end)
                .min();
            let recovered = seen.map_or(fault.recovered, |seen| seen.max(fault.recovered));
            let stall = recovered.saturating_sub(fault.until);
            let line = &mut self.lines[self.line_of[index]];
            line.longest_stall = line.longest_stall.max(stall);
            self.totals.longest_stall = self.totals.longest_stall.max(stall);
            if stall > limit {
                let (target, fault, at) = (fault.target.clone(), fault.fault.clone(), fault.until);
                let breach = Breach::LongStall {
                    fault,
                    target,
                    stall,
                    limit,
                };
                self.breach(at, None, breach);
            }
        }
    }

    fn close(mut self) -> Verdict {
        self.violations
            .sort_by_key(|it| (it.at, it.task, it.breach.name()));
        Verdict {
            violations: self.violations,
            faults: self.lines,
            totals: self.totals,
        }
    }
}

/// A line for the faults like this one, with what was accepted while any of them lasted.
fn line_for(fault: &Injected, evidence: &Evidence) -> FaultLine {
    let alike: Vec<&Injected> = evidence
        .faults
        .iter()
        .filter(|it| (&it.fault, &it.target) == (&fault.fault, &fault.target))
        .collect();
    let during = |it: &&Accepted| {
        alike
            .iter()
            .any(|fault| (fault.from..=fault.until).contains(&it.at))
    };
    FaultLine {
        fault: fault.fault.clone(),
        target: fault.target.clone(),
        times: 0,
        accepted: evidence.accepted.iter().filter(during).count(),
        lost: 0,
        doubled: 0,
        repeated: 0,
        longest_stall: Duration::ZERO,
    }
}

/// Where the row is not what its history made it. Where the history itself is wrong, that has been said.
fn disagreement(row: &Row, history: &History) -> Option<Breach> {
    let Some(last) = &history.last else {
        return Some(Breach::NoHistory);
    };
    let stands = Standing {
        state: row.state.clone(),
        fence: row.fence,
        attempt: row.attempt,
        lost: row.lost,
    };
    (history.breaches.is_empty() && stands != *last).then(|| Breach::RowDisagrees {
        row: stands,
        last: last.clone(),
    })
}

/// Handlers answer with the payload, so a result that is not the payload is not the handler's.
fn wrong_result(row: &Row) -> Option<Breach> {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let is_right = match &row.result {
        Some(result) => {
            *result == row.payload || (json(result).is_some() && json(result) == json(&row.payload))
        }
        None => false,
    };
    (row.state == "succeeded" && !is_right).then(|| Breach::WrongResult {
        result: row.result.as_deref().map(shown),
        payload: shown(&row.payload),
    })
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
