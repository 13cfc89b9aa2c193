use forebay_core::WorkerId;
use tokio::sync::{Notify, watch};

/// Under which id this worker lives, as far as it knows. `None` while it is not registered.
#[derive(Debug)]
pub(super) struct Life {
    id: watch::Sender<Option<WorkerId>>,
    questioned: Notify,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            id: watch::Sender::new(None),
            questioned: Notify::new(),
        }
    }
}

impl Life {
    pub(super) fn id(&self) -> Option<WorkerId> {
        *self.id.borrow()
    }

    pub(super) fn is(&self, worker: WorkerId) -> bool {
        self.id() == Some(worker)
    }

    pub(super) fn set(&self, id: Option<WorkerId>) {
        self.id.send_replace(id);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<WorkerId>> {
        self.id.subscribe()
    }

    /// Somebody heard that it is over: the heartbeat should find out at once.
    pub(super) fn question(&self) {
        self.questioned.notify_one();
    }

    /// Waits for a question.
    pub(super) async fn questioned(&self) {
        self.questioned.notified().await;
    }
}
