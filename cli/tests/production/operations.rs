//! An operation whose dispatcher is killed in the middle: each task is come to once.

use std::collections::BTreeMap;

use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    each_dead_letter_is_retried_once_although_dispatchers_die
}

/// How many dead letters there are, and how many of them are brought back each second.
const TASKS: usize = 120;
const RATE: usize = 40;

async fn post(url: &str, body: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(url).json(body).timeout(PATIENCE);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

async fn read(url: &str) -> Value {
    let request = reqwest::Client::new().get(url).timeout(PATIENCE);
    request.send().await.unwrap().json().await.unwrap()
}

/// The failed tasks of the test, with how many of their attempts have failed.
async fn failed(api: &str) -> BTreeMap<String, usize> {
    let page = read(&format!("{api}/v1/tasks?tag=dead&state=failed&page_size=200")).await;
    let tasks = page["tasks"].as_array().unwrap().iter();
    tasks
        .map(|task| {
            let id = task["id"].as_str().unwrap().to_owned();
            let errors = task["errors"].as_array().unwrap().iter();
            (id, errors.filter(|error| error["outcome"] == "failed").count())
        })
        .collect()
}

async fn all_have_failed(api: &str, times: usize) {
    wait::until("all tasks to have failed", PATIENCE, || async {
        let failed = failed(api).await;
        let ready = failed.len() == TASKS && failed.values().all(|count| *count == times);
        if ready {
            Ok(true)
        } else {
            Err(format!("{} of {TASKS}: {failed:?}", failed.len()))
        }
    })
    .await;
}

async fn each_dead_letter_is_retried_once_although_dispatchers_die(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let api = stack.api().await;
    let args = ["--builtin-handlers", "--lease", "5s"];
    let mut workers = [stack.worker(&args).await, stack.worker(&args).await];
    let user = User::default();
    let dead = json!({"kind": "fail", "payload": {"permanent": true}, "tags": ["dead"]});
    for _ in 0..TASKS {
        user.accepted(&api.http, &dead, None).await;
    }
    all_have_failed(&api.http, 1).await;

    let url = format!("{}/v1/operations", api.http);
    let body =
        json!({"action": "retry", "filter": {"state": "failed", "tag": "dead"}, "rate_per_second": RATE});
    let mut dry = body.clone();
    dry["dry_run"] = json!(true);
    let (status, counted) = post(&url, &dry).await;
    assert_eq!((status, &counted["count"]), (200, &json!(TASKS)), "{counted}");
    let (status, begun) = post(&url, &body).await;
    assert_eq!(status, 202, "{begun}");
    let operation = format!("{url}/{}", begun["id"].as_str().unwrap());
    for (worker, part) in [(0, TASKS / 4), (1, TASKS / 2)] {
        wait::until("a part to be done", PATIENCE, || async {
            let progress = read(&operation).await["progress"].clone();
            let done = progress["done"].as_u64().unwrap();
            if done >= part as u64 {
                Ok(true)
            } else {
                Err(progress)
            }
        })
        .await;
        workers[worker].kill();
        workers[worker].start_again();
    }
    wait::until("the operation to be completed", PATIENCE, || async {
        let now = read(&operation).await;
        if now["state"] == "completed" {
            Ok(true)
        } else {
            Err(now)
        }
    })
    .await;
    let ended = read(&operation).await;
    assert_eq!(
        ended["progress"],
        json!({"matched": TASKS, "done": TASKS, "skipped": 0, "failed": 0})
    );
    // Each has failed twice: once before, and once since it was brought back.
    all_have_failed(&api.http, 2).await;
}
