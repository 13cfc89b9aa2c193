use std::error::Error as StdError;

use thiserror::Error;

/// What a store method returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Says what the caller should do, not what went wrong inside; that is in the source.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store can't be reached or is overloaded: back off and try again. What was asked may or may not have
    /// been done; every method may be called again with the same arguments.
    #[error("the store is unavailable while it should {doing}")]
    Unavailable {
        /// What was asked, as a verb and a noun.
        doing: &'static str,
        /// The driver's error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The worker was declared dead: stop what it runs, and register under a new id.
    #[error("this worker was declared dead, and its tasks were taken back")]
    WorkerGone,
    /// The store refused this input and would refuse it again: one of the rows is at fault.
    #[error("the store refused to {doing}")]
    Refused {
        /// What was asked, as a verb and a noun.
        doing: &'static str,
        /// The driver's error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The schema is not the one this program was made for; `forebay migrate` brings it up to date.
    #[error("the schema is at version {found}, this program needs {needed}: run `forebay migrate`")]
    Schema {
        /// The version in the database; 0 where there is none.
        found: i64,
        /// The version this program was made for.
        needed: i64,
    },
    /// What is stored makes no sense. Somebody must look.
    #[error("the store holds a value that makes no sense: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether trying the same again later may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
