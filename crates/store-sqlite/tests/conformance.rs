//! The suite of all stores, on SQLite.

use std::sync::{Arc, Mutex};

use forebay_store::{Admin, Store, conformance::Fixture};
use forebay_store_sqlite::SqliteStore;
use tempfile::TempDir;

/// Makes each store a file of its own, which goes when the case has ended.
#[derive(Default)]
struct SqliteFixture {
    folders: Mutex<Vec<TempDir>>,
}

impl Fixture for SqliteFixture {
    async fn store(&self) -> Arc<dyn Store> {
        let folder = tempfile::tempdir().expect("make a folder");
        let store = SqliteStore::open(&folder.path().join("forebay.db"))
            .await
            .expect("open the store");
        store.migrate().await.expect("migrate");
        self.folders
            .lock()
            .expect("nobody panics while it holds this")
            .push(folder);
        Arc::new(store)
    }
}

forebay_store::store_conformance!(SqliteFixture::default());
