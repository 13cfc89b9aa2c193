//! Handlers that note what they start, and then wait to be let through.

use std::sync::{Arc, Mutex};

use forebay_core::{Json, State, TaskId};
use forebay_worker::{HandlerSettings, Handlers};
use tokio::sync::Semaphore;

use crate::support::{World, handle_with, settings};

/// More than any test starts.
pub(crate) const MANY: usize = 1_000;

/// The order in which tasks were started, and a gate that each must pass to its success.
#[derive(Clone)]
pub(crate) struct Starts {
    order: Arc<Mutex<Vec<TaskId>>>,
    gate: Arc<Semaphore>,
}

impl Starts {
    /// The first `count` pass at once.
    pub(crate) fn with_passes(count: usize) -> Self {
        Self {
            order: Arc::default(),
            gate: Arc::new(Semaphore::new(count)),
        }
    }

    pub(crate) fn handlers(&self) -> Handlers {
        self.handlers_with(settings())
    }

    pub(crate) fn handlers_with(&self, settings: HandlerSettings) -> Handlers {
        let this = self.clone();
        handle_with(settings, move |execution| {
            let this = this.clone();
            async move {
                this.order.lock().unwrap().push(execution.id);
                this.gate.acquire().await.unwrap().forget();
                Ok(Json::null())
            }
        })
    }

    pub(crate) fn order(&self) -> Vec<TaskId> {
        self.order.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.order.lock().unwrap().len()
    }

    /// So many more pass.
    pub(crate) fn let_through(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// All pass, and these succeed.
    pub(crate) async fn open(&self, world: &World, ids: &[TaskId]) {
        self.let_through(MANY);
        world.wait_for_all(ids, State::Succeeded).await;
    }
}
