//! graphile_worker, the Rust port: a local queue and batched completion.

use std::time::Duration;

use anyhow::Result;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions, WorkerUtils,
};
use sqlx::PgPool;

use crate::produce::{Noop, Submit};

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        self.handle();
        Ok::<(), String>(())
    }
}

fn options(pool: PgPool) -> WorkerOptions {
    WorkerOptions::default()
        .concurrency(32)
        .pg_pool(pool)
        .local_queue(LocalQueueConfig::default().with_size(500))
        .complete_job_batch_delay(Duration::from_millis(1))
        .define_job::<Noop>()
}

/// Creates the schema.
pub(crate) async fn prepare(pool: PgPool) -> Result<()> {
    options(pool).init().await?;
    Ok(())
}

/// Submits through a pool of connections.
pub(crate) struct Producer(WorkerUtils);

impl Producer {
    pub(crate) async fn open(pool: PgPool) -> Result<Self> {
        Ok(Self(options(pool).init().await?.create_utils()))
    }
}

impl Submit for Producer {
    async fn submit(&self, task: Noop) -> Result<()> {
        self.0.add_job(task, JobSpec::default()).await?;
        Ok(())
    }

    async fn submit_many(&self, tasks: Vec<Noop>) -> Result<()> {
        let spec = JobSpec::default();
        let jobs: Vec<_> = tasks.into_iter().map(|task| (task, &spec)).collect();
        self.0.add_jobs(&jobs).await?;
        Ok(())
    }
}

/// Runs until it is killed.
pub(crate) async fn work(pool: PgPool) -> Result<()> {
    options(pool).init().await?.run().await?;
    Ok(())
}
