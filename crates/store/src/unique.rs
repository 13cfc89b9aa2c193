//! Who may stand beside whom: the rule about unique tasks, as pure code that every store follows.

use forebay_core::{OnConflict, State, TaskId, Timestamp, Unique};

/// The task that took a mark last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueHolder {
    /// Which one.
    pub task: TaskId,
    /// Where it stands.
    pub state: State,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Until when others are in conflict with it although it is final.
    pub until: Option<Timestamp>,
}

/// What becomes of a submission that must be the only one of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is in its way: it takes the mark.
    Free,
    /// It takes the place of this task, which is to be cancelled first, and then the mark.
    Replaces(TaskId),
    /// It is turned away, and why.
    TurnedAway(String),
}

impl UniqueHolder {
    /// Whether others are in conflict with it.
    #[must_use]
    pub fn is_in_the_way(&self, now: Timestamp) -> bool {
        !self.state.is_final() || self.until.is_some_and(|until| until > now)
    }

    /// Why it turns others away.
    fn refusal(&self, asked: OnConflict) -> String {
        let task = self.task;
        match (asked, self.state.is_final()) {
            (OnConflict::Replace, _) if self.state != State::Running => {
                format!("task {task} holds the same unique key, and was submitted later: it is not replaced")
            }
            (OnConflict::Replace, _) => {
                format!("task {task} holds the same unique key, and runs already: it is not replaced")
            }
            (_, false) => format!("task {task} holds the same unique key, and is not finished"),
            (_, true) => format!("task {task} holds the same unique key, and its window is not over"),
        }
    }
}

/// Why a task is cancelled whose place another takes.
#[must_use]
pub fn replaced_by(task: TaskId) -> String {
    format!("task {task} took its place: it has the same unique key")
}

/// What becomes of a submission of `created_at` where `holder` took its mark last. Of two that replace each other the one
/// that was submitted later is left, in whichever order they are recorded.
#[must_use]
pub fn enter(asked: &Unique, created_at: Timestamp, holder: Option<&UniqueHolder>, now: Timestamp) -> Entry {
    let Some(holder) = holder.filter(|holder| holder.is_in_the_way(now)) else {
        return Entry::Free;
    };
    match asked.on_conflict {
        OnConflict::Replace if created_at < holder.created_at => {
            Entry::TurnedAway(holder.refusal(asked.on_conflict))
        }
        OnConflict::Replace if holder.state.is_final() => Entry::Free,
        OnConflict::Replace if holder.state != State::Running => Entry::Replaces(holder.task),
        asked => Entry::TurnedAway(holder.refusal(asked)),
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::{Json, SubmitRequest, UniqueRequest};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn asked(on_conflict: &str) -> Unique {
        let mut request = SubmitRequest {
            kind: "echo".to_owned(),
            payload: Some(Json::null()),
            ..SubmitRequest::default()
        };
        request.terms.unique = Some(UniqueRequest {
            on_conflict: Some(on_conflict.to_owned()),
            ..UniqueRequest::default()
        });
        let task = request.accept(at(0), &[0; 10]).unwrap();
        task.terms.and_then(|terms| terms.unique).unwrap()
    }

    fn holder(state: State, until: Option<i64>) -> UniqueHolder {
        UniqueHolder {
            task: TaskId::from_bytes([7; 16]),
            state,
            created_at: at(5),
            until: until.map(at),
        }
    }

    #[test]
    fn one_at_most_is_unfinished_or_in_its_window() {
        for state in State::ALL {
            for until in [None, Some(9), Some(10), Some(11)] {
                let holder = holder(state, until);
                let in_the_way = !state.is_final() || until == Some(11);
                for (how, over) in [("return", false), ("reject", false), ("replace", true)] {
                    let entry = enter(&asked(how), at(5), Some(&holder), at(10));
                    let expected = match (in_the_way, over) {
                        (false, _) => entry == Entry::Free,
                        (true, true) if state.is_final() => entry == Entry::Free,
                        (true, true) if state != State::Running => entry == Entry::Replaces(holder.task),
                        (true, _) => {
                            matches!(&entry, Entry::TurnedAway(why) if why.contains(&holder.task.to_string()))
                        }
                    };
                    assert!(expected, "{how} beside {holder:?}: {entry:?}");
                }
            }
        }
        assert_eq!(enter(&asked("reject"), at(5), None, at(10)), Entry::Free);
    }

    #[test]
    fn what_was_submitted_before_replaces_nothing() {
        for state in State::ALL {
            for until in [None, Some(11)] {
                let holder = holder(state, until);
                let entry = enter(&asked("replace"), at(4), Some(&holder), at(10));
                match holder.is_in_the_way(at(10)) {
                    false => assert_eq!(entry, Entry::Free),
                    true => assert!(
                        matches!(&entry, Entry::TurnedAway(why) if why.contains(&holder.task.to_string())),
                        "{holder:?}: {entry:?}"
                    ),
                }
            }
        }
    }
}
