//! Explanations and operations from outside, and the examples of docs/operations.md.

use tempfile::tempdir;

use crate::{
    page::says,
    support::{Dev, stderr, stdout},
};

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let said = says(
        &dev,
        folder.path(),
        "docs/operations.md",
        &[
            "reason no_worker why No worker reads the queue nobody. attempt 1 comes next ahead 0",
            "retry would be for 2 tasks ",
            "retry is completed: 2 of 2 ID ACTION STATE DONE FILTER CREATED ",
            "delete is completed: 0 of 0",
            "\"operations\":[",
        ],
    );
    assert!(said[0].contains("reason    waits_for_time\n"), "{}", said[0]);
    assert!(said[4].contains("\"dry_run\":true"), "{}", said[4]);
    dev.json_until(&["list", "--tag", "later"], |tasks| {
        tasks[0]["state"] == "cancelled"
    });
    let ended = |all: &[serde_json::Value]| all.iter().all(|it| it["state"] != "running");
    let all = dev.json_until(&["operations"], ended);
    assert_eq!(all.len(), 4, "a dry run is none: {all:?}");
}

#[test]
fn a_retried_task_runs_again_with_all_its_attempts() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let submit = [
        "submit",
        "fail",
        r#"{"message": "no luck", "permanent": true}"#,
        "--wait",
        "30s",
    ];
    let id = dev.call(&[&submit[..], &["--json"]].concat());
    let task: serde_json::Value = serde_json::from_slice(&id.stdout).unwrap();
    let id = task["id"].as_str().unwrap();
    assert_eq!(task["state"], "failed", "{task}");
    let operation = dev
        .json(&["operations", "retry", "--state", "failed", "--wait"])
        .remove(0);
    assert_eq!(
        (&operation["state"], &operation["progress"]["done"]),
        (&"completed".into(), &1.into()),
        "{operation}"
    );
    let again = dev.json_until(&["get", id], |task| {
        task[0]["errors"].as_array().unwrap().len() == 2 && task[0]["state"] == "failed"
    });
    assert_eq!(again[0]["attempt"], 1, "{again:?}");
}

#[test]
fn what_runs_is_told_to_stop() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let id = dev.json(&["submit", "sleep", r#"{"seconds": 600}"#])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    dev.wait_for(&id, &["running"]);
    let explained = dev.json(&["explain", &id]).remove(0);
    assert_eq!(explained["reason"], "running", "{explained}");
    let operation = dev
        .json(&["operations", "cancel", "--kind", "sleep", "--wait"])
        .remove(0);
    assert_eq!(operation["progress"]["done"], 1, "{operation}");
    dev.wait_for(&id, &["cancelled"]);
    let text = stdout(&dev.call(&["explain", &id]));
    assert!(
        text.contains("reason    finished\nwhy       It was cancelled at "),
        "{text}"
    );
}

/// A task's id, from its submission.
fn submitted(dev: &Dev, args: &[&str]) -> String {
    let task = dev.json(&[&["submit"], args].concat()).remove(0);
    task["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_a_limit_or_another_task_holds_back_is_named() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    dev.json(&["limits", "put", "one", "--kind", "sleep", "--concurrency", "1"]);
    let seconds = r#"{"seconds": 600}"#;
    let runs = submitted(&dev, &["sleep", seconds]);
    dev.wait_for(&runs, &["running"]);
    let held: Vec<String> = (0..2)
        .map(|_| {
            let id = submitted(&dev, &["sleep", seconds]);
            dev.wait_for(&id, &["throttled"]);
            id
        })
        .collect();
    for (id, ahead) in held.iter().zip([0, 1]) {
        let it = dev.json(&["explain", id]).remove(0);
        assert_eq!(it["reason"], "held_by_limit", "{it}");
        let limit = &it["limit"];
        assert_eq!(
            (&limit["name"], &limit["running"]),
            (&"one".into(), &1.into()),
            "{it}"
        );
        assert_eq!(
            (&limit["concurrency"], &it["ahead"]),
            (&1.into(), &ahead.into()),
            "{it}"
        );
    }
    let after = submitted(&dev, &["echo", "--after", &held[1]]);
    let it = dev.json(&["explain", &after]).remove(0);
    assert_eq!(
        (&it["state"], &it["reason"], &it["blocked_on"]),
        (
            &"blocked".into(),
            &"waits_for_tasks".into(),
            &serde_json::json!([held[1]])
        ),
        "{it}"
    );
    let text = stdout(&dev.call(&["explain", &after]));
    assert!(text.contains(&format!("waits for {}\n", held[1])), "{text}");
    // What waits for a task that is cancelled is cancelled, too.
    let operation = dev
        .json(&["operations", "cancel", "--state", "throttled", "--wait"])
        .remove(0);
    assert_eq!(operation["progress"]["done"], 2, "{operation}");
    dev.wait_for(&after, &["cancelled"]);
    assert_eq!(dev.json(&["explain", &runs])[0]["reason"], "running");
}

#[test]
fn refusals_are_told_with_their_place() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    assert_eq!(stdout(&dev.call(&["operations"])), "no operations yet\n");
    let code = |args: &[&str]| dev.call(args).status.code();
    let wrong = dev.call(&[
        "operations",
        "cancel",
        "--state",
        "failed",
        "--queue",
        "Two Words",
    ]);
    assert_eq!(wrong.status.code(), Some(4));
    for place in ["\n  filter/state must be one of", "\n  filter/queue must match"] {
        assert!(stderr(&wrong).contains(place), "{place}: {}", stderr(&wrong));
    }
    assert_eq!(code(&["operations", "delete"]), Some(4), "nothing was said");
    assert_eq!(code(&["operations", "get", "x"]), Some(4));
    assert_eq!(code(&["operations", "retry", "--rate", "0"]), Some(2));
    assert_eq!(
        code(&["explain", "01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d"]),
        Some(4)
    );
    assert_eq!(code(&["operations", "--url", "http://127.0.0.1:1"]), Some(3));
}
