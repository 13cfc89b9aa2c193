//! The suite that every store passes, on PostgreSQL: one server for this file, a database for each case.

use std::sync::Arc;

use forebay_store::{Admin, Store, conformance::Fixture};
use forebay_store_postgres::{PostgresOptions, PostgresStore};
use forebay_testkit::postgres::Postgres;

struct FreshDatabase;

impl Fixture for FreshDatabase {
    async fn store(&self) -> Arc<dyn Store> {
        let url = Postgres::shared()
            .await
            .fresh_database()
            .expect("create a database");
        let store = PostgresStore::connect(&PostgresOptions::new(url))
            .await
            .expect("connect");
        store.migrate().await.expect("migrate");
        Arc::new(store)
    }
}

forebay_store::store_conformance!(FreshDatabase);
