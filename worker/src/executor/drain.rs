//! The end of an executor: takes nothing new, lets what runs finish, and hands the rest back.

use std::{sync::atomic::Ordering, time::Duration};

use forebay_core::WorkerId;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use super::{COMPLETER, Executor, TICK, intake::Pulled, unpanicked};
use crate::{
    shared::{BROKER_CALL_MAX, Shared, chain, within},
    subscribe::Receipts,
};

/// How long the handlers' ends may take beyond their grace.
const ENDS_MAX: Duration = Duration::from_secs(2);

impl Executor {
    /// Takes nothing new, and sees what runs to its end; once `patience` is over it is interrupted. The heartbeat goes on
    /// until the very end, so nothing is taken from us meanwhile.
    pub(super) async fn wind_up(&mut self, patience: impl Future<Output = ()>) {
        self.draining.store(true, Ordering::Release);
        self.life.question();
        self.hand_back_unstarted();
        info!(running = self.running.len(), "draining");
        let is_over = tokio::select! {
            biased;
            _ = self.settle() => false,
            () = patience => true,
        };
        if is_over {
            info!(
                running = self.running.len(),
                "the time to drain is over, the rest is interrupted"
            );
            self.is_interrupting = true;
            self.running.stop_all();
            let ends = self.shared.options.handler_grace + ENDS_MAX;
            if timeout(ends, self.settle()).await.is_err() {
                warn!(running = self.running.len(), "some tasks could not be ended");
            }
        }
        self.intake.retire();
    }

    /// What was received and not claimed yet goes back, and not to us.
    pub(super) fn hand_back_unstarted(&mut self) {
        self.announced = None;
        self.hand_back_waiting();
        for unstarted in [self.parked.take_all(), self.held.take_all()] {
            self.answer(Receipts::default(), unstarted);
        }
    }

    /// Until nothing is under way. What was being claimed is run like what ran: to hand it back unrun would make it wait
    /// elsewhere, behind others, however short it is. Once the time is over it is handed back unrun.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            for reader in self.intake.take_idle() {
                self.chores.spawn(reader.close());
            }
            let received = self.intake.is_idle() && self.claims.is_empty();
            let started = self.started.is_closed() && self.started.is_empty();
            if received && started && self.attempts.is_empty() && self.chores.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(pulled) = self.intake.next() => self.refuse(pulled),
                Some(answer) = self.claims.join_next() => self.begin(unpanicked(answer)?),
                next = self.started.recv(), if !started => {
                    if let Some(next) = next {
                        self.begin_started(next);
                    }
                }
                Some(ended) = self.attempts.join_next() => unpanicked(ended)?,
                Some(done) = self.chores.join_next() => unpanicked(done)?,
                _ = tick.tick() => self.report(),
            }
        }
    }

    pub(super) fn refuse(&mut self, pulled: Option<Pulled>) {
        let Some(Pulled { deliveries, acks }) = pulled else {
            return;
        };
        let mut back = Receipts::default();
        for (delivery, _) in deliveries {
            back.add(&acks, delivery.token);
        }
        self.answer(Receipts::default(), back);
    }

    /// Stores the last outcomes, then says good-bye. Fails where they could not be stored in time.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        let Self {
            shared,
            life,
            rest,
            mut parts,
            finished,
            claims,
            attempts,
            ..
        } = self;
        drop((finished, claims, attempts));
        let flushed = flush(&mut parts, shared.options.flush_timeout).await;
        rest.cancel();
        if let Some(worker) = life.id() {
            deregister(&shared, worker).await;
        }
        flushed
    }
}

/// Waits until the completer has stored all that was handed in; it ends once nobody can hand in more.
pub(super) async fn flush(
    parts: &mut JoinSet<anyhow::Result<&'static str>>,
    limit: Duration,
) -> anyhow::Result<()> {
    let flushed = async {
        while let Some(part) = parts.join_next().await {
            if unpanicked(part)?? == COMPLETER {
                break;
            }
        }
        anyhow::Ok(())
    };
    timeout(limit, flushed).await.unwrap_or_else(|_| {
        let lost = "the last outcomes could not be stored: their tasks are started again elsewhere";
        Err(anyhow::anyhow!(lost))
    })
}

async fn deregister(shared: &Shared, worker: WorkerId) {
    let said = shared.store.deregister(worker);
    match within(BROKER_CALL_MAX, "forget the worker", said).await {
        Ok(()) => {
            info!(%worker, "deregistered");
            // What it still held was handed back, and others may have waited for the places of that.
            shared.due.ring();
        }
        Err(error) => {
            warn!(%worker, error = chain(&error), "the worker could not be deregistered, its lease runs out");
        }
    }
}
