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
            "tasks_start_limited",
            "tasks_succeed_limited",
            "tasks_claim_spare",
            "tasks_limit_keys",
            "tasks_lock_claimable",
            "tasks_lock_holds",
            "tasks_throttle",
            "throttled_release",
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
    // In the order of their ids all tasks can be read, too.
    for sql in [
        include_str!("../queries/limit_allotments_count.sql"),
        include_str!("../queries/workers_release.sql"),
    ] {
        let plan = plan(&store, sql).await.expect("explain");
        let lines: Vec<&str> = plan.lines().collect();
        let scans = lines
            .windows(2)
            .filter(|it| it[0].contains("Scan") && it[0].contains(" on tasks_"));
        let mut seen = 0;
        for it in scans {
            assert!(it[1].contains("Index Cond: (id = "), "{plan}");
            seen += 1;
        }
        assert!(seen > 0, "it looks at no task:\n{plan}");
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

/// With many keys: what a claim or a completion does with the counters of limits looks these up by their keys.
#[tokio::test]
async fn no_statement_of_a_claim_reads_all_counters_of_limits() {
    let store = migrated().await;
    let mut connection = store.hot.get("fill").await.expect("connect");
    let fill = "INSERT INTO limit_uses (name, key, revision) SELECT 'each', n, 1 FROM generate_series(1, 20000) AS n;
        ANALYZE limit_uses; ANALYZE throttled";
    connection.client().batch_execute(fill).await.expect("fill");
    connection.settle(Ok(())).expect("settle");
    let walks = |plan: &str| {
        let lines: Vec<&str> = plan.lines().collect();
        let is_scan = |line: &str| line.contains(" on limit_uses") && line.contains("Scan");
        lines
            .iter()
            .zip(lines.iter().skip(1).chain([&""]))
            .any(|(line, next)| is_scan(line) && !next.contains("Index Cond"))
    };
    for (name, sql) in [
        ("lock", include_str!("../queries/limit_uses_lock.sql")),
        ("lines", include_str!("../queries/limit_uses_lines.sql")),
        ("look", include_str!("../queries/limit_uses_look.sql")),
        ("add", include_str!("../queries/limit_uses_add.sql")),
        ("write", include_str!("../queries/limit_uses_write.sql")),
        ("turn back", include_str!("../queries/limit_uses_turn_back.sql")),
        ("leave", include_str!("../queries/throttled_leave.sql")),
        ("start", include_str!("../queries/tasks_start_limited.sql")),
        ("succeed", include_str!("../queries/tasks_succeed_limited.sql")),
        ("claim", include_str!("../queries/tasks_claim_spare.sql")),
    ] {
        let plan = plan(&store, sql).await.expect("explain");
        assert!(
            plan.contains(" on limit_uses"),
            "{name} looks at nothing:\n{plan}"
        );
        assert!(!walks(&plan), "{name} reads all counters:\n{plan}");
    }
    // Nobody waits while the plan is made; later there may be very many.
    let claim = plan(&store, include_str!("../queries/tasks_claim_spare.sql"))
        .await
        .expect("explain");
    assert!(
        claim.contains("Index Cond: (task_id = r.id)") && !claim.contains("Anti Join"),
        "{claim}"
    );
    let lines = plan(&store, include_str!("../queries/limit_uses_lines.sql"))
        .await
        .expect("explain");
    assert_eq!(
        lines.matches("(use_id = u.id)").count(),
        3,
        "it reads all lines:\n{lines}"
    );
    // To compare them all with what runs is one walk, and not one for each of them.
    let counted = plan(&store, include_str!("../queries/limit_uses_counted.sql"))
        .await
        .expect("explain");
    assert!(counted.contains("hashed SubPlan"), "{counted}");
    let left = counted.contains("Left Join") || counted.contains("Anti Join");
    assert!(!left, "{counted}");
}

/// Whatever the planner believes of the filter, each failed task is looked up by its id: walking along all tasks, and along
/// the failed ones for each of them, would take for ever.
#[tokio::test]
async fn no_walk_of_an_operation_reads_more_than_its_stretch() {
    let store = migrated().await;
    let mut connection = store.reads.acquire().await.expect("connect");
    let fill = "INSERT INTO failures SELECT id, now() FROM tasks ORDER BY id LIMIT 20000; ANALYZE failures";
    let text: &'static str = Box::leak(format!("SET statement_timeout = 0; {FILL}; {fill}").into_boxed_str());
    sqlx::raw_sql(text).execute(&mut *connection).await.expect("fill");
    let bounds = "forebay_day_bound(forebay_today() - 1), forebay_day_bound(forebay_today() + 1)";
    let nothing = ["NULL"; 8].join(", ");
    for (name, sql, lookup) in [
        (
            "walk",
            include_str!("../queries/operations_walk.sql"),
            "_pkey on tasks_",
        ),
        (
            "walk_failed",
            include_str!("../queries/operations_walk_failed.sql"),
            "Index Cond: (id = failures",
        ),
    ] {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let prepare = format!("SET plan_cache_mode = {mode}; PREPARE {name}_{mode} AS {sql}");
            let prepare: &'static str = Box::leak(prepare.into_boxed_str());
            sqlx::raw_sql(prepare)
                .execute(&mut *connection)
                .await
                .expect("it fits");
            let call = format!(
                "EXPLAIN EXECUTE {name}_{mode}({bounds}, 5000, 25, ARRAY['succeeded'], now(), {nothing})"
            );
            let call: &'static str = Box::leak(call.into_boxed_str());
            let plan: Vec<String> = sqlx::query_scalar(call)
                .fetch_all(&mut *connection)
                .await
                .expect("explain");
            let plan = plan.join("\n");
            assert!(plan.contains(lookup), "{name}, {mode}:\n{plan}");
            assert!(!plan.contains("Join Filter"), "{name}, {mode}:\n{plan}");
        }
    }
}

/// A batch near its bound, among as many other tasks and other batches: whatever is done with it looks up its own tasks by their
/// ids, with statistics that say how large it is, and without.
#[tokio::test]
async fn no_statement_about_a_batch_reads_the_tasks_of_others() {
    const BATCHES: &str = "
        INSERT INTO batches (id, created_at, total, project)
            SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, now(), 100000, 'default'
            FROM generate_series(1, 100) AS n;
        INSERT INTO batch_members (batch_id, task_id)
            SELECT '00000000-0000-0000-0000-000000000001', id FROM tasks WHERE created_at >= forebay_today();
        INSERT INTO batch_members (batch_id, task_id)
            SELECT id, gen_random_uuid() FROM batches CROSS JOIN generate_series(1, 100);
        ANALYZE batches; ANALYZE batch_members";
    let store = migrated().await;
    let mut connection = store.reads.acquire().await.expect("connect");
    let text: &'static str =
        Box::leak(format!("SET statement_timeout = 0; {FILL}; {BATCHES}").into_boxed_str());
    sqlx::raw_sql(text).execute(&mut *connection).await.expect("fill");
    let sql = include_str!("../queries/batches_counts.sql");
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let prepare = format!("SET plan_cache_mode = {mode}; PREPARE counts_{mode} AS {sql}");
        let prepare: &'static str = Box::leak(prepare.into_boxed_str());
        sqlx::raw_sql(prepare)
            .execute(&mut *connection)
            .await
            .expect("it fits");
        let call = format!("EXPLAIN EXECUTE counts_{mode}('00000000-0000-0000-0000-000000000001')");
        let call: &'static str = Box::leak(call.into_boxed_str());
        let plan: Vec<String> = sqlx::query_scalar(call)
            .fetch_all(&mut *connection)
            .await
            .expect("explain");
        let plan = plan.join("\n");
        let is_looked_up = plan.contains("Index Cond: (id = m.task_id)");
        assert!(is_looked_up && !plan.contains("Join"), "{mode}:\n{plan}");
    }
    for (name, sql) in [
        ("complete", include_str!("../queries/batches_complete.sql")),
        ("cancel", include_str!("../queries/batches_cancel_next.sql")),
        ("end", include_str!("../queries/batch_members_end.sql")),
        (
            "end again",
            include_str!("../queries/batch_members_end_again.sql"),
        ),
    ] {
        let plan = plan(&store, sql).await.expect("explain");
        assert!(plan.contains("batch_members_pkey"), "{name}:\n{plan}");
        assert!(
            !plan.contains("Seq Scan on tasks") && !plan.contains("Seq Scan on batch_members"),
            "{name}:\n{plan}"
        );
    }
}
