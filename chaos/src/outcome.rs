//! What a run ends with: said on the terminal, and written down for the page.

use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use forebay_chaos::{
    check,
    evidence::Evidence,
    report::{self, RunReport},
};

use crate::{
    Backend,
    scene::{Scene, write_json},
};

/// How many violations are said; all are in the folder.
const SAID_MAX: usize = 40;

/// What a scenario knows of itself.
#[derive(Debug)]
pub(crate) struct Account {
    /// What Forebay ran on, and what was done to it where that is not the usual.
    pub(crate) title: String,
    /// What makes it again, after the program's name.
    pub(crate) command: String,
    pub(crate) seed: u64,
    /// Submissions a second.
    pub(crate) rate: u32,
    /// What else is to be said.
    pub(crate) notes: Vec<String>,
    /// Violations beside those that the evidence shows: stalls, panics, answers that nobody should get.
    pub(crate) problems: Vec<String>,
}

/// Says a line on standard output, at once.
pub(crate) fn say(line: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    // Where nobody listens, the exit code still tells.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Judges a run, says how it went, writes that down, and returns whether every promise was kept.
pub(crate) async fn conclude(
    scene: &Scene,
    evidence: &Evidence,
    account: Account,
    file: Option<&Path>,
) -> Result<bool> {
    let mut notes = account.notes;
    notes.extend(scene.said());
    let run = RunReport {
        broker: account.title,
        command: format!("forebay-chaos {}", account.command),
        seed: account.seed,
        rate: account.rate,
        duration: scene.watch.now(),
        limit: evidence.aftermath,
        versions: scene.stack.versions().await,
        notes,
        problems: account.problems,
        verdict: check::check(evidence),
    };
    write_json(&scene.folder.join("report.json"), &run)?;
    if let Some(file) = file {
        write_json(file, &run)?;
    }
    let kept = run.problems.is_empty() && run.verdict.holds();
    for violation in run.verdict.violations.iter().take(SAID_MAX) {
        say(format_args!("VIOLATION {violation}"));
    }
    say(format_args!(
        "\n{}",
        report::render_plain(std::slice::from_ref(&run))
    ));
    say(format_args!("evidence and logs: {}", scene.folder.display()));
    Ok(kept)
}

/// Puts the reports of several runs into a page; whether all of them kept every promise.
pub(crate) fn render(files: &[PathBuf], page: &Path) -> Result<bool> {
    let mut runs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let run: RunReport =
            serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))?;
        runs.push(run);
    }
    let former = std::fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    std::fs::write(page, report::put_into(&former, &runs)?)?;
    Ok(runs
        .iter()
        .all(|run| run.problems.is_empty() && run.verdict.holds()))
}

impl Backend {
    /// What it is called on the command line.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Rabbitmq => "rabbitmq",
            Self::Embedded => "embedded",
        }
    }
}
