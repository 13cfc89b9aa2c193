//! The recorder: writes what was accepted into the store, in batches, publishes what of it is ready, and acknowledges
//! it only then. What the executor of its own process has room for is started as it is recorded, and not published.
//!
//! Batches have no timer: what arrives while one is being written makes up the next, so a lone submission waits for
//! nobody and a flood is written in large statements. What one batch makes ready is published while the next is written.
//! While the store is away nothing is acknowledged, and the broker holds what comes. One message that the store
//! refuses never stops its neighbours: it is found by halving the batch, and set aside.

mod announce;
mod start;
mod write;

use std::sync::Arc;

use forebay_broker::{Acknowledge, Delivery, Source};
use forebay_runtime::health::Reporter;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    announce::{Announcement, Episode},
    write::Write,
};
use crate::{
    executor::Handoff,
    shared::Shared,
    subscribe::{Reader, Receipts, Received},
};

/// How many submissions are recorded together.
const BATCH_MAX: usize = 1_000;
/// How many batches are with the store at once.
const WRITES_MAX: usize = 3;
/// While a batch is with the store a further one must be worth it: it waits until it has so many submissions, or until
/// that one returns.
const WORTHWHILE: usize = 250;
/// How many recorded batches are being published and acknowledged at once; past it, nothing more is written.
const ANNOUNCEMENTS_MAX: usize = 4;

type Round = (Reader, Option<Received>);
/// A delivery, and the answering side of its subscription.
type Item = (Delivery, Arc<dyn Acknowledge>);

pub(crate) struct Recorder {
    shared: Arc<Shared>,
    /// To the executor of this process, if it has one.
    handoff: Option<Arc<Handoff>>,
    reporter: Reporter,
    /// At most one. On its own task, since dropping a half-done round delays the messages it would have returned.
    round: JoinSet<Round>,
    /// Received, and not yet being written: less than two rounds.
    waiting: Vec<Item>,
    writes: JoinSet<Announcement>,
    announcements: JoinSet<()>,
    /// Whether the broker refuses what is ready.
    refusals: Arc<Episode>,
}

impl Recorder {
    pub(crate) fn new(shared: Arc<Shared>, handoff: Option<Handoff>) -> Self {
        let reporter = shared
            .health
            .component("recorder", shared.options.intake.health_ttl);
        Self {
            shared,
            handoff: handoff.map(Arc::new),
            reporter,
            round: JoinSet::new(),
            waiting: Vec::new(),
            writes: JoinSet::new(),
            announcements: JoinSet::new(),
            refusals: Arc::default(),
        }
    }

    /// Records until `stop`, then finishes what it has begun as far as the store allows.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut idle = Some(Reader::new(
            Arc::clone(&self.shared.broker),
            Source::Submissions,
            self.shared.options.intake.deaf_after,
            self.reporter.clone(),
            stop.clone(),
        ));
        while !stop.is_cancelled() {
            self.write_waiting(&stop);
            if self.waiting.len() < BATCH_MAX
                && let Some(reader) = idle.take()
            {
                self.begin_round(reader);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(round) = self.round.join_next() => {
                    let (reader, received) = round?;
                    idle = Some(reader);
                    self.keep(received);
                }
                Some(written) = self.writes.join_next() => self.announce(written)?,
                Some(announced) = self.announcements.join_next() => announced?,
            }
        }
        self.finish(idle).await;
        self.reporter.retire();
        Ok(())
    }

    fn begin_round(&mut self, mut reader: Reader) {
        let wait = self.shared.options.intake.wait;
        self.round.spawn(async move {
            let received = reader.round(BATCH_MAX, wait).await;
            (reader, received)
        });
    }

    fn keep(&mut self, received: Option<Received>) {
        let Some(Received { deliveries, acks }) = received else {
            return;
        };
        let items = deliveries.into_iter().map(|each| (each, Arc::clone(&acks)));
        self.waiting.extend(items);
    }

    fn write_waiting(&mut self, stop: &CancellationToken) {
        while self.may_write() {
            let rest = self.waiting.split_off(self.waiting.len().min(BATCH_MAX));
            let batch = std::mem::replace(&mut self.waiting, rest);
            let write = Write {
                shared: Arc::clone(&self.shared),
                handoff: self.handoff.clone(),
                reporter: self.reporter.clone(),
                stop: stop.clone(),
            };
            self.writes.spawn(write.run(batch));
        }
    }

    fn may_write(&self) -> bool {
        if self.waiting.is_empty() || self.announcements.len() >= ANNOUNCEMENTS_MAX {
            return false;
        }
        let under_way = self.writes.len();
        under_way == 0 || (under_way < WRITES_MAX && self.waiting.len() >= WORTHWHILE)
    }

    fn announce(&mut self, written: Result<Announcement, JoinError>) -> Result<(), JoinError> {
        let announcement = written?;
        if !announcement.is_empty() {
            let broker = Arc::clone(&self.shared.broker);
            let refusals = Arc::clone(&self.refusals);
            self.announcements.spawn(announcement.make(broker, refusals));
        }
        Ok(())
    }

    /// Ends in good order: what was received last goes back, what is being written is waited for.
    async fn finish(&mut self, mut idle: Option<Reader>) {
        let limit = self.shared.options.flush_timeout;
        let rest = async {
            if let Some(Ok((reader, received))) = self.round.join_next().await {
                idle = Some(reader);
                self.keep(received);
            }
            let mut back = Receipts::default();
            for (delivery, acks) in self.waiting.drain(..) {
                back.add(&acks, delivery.token);
            }
            back.hand_back().await;
            while let Some(written) = self.writes.join_next().await {
                if let Err(error) = self.announce(written) {
                    warn!(%error, "a batch was not recorded");
                }
            }
            while self.announcements.join_next().await.is_some() {}
            // Last: what is acknowledged goes by it.
            if let Some(reader) = idle.take() {
                reader.close().await;
            }
        };
        if tokio::time::timeout(limit, rest).await.is_err() {
            warn!("the recorder stops before its last batch was stored; the broker keeps it");
        }
    }
}
