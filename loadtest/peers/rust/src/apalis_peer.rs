//! apalis on PostgreSQL: large batches, no extra lock statement, woken by NOTIFY, tasks on tokio's pool.

use std::time::Duration;

use anyhow::Result;
use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage, queries::push_tasks};

use crate::produce::{Noop, Submit};

const QUEUE: &str = "noop";

/// How many workers share the process.
const WORKERS: usize = 2;

/// Creates the schema.
pub(crate) async fn prepare(pool: &PgPool) -> Result<()> {
    Ok(PostgresStorage::<()>::setup(pool).await?)
}

/// Submits through a pool of connections.
pub(crate) struct Producer(pub(crate) PgPool);

impl Submit for Producer {
    async fn submit(&self, task: Noop) -> Result<()> {
        self.submit_many(vec![task]).await
    }

    async fn submit_many(&self, tasks: Vec<Noop>) -> Result<()> {
        let tasks = tasks
            .iter()
            .map(|task| Ok(TaskBuilder::new(serde_json::to_vec(task)?).build()))
            .collect::<Result<Vec<_>>>()?;
        let mut connection = self.0.acquire().await?;
        Ok(push_tasks(&mut *connection, QUEUE, tasks).await?)
    }
}

/// Runs until it is killed.
pub(crate) async fn work(pool: PgPool) -> Result<()> {
    let workers = (0..WORKERS).map(|number| {
        let config = Config::default().queue(QUEUE).batch_size(500).lock_tasks(false);
        let backend = PostgresStorage::<Noop>::new(&pool)
            .with_config(config)
            .with_pubsub()
            .poll_with_interval(Duration::from_millis(100));
        let worker = WorkerBuilder::new(format!("bench-{number}"))
            .backend(backend)
            .parallelize(tokio::spawn)
            .build(noop);
        async move { worker.run().await }
    });
    futures::future::try_join_all(workers).await?;
    Ok(())
}

async fn noop(task: Noop) -> Result<(), BoxDynError> {
    task.handle();
    Ok(())
}
