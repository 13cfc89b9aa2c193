//! The store in memory keeps nothing of batches, and no task waits for another in it.

use std::collections::HashSet;

use async_trait::async_trait;
use forebay_core::{BatchId, Fingerprint, Project, Submission, Task, TaskId};
use forebay_store::{
    Batch, BatchCounts, BatchPage, BatchPart, BlockedOn, Compose, Grown, NewBatch, Opened, Recording, Result,
    Settled,
};

use super::{MemoryStore, State, event_of, insert, unavailable};

#[derive(Default)]
pub(super) struct Composed {
    /// Tasks that are over as they are recorded.
    turned_away: HashSet<TaskId>,
    /// How many ends were to be seen to together, at each look, and how many further looks are told that this failed.
    settle_limits: Vec<usize>,
    settle_fails: usize,
}

impl MemoryStore {
    /// This task will be over as it is recorded.
    pub(crate) fn turn_away(&self, id: TaskId) {
        self.state().composed.turned_away.insert(id);
    }

    /// From now on so many looks at ends fail.
    pub(crate) fn fail_to_settle(&self, times: usize) {
        self.state().composed.settle_fails = times;
    }

    /// How many ends were to be seen to together, at each look.
    pub(crate) fn settle_limits(&self) -> Vec<usize> {
        self.state().composed.settle_limits.clone()
    }
}

/// Inserts tasks, and ends those that are to be over as they are recorded.
pub(super) fn record(state: &mut State, batch: &[Submission]) -> Recording {
    let mut recording = Recording::of(batch.iter().map(|task| insert(state, task)).collect());
    for task in batch {
        if state.composed.turned_away.contains(&task.id)
            && let Some(row) = state.tasks.get_mut(&task.id)
            && row.lifecycle.cancel().is_ok()
        {
            recording.ended.push(event_of(row));
        }
    }
    recording
}

#[async_trait]
impl Compose for MemoryStore {
    async fn unknown(&self, ids: &[TaskId]) -> Result<Vec<TaskId>> {
        self.call("look for tasks", |state| {
            Ok(ids
                .iter()
                .copied()
                .filter(|id| !state.tasks.contains_key(id))
                .collect())
        })
    }

    async fn blocked_on(&self, _: TaskId) -> Result<BlockedOn> {
        self.call("look what a task waits for", |_| Ok(BlockedOn::default()))
    }

    async fn open_batch(&self, _: &NewBatch) -> Result<Opened> {
        Err(unavailable("keep batches"))
    }

    async fn grow_batch(&self, _: BatchId, _: &BatchPart) -> Result<Grown> {
        Err(unavailable("keep batches"))
    }

    async fn knows_part(&self, _: BatchId, _: Fingerprint) -> Result<bool> {
        Err(unavailable("keep batches"))
    }

    async fn close_batch(&self, _: BatchId) -> Result<Option<Batch>> {
        Err(unavailable("keep batches"))
    }

    async fn cancel_batch(&self, _: BatchId) -> Result<Option<Batch>> {
        Err(unavailable("keep batches"))
    }

    async fn batch(&self, _: BatchId) -> Result<Option<Batch>> {
        Err(unavailable("keep batches"))
    }

    async fn batch_counts(&self, _: BatchId) -> Result<BatchCounts> {
        Err(unavailable("keep batches"))
    }

    async fn batches(&self, _: Option<&Project>, _: usize, _: Option<BatchPage>) -> Result<Vec<Batch>> {
        Err(unavailable("keep batches"))
    }

    async fn batch_tasks(&self, _: BatchId, _: usize, _: Option<TaskId>) -> Result<Vec<Task>> {
        Err(unavailable("keep batches"))
    }

    async fn settle(&self, limit: usize) -> Result<Settled> {
        self.call("see to the ends of tasks", |state| {
            let composed = &mut state.composed;
            let has_failed = composed.settle_fails > 0;
            composed.settle_fails = composed.settle_fails.saturating_sub(1);
            composed.settle_limits.push(limit);
            Ok(Settled {
                ends_failed: has_failed,
                failed: has_failed
                    .then(|| "the test says so".to_owned())
                    .into_iter()
                    .collect(),
                ..Settled::default()
            })
        })
    }
}
