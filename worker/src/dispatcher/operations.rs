use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use async_trait::async_trait;
use forebay_core::{Operation, OperationState, Signal, TaskId};
use tracing::{debug, info};

use super::Chore;
use crate::shared::{BROKER_CALL_MAX, STORE_CALL_MAX, Shared, chain, within};

/// How often it is looked whether there is an operation.
const INTERVAL: Duration = Duration::from_millis(500);

/// Carries out operations on many tasks, bit by bit.
pub(super) struct Operations {
    shared: Arc<Shared>,
}

impl Operations {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Tells the workers of tasks that are to be cancelled. Best effort: they hear of it with their next heartbeat.
    async fn tell_to_stop(&self, tasks: Vec<TaskId>) {
        if tasks.is_empty() {
            return;
        }
        let signal = self.shared.broker.signal(Signal::Cancel(tasks));
        let told = tokio::time::timeout(BROKER_CALL_MAX, signal).await;
        if !matches!(told, Ok(Ok(()))) {
            debug!("workers were not told at once of cancellations");
        }
    }
}

fn note(operation: &Operation) {
    if operation.state == OperationState::Running {
        return;
    }
    let progress = operation.progress;
    info!(
        operation = %operation.id,
        action = %operation.plan.action,
        done = progress.done,
        skipped = progress.skipped,
        failed = progress.failed,
        "an operation is completed"
    );
}

#[async_trait]
impl Chore for Operations {
    fn name(&self) -> &'static str {
        "operations"
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let pass = self.shared.store.pass_operation();
        let pass = within(STORE_CALL_MAX, "carry out an operation", pass).await;
        let pass = pass.map_err(|error| anyhow!(chain(&error)))?;
        if let Some(operation) = &pass.operation {
            self.shared.metrics.persisted("operation", began.elapsed());
            note(operation);
        }
        self.shared.tell(pass.events);
        self.tell_to_stop(pass.cancelling).await;
        Ok(pass.next_in.map_or(INTERVAL, |next| next.min(INTERVAL)))
    }
}
