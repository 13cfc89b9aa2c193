//! Limits from outside, and the examples of docs/limits.md.

use serde_json::{Value, json};
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
        "docs/limits.md",
        &[
            "database: 20 at a time mail: 100 in 60 s per-customer: 1 at a time of each key",
            "succeeded",
            "NAME QUEUE KIND BY KEY AT A TIME RATE database imports all no 20 - mail all mail.send no - 100/60s per-customer all all yes 1 -",
            "mail is deleted database is deleted",
            "\"burst\":20",
        ],
    );
    assert!(
        said[2].contains("running   0\n") && said[2].contains("waiting   0\n"),
        "{}",
        said[2]
    );
    let kept = dev.json(&["limits"]);
    let names: Vec<&Value> = kept.iter().map(|limit| &limit["name"]).collect();
    assert_eq!(names, ["per-customer"]);
}

#[test]
fn one_of_a_key_runs_at_a_time() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let made = dev.json(&[
        "limits",
        "put",
        "one",
        "--kind",
        "sleep",
        "--by-key",
        "--concurrency",
        "1",
    ]);
    assert_eq!(
        (&made[0]["by_key"], &made[0]["concurrency"]),
        (&json!(true), &json!(1))
    );
    let submit = |seconds: &str, key: &str| {
        let payload = format!("{{\"seconds\": {seconds}}}");
        let task = dev
            .json(&["submit", "sleep", &payload, "--limit-key", key])
            .remove(0);
        task["id"].as_str().unwrap().to_owned()
    };
    let (first, other) = (submit("600", "a"), submit("600", "b"));
    for id in [&first, &other] {
        dev.wait_for(id, &["running"]);
    }
    let second = submit("0", "a");
    dev.wait_for(&second, &["throttled"]);
    let one = dev.json(&["limits", "get", "one"]).remove(0);
    assert_eq!((&one["running"], &one["waiting"]), (&json!(2), &json!(1)));
    assert!(dev.call(&["cancel", &first]).status.success());
    assert_eq!(dev.wait_for(&second, &["succeeded"])["attempt"], 1);
    assert!(dev.call(&["cancel", &other]).status.success());
}

#[test]
fn refusals_of_limits_are_told_with_their_place() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    assert_eq!(stdout(&dev.call(&["limits"])), "no limits yet\n");
    let wrong = dev.call(&[
        "limits",
        "put",
        "x",
        "--queue",
        "No!",
        "--concurrency",
        "0",
        "--rate",
        "0/1s",
    ]);
    assert_eq!(wrong.status.code(), Some(4));
    for place in [
        "\n  queue must match",
        "\n  concurrency must be",
        "\n  rate/count must be",
    ] {
        assert!(stderr(&wrong).contains(place), "{place}: {}", stderr(&wrong));
    }
    let gone = dev.call(&["limits", "delete", "x", "y"]);
    assert_eq!(gone.status.code(), Some(4));
    assert!(stderr(&gone).contains("x: There is no such limit"), "{gone:?}");
    let code = |args: &[&str]| dev.call(args).status.code();
    assert_eq!(code(&["limits", "get", "x"]), Some(4));
    assert_eq!(code(&["limits", "put", "x", "--rate", "fast"]), Some(2));
    assert_eq!(code(&["limits", "put", "x"]), Some(4));
    assert_eq!(code(&["limits", "--url", "http://127.0.0.1:1"]), Some(3));
}
