//! What maintenance forgets of webhooks.

use forebay_store::Dispatch;

use super::*;

/// More than one statement forgets, as an hour may bring more.
#[tokio::test]
async fn all_old_notes_of_deliveries_are_forgotten_at_a_time() {
    let (store, _folder) = store().await;
    let count = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries")
            .fetch_one(&store.writer)
            .await
            .unwrap()
    };
    for statement in [
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 11000)
        INSERT INTO webhook_deliveries (webhook_id, event_id, event_kind, created_at)
        SELECT i % 2 + 1, i, 'test', 0 FROM n",
        "INSERT INTO webhooks (name, url, secret, states, include_result, disabled, created_at, updated_at)
        VALUES ('billing', 'https://example.com/', 'whsec_', '[]', 0, 0, 0, 0)",
    ] {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    }
    store.maintain(None).await.unwrap();
    assert_eq!(count().await, 5_500, "those of a webhook that is gone");
    store.maintain(Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(count().await, 0);
}
