//! A queue is paused by the command line, with everything around it going on and dying, and is resumed.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use forebay_testkit::{broker::BrokerKind, wait};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    what_is_paused_waits_and_what_is_resumed_ends
}

/// How many tasks are submitted to the paused queue.
const TASKS: usize = 200;
/// In which time every worker has heard of a pause.
const HEARD: Duration = Duration::from_secs(3);
/// Between two tasks that are submitted while workers hear of the pause.
const PACE: Duration = Duration::from_millis(5);
/// In which time no worker has anything at hand any more of a queue that is paused.
const LET_GO: Duration = Duration::from_secs(6);
/// In which time the tasks have run once the queue is resumed; two idle workers take far less.
const RUN: Duration = Duration::from_secs(20);

/// Runs a command of the client, and returns what it prints, line by line.
fn client(api: &str, args: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(args)
        .args(["--json", "--url", api])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn submit(user: &User, api: &str, queue: &str) -> String {
    let body = json!({ "kind": "echo", "payload": 1, "queue": queue });
    user.accepted(api, &body, None).await
}

async fn submit_many(user: &User, api: &str, queue: &str, count: usize) -> Vec<String> {
    let all = (0..count).map(|_| submit(user, api, queue));
    stream::iter(all).buffered(20).collect().await
}

async fn json_of(url: String) -> Value {
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// Until so many workers are alive.
async fn workers_are(api: &str, count: usize) {
    wait::until("the workers to be so many", PATIENCE, || async {
        let page = json_of(format!("{api}/v1/workers")).await;
        let known = page["workers"].as_array().map_or(0, Vec::len);
        if known == count { Ok(true) } else { Err(known) }
    })
    .await;
}

/// None of them was ever started.
async fn all_wait(user: &User, api: &str, ids: &[String]) {
    for id in ids {
        let task = user.get(api, id).await.unwrap();
        assert_eq!(
            json!([task["state"], task["started_at"], task["attempt"]]),
            json!(["queued", null, 0]),
            "{task}"
        );
    }
}

async fn what_is_paused_waits_and_what_is_resumed_ends(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let args = ["--builtin-handlers", "--queues", "mail,other", "--lease", "3s"];
    let (user, api) = (User::default(), stack.api().await);
    let api = &api.http;
    let (mut first, second) = (stack.worker(&args).await, stack.worker(&args).await);
    for id in submit_many(&user, api, "mail", 10).await {
        user.finished(api, &id).await;
    }

    assert_eq!(client(api, &["pause", "mail"])[0]["paused"], true);
    // It is a brake: for a moment, tasks may still be started.
    let (paused, mut early) = (Instant::now(), Vec::new());
    while paused.elapsed() < HEARD {
        early.push(submit(&user, api, "mail").await);
        // A paced load, so that there are some at each stage of hearing.
        tokio::time::sleep(PACE).await;
    }
    let ids = submit_many(&user, api, "mail", TASKS).await;
    let others = submit_many(&user, api, "other", 50).await;
    for id in &others {
        user.finished(api, id).await;
    }
    wait::until("all to be counted", PATIENCE, || async {
        let queue = json_of(format!("{api}/v1/queues/mail")).await;
        let known = queue["ready"].as_u64().unwrap_or(0) >= TASKS as u64;
        let so = known && queue["running"] == 0 && queue["paused"] == true;
        if so { Ok(true) } else { Err(queue) }
    })
    .await;
    all_wait(&user, api, &ids).await;

    while paused.elapsed() < LET_GO {
        let other = submit(&user, api, "other").await;
        user.finished(api, &other).await;
    }
    // A worker that dies meanwhile, and one that comes, change nothing.
    first.kill();
    workers_are(api, 1).await;
    let _third = stack.worker(&args).await;
    second.wait_until_ready().await;
    for id in submit_many(&user, api, "other", 50).await {
        user.finished(api, &id).await;
    }
    all_wait(&user, api, &ids).await;

    let resumed = Instant::now();
    assert_eq!(client(api, &["resume", "mail"])[0]["paused"], false);
    let all = early.iter().chain(&ids).map(async |id| {
        let task = user.finished(api, id).await;
        let ended = json!([task["state"], task["attempt"]]);
        assert_eq!(ended, json!(["succeeded", 1]), "{task}");
        let took = resumed.elapsed();
        assert!(took < RUN, "it took {took:?}: {task}");
    });
    stream::iter(all).buffer_unordered(20).collect::<()>().await;
    wait::until("the queue to be empty", PATIENCE, || async {
        // In order of their names.
        let queue = &client(api, &["queues"])[0];
        let so = json!([queue["name"], queue["ready"], queue["paused"]]);
        if so == json!(["mail", 0, false]) {
            Ok(true)
        } else {
            Err(so)
        }
    })
    .await;
}
