//! Operations: one action on all tasks that a filter names, carried out by the server. Pure code: what may be asked for,
//! and which ids are to be looked at.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::{BatchId, Kind, OperationId, Project, QueueName, State, TaskId, Timestamp, Violation, micros};

/// How many tasks a second are changed, unless said, and at most.
pub const RATE_PER_SECOND: u32 = 100;
/// See [`RATE_PER_SECOND`].
pub const RATE_PER_SECOND_MAX: u32 = 1_000;
/// The longest text that an error is searched for, in bytes.
const ERROR_BYTES_MAX: usize = 1_000;
/// The longest tag, as submissions may have them.
const TAG_BYTES_MAX: usize = 64;
/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What is done to each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// As [`crate::Lifecycle::retry`].
    Retry,
    /// As [`crate::Lifecycle::cancel`].
    Cancel,
    /// It is forgotten.
    Delete,
}

/// The text names no [`Action`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be retry, cancel or delete")]
pub struct UnknownAction;

impl Action {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
        }
    }

    /// The states in which it can be done to a task.
    #[must_use]
    pub fn possible_in(self) -> &'static [State] {
        match self {
            Self::Retry => &[State::Failed, State::Cancelled, State::Expired],
            Self::Cancel => &[
                State::Scheduled,
                State::Blocked,
                State::Throttled,
                State::Queued,
                State::Running,
                State::Retrying,
            ],
            Self::Delete => &[State::Succeeded, State::Failed, State::Cancelled, State::Expired],
        }
    }

    /// The states in which it is done to a task where the filter names none. A retry is for what has failed; what
    /// somebody has cancelled comes back only where that is said.
    #[must_use]
    pub fn meant_for(self) -> &'static [State] {
        match self {
            Self::Retry => &[State::Failed],
            Self::Cancel | Self::Delete => self.possible_in(),
        }
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        [Self::Retry, Self::Cancel, Self::Delete]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or(UnknownAction)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationState {
    /// A dispatcher is at it, or will be.
    Running,
    /// It has gone through all that there was, or has reached its `max`.
    Completed,
    /// Somebody has stopped it. What was done stays.
    Aborted,
}

/// The text names no [`OperationState`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be running, completed or aborted")]
pub struct UnknownOperationState;

impl OperationState {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
        }
    }
}

impl FromStr for OperationState {
    type Err = UnknownOperationState;

    fn from_str(text: &str) -> Result<Self, UnknownOperationState> {
        [Self::Running, Self::Completed, Self::Aborted]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(UnknownOperationState)
    }
}

impl fmt::Display for OperationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which tasks: those of which all that is said is true.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationFilter {
    /// Only in this state.
    #[serde(with = "maybe_state", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Only of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Project>,
    /// Only of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// Only of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Only with this label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only of this batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
    /// Only created after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<Timestamp>,
    /// Only created before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Timestamp>,
    /// Only where the message of the latest error has this text in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_contains: Option<String>,
}

/// A state by its name.
mod maybe_state {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::State;

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(state: &Option<State>, to: S) -> Result<S::Ok, S::Error> {
        state.map(State::as_str).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<State>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        name.map(|name| name.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// What an operation does, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationPlan {
    /// To each task.
    pub action: Action,
    /// To which.
    pub filter: OperationFilter,
    /// To how many a second at most.
    pub rate_per_second: u32,
    /// To how many in all at most.
    pub max: Option<u64>,
}

impl OperationPlan {
    /// The states that a task has to be in.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        match self.filter.state {
            Some(state) => vec![state],
            None => self.action.meant_for().to_vec(),
        }
    }

    /// The ids between which all tasks are that were created before `began` and that the filter can mean; neither is one
    /// itself. An id has the time at which its task was accepted, or the beginning of the day of it, or of the day before.
    #[must_use]
    pub fn ids(&self, began: Timestamp) -> (Uuid, Uuid) {
        let millis = |at: Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
        let first = self.filter.created_after.map_or(0, |after| {
            let day = millis(after) / DAY_MS * DAY_MS;
            day.saturating_sub(DAY_MS)
        });
        let last = self
            .filter
            .created_before
            .map_or(began, |before| before.min(began));
        let bound = |millis: u64| TaskId::lower_bound(millis.min((1 << 48) - 1));
        (bound(first), bound(millis(last).saturating_add(DAY_MS)))
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationProgress {
    /// How many tasks it has come to that the filter means.
    pub matched: u64,
    /// To how many of these it was done.
    pub done: u64,
    /// How many were left as they are, since they had changed meanwhile, or must be kept.
    pub skipped: u64,
    /// How many could not be changed.
    pub failed: u64,
}

/// An operation as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Names it.
    pub id: OperationId,
    /// What it does.
    pub plan: OperationPlan,
    /// Where it stands.
    pub state: OperationState,
    /// How many tasks the filter meant when it was asked for.
    pub expected: u64,
    /// Whether these were all; where not, there were more.
    pub expected_is_exact: bool,
    /// How far it is.
    pub progress: OperationProgress,
    /// When it was asked for. What was created later is left alone.
    pub created_at: Timestamp,
    /// When it did something last.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What is asked for, with the right types but not yet checked. The members' names are those of the API.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OperationRequest {
    /// See [`Action`].
    pub action: String,
    /// Which tasks; it must say something.
    pub filter: FilterRequest,
    /// See [`RATE_PER_SECOND`].
    pub rate_per_second: Option<i64>,
    /// To how many tasks at most.
    pub max: Option<i64>,
}

/// See [`OperationFilter`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "as those of `OperationFilter`")]
pub struct FilterRequest {
    pub state: Option<String>,
    pub project: Option<String>,
    pub queue: Option<String>,
    pub kind: Option<String>,
    pub tag: Option<String>,
    pub batch: Option<String>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub error_contains: Option<String>,
}

impl OperationRequest {
    /// Checks it all, and says all that is wrong with it.
    ///
    /// # Errors
    /// Each mistake, with its place.
    pub fn accept(self) -> Result<OperationPlan, Vec<Violation>> {
        let mut wrong = Vec::new();
        let action: Option<Action> = parse(Some(&self.action), "/action", &mut wrong);
        let filter = self.filter.accept(action, &mut wrong);
        let most = i64::from(RATE_PER_SECOND_MAX);
        let rate = self.rate_per_second.unwrap_or(RATE_PER_SECOND.into());
        if !(1..=most).contains(&rate) {
            let detail = format!("must be from 1 to {most}");
            wrong.push(Violation::invalid("/rate_per_second", detail));
        }
        if self.max.is_some_and(|max| max < 1) {
            wrong.push(Violation::invalid("/max", "must be at least 1"));
        }
        match action {
            Some(action) if wrong.is_empty() => Ok(OperationPlan {
                action,
                filter,
                rate_per_second: u32::try_from(rate).unwrap_or(RATE_PER_SECOND),
                max: self.max.and_then(|max| u64::try_from(max).ok()),
            }),
            _ => Err(wrong),
        }
    }
}

impl FilterRequest {
    fn accept(self, action: Option<Action>, wrong: &mut Vec<Violation>) -> OperationFilter {
        if self == Self::default() {
            let detail = "must say which tasks: at least a state, or a created_before";
            wrong.push(Violation::invalid("/filter", detail));
        }
        let state = parse(self.state.as_deref(), "/filter/state", wrong);
        if let (Some(action), Some(state)) = (action, state)
            && !action.possible_in().contains(&state)
        {
            let possible: Vec<&str> = action.possible_in().iter().map(|it| it.as_str()).collect();
            let detail = format!("must be one of {} to {action} a task", possible.join(", "));
            wrong.push(Violation::invalid("/filter/state", detail));
        }
        let is_sound = |text: &str, most: usize| (1..=most).contains(&text.len()) && !text.contains('\0');
        for (text, most, pointer) in [
            (&self.tag, TAG_BYTES_MAX, "/filter/tag"),
            (&self.error_contains, ERROR_BYTES_MAX, "/filter/error_contains"),
        ] {
            if text.as_deref().is_some_and(|text| !is_sound(text, most)) {
                let detail = format!("must have 1 to {most} bytes and no NUL character");
                wrong.push(Violation::invalid(pointer, detail));
            }
        }
        if let (Some(after), Some(before)) = (self.created_after, self.created_before)
            && after >= before
        {
            let detail = "must be later than created_after";
            wrong.push(Violation::invalid("/filter/created_before", detail));
        }
        // No task is older, and no store need know dates that are.
        let known = |at: Timestamp| micros(at.max(Timestamp::UNIX_EPOCH));
        OperationFilter {
            state,
            project: parse(self.project.as_deref(), "/filter/project", wrong),
            queue: parse(self.queue.as_deref(), "/filter/queue", wrong),
            kind: parse(self.kind.as_deref(), "/filter/kind", wrong),
            tag: self.tag,
            batch: batch(self.batch.as_deref(), wrong),
            created_after: self.created_after.map(known),
            created_before: self.created_before.map(known),
            error_contains: self.error_contains,
        }
    }
}

fn batch(text: Option<&str>, wrong: &mut Vec<Violation>) -> Option<BatchId> {
    let parsed = text?.parse();
    parsed
        .map_err(|_| wrong.push(Violation::invalid("/filter/batch", "must be the id of a batch")))
        .ok()
}

fn parse<T: FromStr>(text: Option<&str>, pointer: &str, wrong: &mut Vec<Violation>) -> Option<T>
where
    T::Err: ToString,
{
    text?
        .parse()
        .map_err(|error: T::Err| wrong.push(Violation::invalid(pointer, error.to_string())))
        .ok()
}

#[cfg(test)]
mod tests;
