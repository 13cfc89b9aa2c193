//! How SQLite carries out the statements that must stay fast however long the history is.

use forebay_core::State;
use forebay_store::PageToken;

use super::*;

/// Each statement that must stay fast, and the index that it must use.
const PLANS: [(&str, &str); 31] = [
    (
        include_str!("../../queries/operation_walk.sql"),
        "sqlite_autoindex_tasks_1 (id>? AND id<?)",
    ),
    (include_str!("../../queries/place.sql"), "tasks_waiting"),
    (
        include_str!("../../queries/delete_task.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/operations_due.sql"),
        "operations_look_at",
    ),
    (
        include_str!("../../queries/claim.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/succeed.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/progress.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/insert_payloads.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/complete.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/completed_before.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/fingerprint.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/dispatch.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/requeue.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/cancel.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/retry.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (include_str!("../../queries/due.sql"), "tasks_due (run_at<?)"),
    (include_str!("../../queries/queues.sql"), "tasks_due"),
    (
        include_str!("../../queries/take_back.sql"),
        "tasks_running (worker=?)",
    ),
    (
        include_str!("../../queries/hand_back.sql"),
        "tasks_running (worker=?)",
    ),
    (
        include_str!("../../queries/to_cancel.sql"),
        "tasks_running (worker=?)",
    ),
    (
        include_str!("../../queries/waiting.sql"),
        "tasks_waiting (queue=? AND priority=?)",
    ),
    (
        include_str!("../../queries/waiting_counts.sql"),
        "COVERING INDEX tasks_waiting",
    ),
    (
        include_str!("../../queries/lost.sql"),
        "tasks_waiting (queue=? AND priority=? AND queued_at<?)",
    ),
    (
        include_str!("../../queries/forget_tasks.sql"),
        "tasks_finished (finished_at<?)",
    ),
    (
        include_str!("../../queries/schedules_due.sql"),
        "schedules_look_at (look_at<?)",
    ),
    (
        include_str!("../../queries/limit_candidates.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/throttle.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/throttled_heads.sql"),
        "throttled_line (use_id=? AND phase=? AND priority=?)",
    ),
    (
        include_str!("../../queries/holds_of_starts.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
    (
        include_str!("../../queries/holds_of_worker.sql"),
        "tasks_running (worker=?)",
    ),
    (
        include_str!("../../queries/unfinished.sql"),
        "sqlite_autoindex_tasks_1 (id=?)",
    ),
];

async fn plan(store: &SqliteStore, statement: &str) -> String {
    let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
        .fetch_all(&store.writer)
        .await
        .unwrap_or_else(|error| panic!("{error} in {statement}"));
    let details: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
    details.join("\n")
}

#[tokio::test]
async fn hot_statements_use_their_indexes_and_sort_nothing() {
    let (store, _folder) = store().await;
    for (statement, index) in PLANS {
        let plan = plan(&store, statement).await;
        assert!(plan.contains(index), "{statement}\nis planned as\n{plan}");
        let scans = plan
            .lines()
            .any(|line| line.starts_with("SCAN tasks") && !line.contains("INDEX"));
        assert!(!scans, "{statement}\nis planned as\n{plan}");
        let sorts = plan.contains("FOR ORDER BY");
        assert!(!sorts, "{statement}\nis planned as\n{plan}");
    }
}

#[tokio::test]
async fn a_list_walks_its_index() {
    let (store, _folder) = store().await;
    for (state, index) in [
        (None, "tasks_newest"),
        (Some(State::Succeeded), "tasks_newest"),
        (Some(State::Failed), "tasks_to_look_at"),
        (Some(State::Cancelled), "tasks_to_look_at"),
    ] {
        let filter = TaskFilter {
            state,
            ..TaskFilter::default()
        };
        let page = PageToken {
            created_at: SystemClock.now(),
            id: task(1, "1").id,
        };
        let statement = crate::read::listing(&filter, 10, Some(page)).into_string();
        let plan = plan(&store, &statement).await;
        assert!(plan.contains(index), "{statement}\nis planned as\n{plan}");
        assert!(
            !plan.contains("FOR ORDER BY"),
            "{statement}\nis planned as\n{plan}"
        );
    }
}
