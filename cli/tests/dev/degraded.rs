//! What `forebay dev` answers when its disk is full.

use std::time::{Duration, Instant};

use forebay_testkit::{disk::SmallDisk, wait};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Dev, WITHIN};

/// How large the disk is: room for the database, and little more.
const DISK_BYTES: u64 = 16 * 1024 * 1024;
/// How long an answer may take.
const SOON: Duration = Duration::from_secs(3);

async fn submit(dev: &Dev, payload: usize) -> Response {
    let body = json!({"kind": "echo", "payload": "x".repeat(payload)});
    let request = reqwest::Client::new()
        .post(format!("{}/v1/tasks", dev.url))
        .json(&body);
    let began = Instant::now();
    let answer = request.timeout(WITHIN).send().await.unwrap();
    assert!(began.elapsed() < SOON, "a submission took {:?}", began.elapsed());
    answer
}

async fn read(dev: &Dev, path: &str) -> Value {
    let answer = reqwest::get(format!("{}{path}", dev.url)).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_submissions_and_reads_go_on() {
    let disk = SmallDisk::mount(DISK_BYTES).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), &["--data", disk.path().to_str().unwrap()]);
    let first: Value = submit(&dev, 10).await.json().await.unwrap();
    let path = format!("/v1/tasks/{}", first["id"].as_str().unwrap());
    wait::until("the first task to end", WITHIN, async || {
        read(&dev, &path).await["state"] == "succeeded"
    })
    .await;
    let refused = wait::until("the disk to be full", WITHIN, async || {
        // Checkpoints may free a little again.
        disk.fill().unwrap();
        let answer = submit(&dev, 200_000).await;
        (answer.status() != 202).then_some(answer)
    })
    .await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(read(&dev, &path).await["state"], "succeeded");
    assert!(read(&dev, "/v1/tasks").await["tasks"].is_array());
    disk.free_up().unwrap();
    let again = wait::until("a submission to be accepted", WITHIN, async || {
        let answer = submit(&dev, 10).await;
        (answer.status() == 202).then_some(answer)
    })
    .await;
    let again: Value = again.json().await.unwrap();
    let path = format!("/v1/tasks/{}", again["id"].as_str().unwrap());
    wait::until("it to end", WITHIN, async || {
        read(&dev, &path).await["state"] == "succeeded"
    })
    .await;
}
