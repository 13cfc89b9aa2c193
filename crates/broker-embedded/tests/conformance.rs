//! The broker suite on the embedded broker with SQLite as its store.

use std::sync::Arc;

use async_trait::async_trait;
use forebay_broker::{Broker, Message, PublishError, conformance::Fixture};
use forebay_broker_embedded::EmbeddedBroker;
use forebay_core::{Clock, Json, SubmitRequest, SystemClock, TaskId};
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

/// The store is asked at once, so a key that is in use is known before the submission is accepted.
#[tokio::test]
async fn a_key_in_use_with_another_request_is_a_conflict_and_hurts_no_neighbour() {
    let fixture = fresh().await;
    let broker = &fixture.broker;
    let task = |number: u8, key: Option<&str>, text: &str| {
        let request = SubmitRequest {
            kind: "echo".to_owned(),
            payload: Json::parse(text.as_bytes()).ok(),
            idempotency_key: key.map(str::to_owned),
            ..SubmitRequest::default()
        };
        Message::Submission(
            request
                .accept(SystemClock.now(), &[number; 10])
                .expect("a valid request"),
        )
    };
    assert_eq!(broker.publish(vec![task(1, Some("k"), "1")]).await, [Ok(())]);
    let again = vec![
        task(2, None, "2"),
        task(3, Some("k"), "3"),
        task(4, Some("k"), "1"),
    ];
    assert_eq!(
        broker.publish(again).await,
        [Ok(()), Err(PublishError::Conflict), Ok(())]
    );
}
