//! What becomes of tasks that are to be claimed and count to limits, as pure code: all stores ask here, so that they do the
//! same. They ask with the uses locked.

use std::{collections::HashMap, time::Duration};

use forebay_core::{Kind, LimitKey, LimitRule, Pace, Priority, QueueName, Rate, TaskId, Timestamp};

use super::LATE_START_MAX;

/// A rule as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub rule: LimitRule,
    /// Grows with each change that makes what waits be looked at anew.
    pub revision: i64,
}

/// All rules, as they were read together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// Whether any of them may count tasks of this queue and kind.
    #[must_use]
    pub fn concern(&self, queue: &QueueName, kind: &Kind) -> bool {
        self.0.iter().any(|it| it.rule.concerns(queue, kind))
    }

    /// The rules that count a task, each with the key by which it does.
    pub fn counting<'a>(
        &'a self,
        queue: &'a QueueName,
        kind: &'a Kind,
        key: Option<&'a LimitKey>,
    ) -> impl Iterator<Item = (&'a Rule, &'a str)> {
        let counts = move |it: &'a Rule| Some((it, it.rule.counts(queue, kind, key)?));
        self.0.iter().filter_map(counts)
    }

    /// The rule of this name, if it counts by key or together as its use with this key does.
    #[must_use]
    pub fn of_use(&self, name: &str, key: &str) -> Option<&Rule> {
        let is_it = |it: &&Rule| it.rule.name.as_str() == name && it.rule.by_key != key.is_empty();
        self.0.iter().find(is_it)
    }
}

/// A use of a limit: its counters for one key, or for all tasks that it counts together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseState {
    /// Which one, in the store's numbering.
    pub id: i64,
    /// How many may run at a time, as the rule says now.
    pub concurrency: Option<u32>,
    /// How many may start in a time, as the rule says now.
    pub rate: Option<Rate>,
    /// How many hold a place: they run, or have their turn soon.
    pub running: u32,
    /// For how many that were released a place is kept.
    pub reserved: u32,
    /// Whether anybody waits in line.
    pub has_line: bool,
    /// The turns that were given out.
    pub turns: Pace,
    /// The starts that were made.
    pub starts: Pace,
}

impl UseState {
    /// How many more may run.
    #[must_use]
    pub fn room(&self) -> u32 {
        let used = self.running.saturating_add(self.reserved);
        self.concurrency
            .map_or(u32::MAX, |most| most.saturating_sub(used))
    }
}

/// How a task was held back before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// In the line of this use, out of which it was released.
    Line {
        /// Which use.
        of: i64,
        /// Whether its place is still kept for it.
        is_reserved: bool,
    },
    /// For a turn, which has come. It holds places in these uses since it was given.
    Turn {
        /// Which uses.
        places: Vec<i64>,
    },
}

/// A task that could be claimed, if limits allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which task.
    pub id: TaskId,
    /// Its priority.
    pub priority: Priority,
    /// The uses that it counts to: places in the list of uses.
    pub uses: Vec<usize>,
    /// How it was held back before, and since when.
    pub held: Option<(Held, Timestamp)>,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may run, and holds places in these uses while it does.
    Granted {
        /// Which uses.
        places: Vec<i64>,
    },
    /// It waits in line for a place in this use.
    Line {
        /// Which use.
        of: i64,
    },
    /// It has its turn at this time, and holds places in these uses from now on.
    Turn {
        /// Whose rate makes it wait.
        of: i64,
        /// When.
        at: Timestamp,
        /// Which uses.
        places: Vec<i64>,
    },
}

/// Decides about a batch, one verdict for each, in order, and counts it in `uses`. Who was released goes first, then who has
/// waited for a turn, then the others by priority; nobody passes a line. A task gets all that it needs at once, or nothing.
#[must_use]
pub fn decide(uses: &mut [UseState], candidates: &[Candidate], now: Timestamp) -> Vec<Verdict> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&at| {
        let it = &candidates[at];
        let held = match &it.held {
            Some((Held::Line { .. }, since)) => (0, Some(*since)),
            Some((Held::Turn { .. }, since)) => (1, Some(*since)),
            None => (2, None),
        };
        (held, it.priority, it.id)
    });
    let mut deciding = Deciding {
        postponed: uses.iter().map(|it| it.starts).collect(),
        at: uses.iter().enumerate().map(|(at, it)| (it.id, at)).collect(),
        uses,
        now,
    };
    let mut verdicts = vec![None; candidates.len()];
    for at in order {
        verdicts[at] = Some(deciding.one(&candidates[at]));
    }
    verdicts.into_iter().flatten().collect()
}

struct Deciding<'a> {
    uses: &'a mut [UseState],
    /// Where each use is.
    at: HashMap<i64, usize>,
    /// As `starts`, with those of this batch that came too late for their turn and get another.
    postponed: Vec<Pace>,
    now: Timestamp,
}

impl Deciding<'_> {
    fn one(&mut self, task: &Candidate) -> Verdict {
        let (was_released, had_turn, mut places) = match &task.held {
            Some((Held::Line { of, is_reserved }, _)) => {
                if let Some(&at) = self.at.get(of).filter(|_| *is_reserved) {
                    self.uses[at].reserved = self.uses[at].reserved.saturating_sub(1);
                }
                (true, false, Vec::new())
            }
            Some((Held::Turn { places }, _)) => (false, true, places.clone()),
            None => (false, false, Vec::new()),
        };
        let needed: Vec<usize> = task
            .uses
            .iter()
            .copied()
            .filter(|&at| self.uses[at].concurrency.is_some() && !places.contains(&self.uses[at].id))
            .collect();
        for &at in &needed {
            let it = &mut self.uses[at];
            // Who was released has stood in a line already: to send it to the end of the next would empty the one after
            // the other, task by task. The places of those who were released before it are kept from it all the same.
            let may_pass = was_released || !it.has_line;
            if it.room() == 0 || !may_pass {
                it.has_line = true;
                let of = it.id;
                self.leave(&places);
                return Verdict::Line { of };
            }
        }
        for &at in &needed {
            self.uses[at].running += 1;
            places.push(self.uses[at].id);
        }
        places.sort_unstable();
        match self.turn(&task.uses, had_turn) {
            Some((of, at)) => Verdict::Turn { of, at, places },
            None => Verdict::Granted { places },
        }
    }

    /// Gives up places.
    fn leave(&mut self, places: &[i64]) {
        for place in places {
            if let Some(&at) = self.at.get(place) {
                self.uses[at].running = self.uses[at].running.saturating_sub(1);
            }
        }
    }

    /// When a task has its turn, and by whose rate; `None` where it starts now.
    fn turn(&mut self, uses: &[usize], had_turn: bool) -> Option<(i64, Timestamp)> {
        let rated: Vec<(usize, Rate)> = uses
            .iter()
            .filter_map(|&at| Some((at, self.uses[at].rate?)))
            .collect();
        let early = if had_turn { LATE_START_MAX } else { Duration::ZERO };
        let next = |(at, rate): (usize, Rate)| {
            let pace = if had_turn {
                self.postponed[at]
            } else {
                self.uses[at].turns
            };
            (pace.next_within(rate, early, self.now), at, rate)
        };
        let turns: Vec<(Timestamp, usize, Rate)> = rated.into_iter().map(next).collect();
        let &(last, by, _) = turns.iter().max_by_key(|(turn, ..)| *turn)?;
        let waits = last > self.now;
        for (turn, at, rate) in turns {
            let it = &mut self.uses[at];
            match (waits, had_turn) {
                (true, true) => self.postponed[at] = self.postponed[at].after(rate, turn),
                (true, false) => it.turns = it.turns.after(rate, turn),
                (false, _) => {
                    it.starts = it.starts.after(rate, self.now);
                    self.postponed[at] = self.postponed[at].after(rate, self.now);
                    it.turns = match had_turn {
                        true => it.turns.max(it.starts),
                        false => it.turns.after(rate, self.now).max(it.starts),
                    };
                }
            }
        }
        waits.then(|| (self.uses[by].id, last))
    }
}

#[cfg(test)]
mod tests;
