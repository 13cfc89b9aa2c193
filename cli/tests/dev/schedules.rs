//! Schedules from outside, and the examples of docs/schedules.md.

use std::time::Instant;

use serde_json::Value;
use tempfile::tempdir;

use crate::{
    page::says_after,
    support::{Dev, stderr, stdout},
};

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let expected = [
        "nightly next ",
        "NAME CRON ZONE KIND NEXT LAST PAUSED beat * * * * * * UTC echo ",
        "ID STATE KIND ",
        "nightly is paused nightly next ",
        "\"next\":[",
    ];
    let said = says_after(&dev, folder.path(), "docs/schedules.md", &expected, |block| {
        if block.contains("put beat") {
            // It has ticked before it is deleted.
            dev.json_until(&["list", "--tag", "beat"], |tasks| tasks.len() >= 2);
        }
    });
    assert_eq!(said[1].matches("next      ").count(), 3, "{}", said[1]);
    let kept = dev.json(&["schedules"]);
    let names: Vec<&Value> = kept.iter().map(|schedule| &schedule["name"]).collect();
    assert_eq!(names, ["nightly"]);
}

#[test]
fn each_tick_is_a_task() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let began = Instant::now();
    let made = dev.json(&[
        "schedules",
        "put",
        "beat",
        "* * * * * *",
        "echo",
        "[1]",
        "--tag",
        "beats",
        "--overlap",
        "allow",
    ]);
    assert_eq!(made[0]["task"]["payload"], serde_json::json!([1]));
    let beats = ["list", "--tag", "beats", "--state", "succeeded"];
    let tasks = dev.json_until(&beats, |tasks| tasks.len() >= 3);
    let ticks_max = began.elapsed().as_secs() + 1;
    assert!(
        tasks.len() as u64 <= ticks_max,
        "more than {ticks_max}: {tasks:?}"
    );
    assert!(tasks.iter().all(|task| task["payload"] == serde_json::json!([1])));
    let beat = dev
        .json(&["schedules", "get", "beat", "--upcoming", "1"])
        .remove(0);
    assert_eq!(beat["next"].as_array().unwrap().len(), 1);
    let last = dev.wait_for(beat["last_task_id"].as_str().unwrap(), &["succeeded"]);
    assert_eq!(last["tags"], serde_json::json!(["beats"]));
    let time = |of: &Value| of.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(
        time(&last["created_at"]) >= time(&beat["last_tick"]),
        "{last} {beat}"
    );
    let text = stdout(&dev.call(&["schedules", "get", "beat"]));
    assert!(text.contains("cron      * * * * * * in UTC\n"), "{text}");
    assert!(
        text.contains("payload   [1]\n") && text.contains("overlap   allow\n"),
        "{text}"
    );
}

#[test]
fn refusals_of_schedules_are_told_with_their_place() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    assert_eq!(stdout(&dev.call(&["schedules"])), "no schedules yet\n");
    let wrong = dev.call(&[
        "schedules",
        "put",
        "x",
        "never",
        "Two Words",
        "--time-zone",
        "Mars/Olympus",
    ]);
    assert_eq!(wrong.status.code(), Some(4));
    for place in [
        "\n  cron must be a cron expression",
        "\n  time_zone must be",
        "\n  task/kind must match",
    ] {
        assert!(stderr(&wrong).contains(place), "{place}: {}", stderr(&wrong));
    }
    let gone = dev.call(&["schedules", "delete", "x", "y"]);
    assert_eq!(gone.status.code(), Some(4));
    assert!(
        stderr(&gone).contains("x: There is no such schedule") && stderr(&gone).contains("y: "),
        "{gone:?}"
    );
    let code = |args: &[&str]| dev.call(args).status.code();
    assert_eq!(code(&["schedules", "get", "x"]), Some(4));
    assert_eq!(code(&["schedules", "pause", "x"]), Some(4));
    assert_eq!(
        code(&["schedules", "put", "x", "* * * * *", "echo", "{not json"]),
        Some(2)
    );
    assert_eq!(code(&["schedules", "--url", "http://127.0.0.1:1"]), Some(3));
}
