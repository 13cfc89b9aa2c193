//! Figures that a test makes up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use forebay_core::QueueName;
use forebay_scaler::{Demand, Figures, Unknown, Wakes};
use futures::stream;
use tokio::sync::broadcast;

/// The stand-in. A queue that it was told nothing of has nothing to do.
pub(crate) struct MadeUp {
    state: Mutex<State>,
    wakes: broadcast::Sender<QueueName>,
    asked: AtomicUsize,
}

#[derive(Default)]
struct State {
    queues: HashMap<String, Demand>,
    unknown: Option<String>,
    hangs: bool,
}

impl MadeUp {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            wakes: broadcast::Sender::new(16),
            asked: AtomicUsize::new(0),
        })
    }

    /// From now on a queue has so much to do; nobody is told.
    pub(crate) fn set(&self, queue: &str, ready: u64, running: u64, desired_workers: u64) {
        let demand = Demand {
            ready,
            running,
            desired_workers,
        };
        self.state.lock().unwrap().queues.insert(queue.to_owned(), demand);
    }

    /// Tells of a queue that woke.
    pub(crate) fn wake(&self, queue: &str) {
        let _ = self.wakes.send(queue.parse().unwrap());
    }

    /// From now on nothing is known, for this reason; `None` ends that.
    pub(crate) fn unknown(&self, reason: Option<&str>) {
        self.state.lock().unwrap().unknown = reason.map(str::to_owned);
    }

    /// From now on nobody gets an answer.
    pub(crate) fn hang(&self) {
        self.state.lock().unwrap().hangs = true;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer(&self, queue: &QueueName) -> Option<Result<Demand, Unknown>> {
        let state = self.state.lock().unwrap();
        if state.hangs {
            return None;
        }
        Some(match &state.unknown {
            Some(reason) => Err(Unknown(reason.clone())),
            None => Ok(state.queues.get(queue.as_str()).copied().unwrap_or_default()),
        })
    }
}

#[async_trait]
impl Figures for MadeUp {
    async fn demand(&self, queue: &QueueName) -> Result<Demand, Unknown> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.answer(queue) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn wakes(&self) -> Wakes {
        let wakes = self.wakes.subscribe();
        Box::pin(stream::unfold(wakes, |mut wakes| async move {
            let queue = wakes.recv().await.ok()?;
            Some((queue, wakes))
        }))
    }
}
