//! Opens the store and the broker that the configuration names. The only place that knows which ones there are.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use forebay_broker::Broker;
use forebay_broker_embedded::EmbeddedBroker;
use forebay_broker_nats::{NatsBroker, NatsOptions};
use forebay_broker_rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use forebay_store::Store;
use forebay_store_postgres::{PostgresOptions, PostgresStore};
use forebay_store_sqlite::SqliteStore;

use crate::{
    config::{
        args::{BrokerArgs, DatabaseArgs},
        values::{BrokerUrl, DatabaseUrl},
    },
    guarded::{GuardedBroker, GuardedStore},
    metered::Metered,
    metrics::Metrics,
};

/// The two dependencies of every server process.
pub struct Backends {
    /// Where tasks are stored. Behind a circuit.
    pub store: Arc<dyn Store>,
    /// Where ready tasks wait. Behind a circuit; its publishes are measured.
    pub broker: Arc<dyn Broker>,
    /// Holds the SQLite file for this process.
    _lock: Option<File>,
}

impl Backends {
    fn guarded(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        metrics: &Arc<Metrics>,
        lock: Option<File>,
    ) -> Self {
        let broker = Arc::new(Metered::new(broker, Arc::clone(metrics)));
        Self {
            store: Arc::new(GuardedStore::new(store, Arc::clone(metrics))),
            broker: Arc::new(GuardedBroker::new(broker, Arc::clone(metrics))),
            _lock: lock,
        }
    }
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backends")
    }
}

/// Connects to the store and the broker of a production process: one that shares both with others.
///
/// # Errors
/// Where they do not fit together, or one can't be reached: one line that says which and why.
pub async fn backends(
    database: &DatabaseArgs,
    broker: &BrokerArgs,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Backends> {
    let shared_store = matches!(database.database_url, DatabaseUrl::Postgres(_));
    if !shared_store || matches!(broker.broker_url, BrokerUrl::Embedded) {
        bail!(
            "SQLite and the embedded broker serve one process alone: `forebay dev` is that process; several need \
             a postgres:// URL, and a nats:// or amqp:// URL"
        );
    }
    let store = store(database).await?;
    store.check().await.context("the database cannot be used")?;
    let broker = shared_broker(broker).await?;
    Ok(Backends::guarded(store, broker, metrics, None))
}

/// Opens a SQLite file with the embedded broker, for this process alone. Makes both the file and its schema.
///
/// # Errors
/// Where another process has it open, or it can't be used.
pub async fn embedded(path: &Path, metrics: &Arc<Metrics>) -> anyhow::Result<Backends> {
    let lock = lock(path)?;
    let sqlite = Arc::new(open_sqlite(path).await?);
    forebay_store::Admin::migrate(&*sqlite)
        .await
        .with_context(|| format!("migrate {}", path.display()))?;
    let broker = Arc::new(EmbeddedBroker::new(Arc::clone(&sqlite) as _));
    Ok(Backends::guarded(sqlite, broker, metrics, Some(lock)))
}

/// Opens the store alone, with whatever schema it has.
///
/// # Errors
/// Where it can't be reached.
pub async fn store(database: &DatabaseArgs) -> anyhow::Result<Arc<dyn Store>> {
    match &database.database_url {
        DatabaseUrl::Postgres(url) => {
            let mut options = PostgresOptions::new(url.expose());
            options.hot_connections = database.database_hot_connections as usize;
            options.read_connections = database.database_read_connections;
            let store = PostgresStore::connect(&options).await;
            Ok(Arc::new(
                store.with_context(|| format!("cannot use the database {url}"))?,
            ))
        }
        DatabaseUrl::Sqlite(path) => Ok(Arc::new(open_sqlite(path).await?)),
    }
}

async fn shared_broker(broker: &BrokerArgs) -> anyhow::Result<Arc<dyn Broker>> {
    match &broker.broker_url {
        BrokerUrl::Nats(url) => {
            let mut options = NatsOptions::new(url.expose());
            options.stream_bytes_max = i64::try_from(broker.nats_stream_max_bytes.0).unwrap_or(i64::MAX);
            options.replicas = usize::from(broker.nats_replicas);
            let nats = NatsBroker::connect(&options).await;
            Ok(Arc::new(
                nats.with_context(|| format!("cannot use the broker {url}"))?,
            ))
        }
        BrokerUrl::RabbitMq(url) => {
            let mut options = RabbitMqOptions::new(url.expose());
            options.queue_bytes_max = broker.rabbitmq_queue_max_bytes.0;
            let rabbitmq = RabbitMqBroker::connect(&options).await;
            Ok(Arc::new(
                rabbitmq.with_context(|| format!("cannot use the broker {url}"))?,
            ))
        }
        BrokerUrl::Embedded => Err(anyhow!("the embedded broker is part of a SQLite store")),
    }
}

async fn open_sqlite(path: &Path) -> anyhow::Result<SqliteStore> {
    SqliteStore::open(path)
        .await
        .with_context(|| format!("cannot open the database {}", path.display()))
}

/// Two processes on one file would not hear of each other's tasks. The lock goes with the process, however it ends.
fn lock(path: &Path) -> anyhow::Result<File> {
    let path = path.with_extension("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "{} is in use by another Forebay process; choose another folder with --data",
                path.parent().unwrap_or(&path).display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_for_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forebay.db");
        let first = lock(&path).unwrap();
        let error = lock(&path).unwrap_err().to_string();
        assert!(error.contains("in use by another Forebay process"), "{error}");
        drop(first);
        assert!(lock(&path).is_ok());
    }
}
