//! The examples of docs/http.md, one after the other: each has the status that the page says, and the members.

use std::{path::Path, process::Command};

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{Dev, Ended};

const PAGE: &str = include_str!("../../../docs/http.md");
/// Stands for the members that an answer has beside those that are shown.
const REST: &str = "…";
/// Members whose values are shown as they are; of others only the type is.
const EXACT: [&str; 16] = [
    "action", "code", "dry_run", "index", "kind", "limit", "mode", "name", "openapi", "paused", "priority",
    "queue", "reason", "state", "status", "version",
];
/// What a worker is called is that of its machine.
const OWN: &str = "/workers/";
/// What the commands name by a variable: the `id` of the latest answer that has the other member, too.
const NAMED: [(&str, &str); 3] = [("TASK", "kind"), ("BATCH", "total"), ("OPERATION", "action")];
/// Each answer is followed by its status. A stream without end is left when curl's time is over.
const CURL: &str =
    r#"curl() { command curl --silent --show-error --write-out '\n%{http_code}' "$@" || [ $? -eq 28 ]; }"#;

/// A command of the page, with what it answers.
#[derive(Debug, Default)]
struct Example {
    command: String,
    status: String,
    language: String,
    answer: String,
}

/// Its examples in order: a block of shell, a line that begins with a status, and perhaps a block with the answer.
fn examples() -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if let (Some(last), Some(code)) = (all.last_mut(), line.strip_prefix('`'))
                && last.status.is_empty()
            {
                last.status = code.chars().take_while(char::is_ascii_digit).collect();
            }
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        if language == "sh" {
            let command = block;
            all.push(Example {
                command,
                ..Example::default()
            });
        } else if let Some(last) = all.last_mut() {
            (last.language, last.answer) = (language.to_owned(), block);
        }
    }
    all
}

/// Runs a command as a person would who reads the page: its answer, and the status.
fn run(dev: &Dev, folder: &Path, named: &[(&str, String)], command: &str) -> (String, String) {
    // Into a file, since an answer may be more than a pipe holds.
    let script = format!(
        "exec >answer\n{CURL}\n{}",
        command.replace("http://127.0.0.1:8080", &dev.url)
    );
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(folder);
    for (name, value) in named {
        shell.env(name, value);
    }
    let output = shell.ended();
    assert!(output.status.success(), "{command}\n{output:?}");
    let said = std::fs::read_to_string(folder.join("answer")).unwrap();
    let (answer, status) = said.rsplit_once('\n').unwrap();
    (answer.trim_end().to_owned(), status.to_owned())
}

/// What is wrong with an answer, if anything is: members, types, and the values that are told as they are.
fn difference(at: &str, shown: &Value, found: &Value) -> Option<String> {
    match (shown, found) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Object(shown), Value::Object(found)) => {
            let missing = shown.keys().find(|key| *key != REST && !found.contains_key(*key));
            let unknown = found
                .keys()
                .find(|key| !shown.contains_key(*key) && !shown.contains_key(REST));
            missing
                .map(|key| format!("{at}/{key} is not there"))
                .or(unknown.map(|key| format!("{at}/{key} is not shown")))
                .or_else(|| {
                    let both = shown
                        .iter()
                        .filter_map(|(key, value)| Some((key, value, found.get(key)?)));
                    both.into_iter().find_map(|(key, shown, found)| {
                        let at = format!("{at}/{key}");
                        let is_exact =
                            EXACT.contains(&key.as_str()) && !shown.is_object() && !at.starts_with(OWN);
                        let is_other = is_exact && shown != found;
                        is_other
                            .then(|| format!("{at} is {found}, not {shown}"))
                            .or_else(|| difference(&at, shown, found))
                    })
                })
        }
        (Value::Array(shown), Value::Array(found)) => {
            if found.len() < shown.len() {
                return Some(format!("{at} has {} items", found.len()));
            }
            let mut pairs = shown.iter().zip(found).enumerate();
            pairs.find_map(|(index, (shown, found))| difference(&format!("{at}/{index}"), shown, found))
        }
        _ if std::mem::discriminant(shown) == std::mem::discriminant(found) => None,
        _ => Some(format!("{at} is {found}, which is no such thing as {shown}")),
    }
}

fn check(example: &Example, answer: &str) -> Option<String> {
    let parsed =
        |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    match example.language.as_str() {
        "json" => difference("", &parsed(&example.answer), &parsed(answer)),
        "ndjson" => {
            let lines = |text: &str| Value::Array(text.lines().map(parsed).collect());
            difference("", &lines(&example.answer), &lines(answer))
        }
        // Whether anything happens while it is listened to all tasks is a matter of luck.
        "text" if !example.command.contains("--max-time") => {
            let mut events = example.answer.lines().filter(|line| line.starts_with("event:"));
            let missing = events.find(|line| !answer.lines().any(|said| said == *line));
            missing.map(|line| format!("{line:?} is not in {answer}"))
        }
        _ => None,
    }
}

#[test]
fn every_example_is_answered_as_the_page_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let mut named: Vec<(&str, String)> = Vec::new();
    let examples = examples();
    assert!(examples.len() >= 24, "{}", examples.len());
    for example in &examples {
        let (answer, status) = run(&dev, folder.path(), &named, &example.command);
        assert_eq!(status, example.status, "{}\n{answer}", example.command);
        let wrong = check(example, &answer);
        assert_eq!(wrong, None, "{}\n{answer}", example.command);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        for (name, member) in NAMED {
            if let (Some(id), Some(_)) = (answer["id"].as_str(), answer.get(member)) {
                named.push((name, id.to_owned()));
            }
        }
    }
}

#[test]
fn the_check_sees_what_is_different() {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let wrong = |shown: &str, found: &str| difference("", &json(shown), &json(found)).unwrap_or_default();
    assert_eq!(wrong(r#"{"a":1,"b":null}"#, r#"{"a":2,"b":"x"}"#), "");
    assert_eq!(wrong(r#"{"a":1}"#, r#"{"a":2,"b":3}"#), "/b is not shown");
    assert_eq!(wrong(r#"{"a":1,"…":"…"}"#, r#"{"a":2,"b":3}"#), "");
    assert_eq!(wrong(r#"{"a":1,"…":"…"}"#, r#"{"b":3}"#), "/a is not there");
    assert_eq!(
        wrong(r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":"1"}]}"#),
        r#"/a/0/b is "1", which is no such thing as 1"#
    );
    assert_eq!(
        wrong(r#"{"state":"x"}"#, r#"{"state":"y"}"#),
        r#"/state is "y", not "x""#
    );
    assert_eq!(wrong(r#"{"a":[1]}"#, r#"{"a":[]}"#), "/a has 0 items");
}
