//! The broker suite on the embedded broker with SQLite as its store.

use std::sync::Arc;

use async_trait::async_trait;
use forebay_broker::{Broker, conformance::Fixture};
use forebay_broker_embedded::EmbeddedBroker;
use forebay_core::TaskId;
use forebay_store::{Admin, Changed, Operate};
use forebay_store_sqlite::SqliteStore;
use tempfile::TempDir;

forebay_broker::broker_conformance!(fresh);

struct Embedded {
    folder: TempDir,
    store: Arc<SqliteStore>,
    broker: Arc<EmbeddedBroker>,
}

async fn fresh() -> Embedded {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, broker) = open(&folder).await;
    Embedded {
        folder,
        store,
        broker,
    }
}

async fn open(folder: &TempDir) -> (Arc<SqliteStore>, Arc<EmbeddedBroker>) {
    let store = SqliteStore::open(&folder.path().join("forebay.db"))
        .await
        .expect("a store");
    store.migrate().await.expect("a schema");
    let store = Arc::new(store);
    let broker = Arc::new(EmbeddedBroker::new(store.clone()));
    (store, broker)
}

#[async_trait]
impl Fixture for Embedded {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker) as Arc<dyn Broker>
    }

    /// A cancelled task is no longer queued either, and that takes no worker.
    async fn settle(&self, tasks: &[TaskId]) {
        for &task in tasks {
            let changed = self.store.cancel(task).await.expect("a healthy store");
            assert!(
                !matches!(changed, Changed::NotFound),
                "{task} is not in the store"
            );
        }
    }

    fn records_by_itself(&self) -> bool {
        true
    }

    async fn restart(&mut self) -> bool {
        (self.store, self.broker) = open(&self.folder).await;
        true
    }
}
