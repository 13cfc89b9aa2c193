use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use async_trait::async_trait;
use tracing::{debug, warn};

use super::Chore;
use crate::shared::{STORE_CALL_MAX, Shared, chain, within};

/// How many lines are looked at together.
const LINES_MAX: usize = 500;
/// How often it is looked for tasks that wait although there is room. Whoever gives a place back lets the next go on by
/// itself: this finds what was raised, deleted or left behind.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often counters are compared with what they count.
const MEND_INTERVAL: Duration = Duration::from_secs(30);

/// Looks after tasks that wait for limits, and after the counters of these.
pub(super) struct Limits {
    shared: Arc<Shared>,
    /// Where the walk along the lines goes on.
    after: Option<i64>,
    mended_at: Option<Instant>,
    is_failing: bool,
}

impl Limits {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            after: None,
            mended_at: None,
            is_failing: false,
        }
    }

    /// Tells of what could not be done.
    fn complain(&mut self, trouble: Option<&String>) {
        // The first of a row is for a person to see.
        match (trouble, self.is_failing) {
            (Some(error), false) => {
                warn!(
                    error,
                    "some of what waits for limits could not go on, and is tried again"
                );
            }
            (Some(error), true) => debug!(error, "some of what waits for limits could not go on again"),
            (None, _) => {}
        }
        self.is_failing = trouble.is_some();
    }

    async fn mend(&mut self) -> anyhow::Result<()> {
        if self.mended_at.is_some_and(|at| at.elapsed() < MEND_INTERVAL) {
            return Ok(());
        }
        self.mended_at = Some(Instant::now());
        let mended = self.shared.store.mend_limits();
        let mended = within(STORE_CALL_MAX, "mend the counters of limits", mended).await;
        let mended = mended.map_err(|error| anyhow!(chain(&error)))?;
        if mended.counters > 0 {
            self.shared.metrics.limits_mended(mended.counters);
            let counters = mended.counters;
            warn!(
                counters,
                "limits had counted wrongly what runs, and count rightly again"
            );
        }
        Ok(())
    }
}

#[async_trait]
impl Chore for Limits {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let released = self.shared.store.release_throttled(self.after, LINES_MAX);
        let released = within(STORE_CALL_MAX, "let waiting tasks go on", released).await;
        if let Ok(released) = &released {
            self.after = released.next;
            if released.count > 0 {
                self.shared.due.ring();
            }
        }
        // A trouble with the one keeps nobody from the other.
        let mended = self.mend().await;
        let released = released.map_err(|error| anyhow!(chain(&error)))?;
        mended?;
        self.complain(released.trouble.as_ref());
        // Something was found, or the walk is not at its end: there may be more.
        match released.count > 0 || released.next.is_some() {
            true => Ok(INTERVAL / 10),
            false => Ok(INTERVAL),
        }
    }
}
