//! Which queues are paused. An executor starts nothing of these, and nothing at all before it has heard of them once.
//!
//! A pause is a brake and no lock: the store grants what is claimed, and a worker that has not heard of a pause yet goes
//! on for a moment. It hears by a signal, or else by asking every second; while the store does not answer, what was heard
//! last counts. Health and the log say so meanwhile.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use forebay_core::QueueName;
use forebay_runtime::health::Reporter;
use forebay_store::Store;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::shared::{STORE_CALL_MAX, chain, within};

/// How often the store is asked without a signal, after it has answered or failed.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two questions, however many signals come.
const ASK_SELDOM: Duration = Duration::from_millis(50);
/// What this is called in health.
pub(super) const COMPONENT: &str = "pauses";

/// The queues that are paused.
pub(super) type Paused = Arc<BTreeSet<QueueName>>;

/// What is known of pauses.
#[derive(Debug)]
pub(super) struct Pauses {
    /// `None` until the store has said it once.
    queues: watch::Sender<Option<Paused>>,
    questioned: Notify,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            queues: watch::Sender::new(None),
            questioned: Notify::new(),
        }
    }
}

impl Pauses {
    /// The queues that are paused; `None` where that is not known yet.
    pub(super) fn now(&self) -> Option<Paused> {
        self.queues.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Paused>> {
        self.queues.subscribe()
    }

    /// Somebody says that it has changed.
    pub(super) fn question(&self) {
        self.questioned.notify_one();
    }

    fn set(&self, paused: Vec<QueueName>) {
        let paused: BTreeSet<QueueName> = paused.into_iter().collect();
        self.queues.send_if_modified(|known| {
            if known.as_deref() == Some(&paused) {
                return false;
            }
            if known.is_some() || !paused.is_empty() {
                let queues: Vec<&str> = paused.iter().map(QueueName::as_str).collect();
                info!(?queues, "these queues are paused now");
            }
            *known = Some(Arc::new(paused));
            true
        });
    }
}

/// Asks the store for ever.
pub(super) async fn follow(store: &dyn Store, pauses: &Pauses, reporter: &Reporter) {
    // Whether the log says that it fails: once when it begins, and once when it works again.
    let mut failing = false;
    loop {
        let asked = store.paused_queues();
        match within(STORE_CALL_MAX, "list paused queues", asked).await {
            Ok(paused) => {
                pauses.set(paused);
                reporter.ok();
                if std::mem::take(&mut failing) {
                    info!("the store tells again which queues are paused");
                }
            }
            Err(error) => {
                let error = chain(&error);
                if std::mem::replace(&mut failing, true) {
                    debug!(error, "the store still does not tell which queues are paused");
                } else {
                    let known = pauses.now().is_some();
                    warn!(
                        error,
                        known,
                        "the store does not tell which queues are paused: what is known counts, and where nothing is, nothing starts"
                    );
                }
                reporter.failing(error);
            }
        }
        tokio::time::sleep(ASK_SELDOM).await;
        let wait = ASK_EVERY.saturating_sub(ASK_SELDOM);
        // A question that came while the store was asked is put again.
        let _ = tokio::time::timeout(wait, pauses.questioned.notified()).await;
    }
}
