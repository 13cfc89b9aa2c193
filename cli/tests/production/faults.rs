//! The real-input example on each broker and PostgreSQL, while everything is killed, one after the other.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use forebay_testkit::{broker::BrokerKind, wait};
use futures::{StreamExt, stream};
use serde_json::Value;

use crate::stack::{PATIENCE, Stack, User, example, on_every_broker};

/// How many files are worked through: enough that every fault strikes in the middle of it.
const FILES: usize = 240;

/// The wait of a submitter between two tasks.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(60);

on_every_broker! {
    every_accepted_task_succeeds_exactly_once_whatever_is_killed
}

/// The first `FILES` tasks that the example makes of /usr/share/doc.
fn tasks() -> Vec<Value> {
    let output = Command::new("python3")
        .arg(example().join("make-tasks.py"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let tasks: Vec<Value> = text
        .lines()
        .take(FILES)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        tasks.len(),
        FILES,
        "/usr/share/doc has too few files for this test"
    );
    tasks
}

/// Submits all tasks, a few at a time, each again and again under one key until it is accepted. Returns the ids.
async fn submit_all(user: &User, api: &str, tasks: &[Value], accepted: &AtomicUsize) -> Vec<String> {
    stream::iter(tasks)
        .map(|task| async move {
            let key = task["payload"]["path"].as_str().unwrap();
            let id = wait::until("a submission to be accepted", PATIENCE, || async {
                user.submit(api, task, Some(key)).await
            })
            .await;
            accepted.fetch_add(1, Ordering::Relaxed);
            // Slow enough that every fault strikes while tasks are submitted, and fast enough to be a load.
            tokio::time::sleep(PAUSE).await;
            id
        })
        .buffered(4)
        .collect()
        .await
}

/// Waits until `count` tasks were accepted.
async fn progress(accepted: &AtomicUsize, count: usize) {
    wait::until("submissions to go on", PATIENCE, || async {
        let now = accepted.load(Ordering::Relaxed);
        if now >= count {
            Ok(true)
        } else {
            Err(format!("{now} of {count} accepted"))
        }
    })
    .await;
}

async fn every_accepted_task_succeeds_exactly_once_whatever_is_killed(kind: BrokerKind) {
    let mut stack = Stack::on(kind).await;
    let mut api = stack.api().await;
    let config = example().join("forebay.toml");
    let args = [
        "--config",
        config.to_str().unwrap(),
        "--lease",
        "3s",
        "--concurrency",
        "8",
    ];
    let (mut one, mut two) = (stack.worker(&args).await, stack.worker(&args).await);
    let (user, tasks, accepted) = (User::default(), tasks(), AtomicUsize::new(0));
    let http = api.http.clone();

    let faults = async {
        let step = FILES / 6;
        progress(&accepted, step).await;
        one.kill();
        progress(&accepted, 2 * step).await;
        one.start_again();
        api.kill();
        api.start_again();
        progress(&accepted, 3 * step).await;
        stack.broker.settle().await.unwrap();
        stack.broker.kill().unwrap();
        stack.broker.restart().await.unwrap();
        progress(&accepted, 4 * step).await;
        stack.postgres.kill().unwrap();
        progress(&accepted, 5 * step).await;
        stack.postgres.restart().await.unwrap();
        two.kill();
        two.start_again();
    };
    let (ids, ()) = tokio::join!(submit_all(&user, &http, &tasks, &accepted), faults);

    for (task, id) in tasks.iter().zip(&ids) {
        let finished = user.finished(&http, id).await;
        assert_eq!(finished["state"], "succeeded", "{finished}");
        assert_eq!(finished["payload"], task["payload"]);
        assert_eq!(
            finished["result"]["sha256"],
            sha256sum(task["payload"]["path"].as_str().unwrap())
        );
    }
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), FILES, "two files share a task");
    assert_eq!(
        user.count(&http, "doc-hash").await,
        FILES,
        "a task was recorded twice, or not at all"
    );
}

/// What another program says the result must be.
fn sha256sum(path: &str) -> String {
    let output = Command::new("sha256sum").arg("--").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_start_matches('\\')[..64].to_owned()
}
