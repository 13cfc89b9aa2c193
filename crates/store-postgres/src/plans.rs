//! Tests of the statements themselves, on connections with the very settings that they run with.

use forebay_store::{Admin, Result};
use forebay_testkit::postgres::Postgres;

use crate::{PostgresOptions, PostgresStore, hot::query};

/// All statements, by the names of their files.
fn statements() -> Vec<(String, &'static str)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/queries");
    let mut statements: Vec<(String, &'static str)> = std::fs::read_dir(folder)
        .expect("the folder of the statements")
        .map(|entry| entry.expect("an entry of it").path())
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(path).expect("a statement");
            (name, &*Box::leak(text.into_boxed_str()))
        })
        .collect();
    statements.sort();
    statements
}

pub(crate) async fn migrated() -> PostgresStore {
    let url = Postgres::shared()
        .await
        .fresh_database()
        .expect("create a database");
    let store = PostgresStore::connect(&PostgresOptions::new(url))
        .await
        .expect("connect");
    store.migrate().await.expect("migrate");
    store
}

/// Two days of a hundred thousand finished tasks each, and a few that wait.
const FILL: &str = "
    INSERT INTO tasks (id, project, kind, queue, priority, state, payload, created_at, queued_at)
    SELECT (substr(forebay_day_bound(at.day)::text, 1, 13) || '-7' || right(gen_random_uuid()::text, 21))::uuid,
           'default', 'echo', 'default', 'default',
           CASE WHEN n % 10000 = 0 THEN 'queued' ELSE 'succeeded' END::task_state, '1',
           at.day + n * interval '0.8 second', at.day + n * interval '0.8 second'
    FROM generate_series(1, 100000) AS n CROSS JOIN (VALUES (forebay_today() - 1), (forebay_today())) AS at (day);
    INSERT INTO due (task_id, fence, priority, run_at, queue, kind)
    SELECT id, fence, priority, created_at, queue, kind FROM tasks WHERE state = 'succeeded' LIMIT 20000;
    ANALYZE";

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let store = migrated().await;
    let mut connection = store.hot.get("test").await.expect("connect");
    let statements = statements();
    assert!(statements.len() > 30);
    for (name, sql) in statements {
        if let Err(error) = connection.client().prepare(sql).await {
            panic!("{name}: {:?}", error.as_db_error());
        }
    }
}

/// An expression for a parameter of the type that keeps the partition of today in the plan.
fn example(ty: &str) -> String {
    let today = "forebay_day_bound(forebay_today())";
    match ty.strip_prefix('_') {
        Some(item) => format!("ARRAY[{}]", example(item)),
        None if ty == "uuid" => today.into(),
        None if ty == "timestamptz" => "now()".into(),
        None if ty == "text" => "'default'".into(),
        None if ty == "bool" => "true".into(),
        None => "1".into(),
    }
}

/// The plan of a statement, made without knowing the parameters, as it is run.
pub(crate) async fn plan(store: &PostgresStore, sql: &'static str) -> Result<String> {
    let mut connection = store.hot.get("explain").await?;
    let client = connection.client();
    let statement = client.prepare(sql).await.expect("it fits");
    let parameters: Vec<String> = statement.params().iter().map(|ty| example(ty.name())).collect();
    client
        .batch_execute(&format!("PREPARE explained AS {sql}"))
        .await
        .expect("prepare");
    let call = if parameters.is_empty() {
        String::new()
    } else {
        format!("({})", parameters.join(", "))
    };
    let explain: &'static str = Box::leak(format!("EXPLAIN EXECUTE explained{call}").into_boxed_str());
    let rows = client.simple_query(explain).await.expect("explain");
    client
        .batch_execute("DEALLOCATE explained")
        .await
        .expect("deallocate");
    let lines = rows.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    let plan = lines.collect::<Vec<_>>().join("\n");
    connection.settle(Ok(plan))
}

#[tokio::test]
async fn no_hot_statement_reads_a_whole_table_of_tasks() {
    let store = migrated().await;
    let mut connection = store.hot.get("fill").await.expect("connect");
    connection
        .client()
        .batch_execute(&format!("SET statement_timeout = 0; {FILL}"))
        .await
        .expect("fill");
    query(connection.client(), "test", "SELECT 1", &[])
        .await
        .expect("go on");
    drop(connection);
    let hot = |name: &str| {
        [
            "tasks_record",
            "tasks_insert",
            "tasks_claim",
            "tasks_succeed",
            "tasks_complete",
            "tasks_progress",
            "tasks_get",
            "tasks_fingerprints",
            "tasks_lock_lost",
        ]
        .iter()
        .chain(&[
            "tasks_floor",
            "tasks_oldest",
            "tasks_requeue",
            "tasks_cancel",
            "tasks_retry",
            "workers_release",
            "schedules_unfinished",
        ])
        .any(|prefix| name.starts_with(prefix))
            || name.starts_with("due_")
    };
    let mut seen = 0;
    for (name, sql) in statements().into_iter().filter(|(name, _)| hot(name)) {
        let plan = plan(&store, sql).await.expect("explain");
        assert!(!plan.contains("Seq Scan on tasks"), "{name}:\n{plan}");
        assert!(!plan.contains("Seq Scan on due"), "{name}:\n{plan}");
        assert!(
            plan.contains(" on tasks") || plan.contains(" on due"),
            "{name} looks at nothing:\n{plan}"
        );
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} statements were looked at");
    // By the key of the worker it would read all that this worker has claimed, and what it has claimed before.
    for sql in [
        include_str!("../queries/tasks_succeed.sql"),
        include_str!("../queries/claims_forget.sql"),
    ] {
        let plan = plan(&store, sql).await.expect("explain");
        assert!(
            plan.contains("claims_pkey") && !plan.contains("claims_of_worker"),
            "{plan}"
        );
    }
    let walk = plan(&store, include_str!("../queries/tasks_lock_lost.sql"))
        .await
        .expect("explain");
    assert!(!walk.contains("->  Sort"), "the walk sorts:\n{walk}");
    let due = plan(&store, include_str!("../queries/due_lock.sql"))
        .await
        .expect("explain");
    assert!(due.contains("due_waiting") && !due.contains("->  Sort"), "{due}");
}
