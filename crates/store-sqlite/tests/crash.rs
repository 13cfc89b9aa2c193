//! Kills a process that writes, and looks for everything that it was told to be durable.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use forebay_core::{Clock, Json, Project, Submission, SystemClock, TaskId};
use forebay_store::{Admin, Read, Record, Recorded};
use forebay_store_sqlite::SqliteStore;

/// Names the file to the process that is to be killed.
const FILE: &str = "FOREBAY_TEST_CRASH_FILE";
/// After how many acknowledged batches it is killed.
const ACKNOWLEDGED: usize = 60;
const BATCH: u16 = 20;

fn task(number: u16) -> Submission {
    let at = SystemClock.now();
    let mut random = [0; 10];
    random[8..].copy_from_slice(&number.to_be_bytes());
    Submission {
        id: TaskId::new(at, &random),
        project: Project::default(),
        kind: "echo".parse().unwrap(),
        lane: "default.default".parse().unwrap(),
        payload: Json::of(&format!("{number}{}", "x".repeat(2_000))).unwrap(),
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

/// The process that is killed: records, and says what was acknowledged, for ever.
async fn record_until_killed(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    store.migrate().await.unwrap();
    let mut out = std::io::stdout();
    for round in 0..u16::MAX / BATCH {
        let batch: Vec<Submission> = (0..BATCH).map(|number| task(round * BATCH + number)).collect();
        let answers = store.record(&batch).await.unwrap();
        assert!(answers.iter().all(|&answer| answer == Recorded::New));
        let ids: Vec<String> = batch.iter().map(|task| task.id.to_string()).collect();
        writeln!(out, "\nacknowledged {}", ids.join(" ")).unwrap();
        out.flush().unwrap();
    }
}

/// Starts this test in a process of its own, kills it in full flight, and returns what it was told.
fn acknowledged_before_the_kill(path: &Path) -> Vec<TaskId> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_was_acknowledged_survives_a_kill", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut ids, mut batches) = (Vec::new(), 0);
    // The pipe ends when the process does; what it said before is read to the end.
    for line in lines {
        let line = line.unwrap();
        if let Some(acknowledged) = line.strip_prefix("acknowledged ") {
            ids.extend(acknowledged.split(' ').map(|id| id.parse::<TaskId>().unwrap()));
            batches += 1;
        }
        if batches == ACKNOWLEDGED {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "it was killed, not done: {status}");
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    if let Some(path) = std::env::var_os(FILE) {
        return record_until_killed(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.db");
    let file = path.clone();
    let ids = tokio::task::spawn_blocking(move || acknowledged_before_the_kill(&file))
        .await
        .unwrap();
    assert!(ids.len() >= ACKNOWLEDGED * usize::from(BATCH));
    let store = SqliteStore::open(&path).await.unwrap();
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    for id in ids {
        let found = store.get(id).await.unwrap();
        assert!(
            found.is_some_and(|task| task.payload.as_bytes().len() > 2_000),
            "{id} was lost"
        );
    }
    assert_eq!(store.record(&[task(0)]).await.unwrap(), [Recorded::New]);
}
