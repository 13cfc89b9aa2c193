//! The triggers, under the stores that Forebay uses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use forebay_core::{
    ClaimId, Clock, Decision, Json, Lane, Outcome, Priority, Project, QueueName, Ready, Submission,
    SystemClock, TaskId, Timestamp, WorkerId, WorkerInfo,
};
use forebay_store::{
    Admin, ClaimRequest, Claimed, Completion, Heartbeat, ReadySink, Record, StartRequest, Store,
};
use forebay_store_postgres::{PostgresOptions, PostgresStore};
use forebay_store_sqlite::SqliteStore;
use forebay_testkit::{clock::FakeClock, postgres::Postgres};

use super::*;
use crate::{
    check::check,
    evidence::{Accepted, Evidence, Injected, Moment, Row, Start},
};

const PAYLOAD: &[u8] = br#"{"number":1,"work_ms":0,"fail_first":true}"#;

fn unique() -> [u8; 10] {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

fn task() -> Submission {
    let at = SystemClock.now();
    Submission {
        id: TaskId::new(at, &unique()),
        project: Project::default(),
        kind: "echo".parse().unwrap(),
        lane: Lane::new(QueueName::default(), Priority::Default),
        payload: Json::parse(PAYLOAD).unwrap(),
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

struct Open;

#[async_trait]
impl ReadySink for Open {
    async fn publish(&self, batch: &[Ready]) -> Vec<bool> {
        vec![true; batch.len()]
    }
}

/// A run of a few tasks on a store, as its handlers and submitters saw it.
struct Scene {
    store: Arc<dyn Store>,
    t0: Instant,
    evidence: Evidence,
}

impl Scene {
    fn on(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            t0: Instant::now(),
            evidence: Evidence {
                aftermath: Duration::from_secs(30),
                ..Evidence::default()
            },
        }
    }

    async fn worker(&self) -> WorkerId {
        let at = SystemClock.now();
        let worker = WorkerInfo {
            id: WorkerId::new(at, &unique()),
            name: "w".into(),
            queues: vec![],
            slots: 1,
            busy: vec![],
            finished: Vec::new(),
            draining: false,
            started_at: at,
            heartbeat_at: at,
        };
        let id = worker.id;
        let beat = Heartbeat {
            worker,
            watermarks: vec![],
            progress: vec![],
        };
        self.store.register(&beat).await.unwrap();
        id
    }

    fn accept(&mut self, task: &Submission) {
        self.evidence.accepted.push(Accepted {
            id: task.id.as_uuid(),
            at: self.t0.elapsed(),
            key: None,
        });
    }

    async fn start(&mut self, worker: WorkerId, ready: Ready) -> Claimed {
        let claim = ClaimId::new(SystemClock.now(), &unique());
        let request = ClaimRequest {
            ready,
            max_attempts: 5,
            timeout: Duration::from_secs(60),
        };
        // Asked again, as where the answer was lost: that is no transition.
        let mut granted = None;
        for _ in 0..2 {
            granted = self
                .store
                .claim(worker, claim, std::slice::from_ref(&request))
                .await
                .unwrap()
                .remove(0);
        }
        let claimed = granted.expect("it waits");
        self.note_start(&claimed);
        claimed
    }

    /// Recorded and started in one.
    async fn hand_over(&mut self, worker: WorkerId, task: Submission) -> Claimed {
        self.accept(&task);
        let claim = ClaimId::new(SystemClock.now(), &unique());
        let request = StartRequest {
            task,
            max_attempts: 5,
            timeout: Duration::from_secs(60),
        };
        let mut granted = None;
        for _ in 0..2 {
            let batch = std::slice::from_ref(&request);
            let answers = self.store.record_and_claim(worker, claim, batch).await;
            granted = answers.unwrap().remove(0).1;
        }
        let claimed = granted.expect("it is new");
        self.note_start(&claimed);
        claimed
    }

    fn note_start(&mut self, claimed: &Claimed) {
        self.evidence.starts.push(Start {
            id: claimed.id.as_uuid(),
            fence: claimed.fence,
            attempt: claimed.attempt,
            at: self.t0.elapsed(),
        });
    }

    async fn complete(&self, worker: WorkerId, claimed: &Claimed, outcome: Outcome, decision: Decision) {
        let completion = Completion {
            id: claimed.id,
            fence: claimed.fence,
            attempt: claimed.attempt,
            outcome,
            decision,
            result: (outcome == Outcome::Succeeded).then(|| claimed.payload.clone()),
            error: (outcome != Outcome::Succeeded).then(|| "as it was told".to_owned()),
            log: None,
            limited: claimed.limited,
        };
        self.store.complete(worker, &[completion], &[]).await.unwrap();
    }

    async fn succeed(&self, worker: WorkerId, claimed: &Claimed) {
        self.complete(worker, claimed, Outcome::Succeeded, Decision::Succeed)
            .await;
    }

    /// Everything that can happen to tasks: retried, handed back, taken back, cancelled.
    async fn play(&mut self) {
        let (one, two, three, four) = (task(), task(), task(), task());
        let scheduled = Submission {
            run_at: Some(Timestamp::UNIX_EPOCH),
            ..task()
        };
        for it in [&one, &two, &three, &four, &scheduled] {
            self.accept(it);
        }
        let recorded = [
            one.clone(),
            two.clone(),
            three.clone(),
            four.clone(),
            scheduled.clone(),
        ];
        self.store.record(&recorded).await.unwrap();
        let (first, second, third) = (self.worker().await, self.worker().await, self.worker().await);

        let claimed = self.hand_over(third, task()).await;
        self.succeed(third, &claimed).await;
        let claimed = self.start(third, ready(&one, 0)).await;
        let delay = Duration::ZERO;
        self.complete(third, &claimed, Outcome::Failed, Decision::Retry { delay })
            .await;
        self.dispatch().await;
        let claimed = self.start(third, ready(&one, 1)).await;
        self.succeed(third, &claimed).await;
        let claimed = self.start(third, ready(&scheduled, 0)).await;
        self.succeed(third, &claimed).await;

        let cut = self.start(first, ready(&two, 0)).await;
        self.start(second, ready(&three, 0)).await;
        let from = self.t0.elapsed();
        self.store.deregister(second).await.unwrap();
        self.store.deregister(third).await.unwrap();
        self.store.take_back(Duration::ZERO, 3).await.unwrap();
        self.dispatch().await;
        // It wakes up, and is too late.
        self.succeed(first, &cut).await;
        let fourth = self.worker().await;
        for it in [&two, &three] {
            let claimed = self.start(fourth, ready(it, 1)).await;
            self.succeed(fourth, &claimed).await;
        }
        self.store.cancel(four.id).await.unwrap();
        let until = self.t0.elapsed();
        self.evidence.faults.push(Injected {
            fault: "kill -9".to_owned(),
            target: "worker".to_owned(),
            from,
            until,
            recovered: until,
        });
    }

    async fn dispatch(&self) {
        self.store.dispatch_due(100, &Open).await.unwrap();
    }

    fn found(&mut self, (transitions, rows): (Vec<Transition>, Vec<Row>)) -> Vec<&'static str> {
        self.evidence.transitions = transitions;
        self.evidence.rows = rows;
        let violations = check(&self.evidence).violations;
        violations.iter().map(|it| it.breach.name()).collect()
    }

    /// `handed_over` are the transitions of what was started as it was recorded.
    fn holds(&mut self, handed_over: usize, read: (Vec<Transition>, Vec<Row>)) {
        assert_eq!(self.found(read), [""; 0]);
        let transitions = &self.evidence.transitions;
        assert_eq!(
            transitions.len(),
            6 + 4 + 6 + 6 + 2 + handed_over,
            "{transitions:#?}"
        );
        assert!(transitions.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        let end = self.t0.elapsed() + Duration::from_millis(100);
        assert!(transitions.iter().all(|it| it.at <= end));
        assert!(transitions.last().unwrap().at + Duration::from_millis(100) >= self.evidence.faults[0].from);
        let totals = check(&self.evidence).totals;
        assert_eq!((totals.accepted, totals.repeated, totals.scripted), (6, 2, 1));
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

async fn postgres(url: &str) -> Arc<dyn Store> {
    let store = PostgresStore::connect(&PostgresOptions::new(url.to_owned()))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    install_postgres(url).await.unwrap();
    install_postgres(url).await.unwrap();
    Arc::new(store)
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn postgres_tells_every_transition() {
    let url = Postgres::shared().await.fresh_database().unwrap();
    let mut scene = Scene::on(postgres(&url).await);
    scene.play().await;
    scene.holds(2, read_postgres(&url, scene.t0).await.unwrap());
}

#[tokio::test]
async fn postgres_tells_what_nobody_should_have_done() {
    let server = Postgres::shared().await;
    let url = server.fresh_database().unwrap();
    let mut scene = Scene::on(postgres(&url).await);
    scene.play().await;
    let database = name(&url);
    // What is not looked at is not told of.
    server
        .psql(database, "UPDATE tasks SET log = 'touched', state = state")
        .unwrap();
    scene.holds(2, read_postgres(&url, scene.t0).await.unwrap());
    let one = "WHERE id = (SELECT id FROM tasks WHERE state = 'succeeded' ORDER BY id LIMIT 1)";
    server
        .psql(
            database,
            &format!("UPDATE tasks SET result = result || ' ' {one}"),
        )
        .unwrap();
    let found = scene.found(read_postgres(&url, scene.t0).await.unwrap());
    assert_eq!(found, ["outcome_twice"]);
    server
        .psql(database, &format!("DELETE FROM tasks {one}"))
        .unwrap();
    let mut found = scene.found(read_postgres(&url, scene.t0).await.unwrap());
    found.sort_unstable();
    assert_eq!(found, ["lost", "outcome_twice"]);
}

#[tokio::test]
async fn postgres_tells_of_partitions_that_come_later() {
    let server = Postgres::shared().await;
    let url = server.fresh_database().unwrap();
    let scene = Scene::on(postgres(&url).await);
    let later = |text: &str| {
        let sql = format!(
            "INSERT INTO tasks (id, project, kind, queue, priority, state, payload, created_at)
             SELECT forebay_day_bound(forebay_today() + 40), 'p', 'k', 'q', 'default', 'queued', '{text}', now()"
        );
        server.psql(name(&url), &sql)
    };
    // It goes to the default partition, is moved to its day's, and is changed there.
    later("1").unwrap();
    server
        .psql(
            name(&url),
            "SELECT forebay_create_partitions(forebay_today() + 40, forebay_today() + 40)",
        )
        .unwrap();
    server
        .psql(name(&url), "UPDATE tasks SET state = 'cancelled'")
        .unwrap();
    let (transitions, rows) = read_postgres(&url, scene.t0).await.unwrap();
    let ways: Vec<_> = transitions
        .iter()
        .map(|it| (it.from.as_deref(), it.to.as_str()))
        .collect();
    assert_eq!(ways, [(None, "queued"), (Some("queued"), "cancelled")]);
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn the_order_and_the_moments_survive_crashes_and_clocks_of_postgres() {
    let clock = FakeClock::new().unwrap();
    let mut server = Postgres::start_in(clock.env()).await.unwrap();
    let url = server.url();
    let t0 = Instant::now();
    let mut told: Vec<(Moment, Moment)> = vec![];
    let store = postgres(&url).await;
    for leap in [0, 3_600, -3_600] {
        clock.leap(leap).unwrap();
        let began = t0.elapsed();
        // Connections that died with the server are given up at their first use.
        forebay_testkit::wait::until("the store is back", Duration::from_secs(20), async || {
            store.record(&[task()]).await.is_ok()
        })
        .await;
        told.push((began, t0.elapsed()));
        let off = server
            .psql("postgres", "SELECT extract(epoch FROM clock_timestamp())")
            .unwrap();
        let off = off.parse::<f64>().unwrap() - SystemClock.now().as_millisecond() as f64 / 1_000.0;
        assert!((off - leap as f64).abs() < 60.0, "its clock is {off} s off");
        server.kill().unwrap();
        server.start_again().await.unwrap();
    }
    let (transitions, _) = read_postgres(&url, t0).await.unwrap();
    assert!(transitions.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!(transitions.len(), 3);
    for (transition, (from, until)) in transitions.iter().zip(told) {
        assert!(transition.at >= from, "{transition:?} came after {from:?}");
        assert!(
            transition.at <= until + Duration::from_millis(50),
            "{transition:?} came before {until:?}"
        );
    }
}

#[tokio::test]
async fn sqlite_tells_every_transition() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("forebay.db");
    assert!(install_sqlite(&file).await.is_err(), "there is no file yet");
    let store = SqliteStore::open(&file).await.unwrap();
    store.migrate().await.unwrap();
    install_sqlite(&file).await.unwrap();
    install_sqlite(&file).await.unwrap();
    let mut scene = Scene::on(Arc::new(store));
    scene.play().await;
    // What is started as it is recorded is inserted first.
    scene.holds(3, read_sqlite(&file, scene.t0).await.unwrap());
    let mut other = open(&file).await;
    for (sql, names) in [
        ("UPDATE tasks SET log = 'touched', state = state", vec![]),
        (
            "UPDATE tasks SET result = 'null' WHERE seq = 1",
            vec!["outcome_twice", "wrong_result"],
        ),
        ("DELETE FROM tasks WHERE seq = 1", vec!["lost", "outcome_twice"]),
    ] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
        let mut found = scene.found(read_sqlite(&file, scene.t0).await.unwrap());
        found.sort_unstable();
        assert_eq!(found, names, "{sql}");
    }
}

#[tokio::test]
async fn a_leaping_clock_under_sqlite_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("forebay.db");
    let store = SqliteStore::open(&file).await.unwrap();
    store.migrate().await.unwrap();
    install_sqlite(&file).await.unwrap();
    store.record(&[task(), task()]).await.unwrap();
    let t0 = Instant::now();
    assert_eq!(read_sqlite(&file, t0).await.unwrap().0.len(), 2);
    let mut other = open(&file).await;
    sqlx::query("UPDATE chaos_transitions SET clock = clock + 60 WHERE seq = 1")
        .execute(&mut other)
        .await
        .unwrap();
    let error = read_sqlite(&file, t0).await.unwrap_err().to_string();
    assert!(error.starts_with("the clock leapt by -"), "{error}");
}

async fn open(file: &std::path::Path) -> sqlx::SqliteConnection {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(true);
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}
