//! The recorder: writes what was accepted into the store, in batches, and acknowledges it only then.
//!
//! While the store is away nothing is acknowledged, and the broker holds what comes. One message that the store
//! refuses never stops its neighbours: it is found by halving the batch, and set aside.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_broker::{Acknowledge, Delivery, Message, Source, Token, Undecodable, wire};
use forebay_core::Submission;
use forebay_runtime::{health::Reporter, supervise::Backoff};
use forebay_store::{Recorded, Reject, StoreError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    shared::{STORE_CALL_MAX, Shared, chain, within},
    subscribe::{Reader, Receipts, Received},
};

/// How many submissions are recorded together.
const BATCH_MAX: usize = 1_000;
/// How many batches are with the store at once: the next is received while the last is written.
const WRITES_MAX: usize = 2;
/// A batch without an answer for so long may be too much for the store.
const SLOW: Duration = Duration::from_secs(4);

type Round = (Reader, Option<Received>);

pub(crate) struct Recorder {
    shared: Arc<Shared>,
    reporter: Reporter,
    /// At most one. On its own task, since dropping a half-done round delays the messages it would have returned.
    round: JoinSet<Round>,
    writes: JoinSet<()>,
}

impl Recorder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let reporter = shared
            .health
            .component("recorder", shared.options.intake.health_ttl);
        Self {
            shared,
            reporter,
            round: JoinSet::new(),
            writes: JoinSet::new(),
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
            if self.writes.len() < WRITES_MAX
                && let Some(reader) = idle.take()
            {
                self.begin_round(reader);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(round) = self.round.join_next() => {
                    let (reader, received) = round?;
                    idle = Some(reader);
                    self.begin_write(received, &stop);
                }
                Some(written) = self.writes.join_next() => written?,
            }
        }
        self.finish().await;
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

    fn begin_write(&mut self, received: Option<Received>, stop: &CancellationToken) {
        if let Some(received) = received.filter(|received| !received.deliveries.is_empty()) {
            let write = Write {
                shared: Arc::clone(&self.shared),
                reporter: self.reporter.clone(),
                acks: received.acks,
                stop: stop.clone(),
            };
            self.writes.spawn(write.run(received.deliveries));
        }
    }

    /// Ends in good order: what was received last goes back, what is being written is waited for.
    async fn finish(&mut self) {
        let rest = async {
            if let Some(Ok((_, Some(received)))) = self.round.join_next().await {
                let mut receipts = Receipts::default();
                for delivery in received.deliveries {
                    receipts.add(&received.acks, delivery.token);
                }
                receipts.hand_back().await;
            }
            while self.writes.join_next().await.is_some() {}
        };
        if tokio::time::timeout(self.shared.options.flush_timeout, rest)
            .await
            .is_err()
        {
            warn!("the recorder stops before its last batch was stored; the broker keeps it");
        }
    }
}

/// What was received together, on its way into the store.
struct Write {
    shared: Arc<Shared>,
    reporter: Reporter,
    acks: Arc<dyn Acknowledge>,
    stop: CancellationToken,
}

impl Write {
    async fn run(self, deliveries: Vec<Delivery>) {
        #[cfg(feature = "sabotage")]
        let this = self.sabotaged(&deliveries).await;
        #[cfg(not(feature = "sabotage"))]
        let this = self;
        this.write(deliveries).await;
    }

    #[cfg(feature = "sabotage")]
    async fn sabotaged(mut self, deliveries: &[Delivery]) -> Self {
        let mut acks = vec![Arc::clone(&self.acks); deliveries.len()];
        let tokens = deliveries.iter().map(|delivery| delivery.token.clone());
        let sabotage = self.shared.sabotage;
        sabotage.before_commit(acks.iter_mut().zip(tokens)).await;
        self.acks = acks.pop().unwrap_or(self.acks);
        self
    }

    async fn write(self, deliveries: Vec<Delivery>) {
        let mut submissions = Vec::with_capacity(deliveries.len());
        let mut rejects = Vec::new();
        let mut settled = Vec::new();
        for Delivery { message, token, .. } in deliveries {
            match message {
                Ok(Message::Submission(task)) => submissions.push((task, token)),
                // Not the recorder's, and it is recorded already.
                Ok(Message::Ready(_)) => settled.push(token),
                Err(undecodable) => rejects.push((reject(undecodable), token)),
            }
        }
        if !submissions.is_empty() {
            self.record(submissions, &mut rejects).await;
        }
        if !rejects.is_empty() {
            self.set_aside(rejects, &mut settled).await;
        }
        self.ack(settled).await;
    }

    /// Records, and acknowledges what it has recorded. What the store refuses, even alone, becomes a reject.
    async fn record(&self, submissions: Vec<(Submission, Token)>, rejects: &mut Vec<(Reject, Token)>) {
        let mut backoff = Backoff::default();
        let (tasks, tokens): (Vec<_>, Vec<_>) = submissions.into_iter().unzip();
        let mut waiting = vec![(tasks, tokens)];
        while let Some((mut tasks, mut tokens)) = waiting.pop() {
            let began = Instant::now();
            match within(
                STORE_CALL_MAX,
                "record submissions",
                self.shared.store.record(&tasks),
            )
            .await
            {
                Ok(recorded) => {
                    self.shared.metrics.persisted("record", began.elapsed());
                    self.reporter.ok();
                    report_conflicts(&tasks, &recorded);
                    self.ack(tokens).await;
                }
                Err(StoreError::Refused { doing, source }) => {
                    if let ([task], [_]) = (&tasks[..], &tokens[..]) {
                        let reason = chain(&StoreError::Refused { doing, source });
                        warn!(task = %task.id, reason, "a submission is set aside: the store refuses it");
                        let reject = reject_of(task, reason);
                        rejects.extend(tokens.pop().map(|token| (reject, token)));
                    } else {
                        let half = tasks.len() / 2;
                        waiting.push((tasks.split_off(half), tokens.split_off(half)));
                        waiting.push((tasks, tokens));
                    }
                }
                Err(error) => {
                    // What takes too long as a whole is tried in parts, or it would be tried for ever.
                    if began.elapsed() > SLOW && tasks.len() > 1 {
                        let half = tasks.len() / 2;
                        waiting.push((tasks.split_off(half), tokens.split_off(half)));
                    }
                    waiting.push((tasks, tokens));
                    if self.wait_out(&error, &mut backoff).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn set_aside(&self, mut rejects: Vec<(Reject, Token)>, settled: &mut Vec<Token>) {
        let mut backoff = Backoff::default();
        let bodies: Vec<Reject> = rejects.iter().map(|(reject, _)| reject.clone()).collect();
        loop {
            match within(
                STORE_CALL_MAX,
                "set aside messages",
                self.shared.store.set_aside(&bodies),
            )
            .await
            {
                Ok(()) => break,
                Err(refused @ StoreError::Refused { .. }) => {
                    // Nothing else can be done with them, and held back they would keep the broker from trimming.
                    let subjects: Vec<&str> = bodies.iter().map(|reject| reject.subject.as_str()).collect();
                    error!(
                        ?subjects,
                        error = chain(&refused),
                        "messages are dropped: the store won't keep them"
                    );
                    break;
                }
                Err(error) => {
                    if self.wait_out(&error, &mut backoff).await.is_err() {
                        return;
                    }
                }
            }
        }
        for (reject, token) in rejects.drain(..) {
            warn!(
                subject = reject.subject,
                reason = reject.reason,
                "a message was set aside"
            );
            self.shared.metrics.undecodable_message();
            settled.push(token);
        }
    }

    /// Waits until the store may be asked again; an error where the worker stops meanwhile. Then the broker keeps
    /// what is not acknowledged.
    async fn wait_out(&self, error: &StoreError, backoff: &mut Backoff) -> Result<(), ()> {
        if error.is_unavailable() {
            debug!(error = chain(error), "recording waits for the store");
        } else {
            error!(error = chain(error), "recording is not possible");
        }
        self.reporter.failing(chain(error));
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => Ok(()),
            () = self.stop.cancelled() => Err(()),
        }
    }

    async fn ack(&self, tokens: Vec<Token>) {
        let mut receipts = Receipts::default();
        for token in tokens {
            receipts.add(&self.acks, token);
        }
        receipts.ack().await;
    }
}

fn reject(undecodable: Undecodable) -> Reject {
    Reject {
        subject: undecodable.subject,
        body: undecodable.body,
        reason: undecodable.reason,
    }
}

/// What is kept of a submission that the store refuses.
pub(crate) fn reject_of(task: &Submission, reason: String) -> Reject {
    let message = Message::Submission(task.clone());
    let body: Bytes = wire::encode(&message);
    Reject {
        subject: format!("{}.{}", message.verb(), message.lane()),
        body,
        reason,
    }
}

fn report_conflicts(tasks: &[Submission], recorded: &[Recorded]) {
    for (task, _) in tasks
        .iter()
        .zip(recorded)
        .filter(|(_, r)| **r == Recorded::Conflict)
    {
        warn!(task = %task.id, "dropped: its idempotency key names a task with another request");
    }
}
