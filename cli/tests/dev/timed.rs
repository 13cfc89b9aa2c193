//! What becomes of tasks by the clock, and unique tasks: the examples of docs/time.md and docs/unique.md.

use serde_json::Value;
use tempfile::tempdir;

use crate::{
    page::{examples, run},
    support::{Dev, Ended, forebay, stderr},
};

/// The JSON that a command has said, after its headers if it has shown any.
fn said(text: &str) -> Vec<Value> {
    let json = text.find('{').map_or("", |at| &text[at..]);
    let values = serde_json::Deserializer::from_str(json).into_iter();
    values.map_while(Result::ok).collect()
}

#[test]
fn the_examples_about_time_do_what_the_page_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let blocks = examples("docs/time.md");
    assert_eq!(blocks.len(), 5, "{blocks:?}");
    let mut said = blocks.iter().map(|block| said(&run(&dev, folder.path(), block)));
    let mut next = || said.next().unwrap();
    let later = next().remove(0);
    assert_eq!(later["state"], "scheduled", "{later}");
    let expires = next().remove(0);
    assert!(expires["expires_at"].is_string(), "{expires}");
    let timed_out = next();
    let errors: Vec<&Value> = timed_out.iter().map(|task| &task["error"]["message"]).collect();
    assert_eq!(
        errors,
        [
            "start-to-close timeout: the attempt took longer than 0.2 s",
            "heartbeat timeout: the attempt said nothing for 0.2 s"
        ]
    );
    for (retried, key) in [(next(), "base_seconds"), (next(), "delays_seconds")] {
        assert_eq!(
            (&retried[0]["state"], &retried[0]["attempt"]),
            (&"succeeded".into(), &3.into()),
            "{retried:?}"
        );
        assert!(!retried[0]["retry"][key].is_null(), "{retried:?}");
    }
    dev.wait_for(later["id"].as_str().unwrap(), &["succeeded"]);
    let expired = dev.wait_for(expires["id"].as_str().unwrap(), &["expired"]);
    assert_eq!(expired["attempt"], 0);
}

#[test]
fn the_examples_about_unique_tasks_do_what_the_page_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let blocks = examples("docs/unique.md");
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    let text = run(&dev, folder.path(), &blocks[0]);
    assert!(text.contains("unique-returned: true"), "{text}");
    let first = said(&text)[0]["id"].clone();
    assert_eq!(
        text.matches(first.as_str().unwrap()).count(),
        3,
        "both, and Location: {text}"
    );
    let next = said(&run(&dev, folder.path(), &blocks[1])).remove(0);
    let replaced = dev.wait_for(first.as_str().unwrap(), &["cancelled"]);
    let why = replaced["error"]["message"].as_str().unwrap();
    assert!(why.contains(next["id"].as_str().unwrap()), "{why}");
    let answers = said(&run(&dev, folder.path(), &blocks[2]));
    assert_eq!(answers[0]["state"], "succeeded", "{answers:?}");
    assert_eq!(answers[1]["code"], "unique_conflict", "{answers:?}");
}

/// A command of which nothing is heard is ended; one that says something is not, however long it takes.
#[test]
fn a_commands_output_is_its_heartbeat() {
    let folder = tempdir().unwrap();
    let table = |kind: &str, script: &str| {
        format!(
            "[[handler]]\nkind = {kind:?}\ncommand = [\"sh\", \"-c\", {script:?}]\nheartbeat_timeout_seconds = 1\nmax_attempts = 1\n"
        )
    };
    let config = [
        table("silent", "sleep 60"),
        table(
            "talks",
            "for n in 1 2 3 4 5 6; do echo $n >&2; sleep 0.4; done; echo 1",
        ),
    ];
    std::fs::write(folder.path().join("forebay.toml"), config.concat()).unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let submit = |kind: &str| {
        dev.json(&["submit", kind]).remove(0)["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (silent, talks) = (submit("silent"), submit("talks"));
    let ended = dev.wait_for(&silent, &["failed"]);
    let why = ended["error"]["message"].as_str().unwrap();
    assert_eq!(why, "heartbeat timeout: the attempt said nothing for 1 s");
    dev.wait_for(&talks, &["succeeded"]);
    drop(dev);
    let silent_endpoint = "[[handler]]\nkind = \"a\"\nhttp = { url = \"https://example.com\" }\nheartbeat_timeout_seconds = 1\n";
    std::fs::write(folder.path().join("forebay.toml"), silent_endpoint).unwrap();
    let refused = forebay(folder.path()).arg("dev").ended();
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("heartbeat_timeout_seconds is for commands only"),
        "{refused:?}"
    );
}
