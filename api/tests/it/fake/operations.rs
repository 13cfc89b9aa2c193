//! Operations as they are kept. Nobody carries them out here.

use async_trait::async_trait;
use forebay_core::{
    Operation, OperationId, OperationPlan, OperationProgress, OperationState, Task, Timestamp,
};
use forebay_store::{Matching, OPERATIONS_MAX, OperationPass, Operations, Result};

use super::{Fake, not_faked};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn means(plan: &OperationPlan, task: &Task) -> bool {
    let filter = &plan.filter;
    let batch = |task: &Task| task.terms.as_ref().and_then(|terms| terms.batch);
    let said = |text: &String| {
        task.errors
            .last()
            .is_some_and(|error| error.message.contains(text))
    };
    plan.states().contains(&task.state)
        && filter.queue.as_ref().is_none_or(|queue| *queue == task.queue)
        && filter.kind.as_ref().is_none_or(|kind| *kind == task.kind)
        && filter
            .project
            .as_ref()
            .is_none_or(|project| *project == task.project)
        && filter.tag.as_ref().is_none_or(|tag| task.tags.contains(tag))
        && filter.batch.is_none_or(|id| batch(task) == Some(id))
        && filter.created_after.is_none_or(|at| task.created_at > at)
        && filter.created_before.is_none_or(|at| task.created_at < at)
        && filter.error_contains.as_ref().is_none_or(said)
}

#[async_trait]
impl Operations for Fake {
    async fn matching(&self, plan: &OperationPlan, sample: usize) -> Result<Matching> {
        let inner = self.store("count tasks").await?;
        let tasks = inner.tasks.values().filter(|task| means(plan, task));
        let ids: Vec<_> = tasks.map(|task| task.id).collect();
        Ok(Matching {
            count: ids.len() as u64,
            is_exact: true,
            sample: ids.into_iter().take(sample).collect(),
        })
    }

    async fn begin_operation(
        &self,
        id: OperationId,
        plan: &OperationPlan,
        expected: &Matching,
    ) -> Result<Option<Operation>> {
        let mut inner = self.store("begin an operation").await?;
        let running = |operation: &&Operation| operation.state == OperationState::Running;
        let count = inner.operations.values().filter(running).count();
        if count >= OPERATIONS_MAX as usize && !inner.operations.contains_key(&id) {
            return Ok(None);
        }
        let operation = inner.operations.entry(id).or_insert_with(|| Operation {
            id,
            plan: plan.clone(),
            state: OperationState::Running,
            expected: expected.count,
            expected_is_exact: expected.is_exact,
            progress: OperationProgress::default(),
            created_at: now(),
            updated_at: now(),
            finished_at: None,
        });
        Ok(Some(operation.clone()))
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        let inner = self.store("read an operation").await?;
        Ok(inner.operations.get(&id).cloned())
    }

    async fn operations(&self, page_size: usize, after: Option<OperationId>) -> Result<Vec<Operation>> {
        let inner = self.store("list operations").await?;
        let rest = inner.operations.values().rev();
        let rest = rest.filter(|operation| after.is_none_or(|after| operation.id < after));
        Ok(rest.take(page_size).cloned().collect())
    }

    async fn abort_operation(&self, id: OperationId) -> Result<Option<Operation>> {
        let mut inner = self.store("abort an operation").await?;
        let found = inner.operations.get_mut(&id);
        if let Some(operation) = found
            && operation.state == OperationState::Running
        {
            operation.state = OperationState::Aborted;
            operation.finished_at = Some(now());
        }
        Ok(inner.operations.get(&id).cloned())
    }

    async fn pass_operation(&self) -> Result<OperationPass> {
        not_faked()
    }
}
