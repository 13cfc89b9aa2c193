use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use forebay_broker::Message;
use forebay_core::{Lane, Ready};
use forebay_store::ReadySink;

use crate::shared::Shared;

/// Publishes what the store makes ready, and notes what became of it.
pub(super) struct Sink<'a> {
    shared: &'a Shared,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    lanes: BTreeSet<Lane>,
    problem: Option<String>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            notes: Mutex::default(),
        }
    }

    /// The lanes that were published to, and why something was not confirmed, if anything was not.
    pub(super) fn into_notes(self) -> (BTreeSet<Lane>, Option<String>) {
        let notes = self.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        (notes.lanes, notes.problem)
    }
}

#[async_trait]
impl ReadySink for Sink<'_> {
    async fn publish(&self, batch: &[Ready]) -> Vec<bool> {
        let messages = batch.iter().cloned().map(Message::Ready).collect();
        let results = self.shared.broker.publish(messages).await;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        for (task, result) in batch.iter().zip(&results) {
            match result {
                Ok(()) => {
                    if !notes.lanes.contains(&task.lane) {
                        notes.lanes.insert(task.lane.clone());
                    }
                }
                Err(error) => notes.problem = Some(error.to_string()),
            }
        }
        results.iter().map(Result::is_ok).collect()
    }
}
