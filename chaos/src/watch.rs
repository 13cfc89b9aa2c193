//! The clock of a run: monotonic, and never one of those that leap.

use std::time::{Duration, Instant, SystemTime};

use forebay_chaos::evidence::Moment;

/// Tells the moments of one run. All its copies agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    began: Instant,
    began_at: SystemTime,
}

impl Watch {
    /// The run begins now.
    pub(crate) fn start() -> Self {
        Self {
            began: Instant::now(),
            began_at: SystemTime::now(),
        }
    }

    /// The time since its beginning.
    pub(crate) fn now(self) -> Moment {
        self.began.elapsed()
    }

    /// Its beginning.
    pub(crate) fn began(self) -> Instant {
        self.began
    }

    /// The time of day so long from now, as RFC 3339 has it.
    pub(crate) fn time_in(self, wait: Duration) -> String {
        let at = jiff::Timestamp::try_from(self.began_at + self.now() + wait);
        at.map_or_else(|_| String::new(), |at| at.to_string())
    }
}
