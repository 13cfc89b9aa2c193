//! What only SQLite can get wrong: the file, its plans, and its errors.

use std::path::PathBuf;

use forebay_core::{Json, Lane, Project, Submission, TaskId};
use forebay_store::{Admin, Read, Record, Recorded, TaskFilter};
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use super::*;

mod compose;
mod limits;
mod plans;
mod schedules;
mod webhooks;

/// Short, for tests in which another process never lets go of the file.
const SHORT: Duration = Duration::from_millis(50);

async fn store() -> (SqliteStore, TempDir) {
    let (folder, path) = place();
    let store = SqliteStore::open(&path).await.unwrap();
    store.migrate().await.unwrap();
    (store, folder)
}

/// A path in a folder that goes when the test has ended.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.db");
    (folder, path)
}

fn task(number: u8, payload: &str) -> Submission {
    let at = SystemClock.now();
    Submission {
        id: TaskId::new(at, &[number; 10]),
        project: Project::default(),
        kind: "echo".parse().unwrap(),
        lane: "default.default".parse().unwrap(),
        payload: Json::parse(payload.as_bytes()).unwrap(),
        tags: Vec::new(),
        run_at: None,
        max_attempts: None,
        timeout: None,
        created_at: at,
        fingerprint: None,
        traceparent: None,
        terms: None,
    }
}

#[tokio::test]
async fn makes_the_folder_and_the_file() {
    let (_folder, path) = place();
    let deep = path.with_file_name("a").join("b").join("forebay.db");
    let store = SqliteStore::open(&deep).await.unwrap();
    assert!(deep.exists());
    let unmigrated = store.check().await;
    assert!(
        matches!(
            unmigrated,
            Err(StoreError::Schema {
                found: 0,
                needed: 1..
            })
        ),
        "{unmigrated:?}"
    );
    let unmigrated = store.record(&[task(1, "1")]).await;
    assert!(
        matches!(unmigrated, Err(StoreError::Schema { .. })),
        "{unmigrated:?}"
    );
    store.migrate().await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn takes_the_urls_of_the_configuration() {
    let (folder, _) = place();
    let path = folder.path().join("some data").join("f.db");
    let url = format!("sqlite://{}", path.display()).replace(' ', "%20");
    SqliteStore::open_url(&url).await.unwrap().close().await;
    assert!(path.exists());
    for bad in [
        "sqlite://",
        "sqlite::memory:",
        "postgres://x",
        "sqlite:///tmp/x?mode=ro",
        "",
    ] {
        let refused = SqliteStore::open_url(bad).await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{bad}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn is_set_up_to_lose_nothing() {
    let (store, _folder) = store().await;
    for (pool, writes) in [(&store.writer, true), (&store.readers, false)] {
        let pragma = |name: &'static str| async move {
            let row = sqlx::query(AssertSqlSafe(format!("PRAGMA {name}")))
                .fetch_one(pool)
                .await;
            row.unwrap().try_get_unchecked::<String, _>(0).unwrap()
        };
        assert_eq!(pragma("journal_mode").await, "wal");
        assert_eq!(pragma("synchronous").await, "2", "FULL");
        assert_eq!(pragma("foreign_keys").await, "1");
        assert_eq!(pragma("query_only").await, if writes { "0" } else { "1" });
    }
}

#[tokio::test]
async fn two_programs_may_migrate_one_file_at_once() {
    let (_folder, path) = place();
    let (one, other) = tokio::join!(SqliteStore::open(&path), SqliteStore::open(&path));
    let (one, other) = (one.unwrap(), other.unwrap());
    let (first, second) = tokio::join!(one.migrate(), other.migrate());
    first.unwrap();
    second.unwrap();
    let task = task(1, "1");
    assert_eq!(
        one.record(std::slice::from_ref(&task)).await.unwrap(),
        [Recorded::New]
    );
    assert_eq!(other.record(&[task]).await.unwrap(), [Recorded::Duplicate]);
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_left_as_it_is() {
    let (store, _folder) = store().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'newer', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&store.writer).await.unwrap();
    store.migrate().await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let (_folder, path) = place();
    tokio::fs::write(&path, vec![b'x'; 8_192]).await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains("forebay.db"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_reported_as_such() {
    let (store, folder) = store().await;
    let payload = format!("\"{}\"", "a".repeat(50_000));
    store.record(&[task(1, &payload)]).await.unwrap();
    store.close().await;
    let path = folder.path().join("forebay.db");
    let mut bytes = tokio::fs::read(&path).await.unwrap();
    bytes[4_096..].fill(0xa5);
    tokio::fs::write(&path, bytes).await.unwrap();
    let result = match SqliteStore::open(&path).await {
        Ok(store) => store.list(&TaskFilter::default(), 10, None).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(result, Err(StoreError::Corrupt(_))), "{result:?}");
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_an_error_with_the_path() {
    let (_folder, path) = place();
    tokio::fs::write(&path, "").await.unwrap();
    let error = SqliteStore::open(&path.join("forebay.db")).await.unwrap_err();
    let StoreError::Unavailable { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("forebay.db"), "{source}");
}

#[tokio::test]
async fn a_file_that_can_not_be_written_to_is_found_out_when_it_is_opened() {
    let (store, folder) = store().await;
    store.close().await;
    let path = folder.path().join("forebay.db");
    let options = SqliteConnectOptions::new().filename(&path).read_only(true);
    let error = SqliteStore::connect(options, SHORT).await.unwrap_err();
    let StoreError::Unavailable { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("readonly"), "{source}");
    assert!(source.to_string().contains("forebay.db"), "{source}");
}

#[tokio::test]
async fn a_full_disk_refuses_a_batch_and_keeps_the_rest() {
    let (store, _folder) = store().await;
    let small = task(1, "1");
    store.record(std::slice::from_ref(&small)).await.unwrap();
    sqlx::query("PRAGMA max_page_count = 1")
        .execute(&store.writer)
        .await
        .unwrap();
    let payload = format!("\"{}\"", "a".repeat(200_000));
    let error = store
        .record(&[task(2, "2"), task(3, &payload)])
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let StoreError::Unavailable { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("full"), "{source}");
    let page = store.list(&TaskFilter::default(), 10, None).await.unwrap();
    assert_eq!(
        page.tasks.len(),
        1,
        "a batch is recorded as a whole or not at all"
    );
    sqlx::query("PRAGMA max_page_count = 1000000")
        .execute(&store.writer)
        .await
        .unwrap();
    store.record(&[task(3, &payload)]).await.unwrap();
    assert_eq!(store.get(small.id).await.unwrap().unwrap().payload.as_str(), "1");
}

#[tokio::test]
async fn a_locked_file_can_be_read_and_is_unavailable_to_writers() {
    let (store, folder) = store().await;
    let path = folder.path().join("forebay.db");
    let options = SqliteConnectOptions::new().filename(&path);
    let impatient = SqliteStore::connect(options, SHORT).await.unwrap();
    let held = store.begin("hold the file").await.unwrap();
    let error = impatient.record(&[task(1, "1")]).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(impatient.list(&TaskFilter::default(), 10, None).await.is_ok());
    drop(held);
    assert_eq!(impatient.record(&[task(1, "1")]).await.unwrap(), [Recorded::New]);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    let (store, _folder) = store().await;
    let batch: Vec<Submission> = (0..=255).map(|number| task(number, "1")).collect();
    for micros in (0..4_000).step_by(50) {
        // Given up at whatever point it has come to.
        let _ = tokio::time::timeout(Duration::from_micros(micros), store.record(&batch)).await;
        let recorded = store
            .list(&TaskFilter::default(), 1_000, None)
            .await
            .unwrap()
            .tasks
            .len();
        assert!(
            recorded == 0 || recorded == batch.len(),
            "{recorded} of {}",
            batch.len()
        );
    }
    let answers = store.record(&batch).await.unwrap();
    assert_eq!(answers.len(), batch.len());
    store.check().await.unwrap();
}

#[tokio::test]
async fn retention_forgets_what_ended_in_bounded_steps() {
    let (store, _folder) = store().await;
    use forebay_store::{Dispatch, Operate};
    let batch: Vec<Submission> = (0..=255).map(|number| task(number, "1")).collect();
    store.record(&batch).await.unwrap();
    for task in &batch[1..] {
        store.cancel(task.id).await.unwrap();
    }
    let keyed = Submission {
        fingerprint: Some(forebay_core::Fingerprint([1; 16])),
        id: TaskId::from_bytes([7; 16]),
        ..task(0, "1")
    };
    store.record(std::slice::from_ref(&keyed)).await.unwrap();
    store.cancel(keyed.id).await.unwrap();
    store.maintain(Some(Duration::from_secs(3_600))).await.unwrap();
    assert_eq!(
        store
            .list(&TaskFilter::default(), 1_000, None)
            .await
            .unwrap()
            .tasks
            .len(),
        257
    );
    store.maintain(Some(Duration::ZERO)).await.unwrap();
    let page = store.list(&TaskFilter::default(), 1_000, None).await.unwrap();
    let mut left: Vec<TaskId> = page.tasks.iter().map(|task| task.id).collect();
    left.sort_unstable();
    let mut expected = [batch[0].id, keyed.id];
    expected.sort_unstable();
    assert_eq!(
        left, expected,
        "what waits is kept, and a key holds for a day at least"
    );
    let payloads: i64 = sqlx::query_scalar("SELECT count(*) FROM payloads")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!(payloads, 2);
}

#[tokio::test]
async fn a_lane_gives_out_its_backlog_in_the_order_of_recording() {
    use forebay_store::{Backlog, Operate};
    let (store, _folder) = store().await;
    let lane = |name: &str| name.parse::<Lane>().unwrap();
    // Ids that sort the other way round, all accepted in the same microsecond.
    let first = task(200, "1");
    let batch: Vec<Submission> = (0..6_u8)
        .map(|number| Submission {
            id: TaskId::new(first.created_at, &[200 - number; 10]),
            lane: lane(if number == 4 {
                "default.high"
            } else {
                "default.default"
            }),
            ..first.clone()
        })
        .collect();
    store.record(&batch[..3]).await.unwrap();
    store.record(&batch[3..]).await.unwrap();
    store.cancel(batch[1].id).await.unwrap();
    let waiting = store.waiting(&lane("default.default"), 3).await.unwrap();
    let ids: Vec<TaskId> = waiting.iter().map(|(task, _)| task.id).collect();
    assert_eq!(ids, [0, 2, 3].map(|index: usize| batch[index].id));
    assert!(waiting.is_sorted_by_key(|(_, since)| *since));
    assert!(
        waiting
            .iter()
            .all(|(task, _)| task.fence == 0 && task.kind.as_str() == "echo")
    );
    let mut counts = store.waiting_counts().await.unwrap();
    counts.sort_unstable();
    assert_eq!(counts, [(lane("default.high"), 1), (lane("default.default"), 4)]);
    assert_eq!(store.waiting(&lane("other.low"), 3).await.unwrap(), []);
}
