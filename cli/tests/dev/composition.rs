//! Tasks that wait for tasks, from outside, and the examples of docs/composition.md.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{page::says, support::Dev};

/// The batch of this name, once it is complete.
fn completed(dev: &Dev, name: &str) -> Value {
    let is_it = |batch: &&Value| batch["name"] == name && batch["state"] == "completed";
    let found = dev.json_until(&["batches"], |batches| batches.iter().any(|batch| is_it(&batch)));
    found.into_iter().find(|batch| is_it(&batch)).unwrap()
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    says(
        &dev,
        folder.path(),
        "docs/composition.md",
        &[
            "succeeded",
            "\"state\":\"succeeded\"",
            "nightly import",
            "of 3 ended",
            "echo",
            "cancelled",
        ],
    );
    for name in ["nightly import", "publish", "crawl"] {
        assert_eq!(completed(&dev, name)["total"], 3, "{name}");
    }
}

#[test]
fn a_chain_runs_in_its_order_and_what_was_to_follow_runs_last() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let lines: Vec<String> = (0..12)
        .map(|step| json!({"kind": "echo", "payload": step}).to_string())
        .collect();
    std::fs::write(folder.path().join("chain.ndjson"), lines.join("\n")).unwrap();
    let path = folder.path().join("chain.ndjson");
    let opened = dev.json(&[
        "batches",
        "open",
        path.to_str().unwrap(),
        "--chain",
        "--on-complete",
        "echo",
        "--name",
        "chain",
    ]);
    let batch = completed(&dev, "chain");
    assert_eq!((&batch["ended"], &batch["progress"]), (&json!(12), &json!(1.0)));
    let last = dev.wait_for(batch["completion_task_id"].as_str().unwrap(), &["succeeded"]);
    assert_eq!(last["payload"], json!({"batch_id": batch["id"]}));
    let tasks = dev.json(&["batches", "tasks", batch["id"].as_str().unwrap()]);
    let ids: Vec<&Value> = tasks.iter().map(|task| &task["id"]).collect();
    assert_eq!(
        ids,
        opened[0]["task_ids"]
            .as_array()
            .unwrap()
            .iter()
            .collect::<Vec<_>>()
    );
    let time =
        |task: &Value, member: &str| task[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for (before, after) in tasks.iter().zip(tasks.iter().skip(1).chain([&last])) {
        assert!(
            time(before, "finished_at") <= time(after, "started_at"),
            "{before} {after}"
        );
    }
}

#[test]
fn a_failing_parent_cancels_its_child_unless_that_runs_all_the_same() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let parent = dev.json(&["submit", "fail", "--max-attempts", "1"]).remove(0);
    let parent = parent["id"].as_str().unwrap();
    let child = |more: &[&str]| {
        let line = [&["submit", "echo", "--after", parent][..], more].concat();
        dev.json(&line).remove(0)["id"].as_str().unwrap().to_owned()
    };
    let (strict, gentle) = (child(&[]), child(&["--on-dependency-failure", "run"]));
    let strict = dev.wait_for(&strict, &["cancelled"]);
    let why = strict["error"]["message"].as_str().unwrap();
    assert!(why.contains(parent) && why.contains("failed"), "{why}");
    dev.wait_for(&gentle, &["succeeded"]);
}
