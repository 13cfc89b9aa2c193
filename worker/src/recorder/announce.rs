//! What follows a commit: what is ready is published, then the submissions are acknowledged.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use forebay_broker::{Broker, Message};
use forebay_core::Submission;
use forebay_store::Recorded;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::{shared::BROKER_CALL_MAX, subscribe::Receipts};

/// A batch that is in the store: what of it is to be published, and what is to be acknowledged after that.
#[derive(Default)]
pub(super) struct Announcement {
    pub(super) ready: Vec<Message>,
    pub(super) receipts: Receipts,
}

/// Whether the broker refuses what is ready: said once when it begins, and once when it is over.
#[derive(Debug, Default)]
pub(super) struct Episode(AtomicBool);

impl Announcement {
    /// What is ready of a recorded batch. A duplicate is, too: whoever recorded it first may have died before it was
    /// published, and a claim turns away what has been started since.
    pub(super) fn of(tasks: Vec<Submission>, recorded: &[Recorded], receipts: Receipts) -> Self {
        let published = |(task, recorded): (Submission, &Recorded)| {
            let is_ready =
                task.run_at.is_none() && !task.waits_for_others() && *recorded != Recorded::Conflict;
            is_ready.then(|| Message::Ready(task.into_ready()))
        };
        Self {
            ready: tasks.into_iter().zip(recorded).filter_map(published).collect(),
            receipts,
        }
    }

    pub(super) fn add(&mut self, mut other: Self) {
        self.ready.append(&mut other.ready);
        self.receipts.append(other.receipts);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.receipts.is_empty()
    }

    /// Publishes, and acknowledges whatever the broker says: what it does not take is in the store, and the dispatcher
    /// publishes it later.
    pub(super) async fn make(self, broker: Arc<dyn Broker>, refusals: Arc<Episode>) {
        let Self { ready, receipts } = self;
        if !ready.is_empty() {
            let count = ready.len();
            match timeout(BROKER_CALL_MAX, broker.publish(ready)).await {
                Ok(results) => {
                    let refused: Vec<_> = results
                        .iter()
                        .filter_map(|result| result.as_ref().err())
                        .collect();
                    refusals.note(
                        refused.len(),
                        refused.first().map(|error| error.to_string()).as_deref(),
                    );
                }
                Err(_) => refusals.note(count, Some("the broker does not answer")),
            }
        }
        receipts.ack().await;
    }
}

impl Episode {
    fn note(&self, refused: usize, why: Option<&str>) {
        let was_on = self.0.swap(refused > 0, Ordering::AcqRel);
        match (was_on, refused > 0) {
            (false, true) => warn!(
                tasks = refused,
                error = why,
                "recorded tasks could not be published; the dispatcher does that later"
            ),
            (true, true) => debug!(
                tasks = refused,
                error = why,
                "recorded tasks could still not be published"
            ),
            (true, false) => info!("recorded tasks are published again"),
            (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_core::{Clock, SubmitRequest, SystemClock};

    use super::*;

    #[test]
    fn what_is_new_or_known_and_not_for_later_is_published() {
        let task = |delay_seconds| {
            let request = SubmitRequest {
                kind: "test".to_owned(),
                delay_seconds,
                ..SubmitRequest::default()
            };
            request
                .accept(SystemClock.now(), &forebay_runtime::supervise::random_bytes())
                .expect("it is valid")
        };
        let tasks = [None, None, None, Some(60.0), Some(60.0)].map(task).to_vec();
        let expected = [tasks[0].id, tasks[1].id];
        use Recorded::{Conflict, Duplicate, New};
        let recorded = [New, Duplicate, Conflict, New, Duplicate];
        let published: Vec<_> = Announcement::of(tasks, &recorded, Receipts::default())
            .ready
            .into_iter()
            .map(|message| match message {
                Message::Ready(ready) => (ready.id, ready.fence, ready.lost),
                Message::Submission(task) => panic!("{task:?}"),
            })
            .collect();
        assert_eq!(published, expected.map(|id| (id, 0, 0)));
    }
}
