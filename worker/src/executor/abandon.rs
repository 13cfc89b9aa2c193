//! The end of an executor whose handlers live in another process, and are gone with it.
//!
//! It ends as one that has died, and leaves no mess: what has ended is stored, what it ran is taken back at once and not
//! only after the lease, and what the broker had handed to it goes back.

use std::time::Duration;

use forebay_core::WorkerId;
use forebay_runtime::supervise::Backoff;
use forebay_store::StoreError;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Executor, drain::flush, unpanicked};
use crate::shared::{BROKER_CALL_MAX, Shared, chain, within};

/// How long what has ended, or is being claimed, may take until it is known.
const ENDS_MAX: Duration = Duration::from_secs(1);
/// How long subscriptions may take to be closed: longer than they wait for a message.
const CLOSES_MAX: Duration = Duration::from_secs(5);
/// How often is looked whether the attempts that are left are those that never end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Executor {
    /// As [`Self::run`], but drains until `patience` is over, and ends at once when the handlers are `gone`. Of the
    /// attempts that are under way then so many as `stranded` says will never end.
    pub(crate) async fn run_until_gone(
        mut self,
        stop: CancellationToken,
        patience: impl Future<Output = ()>,
        gone: impl Future<Output = ()>,
        stranded: impl Fn() -> usize,
    ) -> anyhow::Result<()> {
        let in_order = async {
            self.work(&stop).await?;
            self.wind_up(patience).await;
            anyhow::Ok(())
        };
        let is_gone = tokio::select! {
            biased;
            () = gone => true,
            ended = in_order => {
                ended?;
                false
            }
        };
        if is_gone {
            self.abandon(stranded).await;
            return Ok(());
        }
        self.finish().await
    }

    async fn abandon(mut self, stranded: impl Fn() -> usize) {
        info!(
            running = stranded(),
            "the handlers are gone: what they ran is taken back"
        );
        // Neither a heartbeat nor a new life from now on.
        self.rest.cancel();
        self.is_interrupting = true;
        self.hand_back_unstarted();
        // What comes after that is lost like what runs.
        let _ = timeout(ENDS_MAX, self.settle_but(stranded)).await;
        self.claims = JoinSet::new();
        self.attempts = JoinSet::new();
        self.finished = mpsc::channel(1).0;
        if let Err(problem) = flush(&mut self.parts, self.shared.options.flush_timeout).await {
            warn!(error = format!("{problem:#}"), "the last outcomes are lost");
        }
        if let Some(worker) = self.life.id() {
            take_back(&self.shared, worker).await;
        }
        if timeout(CLOSES_MAX, self.settle()).await.is_err() {
            warn!("some subscriptions could not be closed, what they hold comes again later");
        }
        self.intake.retire();
    }

    /// Until all is handed in that has ended. What the store grants meanwhile goes back unrun.
    async fn settle_but(&mut self, stranded: impl Fn() -> usize) -> anyhow::Result<()> {
        while !self.claims.is_empty() || self.attempts.len() > stranded() {
            tokio::select! {
                Some(answer) = self.claims.join_next() => self.begin(unpanicked(answer)?),
                Some(ended) = self.attempts.join_next() => unpanicked(ended)?,
                () = sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }
}

/// Tells the store, for as long as nobody else would notice.
async fn take_back(shared: &Shared, worker: WorkerId) {
    let lease_ends = Instant::now() + shared.options.lease;
    let mut backoff = Backoff::default();
    loop {
        let taken = shared.store.abandon(worker, shared.options.lost_max);
        match within(BROKER_CALL_MAX, "take back the tasks of a worker", taken).await {
            Ok(events) => {
                info!(%worker, tasks = events.len(), "its tasks were taken back");
                shared.taken_back(events);
                return;
            }
            Err(StoreError::Unavailable { .. }) if Instant::now() < lease_ends => sleep(backoff.next()).await,
            Err(error) => {
                warn!(%worker, error = chain(&error), "its tasks could not be taken back, its lease runs out");
                return;
            }
        }
    }
}
