//! One batch on its way into the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_broker::{Acknowledge, Delivery, Message, Token, Undecodable, wire};
use forebay_core::Submission;
use forebay_runtime::{health::Reporter, supervise::Backoff};
use forebay_store::{Recorded, Reject, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Announcement, Item};
use crate::{
    executor::Handoff,
    shared::{STORE_CALL_MAX, Shared, chain, within},
    subscribe::Receipts,
};

/// A batch without an answer for so long may be too much for the store.
pub(super) const SLOW: Duration = Duration::from_secs(4);

/// Where to answer a delivery.
pub(super) type Answer = (Token, Arc<dyn Acknowledge>);

/// Submissions, and where to answer each, in the same order.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) tasks: Vec<Submission>,
    pub(super) answers: Vec<Answer>,
}

impl Batch {
    pub(super) fn add(&mut self, task: Submission, answer: Answer) {
        self.tasks.push(task);
        self.answers.push(answer);
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        self.tasks.append(&mut other.tasks);
        self.answers.append(&mut other.answers);
    }

    /// Cuts off the later half.
    fn halve(&mut self) -> Self {
        let half = self.tasks.len() / 2;
        Self {
            tasks: self.tasks.split_off(half),
            answers: self.answers.split_off(half),
        }
    }
}

pub(super) struct Write {
    pub(super) shared: Arc<Shared>,
    pub(super) handoff: Option<Arc<Handoff>>,
    pub(super) reporter: Reporter,
    pub(super) stop: CancellationToken,
}

impl Write {
    /// Writes until all is settled or the worker stops; says what is to be published and acknowledged. What it does not
    /// name the broker keeps.
    pub(super) async fn run(self, items: Vec<Item>) -> Announcement {
        #[cfg(feature = "sabotage")]
        let items = self.sabotaged(items).await;
        let mut batch = Batch::default();
        let mut rejects = Vec::new();
        let mut done = Announcement::default();
        for (Delivery { message, token, .. }, acks) in items {
            match message {
                Ok(Message::Submission(task)) => {
                    batch.add(task, (token, acks));
                }
                // Not the recorder's, and it is recorded already.
                Ok(Message::Ready(_)) => done.receipts.add(&acks, token),
                Err(undecodable) => rejects.push((reject(undecodable), (token, acks))),
            }
        }
        let batch = self.start(batch, &mut done).await;
        if !batch.tasks.is_empty() {
            self.record(batch, &mut rejects, &mut done).await;
        }
        if !rejects.is_empty() {
            self.set_aside(rejects, &mut done.receipts).await;
        }
        done
    }

    #[cfg(feature = "sabotage")]
    async fn sabotaged(&self, mut items: Vec<Item>) -> Vec<Item> {
        let answers = items
            .iter_mut()
            .map(|(delivery, acks)| (acks, delivery.token.clone()));
        self.shared.sabotage.before_commit(answers).await;
        items
    }

    /// Records. What the store refuses, even alone, becomes a reject.
    async fn record(&self, batch: Batch, rejects: &mut Vec<(Reject, Answer)>, done: &mut Announcement) {
        let mut backoff = Backoff::default();
        let mut waiting = vec![batch];
        while let Some(mut batch) = waiting.pop() {
            let began = Instant::now();
            let recorded = self.shared.store.record_and_tell(&batch.tasks);
            match within(STORE_CALL_MAX, "record submissions", recorded).await {
                Ok(recording) => {
                    self.shared.metrics.persisted("record", began.elapsed());
                    self.reporter.ok();
                    self.report(batch.tasks.iter().zip(recording.answers.iter().copied()));
                    self.shared.tell(recording.ended);
                    done.add(announcement(batch, &recording.answers));
                }
                Err(refused @ StoreError::Refused { .. }) if batch.tasks.len() == 1 => {
                    rejects.extend(refuse(batch, &refused));
                }
                Err(StoreError::Refused { .. }) => {
                    waiting.push(batch.halve());
                    waiting.push(batch);
                }
                Err(error) => {
                    // What takes too long as a whole is tried in parts, or it would be tried for ever.
                    if began.elapsed() > SLOW && batch.tasks.len() > 1 {
                        waiting.push(batch.halve());
                    }
                    waiting.push(batch);
                    if self.wait_out(&error, &mut backoff).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn report<'a>(&self, recorded: impl Iterator<Item = (&'a Submission, Recorded)> + Clone) {
        let now = self.shared.clock.now();
        let lag =
            |task: &Submission| Duration::try_from(now.duration_since(task.created_at)).unwrap_or_default();
        self.shared
            .metrics
            .recorded(recorded.clone().map(|(task, _)| lag(task)));
        for (task, _) in recorded.filter(|(_, recorded)| *recorded == Recorded::Conflict) {
            warn!(task = %task.id, "dropped: its idempotency key names a task with another request");
        }
    }

    async fn set_aside(&self, rejects: Vec<(Reject, Answer)>, settled: &mut Receipts) {
        let mut backoff = Backoff::default();
        let (bodies, answers): (Vec<Reject>, Vec<Answer>) = rejects.into_iter().unzip();
        loop {
            let kept = self.shared.store.set_aside(&bodies);
            match within(STORE_CALL_MAX, "set aside messages", kept).await {
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
        for Reject { subject, reason, .. } in bodies {
            warn!(subject, reason, "a message was set aside");
            self.shared.metrics.undecodable_message();
        }
        for (token, acks) in answers {
            settled.add(&acks, token);
        }
    }

    /// Waits until the store may be asked again; an error where the worker stops meanwhile. Then the broker keeps
    /// what is not acknowledged.
    pub(super) async fn wait_out(&self, error: &StoreError, backoff: &mut Backoff) -> Result<(), ()> {
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
}

fn announcement(batch: Batch, recorded: &[Recorded]) -> Announcement {
    let mut receipts = Receipts::default();
    for (token, acks) in batch.answers {
        receipts.add(&acks, token);
    }
    Announcement::of(batch.tasks, recorded, receipts)
}

fn reject(undecodable: Undecodable) -> Reject {
    Reject {
        subject: undecodable.subject,
        body: undecodable.body,
        reason: undecodable.reason,
    }
}

/// What is kept of a submission that the store refuses: its bytes as an item of a bundle.
fn refuse(batch: Batch, refused: &StoreError) -> impl Iterator<Item = (Reject, Answer)> {
    let reason = chain(refused);
    let kept = move |task: Submission| {
        warn!(task = %task.id, reason, "a submission is set aside: the store refuses it");
        let message = Message::Submission(task);
        Reject {
            subject: message.verb().to_owned(),
            body: wire::encode(&message),
            reason: reason.clone(),
        }
    };
    batch.tasks.into_iter().map(kept).zip(batch.answers)
}
