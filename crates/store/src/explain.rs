use async_trait::async_trait;
use forebay_core::{TaskId, Timestamp};

use crate::Result;

/// Where a task stands among those of its lane that wait for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Since when it is ready.
    pub queued_at: Timestamp,
    /// How many of its lane were ready before it, and still are.
    pub ahead: u64,
    /// Whether these are all; where not, there may be more.
    pub is_exact: bool,
}

/// What only an explanation asks for.
#[async_trait]
pub trait Explain: Send + Sync + 'static {
    /// The place of a task in its lane; `None` where it is not queued. Looks only so far that a person may ask for any
    /// task: where there is more, it says that the count is not exact.
    async fn place(&self, id: TaskId) -> Result<Option<Place>>;
}
