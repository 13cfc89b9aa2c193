//! What a worker has to say of itself before its next heartbeat is due.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use forebay_core::QueueName;
use tokio::sync::Notify;

/// What this life of the worker has done, and whether something has happened since somebody looked.
#[derive(Debug, Default)]
pub(super) struct News {
    finished: Mutex<BTreeMap<QueueName, u64>>,
    happened: Notify,
}

impl News {
    /// Tasks were started, or have ended.
    pub(super) fn happened(&self) {
        self.happened.notify_one();
    }

    /// Waits until something has happened since it was asked last.
    pub(super) async fn wait(&self) {
        self.happened.notified().await;
    }

    /// The outcomes of attempts are stored.
    pub(super) fn finished<'a>(&self, queues: impl Iterator<Item = &'a QueueName>) {
        let mut all = self.lock();
        for queue in queues {
            match all.get_mut(queue) {
                Some(count) => *count += 1,
                None => {
                    all.insert(queue.clone(), 1);
                }
            }
        }
    }

    /// How many outcomes were stored, of each queue.
    pub(super) fn all_finished(&self) -> Vec<(QueueName, u64)> {
        let all = self.lock();
        all.iter().map(|(queue, count)| (queue.clone(), *count)).collect()
    }

    /// A new life begins.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<QueueName, u64>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
