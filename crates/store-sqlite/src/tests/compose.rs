//! What no method of the store can bring about.

use std::sync::Arc;

use forebay_store::conformance::{
    batches::a_day_later_it_makes_do_with_what_there_is,
    compose::{an_end_that_fails_for_ever_is_set_aside, what_never_comes_is_given_up_after_a_day},
};

use super::*;

const PASS_A_DAY: &str = "UPDATE batches SET grown_at = grown_at - 90000000000";

#[tokio::test]
async fn an_end_that_can_not_be_seen_to_is_set_aside() {
    let (store, _folder) = store().await;
    let corrupt = async |statement| {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    };
    an_end_that_fails_for_ever_is_set_aside(Arc::new(store.clone()), corrupt).await;
}

#[tokio::test]
async fn a_batch_does_not_wait_for_ever() {
    let (store, _folder) = store().await;
    let corrupt = async |statement| {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    };
    a_day_later_it_makes_do_with_what_there_is(Arc::new(store.clone()), corrupt, PASS_A_DAY).await;
}

#[tokio::test]
async fn nobody_waits_for_what_never_comes() {
    let (store, _folder) = store().await;
    let pass = async |hours: u32| {
        sqlx::query("UPDATE blockers SET since = since - ?1, asked_at = asked_at - ?1")
            .bind(i64::from(hours) * 3_600_000_000)
            .execute(&store.writer)
            .await
            .unwrap();
    };
    what_never_comes_is_given_up_after_a_day(Arc::new(store.clone()), pass).await;
}

/// Each of several ends is waited for by a crowd: a pass goes no further than it does for one.
#[tokio::test]
async fn a_pass_is_bounded_however_many_ends_it_sees() {
    let (store, _folder) = store().await;
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
        INSERT INTO blockers (on_id, task_id, known, since, asked_at)
        SELECT unhex(printf('%032x', i % 3 + 1)), unhex(printf('%032x', 100 + i)), 1, 0, 0 FROM n",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO settled (task_id, state, settled_at)
        SELECT DISTINCT on_id, 'succeeded', 0 FROM blockers",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    let first = forebay_store::Compose::settle(&store, 100).await.unwrap();
    assert!(first.more);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM blockers")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!(left, 500);
    while forebay_store::Compose::settle(&store, 100).await.unwrap().more {}
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM blockers")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
