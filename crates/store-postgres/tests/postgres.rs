//! What only this store has: outages of a server, partitions, updates within a page, and locks between rows.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its cases do")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use forebay_core::{
    ClaimId, Clock, Decision, Json, Lane, Outcome, Priority, Project, QueueName, Ready, State, Submission,
    SystemClock, TaskId, Timestamp, WorkerId, WorkerInfo,
};
use forebay_store::{
    Admin, ClaimRequest, Claimed, Completed, Completion, Dispatch, Execute, Heartbeat, Operate, Read,
    ReadySink, ReadyWalk, Record, StoreError, TaskFilter,
};
use forebay_store_postgres::{PostgresOptions, PostgresStore};
use forebay_testkit::{postgres::Postgres, wait};

fn unique() -> [u8; 10] {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

fn task_at(at: Timestamp) -> Submission {
    Submission {
        id: TaskId::new(at, &unique()),
        project: Project::default(),
        kind: "echo".parse().unwrap(),
        lane: Lane::new(QueueName::default(), Priority::Default),
        payload: Json::parse(br#"{"to":"somebody@example.org","amount":12.5}"#).unwrap(),
        tags: vec![],
        run_at: None,
        max_attempts: None,
        timeout: None,
        created_at: at,
        fingerprint: None,
        traceparent: None,
        terms: None,
    }
}

fn task() -> Submission {
    task_at(SystemClock.now())
}

fn wants(ready: Ready) -> ClaimRequest {
    ClaimRequest {
        ready,
        max_attempts: 5,
        timeout: Duration::from_secs(60),
    }
}

fn ready(task: &Submission, fence: u32) -> Ready {
    Ready {
        id: task.id,
        kind: task.kind.clone(),
        lane: task.lane.clone(),
        fence,
        lost: 0,
    }
}

fn succeeded(claimed: &Claimed) -> Completion {
    Completion {
        id: claimed.id,
        fence: claimed.fence,
        attempt: claimed.attempt,
        outcome: Outcome::Succeeded,
        decision: Decision::Succeed,
        result: Json::parse(br#"{"done":true}"#).ok(),
        error: None,
        log: Some("one line\n".into()),
        limited: claimed.limited,
    }
}

fn claim_id() -> ClaimId {
    ClaimId::new(SystemClock.now(), &unique())
}

fn beat(id: WorkerId) -> Heartbeat {
    let at = SystemClock.now();
    let worker = WorkerInfo {
        id,
        name: "w".into(),
        queues: vec![],
        slots: 1,
        busy: vec![],
        finished: Vec::new(),
        draining: false,
        started_at: at,
        heartbeat_at: at,
    };
    Heartbeat {
        worker,
        watermarks: vec![],
        progress: vec![],
    }
}

async fn worker(store: &PostgresStore) -> WorkerId {
    let id = WorkerId::new(SystemClock.now(), &unique());
    store.register(&beat(id)).await.unwrap();
    id
}

async fn migrated(url: String) -> PostgresStore {
    let store = PostgresStore::connect(&PostgresOptions::new(url)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// A store on a database of its own, and the database's name.
async fn shared() -> (PostgresStore, String) {
    let url = Postgres::shared().await.fresh_database().unwrap();
    let name = url.rsplit('/').next().unwrap().to_owned();
    (migrated(url).await, name)
}

async fn sql(database: &str, text: &str) -> String {
    Postgres::shared().await.psql(database, text).unwrap()
}

struct Open;

#[async_trait]
impl ReadySink for Open {
    async fn publish(&self, batch: &[Ready]) -> Vec<bool> {
        vec![true; batch.len()]
    }
}

#[tokio::test]
async fn what_cannot_be_reached_or_understood_is_said_at_once() {
    for bad in ["nonsense", "mysql://h/d", "postgres://u@h/d?sslmode=maybe"] {
        let error = PostgresStore::connect(&PostgresOptions::new(bad))
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{bad}: {error:?}");
    }
    let port = forebay_testkit::process::free_port().unwrap();
    let nobody = PostgresOptions::new(format!("postgres://u@127.0.0.1:{port}/d"));
    assert!(
        PostgresStore::connect(&nobody)
            .await
            .unwrap_err()
            .is_unavailable()
    );
}

#[tokio::test]
async fn an_empty_database_has_no_schema() {
    let url = Postgres::shared().await.fresh_database().unwrap();
    let store = PostgresStore::connect(&PostgresOptions::new(url)).await.unwrap();
    for error in [
        store.check().await.unwrap_err(),
        store.record(&[task()]).await.unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                StoreError::Schema {
                    found: 0,
                    needed: 1..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_newer_schema_serves_this_program_too() {
    let (store, database) = shared().await;
    sql(
        &database,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    )
    .await;
    store.migrate().await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_password_is_not_shown() {
    let options = PostgresOptions::new("postgres://u:secret@127.0.0.1:1/d");
    assert!(!format!("{options:?}").contains("secret"));
    let error = PostgresStore::connect(&options).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("secret"));
}

/// Every call must fail as unavailable within the time.
async fn is_out(store: &PostgresStore, within: Duration) {
    let begun = Instant::now();
    let (tasks, sink) = ([task()], Open);
    let answers = tokio::join!(
        store.record(&tasks),
        store.get(tasks[0].id),
        store.dispatch_due(1, &sink),
        store.check()
    );
    assert!(begun.elapsed() < within, "it took {:?}", begun.elapsed());
    assert!(answers.0.unwrap_err().is_unavailable());
    assert!(answers.1.unwrap_err().is_unavailable());
    assert!(answers.2.unwrap_err().is_unavailable());
    assert!(answers.3.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn outages_surface_soon_and_pass_by_themselves() {
    let mut server = Postgres::start().await.unwrap();
    let store = migrated(server.url()).await;
    let known = task();
    store.record(std::slice::from_ref(&known)).await.unwrap();
    server.kill().unwrap();
    is_out(&store, Duration::from_secs(3)).await;
    server.start_again().await.unwrap();
    wait::until("reads work again", Duration::from_secs(10), || async {
        store.get(known.id).await.map(|t| t.is_some())
    })
    .await;
    wait::until("writes work again", Duration::from_secs(10), || async {
        store.record(&[task()]).await.map(|_| true)
    })
    .await;
    server.pause().unwrap();
    is_out(&store, Duration::from_secs(8)).await;
    server.resume().unwrap();
    wait::until("it works again", Duration::from_secs(20), || async {
        store.get(known.id).await?;
        store.record(&[task()]).await.map(|_| true)
    })
    .await;
}

#[tokio::test]
async fn partitions_come_and_go() {
    let (store, database) = shared().await;
    let day = 24 * 3_600;
    let now = SystemClock.now();
    let ago = |days: i64| Timestamp::from_second(now.as_second() - days * day).unwrap();
    let (finished, open) = (task_at(ago(10)), task_at(ago(20)));
    store.record(&[finished.clone(), open.clone()]).await.unwrap();
    store.cancel(finished.id).await.unwrap();
    assert_eq!(sql(&database, "SELECT count(*) FROM tasks_default").await, "2");
    let created = "SELECT forebay_create_partitions(forebay_today() - 30, forebay_today())";
    assert_eq!(sql(&database, created).await, "29");
    assert_eq!(
        sql(&database, "SELECT count(*) FROM tasks_default").await,
        "0",
        "the rows were moved"
    );
    assert_eq!(
        store.get(finished.id).await.unwrap().unwrap().state,
        State::Cancelled
    );
    store
        .maintain(Some(Duration::from_secs(5 * 24 * 3_600)))
        .await
        .unwrap();
    assert_eq!(store.get(finished.id).await.unwrap(), None, "its day was dropped");
    assert_eq!(
        store.get(open.id).await.unwrap().unwrap().state,
        State::Queued,
        "its day was kept"
    );
    let left = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tasks'::regclass";
    // The default, the open one's, five full days and today, and a week ahead.
    assert_eq!(sql(&database, left).await, (1 + 1 + 6 + 7).to_string());
    let options = "SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE relname = 'tasks_'
                   || to_char(forebay_today(), 'YYYYMMDD')";
    let options = sql(&database, options).await;
    assert!(
        options.contains("fillfactor") && options.contains("autovacuum"),
        "{options}"
    );
}

/// One task that waits for long holds the floor back, and the way from there to the present has several stretches: each
/// of its lost messages is found all the same, a few at a time.
#[tokio::test]
async fn what_was_lost_is_found_all_along_a_long_way() {
    let (store, database) = shared().await;
    let fill = "INSERT INTO tasks (id, project, kind, queue, priority, state, payload, created_at, queued_at)
        SELECT (substr(forebay_day_bound(forebay_today())::text, 1, 13) || '-7'
                || right(gen_random_uuid()::text, 21))::uuid,
               'default', 'echo', 'default', 'default',
               CASE WHEN n % 10000 = 1 THEN 'queued' ELSE 'succeeded' END::task_state, '1',
               now() - interval '20 hours' + n * interval '1 second', now() - interval '20 hours'
        FROM generate_series(1, 50001) AS n";
    sql(&database, fill).await;
    let lane = Lane::new(QueueName::default(), Priority::Default);
    let now = store.now().await.unwrap();
    let mut floor = Timestamp::from_second(now.as_second() - 2 * 24 * 3_600).unwrap();
    let mut counts = Vec::new();
    while counts.last() != Some(&0) {
        let horizons = [(lane.clone(), now)];
        let answer = store.republish_lost(&horizons, floor, 4, &Open).await.unwrap();
        floor = answer.floor;
        counts.push(answer.count);
    }
    assert_eq!(counts, [4, 2, 0]);
}

/// More than one statement forgets, as an hour may bring more.
#[tokio::test]
async fn all_old_notes_of_deliveries_are_forgotten_at_a_time() {
    let (store, database) = shared().await;
    let fill = "INSERT INTO webhook_deliveries (webhook_id, event_id, event_kind, created_at)
        SELECT w, n::text, 'test', now() - n * interval '1 hour' FROM generate_series(1, 2) AS w, generate_series(1, 10500) AS n";
    sql(&database, fill).await;
    let webhook =
        "INSERT INTO webhooks (name, url, secret, states, include_result, disabled, created_at, updated_at)
        VALUES ('billing', 'https://example.com/', 'whsec_', '{failed}', false, false, now(), now())";
    sql(&database, webhook).await;
    let left = "SELECT count(*) FROM webhook_deliveries";
    store.maintain(None).await.unwrap();
    assert_eq!(
        sql(&database, left).await,
        "10500",
        "those of a webhook that is gone"
    );
    store
        .maintain(Some(Duration::from_secs(10 * 3_600 + 1_800)))
        .await
        .unwrap();
    assert_eq!(sql(&database, left).await, "10");
}

#[tokio::test]
async fn a_brought_back_task_keeps_its_day() {
    let (store, database) = shared().await;
    let old = task_at(Timestamp::from_second(SystemClock.now().as_second() - 10 * 24 * 3_600).unwrap());
    sql(
        &database,
        "SELECT forebay_create_partitions(forebay_today() - 12, forebay_today())",
    )
    .await;
    store.record(std::slice::from_ref(&old)).await.unwrap();
    store.cancel(old.id).await.unwrap();
    store.retry(old.id).await.unwrap();
    store
        .maintain(Some(Duration::from_secs(24 * 3_600)))
        .await
        .unwrap();
    assert_eq!(store.get(old.id).await.unwrap().unwrap().state, State::Retrying);
}

/// A statement goes to the partition of its day where there is one, and must not miss a row where there is none, or
/// where one comes meanwhile.
#[tokio::test]
async fn a_day_without_a_partition_is_served_too_and_one_that_gets_it() {
    let (store, database) = shared().await;
    let worker = worker(&store).await;
    let old = Timestamp::from_second(SystemClock.now().as_second() - 10 * 24 * 3_600).unwrap();
    let tasks = [task_at(old), task_at(old), task_at(old)];
    store.record(&tasks).await.unwrap();
    assert_eq!(sql(&database, "SELECT count(*) FROM tasks_default").await, "3");
    let requests: Vec<ClaimRequest> = tasks.iter().map(|task| wants(ready(task, 0))).collect();
    let mut running = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        let claimed = store
            .claim(worker, claim_id(), std::slice::from_ref(request))
            .await
            .unwrap();
        running.push(claimed[0].clone().expect("granted"));
        if number == 0 {
            let create = "SELECT forebay_create_partitions(forebay_today() - 12, forebay_today() - 8)";
            assert_eq!(sql(&database, create).await, "5");
            assert_eq!(sql(&database, "SELECT count(*) FROM tasks_default").await, "0");
        }
    }
    // One that never saw the day without its partition.
    let port = Postgres::shared().await.port();
    let other = migrated(format!("postgres://postgres@127.0.0.1:{port}/{database}")).await;
    let done: Vec<Completion> = running.iter().map(succeeded).collect();
    assert_eq!(
        other.complete(worker, &done[..1], &[]).await.unwrap(),
        [Completed::Applied(State::Succeeded)]
    );
    let rest = store.complete(worker, &done, &[]).await.unwrap();
    assert_eq!(rest, [Completed::Applied(State::Succeeded); 3]);
}

/// A burst that the recorder works off late costs its tasks no rows beside their own, and is watched all the same.
#[tokio::test]
async fn what_is_recorded_late_costs_one_note_a_batch() {
    let (store, database) = shared().await;
    let worker = worker(&store).await;
    let ago = |seconds: i64| Timestamp::from_second(SystemClock.now().as_second() - seconds).unwrap();
    let tasks: Vec<Submission> = (0..100).map(|_| task_at(ago(300))).collect();
    for batch in tasks.chunks(50) {
        store.record(batch).await.unwrap();
    }
    assert_eq!(sql(&database, "SELECT count(*) FROM due").await, "0");
    assert_eq!(sql(&database, "SELECT count(*) FROM late_records").await, "2");
    let lane = Lane::new(QueueName::default(), Priority::Default);
    let pass = |at: Timestamp| {
        let (store, horizons) = (&store, [(lane.clone(), at)]);
        async move {
            store
                .republish_lost(&horizons, ago(60), 1_000, &Open)
                .await
                .unwrap()
        }
    };
    assert_eq!(pass(ago(200)).await.count, 0, "they were queued only now");
    let now = store.now().await.unwrap();
    let found = pass(now).await;
    assert_eq!(found.count, 100);
    assert!(found.floor >= ago(61), "the floor of this dispatcher is its own");
    let requests: Vec<ClaimRequest> = tasks.iter().map(|task| wants(ready(task, 0))).collect();
    store.claim(worker, claim_id(), &requests[1..]).await.unwrap();
    pass(now).await;
    assert_eq!(
        sql(&database, "SELECT count(*) FROM late_records").await,
        "2",
        "one of them waits still"
    );
    store.claim(worker, claim_id(), &requests[..1]).await.unwrap();
    pass(now).await;
    assert_eq!(sql(&database, "SELECT count(*) FROM late_records").await, "0");
}

#[tokio::test]
async fn most_updates_stay_on_their_page() {
    let (store, database) = shared().await;
    let worker = worker(&store).await;
    let tasks: Vec<Submission> = (0..4_000).map(|_| task()).collect();
    for batch in tasks.chunks(500) {
        store.record(batch).await.unwrap();
    }
    for batch in tasks.chunks(100) {
        let requests: Vec<ClaimRequest> = batch.iter().map(|task| wants(ready(task, 0))).collect();
        let claim = claim_id();
        let claimed: Vec<Claimed> = store
            .claim(worker, claim, &requests)
            .await
            .unwrap()
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(claimed.len(), batch.len());
        let done: Vec<Completion> = claimed.iter().map(succeeded).collect();
        let answers = store.complete(worker, &done, &[claim]).await.unwrap();
        assert!(
            answers
                .iter()
                .all(|answer| *answer == Completed::Applied(State::Succeeded))
        );
    }
    assert_eq!(
        sql(&database, "SELECT count(*) FROM claims").await,
        "0",
        "the notes are forgotten"
    );
    drop(store);
    let counts =
        "SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables WHERE relname LIKE 'tasks\\_%'";
    // Connections report what they did when they end.
    let (all, hot) = wait::until("the statistics", Duration::from_secs(30), || async {
        let text = sql(&database, counts).await;
        let (all, hot) = text.split_once('|')?;
        let (all, hot): (u64, u64) = (all.parse().ok()?, hot.parse().ok()?);
        (all >= 8_000).then_some((all, hot))
    })
    .await;
    assert!(
        hot * 100 >= all * 75,
        "only {hot} of {all} updates stayed on their page"
    );
}

#[tokio::test]
async fn a_repeated_completion_is_known_although_an_earlier_start_was_lost() {
    let (store, _) = shared().await;
    let task = task();
    store.record(std::slice::from_ref(&task)).await.unwrap();
    let (first, second) = (worker(&store).await, worker(&store).await);
    let lost = store
        .claim(first, claim_id(), &[wants(ready(&task, 0))])
        .await
        .unwrap();
    let lost = lost[0].clone().expect("granted");
    store.take_back(Duration::ZERO, 5).await.unwrap();
    assert!(store.heartbeat(&beat(second)).await.is_err(), "both were silent");
    let second = worker(&store).await;
    let claimed = store
        .claim(second, claim_id(), &[wants(ready(&task, 1))])
        .await
        .unwrap();
    let claimed = claimed[0].clone().expect("granted");
    for call in ["first", "repeated"] {
        let answer = store.complete(second, &[succeeded(&claimed)], &[]).await.unwrap();
        assert_eq!(answer, [Completed::Applied(State::Succeeded)], "the {call} call");
    }
    assert_eq!(
        store.complete(first, &[succeeded(&lost)], &[]).await.unwrap(),
        [Completed::Fenced]
    );
}

#[tokio::test]
async fn tags_may_look_like_anything() {
    let (store, _) = shared().await;
    let tags: Vec<String> = ["NULL", "{}", "a,b", "\"", "\\", " ", "ä", "'; --"]
        .map(String::from)
        .into();
    let task = Submission {
        tags: tags.clone(),
        ..task()
    };
    store.record(std::slice::from_ref(&task)).await.unwrap();
    assert_eq!(store.get(task.id).await.unwrap().unwrap().tags, tags);
    for tag in tags {
        let filter = TaskFilter {
            tag: Some(tag),
            ..TaskFilter::default()
        };
        assert_eq!(store.list(&filter, 10, None).await.unwrap().tasks.len(), 1);
    }
}

#[tokio::test]
async fn a_bad_row_is_refused_and_not_taken_for_an_outage() {
    let (store, _) = shared().await;
    // What no parser of ours lets through.
    let payload = Json::from_trusted(bytes::Bytes::from_static(b"\"\0\"")).unwrap();
    let bad = Submission { payload, ..task() };
    let error = store.record(&[task(), bad]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
}

/// Does `work` until it is done: what is unavailable is tried again, and anything else is a failure.
async fn insist<T, F: Future<Output = forebay_store::Result<T>>>(mut work: impl FnMut() -> F) -> T {
    for _ in 0..50 {
        match work().await {
            Ok(done) => return done,
            Err(error) if error.is_unavailable() => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("it stays unavailable")
}

/// Takes what it can get of some tasks, in some order, and ends it in some way.
async fn play(store: Arc<PostgresStore>, tasks: Arc<Vec<Submission>>, player: usize) -> u64 {
    let worker = worker(&store).await;
    let mut completed = 0;
    for round in 0..15_usize {
        let turn = (player * 7 + round * 13) % tasks.len();
        let order: Vec<&Submission> = tasks[turn..].iter().chain(&tasks[..turn]).collect();
        let batch: Vec<Submission> = order.iter().rev().map(|&task| task.clone()).collect();
        insist(|| store.record(&batch)).await;
        insist(|| store.dispatch_due(20, &Open)).await;
        let fence = u32::try_from(round % 4).unwrap();
        let requests: Vec<ClaimRequest> = order
            .iter()
            .take(30)
            .map(|&task| wants(ready(task, fence)))
            .collect();
        let claim = claim_id();
        let claimed = insist(|| store.claim(worker, claim, &requests)).await;
        insist(|| store.cancel(order[0].id)).await;
        let done: Vec<Completion> = claimed
            .iter()
            .flatten()
            .map(|claimed| end(claimed, round))
            .collect();
        let released = [claim];
        let answers = insist(|| store.complete(worker, &done, &released)).await;
        completed += answers
            .iter()
            .filter(|&&answer| answer == Completed::Applied(State::Succeeded))
            .count() as u64;
        insist(|| store.retry(order[0].id)).await;
        insist(|| store.republish_lost(&[], Timestamp::UNIX_EPOCH, 10, &Open)).await;
    }
    insist(|| store.deregister(worker)).await;
    completed
}

fn end(claimed: &Claimed, round: usize) -> Completion {
    if round.is_multiple_of(3) {
        return succeeded(claimed);
    }
    let decision = Decision::Retry {
        delay: Duration::ZERO,
    };
    Completion {
        decision,
        outcome: Outcome::Failed,
        error: Some("again".into()),
        result: None,
        ..succeeded(claimed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_over_the_same_tasks_neither_fails_nor_runs_twice() {
    let (store, database) = shared().await;
    let store = Arc::new(store);
    let tasks: Arc<Vec<Submission>> = Arc::new((0..60).map(|_| task()).collect());
    let players: Vec<_> = (0..6)
        .map(|player| tokio::spawn(play(Arc::clone(&store), Arc::clone(&tasks), player)))
        .collect();
    let mut completed = 0;
    for player in players {
        completed += player.await.unwrap();
    }
    let succeeded = sql(&database, "SELECT count(*) FROM tasks WHERE state = 'succeeded'").await;
    assert_eq!(
        succeeded,
        completed.to_string(),
        "each success was reported to one worker"
    );
    let stuck = "SELECT count(*) FROM tasks t WHERE state = 'running'
        OR (state IN ('scheduled', 'retrying') AND NOT EXISTS (SELECT FROM due d WHERE d.task_id = t.id))";
    assert_eq!(
        sql(&database, stuck).await,
        "0",
        "what waits is due, and nothing runs under nobody"
    );
    assert_eq!(sql(&database, "SELECT count(*) FROM claims").await, "0");
}

/// More than are looked at of what other queues have dispatched hide only what this one has dispatched itself.
#[tokio::test]
async fn what_was_accepted_has_an_age_whatever_other_queues_have_dispatched() {
    let (store, database) = shared().await;
    sql(
        &database,
        "INSERT INTO due (task_id, fence, priority, run_at, dispatched_at, queue, kind)
         SELECT gen_random_uuid(), 0, 'default', now(), now(), 'other', 'echo' FROM generate_series(1, 20000)",
    )
    .await;
    let accepted = task();
    store.record(std::slice::from_ref(&accepted)).await.unwrap();
    let found = store
        .oldest_ready(&accepted.lane.queue, ReadyWalk::default())
        .await
        .unwrap();
    assert!(found.age.is_some() && !found.is_complete, "{found:?}");
}
