//! Runs the program.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::process::Command;

/// What a run of the program gave.
pub(crate) struct Outcome {
    /// Its exit code.
    pub(crate) code: i32,
    /// What it printed.
    pub(crate) printed: String,
    /// What it complained of.
    pub(crate) complaints: String,
    /// Its report, where it wrote one.
    pub(crate) report: Value,
    /// The same as a page.
    pub(crate) page: String,
}

impl Outcome {
    /// A number of the report.
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        let number = self.report.pointer(pointer).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no {pointer}; {}{}", self.printed, self.complaints))
    }

    /// A whole number of the report.
    pub(crate) fn count(&self, pointer: &str) -> u64 {
        self.number(pointer) as u64
    }
}

/// `forebay-loadtest run <arguments>`, divided by spaces, with a report.
pub(crate) async fn run(arguments: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("run.json"), folder.path().join("run.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_forebay-loadtest"))
        .arg("run")
        .args(arguments.split_whitespace())
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .env_remove("FOREBAY_URL")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let outcome = Outcome {
        code: output.status.code().unwrap_or(-1),
        printed: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
        report: serde_json::from_str(&read(&json)).unwrap_or_default(),
        page: read(&html),
    };
    if let Some(summary) = outcome.report.get("summary") {
        let count = |name: &str| summary[name].as_u64().unwrap();
        let answers = ["accepted", "refused", "failed", "unanswered"].map(count);
        assert_eq!(count("submitted"), answers.iter().sum::<u64>(), "{summary}");
    }
    outcome
}

/// The program `forebay`, built beside this one.
pub(crate) fn forebay() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_forebay-loadtest")).with_file_name("forebay");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p forebay`, as `make test` does",
        path.display()
    );
    path
}
