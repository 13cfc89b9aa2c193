//! Chains and batches with two workers, one of which is killed: nothing is left behind, and what follows runs once.

use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};

use crate::stack::{Forebay, PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    a_fan_out_is_joined_once_although_a_worker_is_killed
    a_chain_runs_in_its_order_and_breaks_where_a_link_fails
}

async fn open(api: &Forebay, body: &Value) -> Value {
    let url = format!("{}/v1/batches", api.http);
    let request = reqwest::Client::new()
        .post(url)
        .json(body)
        .header("idempotency-key", "once");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 202, "{answer:?}");
    answer.json().await.unwrap()
}

/// The batch, once it is complete.
async fn completed(api: &Forebay, batch: &Value) -> Value {
    let url = format!("{}/v1/batches/{}", api.http, batch["id"].as_str().unwrap());
    wait::until("the batch to be complete", PATIENCE, || async {
        let read = reqwest::get(&url).await.map_err(|error| error.to_string())?;
        let batch: Value = read.json().await.map_err(|error| error.to_string())?;
        match batch["completed_at"].is_string() {
            true => Ok(Some(batch)),
            false => Err(batch.to_string()),
        }
    })
    .await
}

async fn a_fan_out_is_joined_once_although_a_worker_is_killed(kind: BrokerKind) {
    const TASKS: usize = 400;
    let stack = Stack::on(kind).await;
    let (api, user) = (stack.api().await, User::default());
    let args = ["--builtin-handlers", "--lease", "2s", "--concurrency", "8"];
    let (_lasting, mut killed) = (stack.worker(&args).await, stack.worker(&args).await);
    let tasks: Vec<Value> = (0..TASKS)
        .map(|_| json!({"kind": "sleep", "payload": {"seconds": 0.05}, "max_attempts": 5}))
        .collect();
    let body = json!({"tasks": tasks, "on_complete": {"kind": "echo", "tags": ["joined"]}});
    let batch = open(&api, &body).await;
    assert_eq!(
        open(&api, &body).await["task_ids"],
        batch["task_ids"],
        "the same key opens it once"
    );
    let url = format!("{}/v1/batches/{}", api.http, batch["id"].as_str().unwrap());
    wait::until("a part to have ended", PATIENCE, || async {
        let read: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        match read["ended"].as_u64() {
            Some(50..) => Ok(true),
            _ => Err(read),
        }
    })
    .await;
    killed.kill();
    let batch = completed(&api, &batch).await;
    assert_eq!(
        (&batch["ended"], &batch["counts"]["succeeded"]),
        (&json!(TASKS), &json!(TASKS)),
        "{batch}"
    );
    let joined = user
        .finished(&api.http, batch["completion_task_id"].as_str().unwrap())
        .await;
    assert_eq!(
        (&joined["state"], &joined["attempt"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(
        joined["result"],
        json!({"batch_id": batch["id"]}),
        "echo says what it was given"
    );
    let left = "SELECT (SELECT count(*) FROM settled) + (SELECT count(*) FROM blockers)";
    assert_eq!(stack.postgres.psql("postgres", left).unwrap(), "0");
}

async fn a_chain_runs_in_its_order_and_breaks_where_a_link_fails(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let api = stack.api().await;
    let args = ["--builtin-handlers", "--concurrency", "8"];
    let _workers = (stack.worker(&args).await, stack.worker(&args).await);
    let mut tasks = vec![json!({"kind": "echo"}); 30];
    tasks[20] = json!({"kind": "fail", "max_attempts": 1});
    tasks[25]["on_dependency_failure"] = json!("run");
    let batch = open(&api, &json!({"tasks": tasks, "chain": true})).await;
    let batch = completed(&api, &batch).await;
    let counts = &batch["counts"];
    let told = ["succeeded", "failed", "cancelled"].map(|state| counts[state].as_u64().unwrap());
    assert_eq!(told, [25, 1, 4], "{batch}");
    let url = format!("{}/v1/batches/{}/tasks", api.http, batch["id"].as_str().unwrap());
    let listed: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
    let tasks = listed["tasks"].as_array().unwrap();
    let time =
        |task: &Value, member: &str| task[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for (before, after) in tasks.iter().zip(&tasks[1..21]) {
        assert!(
            time(before, "finished_at") <= time(after, "started_at"),
            "{before} {after}"
        );
    }
    assert_eq!(tasks[21]["state"], "cancelled", "{}", tasks[21]);
    assert!(
        tasks[21]["error"]["message"]
            .as_str()
            .unwrap()
            .contains(tasks[20]["id"].as_str().unwrap())
    );
}
