//! What no method of the store can bring about.

use std::sync::Arc;

use forebay_store::conformance::limits::{
    a_bad_line_is_in_nobodys_way, a_wrong_counter_is_mended, what_nobody_uses_is_forgotten,
};

use super::*;

#[tokio::test]
async fn counters_that_are_wrong_are_mended() {
    let (store, _folder) = store().await;
    let corrupt = async |statement| {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    };
    a_wrong_counter_is_mended(Arc::new(store.clone()), corrupt).await;
}

#[tokio::test]
async fn lines_that_fail_keep_no_others_from_going_on() {
    const BAD: &str = "CREATE TRIGGER bad BEFORE UPDATE ON throttled WHEN NEW.phase = 1 AND NEW.queue = 'bad'
        BEGIN SELECT RAISE(ABORT, 'bad'); END";
    let (store, _folder) = store().await;
    let corrupt = async |statement| {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    };
    a_bad_line_is_in_nobodys_way(Arc::new(store.clone()), corrupt, BAD).await;
}

#[tokio::test]
async fn as_much_as_there_is_is_forgotten() {
    const STRAY: &str = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 12000)
        INSERT INTO throttled (task_id, use_id, phase, priority, queue, since, revision)
        SELECT randomblob(16), (SELECT min(id) FROM limit_uses), 0, 1, 'default', 0, 0 FROM n";
    let (store, _folder) = store().await;
    let corrupt = async |statement| {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    };
    what_nobody_uses_is_forgotten(Arc::new(store.clone()), corrupt, STRAY).await;
}
