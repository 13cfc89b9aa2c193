//! What has to do with more than one task: batches as they are announced. Nobody counts their ends here.

use async_trait::async_trait;
use forebay_core::{BatchId, Fingerprint, Project, Task, TaskId, Timestamp};
use forebay_store::{
    Batch, BatchCounts, BatchPage, BatchPart, BlockedOn, Compose, Grown, NewBatch, Opened, Result, Settled,
};

use super::{Fake, not_faked};

fn noon() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

#[async_trait]
impl Compose for Fake {
    async fn unknown(&self, ids: &[TaskId]) -> Result<Vec<TaskId>> {
        let inner = self.store("look for tasks").await?;
        Ok(ids
            .iter()
            .copied()
            .filter(|id| !inner.tasks.contains_key(id))
            .collect())
    }

    async fn blocked_on(&self, _: TaskId) -> Result<BlockedOn> {
        drop(self.store("look what a task waits for").await?);
        Ok(BlockedOn::default())
    }

    async fn open_batch(&self, new: &NewBatch) -> Result<Opened> {
        let batch = Batch {
            id: new.id,
            project: new.project.clone(),
            name: new.name.clone(),
            fingerprint: new.fingerprint,
            total: new.total,
            ended: 0,
            completion: new.completion.as_ref().map(|task| task.id),
            created_at: new.created_at,
            closed_at: (!new.is_open).then_some(new.created_at),
            cancelled_at: None,
            completed_at: None,
        };
        self.store("open a batch")
            .await?
            .kept_batches
            .insert(new.id, batch.clone());
        // The answer is on its way.
        while self.lock().slow_batches {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(Opened::New(batch))
    }

    async fn grow_batch(&self, id: BatchId, part: &BatchPart) -> Result<Grown> {
        let mut inner = self.store("add to a batch").await?;
        Ok(match inner.kept_batches.get_mut(&id) {
            None => Grown::NotFound,
            Some(batch) if batch.closed_at.is_some() => Grown::Closed(batch.clone()),
            Some(batch) => {
                batch.total += part.count;
                Grown::Done(batch.clone())
            }
        })
    }

    async fn knows_part(&self, _: BatchId, _: Fingerprint) -> Result<bool> {
        drop(self.store("look for a part of a batch").await?);
        Ok(false)
    }

    async fn close_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let mut inner = self.store("close a batch").await?;
        let batch = inner.kept_batches.get_mut(&id);
        Ok(batch.map(|batch| {
            batch.closed_at.get_or_insert_with(noon);
            batch.clone()
        }))
    }

    async fn cancel_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let mut inner = self.store("cancel a batch").await?;
        let batch = inner.kept_batches.get_mut(&id);
        Ok(batch.map(|batch| {
            batch.closed_at.get_or_insert_with(noon);
            batch.cancelled_at.get_or_insert_with(noon);
            batch.clone()
        }))
    }

    async fn batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let inner = self.store("read a batch").await?;
        Ok(inner.kept_batches.get(&id).cloned())
    }

    async fn batch_counts(&self, _: BatchId) -> Result<BatchCounts> {
        // Others come meanwhile.
        tokio::task::yield_now().await;
        let mut inner = self.store("count the tasks of a batch").await?;
        inner.batches_counted += 1;
        Ok(BatchCounts::default())
    }

    async fn batches(&self, _: Option<&Project>, _: usize, _: Option<BatchPage>) -> Result<Vec<Batch>> {
        let inner = self.store("list batches").await?;
        Ok(inner.kept_batches.values().cloned().collect())
    }

    async fn batch_tasks(&self, _: BatchId, _: usize, _: Option<TaskId>) -> Result<Vec<Task>> {
        drop(self.store("list the tasks of a batch").await?);
        Ok(Vec::new())
    }

    async fn settle(&self, _: usize) -> Result<Settled> {
        not_faked()
    }
}
