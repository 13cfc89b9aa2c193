//! What the checker may find, each with a sentence for the person who has to look at it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::edge::{Edge, Standing};
use crate::evidence::Moment;

/// A promise that was not kept, or evidence that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When it showed.
    pub at: Moment,
    /// Of which task; `None` where it is not about one.
    pub task: Option<Uuid>,
    /// What it is.
    pub breach: Breach,
}

/// The kinds of violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Breach {
    /// There is nothing to judge, so nothing is proved.
    NothingToJudge {
        /// What there is none of.
        what: String,
    },
    /// It was accepted, and did not come to an end.
    Lost {
        /// Where it was left; `None` where there is no row of it.
        state: Option<String>,
    },
    /// It was recorded although nobody was told so, and did not come to an end.
    NeverFinished {
        /// Where it was left.
        state: String,
    },
    /// There are several rows of it.
    RowTwice,
    /// It was recorded although nobody was told so, and its row is gone.
    RowGone,
    /// There is a row, of which no transition tells.
    NoHistory,
    /// The row is not what its last transition made it.
    RowDisagrees {
        /// What the row says.
        row: Standing,
        /// What the last transition says.
        last: Standing,
    },
    /// One idempotency key, two tasks.
    KeyTwice {
        /// The key.
        key: String,
        /// The task that it had named before.
        first: Uuid,
    },
    /// A transition does not begin where the one before it ended.
    Hole {
        /// Where it begins; `None` for an insert.
        begins: Option<Standing>,
        /// Where the one before it ended; `None` where there is none.
        ended: Option<Standing>,
    },
    /// A transition between states that no operation of Forebay makes.
    IllegalWay {
        /// From here; `None` for an insert.
        from: Option<Standing>,
        /// To here.
        to: Standing,
    },
    /// A legal transition that moved the attempts or the lost workers as none does.
    Miscounted {
        /// From here; `None` for an insert.
        from: Option<Standing>,
        /// To here.
        to: Standing,
    },
    /// A write took the fence back: it was one of an earlier start.
    StaleWrite {
        /// The fence before and after.
        fence: (u32, u32),
    },
    /// The fence grew without a claim, or a claim did not move it by exactly one.
    FenceStep {
        /// The fence before and after.
        fence: (u32, u32),
        /// Whether it was a claim.
        claim: bool,
    },
    /// A second outcome was written over the first.
    OutcomeTwice {
        /// The state of the first.
        first: String,
        /// The state of the second.
        second: String,
    },
    /// It had ended, and was brought back.
    Reopened {
        /// How it had ended.
        first: String,
        /// What it was made.
        to: String,
    },
    /// A result was written by something other than success.
    ResultWritten {
        /// The state after.
        to: String,
    },
    /// It succeeded with another result than its handler gave.
    WrongResult {
        /// What it says, shortened.
        result: Option<String>,
        /// What it should say, shortened.
        payload: String,
    },
    /// Its handler was called twice under one fence.
    FenceShared {
        /// Which.
        fence: u32,
    },
    /// Its handler was called under a fence that was never claimed.
    StartUnclaimed {
        /// Which.
        fence: u32,
    },
    /// Its handler was called before the claim.
    StartTooEarly {
        /// Under this fence.
        fence: u32,
        /// When it was claimed.
        claimed: Moment,
    },
    /// Its handler was told another attempt than was claimed.
    WrongAttempt {
        /// Under this fence.
        fence: u32,
        /// What the handler was told.
        told: u32,
        /// What was claimed.
        claimed: u32,
    },
    /// It was claimed, its handler was never called, and no fault explains it.
    ClaimUnstarted {
        /// Under this fence.
        fence: u32,
        /// How the claim ended.
        ended: Edge,
    },
    /// Its handler or the call to it failed, although no script said so and no fault explains it.
    UnexplainedFailure {
        /// Under this fence.
        fence: u32,
        /// Whether for good.
        last: bool,
    },
    /// It was executed again, and no fault explains why.
    UnexplainedRepetition {
        /// The fence of the repetition.
        fence: u32,
        /// How the execution before it ended.
        ended: Edge,
        /// When that was.
        ended_at: Moment,
    },
    /// Nothing was finished for too long after a fault.
    LongStall {
        /// What was done.
        fault: String,
        /// To whom.
        target: String,
        /// For how long.
        stall: Duration,
        /// For how long it may be.
        limit: Duration,
    },
}

impl Breach {
    /// All names that [`Self::name`] gives.
    pub const NAMES: [&str; 25] = [
        "nothing_to_judge",
        "lost",
        "never_finished",
        "row_twice",
        "row_gone",
        "no_history",
        "row_disagrees",
        "key_twice",
        "hole",
        "illegal_way",
        "miscounted",
        "stale_write",
        "fence_step",
        "outcome_twice",
        "reopened",
        "result_written",
        "wrong_result",
        "fence_shared",
        "start_unclaimed",
        "start_too_early",
        "wrong_attempt",
        "claim_unstarted",
        "unexplained_failure",
        "unexplained_repetition",
        "long_stall",
    ];

    /// Its kind, as one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NothingToJudge { .. } => "nothing_to_judge",
            Self::Lost { .. } => "lost",
            Self::NeverFinished { .. } => "never_finished",
            Self::RowTwice => "row_twice",
            Self::RowGone => "row_gone",
            Self::NoHistory => "no_history",
            Self::RowDisagrees { .. } => "row_disagrees",
            Self::KeyTwice { .. } => "key_twice",
            Self::Hole { .. } => "hole",
            Self::IllegalWay { .. } => "illegal_way",
            Self::Miscounted { .. } => "miscounted",
            Self::StaleWrite { .. } => "stale_write",
            Self::FenceStep { .. } => "fence_step",
            Self::OutcomeTwice { .. } => "outcome_twice",
            Self::Reopened { .. } => "reopened",
            Self::ResultWritten { .. } => "result_written",
            Self::WrongResult { .. } => "wrong_result",
            Self::FenceShared { .. } => "fence_shared",
            Self::StartUnclaimed { .. } => "start_unclaimed",
            Self::StartTooEarly { .. } => "start_too_early",
            Self::WrongAttempt { .. } => "wrong_attempt",
            Self::ClaimUnstarted { .. } => "claim_unstarted",
            Self::UnexplainedFailure { .. } => "unexplained_failure",
            Self::UnexplainedRepetition { .. } => "unexplained_repetition",
            Self::LongStall { .. } => "long_stall",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.breach.name())?;
        if let Some(task) = self.task {
            write!(f, "task {task} ")?;
        }
        write!(f, "{} (at {})", self.breach, moment(self.at))
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToJudge { what } => write!(f, "there are no {what}, so nothing is proved"),
            Self::Lost { state: None } => f.write_str("was accepted, and there is no row of it"),
            Self::Lost { state: Some(state) } => write!(f, "was accepted, and was left {state}"),
            Self::NeverFinished { state } => write!(f, "was recorded, and was left {state}"),
            Self::RowTwice => f.write_str("has more than one row"),
            Self::RowGone => f.write_str("was recorded, and its row is gone"),
            Self::NoHistory => f.write_str("has a row, of which no transition tells"),
            Self::RowDisagrees { row, last } => write!(f, "is {row}, but its last transition made it {last}"),
            Self::KeyTwice { key, first } => {
                write!(
                    f,
                    "was accepted under the key {key:?}, which had named task {first}"
                )
            }
            Self::FenceShared { fence } => write!(f, "was started twice under fence {fence}"),
            Self::StartUnclaimed { fence } => {
                write!(f, "was started under fence {fence}, which was never claimed")
            }
            Self::StartTooEarly { fence, claimed } => {
                let claimed = moment(*claimed);
                write!(
                    f,
                    "was started under fence {fence}, which was claimed only at {claimed}"
                )
            }
            Self::WrongAttempt { fence, told, claimed } => {
                write!(
                    f,
                    "was started under fence {fence} as attempt {told}, but claimed as {claimed}"
                )
            }
            Self::ClaimUnstarted { fence, ended } => {
                write!(
                    f,
                    "was claimed under fence {fence}, never started, and {ended}: no fault explains it"
                )
            }
            Self::LongStall {
                fault,
                target,
                stall,
                limit,
            } => {
                let (stall, limit) = (moment(*stall), moment(*limit));
                write!(
                    f,
                    "nothing was finished for {stall} after {fault} of {target}; the limit is {limit}"
                )
            }
            written => written.fmt_write(f),
        }
    }
}

impl Breach {
    /// The sentences about writes and executions.
    fn fmt_write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing = || "nothing".to_owned();
        let side = |side: &Option<Standing>| side.as_ref().map_or_else(nothing, Standing::to_string);
        match self {
            Self::Hole { begins, ended } => {
                let (begins, ended) = (side(begins), side(ended));
                write!(
                    f,
                    "was changed from {begins}, but the transition before had left {ended}"
                )
            }
            Self::IllegalWay { from, to } => {
                write!(f, "went from {} to {to}, which no operation does", side(from))
            }
            Self::Miscounted { from, to } => {
                write!(f, "went from {} to {to}, which miscounts", side(from))
            }
            Self::StaleWrite { fence: (from, to) } => {
                write!(f, "was written under fence {to} when it was {from} already")
            }
            Self::FenceStep {
                fence: (from, to),
                claim,
            } => {
                let what = if *claim {
                    "a claim"
                } else {
                    "something other than a claim"
                };
                write!(f, "had its fence moved from {from} to {to} by {what}")
            }
            Self::OutcomeTwice { first, second } => {
                write!(f, "had ended {first}, and an outcome was written again: {second}")
            }
            Self::Reopened { first, to } => write!(f, "had ended {first}, and became {to}"),
            Self::ResultWritten { to } => write!(f, "was given a result when it became {to}"),
            Self::WrongResult {
                result: None,
                payload,
            } => {
                write!(f, "succeeded without a result, in place of {payload}")
            }
            Self::WrongResult {
                result: Some(result),
                payload,
            } => write!(f, "succeeded with {result}, in place of {payload}"),
            Self::UnexplainedFailure { fence, last } => {
                let last = if *last { " for good" } else { "" };
                write!(
                    f,
                    "failed{last} under fence {fence}: no script and no fault explains it"
                )
            }
            Self::UnexplainedRepetition {
                fence,
                ended,
                ended_at,
            } => {
                let at = moment(*ended_at);
                write!(
                    f,
                    "was executed again under fence {fence}, since it {ended} at {at}: no fault explains it"
                )
            }
            told_above => f.write_str(told_above.name()),
        }
    }
}

/// A moment or a duration, in seconds.
fn moment(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}
