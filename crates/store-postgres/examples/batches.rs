//! What a task costs the database: our statements beside the least that PostgreSQL takes for the same rows.
//!
//! `cargo run --profile profiling -p forebay-store-postgres --example batches [-- <options>]` starts a private server,
//! and prints for batches of several sizes on one and two connections: rows a second, microseconds of CPU of the whole
//! machine a row (so it should be alone on it), those of this process, and bytes of write-ahead log a row. Options:
//! `batch=1000` only this size, `connections=2` only so many, `rows=200000` so many rows, `history=10000000` finished
//! tasks and `backlog=1000000` queued ones in the table before.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people to read"
)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use forebay_core::{
    ClaimId, Clock, Decision, Json, Lane, Outcome, Priority, Project, QueueName, Ready, Submission,
    SystemClock, TaskId, WorkerId, WorkerInfo,
};
use forebay_store::{Admin, ClaimRequest, Completion, Execute, Heartbeat, Record};
use forebay_store_postgres::{PostgresOptions, PostgresStore};
use forebay_testkit::postgres::Postgres;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The least that one can do: the same table without partitions, and statements that check nothing.
const FLOOR_TABLE: &str = "CREATE TABLE floor (LIKE tasks INCLUDING ALL) WITH (fillfactor = 50)";
const FLOOR_INSERT: &str = "
    INSERT INTO floor (id, project, kind, queue, priority, state, payload, created_at, queued_at)
    SELECT id, 'default', 'echo', 'default', 'default', 'queued', payload, now(), now()
    FROM unnest($1::uuid[], $2::text[]) AS s (id, payload)";
const FLOOR_START: &str = "
    UPDATE floor f SET state = 'running', fence = 1, attempt = 1, worker = $2, started_at = now(), max_attempts = 5,
        timeout_us = 60000000
    FROM unnest($1::uuid[]) AS c (id) WHERE f.id = c.id";
const FLOOR_END: &str = "
    UPDATE floor f SET state = 'succeeded', finished_at = now(), result = c.result
    FROM unnest($1::uuid[], $2::text[]) AS c (id, result) WHERE f.id = c.id";
/// As in the sessions of the hot statements.
const FLOOR_SESSION: &str = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;
    SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off; SET plan_cache_mode = force_generic_plan";

/// Tasks that were finished on the days before and today, as old rows are: without a worker or a note anywhere.
const HISTORY: &str = "
    INSERT INTO tasks (id, project, kind, queue, priority, state, fence, attempt, payload, result, created_at, queued_at,
                       started_at, finished_at)
    SELECT (lpad(to_hex((extract(epoch FROM at.created_at) * 1000)::bigint), 12, '0') || '7'
                || right(replace(gen_random_uuid()::text, '-', ''), 19))::uuid,
           'default', 'echo', 'default', 'default', $STATE, $FENCE, $FENCE, repeat('x', 256), $RESULT, at.created_at,
           at.created_at, at.created_at, $FINISHED
    FROM generate_series(1, $COUNT) AS n
    CROSS JOIN LATERAL (SELECT now() - interval '20 hours' + n * interval '19 hours' / $COUNT AS created_at) AS at";

struct Setup {
    batch: usize,
    connections: usize,
    rows: usize,
    history: usize,
    backlog: usize,
}

/// One measured phase.
struct Cost {
    name: &'static str,
    rows: usize,
    took: Duration,
    machine: Duration,
    own: Duration,
    wal_bytes: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let options: HashMap<String, usize> = std::env::args()
        .skip(1)
        .filter_map(|option| {
            let (name, value) = option.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect();
    let server = Postgres::start_tuned(&["shared_buffers=2GB", "max_wal_size=4GB"])
        .await
        .unwrap();
    println!("batch conns phase            rows/s   µs CPU/row   of it ours   WAL bytes/row");
    for (batch, rows) in [(1, 4_000), (32, 60_000), (100, 120_000), (1_000, 300_000)] {
        for connections in [1, 2] {
            let is_asked = |name, value| options.get(name).is_none_or(|&only| only == value);
            if is_asked("batch", batch) && is_asked("connections", connections) {
                let setup = Setup {
                    batch,
                    connections,
                    rows: options.get("rows").copied().unwrap_or(rows),
                    history: options.get("history").copied().unwrap_or(0),
                    backlog: options.get("backlog").copied().unwrap_or(0),
                };
                run(&server, &setup).await;
            }
        }
    }
}

async fn run(server: &Postgres, setup: &Setup) {
    let url = server.fresh_database().unwrap();
    let mut options = PostgresOptions::new(url.clone());
    options.hot_connections = setup.connections;
    let store = Arc::new(PostgresStore::connect(&options).await.unwrap());
    store.migrate().await.unwrap();
    let client = connect(&url).await;
    fill(&client, setup).await;
    let mut costs = floors(&url, &client, setup).await;
    costs.extend(ours(&store, &client, setup).await);
    for cost in &costs {
        let per_row = |time: Duration| time.as_secs_f64() * 1e6 / cost.rows as f64;
        println!(
            "{:5} {:5} {:16} {:7.0} {:12.1} {:12.1} {:15}",
            setup.batch,
            setup.connections,
            cost.name,
            cost.rows as f64 / cost.took.as_secs_f64(),
            per_row(cost.machine),
            per_row(cost.own),
            cost.wal_bytes / cost.rows as u64,
        );
    }
    drop(store);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let hot = client
        .query_one(
            "SELECT (100 * sum(n_tup_hot_upd) / greatest(sum(n_tup_upd), 1))::bigint FROM pg_stat_user_tables
             WHERE relname LIKE 'tasks%'",
            &[],
        )
        .await
        .unwrap();
    println!(
        "            {} % of our updates stayed on their page",
        hot.get::<_, Option<i64>>(0).unwrap_or(0)
    );
    drop(client);
    let name = url.rsplit('/').next().unwrap();
    server
        .psql("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)"))
        .unwrap();
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(FLOOR_SESSION).await.unwrap();
    client
}

async fn fill(client: &Client, setup: &Setup) {
    for (count, state, fence, result, finished) in [
        (setup.history, "'succeeded'", "1", "'{}'", "at.created_at"),
        (setup.backlog, "'queued'", "0", "NULL", "NULL"),
    ] {
        if count > 0 {
            let sql = HISTORY
                .replace("$COUNT", &count.to_string())
                .replace("$STATE", state)
                .replace("$FENCE", fence)
                .replace("$RESULT", result)
                .replace("$FINISHED", finished);
            client.batch_execute(&sql).await.unwrap();
        }
    }
    if setup.history + setup.backlog > 0 {
        client.batch_execute("VACUUM ANALYZE tasks").await.unwrap();
    }
    client.batch_execute("CHECKPOINT").await.unwrap();
}

/// Bytes that look random: the numbers of SplitMix64.
fn random() -> [u8; 10] {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    bytes
}

/// Tasks as they come from a few clients.
fn tasks(count: usize) -> Vec<Submission> {
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(245));
    (0..count)
        .map(|_| {
            let now = SystemClock.now();
            Submission {
                id: TaskId::new(now, &random()),
                project: Project::default(),
                kind: "echo".parse().unwrap(),
                lane: Lane::new(QueueName::default(), Priority::Default),
                payload: Json::parse(payload.as_bytes()).unwrap(),
                tags: vec![],
                run_at: None,
                max_attempts: None,
                timeout: None,
                created_at: now,
                fingerprint: None,
                traceparent: None,
                terms: None,
            }
        })
        .collect()
}

async fn floors(url: &str, client: &Client, setup: &Setup) -> Vec<Cost> {
    client.batch_execute(FLOOR_TABLE).await.unwrap();
    let tasks = tasks(setup.rows);
    let batches: Vec<(Vec<Uuid>, Vec<String>)> = tasks
        .chunks(setup.batch)
        .map(|batch| {
            let mut ids: Vec<Uuid> = batch.iter().map(|task| task.id.as_uuid()).collect();
            ids.sort_unstable();
            (
                ids,
                batch
                    .iter()
                    .map(|task| task.payload.as_str().to_owned())
                    .collect(),
            )
        })
        .collect();
    let batches = Arc::new(batches);
    let worker = WorkerId::new(SystemClock.now(), &random()).as_uuid();
    let mut costs = Vec::new();
    for (name, sql) in [
        ("floor: insert", FLOOR_INSERT),
        ("floor: start", FLOOR_START),
        ("floor: end", FLOOR_END),
    ] {
        let mut clients = Vec::new();
        for _ in 0..setup.connections {
            let client = connect(url).await;
            let statement = client.prepare(sql).await.unwrap();
            clients.push(Arc::new((client, statement)));
        }
        let cost = measure(name, client, setup, |lane, number| {
            let (connection, batches) = (Arc::clone(&clients[lane]), Arc::clone(&batches));
            async move {
                let (client, statement) = &*connection;
                let (ids, payloads) = &batches[number];
                let results = vec!["{}"; ids.len()];
                let written = match name {
                    "floor: insert" => client.execute(statement, &[ids, payloads]).await,
                    "floor: start" => client.execute(statement, &[ids, &worker]).await,
                    _ => client.execute(statement, &[ids, &results]).await,
                };
                assert_eq!(written.unwrap(), ids.len() as u64);
            }
        });
        costs.push(cost.await);
    }
    costs
}

async fn ours(store: &Arc<PostgresStore>, client: &Client, setup: &Setup) -> Vec<Cost> {
    let worker = register(store).await;
    let tasks = Arc::new(tasks(setup.rows));
    let size = setup.batch;
    let record = measure("record", client, setup, |_, number| {
        let (store, tasks) = (Arc::clone(store), Arc::clone(&tasks));
        async move {
            let batch = &tasks[number * size..][..size.min(tasks.len() - number * size)];
            store.record(batch).await.unwrap();
        }
    });
    let record = record.await;
    let claimed = Arc::new(std::sync::Mutex::new(HashMap::new()));
    let claim = measure("claim", client, setup, |_, number| {
        let (store, tasks, claimed) = (Arc::clone(store), Arc::clone(&tasks), Arc::clone(&claimed));
        async move {
            let batch: Vec<ClaimRequest> = tasks[number * size..].iter().take(size).map(wants).collect();
            let id = ClaimId::new(SystemClock.now(), &random());
            let granted = store.claim(worker, id, &batch).await.unwrap();
            let granted: Vec<_> = granted.into_iter().map(|it| it.expect("granted").id).collect();
            claimed.lock().unwrap().insert(number, (id, granted));
        }
    });
    let claim = claim.await;
    let result = Json::parse(b"{}").unwrap();
    let complete = measure("complete", client, setup, |_, number| {
        let (store, (id, granted)) = (
            Arc::clone(store),
            claimed.lock().unwrap().remove(&number).unwrap(),
        );
        let result = result.clone();
        async move {
            let batch: Vec<Completion> = granted.iter().map(|&id| succeeded(id, &result)).collect();
            store.complete(worker, &batch, &[id]).await.unwrap();
        }
    });
    let complete = complete.await;
    let done = "SELECT count(*) FROM tasks WHERE state = 'succeeded' AND worker IS NOT NULL";
    let done: i64 = client.query_one(done, &[]).await.unwrap().get(0);
    assert_eq!(done, i64::try_from(setup.rows).unwrap());
    vec![record, claim, complete]
}

async fn register(store: &PostgresStore) -> WorkerId {
    let at = SystemClock.now();
    let id = WorkerId::new(at, &[7; 10]);
    let worker = WorkerInfo {
        id,
        name: "bench".into(),
        queues: vec![],
        slots: 1,
        busy: vec![],
        finished: vec![],
        draining: false,
        started_at: at,
        heartbeat_at: at,
    };
    let beat = Heartbeat {
        worker,
        watermarks: vec![],
        progress: vec![],
    };
    store.register(&beat).await.unwrap();
    id
}

fn wants(task: &Submission) -> ClaimRequest {
    ClaimRequest {
        ready: Ready {
            id: task.id,
            kind: task.kind.clone(),
            lane: task.lane.clone(),
            fence: 0,
            lost: 0,
        },
        max_attempts: 5,
        timeout: Duration::from_secs(60),
    }
}

fn succeeded(id: TaskId, result: &Json) -> Completion {
    Completion {
        id,
        fence: 1,
        attempt: 1,
        outcome: Outcome::Succeeded,
        decision: Decision::Succeed,
        result: Some(result.clone()),
        error: None,
        log: None,
        limited: false,
    }
}

/// Does all batches, so many at once as there are connections.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    client: &Client,
    setup: &Setup,
    work: impl Fn(usize, usize) -> F,
) -> Cost {
    let batches = setup.rows.div_ceil(setup.batch);
    let (next, wal) = (AtomicUsize::new(0), wal_position(client).await);
    let (began, machine, own) = (Instant::now(), machine_time(), own_time());
    let lanes = (0..setup.connections).map(|lane| {
        let (next, work) = (&next, &work);
        async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= batches {
                    return;
                }
                tokio::spawn(work(lane, number)).await.unwrap();
            }
        }
    });
    futures::future::join_all(lanes).await;
    Cost {
        name,
        rows: setup.rows,
        took: began.elapsed(),
        machine: machine_time().saturating_sub(machine),
        own: own_time().saturating_sub(own),
        wal_bytes: wal_position(client).await.saturating_sub(wal),
    }
}

async fn wal_position(client: &Client) -> u64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let row = client.query_one(sql, &[]).await.unwrap();
    row.get::<_, i64>(0).try_into().unwrap()
}

/// Kernels count in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What all processors have worked since the machine was started.
fn machine_time() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u32> = text
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap())
        .collect();
    // All but idle and waiting for disks.
    TICK * (fields[0] + fields[1] + fields[2] + fields[5] + fields[6])
}

/// What this process has worked.
fn own_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text[text.rfind(')').unwrap()..].split_whitespace().collect();
    TICK * (fields[12].parse::<u32>().unwrap() + fields[13].parse::<u32>().unwrap())
}
