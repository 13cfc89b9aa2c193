//! What is told of runs: as Markdown for the page, as plain text for the terminal. The same verdict always gives the
//! same text.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    check::{FaultLine, Verdict},
    table::{Lean, Table},
};

/// Where the table begins on the page.
pub const BEGIN: &str = "<!-- chaos:begin -->";
/// Where it ends.
pub const END: &str = "<!-- chaos:end -->";

/// How many violations are listed.
const LISTED_MAX: usize = 20;

const COLUMNS: [(&str, Lean); 8] = [
    ("fault", Lean::Left),
    ("of", Lean::Left),
    ("times", Lean::Right),
    ("accepted meanwhile", Lean::Right),
    ("lost", Lean::Right),
    ("outcomes doubled", Lean::Right),
    ("executions repeated", Lean::Right),
    ("longest stall", Lean::Right),
];

/// A run, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// What Forebay ran on, such as `NATS + PostgreSQL`.
    pub broker: String,
    /// The command that makes it again.
    pub command: String,
    /// Of which the run was made.
    pub seed: u64,
    /// Submissions a second; 0 where there is no steady load, and no seed either.
    pub rate: u32,
    /// How long it took.
    pub duration: Duration,
    /// For how long a stall may last, and a fault may show after it was undone.
    pub limit: Duration,
    /// What took part, each with its version, such as `PostgreSQL 15.18`.
    pub versions: Vec<String>,
    /// What else is to be said, such as times that were measured beside.
    pub notes: Vec<String>,
    /// What went wrong beside what the checker judges, such as a panic. Told as violations.
    pub problems: Vec<String>,
    /// What the checker found.
    pub verdict: Verdict,
}

/// The runs in Markdown, as they stand between the markers of the page.
#[must_use]
pub fn render(runs: &[RunReport]) -> String {
    let mut text = String::new();
    for run in runs {
        text.push_str(&markdown(run).unwrap_or_default());
    }
    text
}

/// The runs as plain text.
#[must_use]
pub fn render_plain(runs: &[RunReport]) -> String {
    let mut text = String::new();
    for run in runs {
        text.push_str(&plain(run).unwrap_or_default());
    }
    text
}

/// The page with these runs between its markers, in place of what was there.
///
/// # Errors
/// Where the page has not both markers, in their order.
pub fn put_into(page: &str, runs: &[RunReport]) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page lacks its first marker")?;
    let (_, after) = rest.split_once(END).context("the page lacks its last marker")?;
    Ok(format!(
        "{before}{BEGIN}\n\n{}\n{END}{after}",
        render(runs).trim_end()
    ))
}

fn markdown(run: &RunReport) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "### {}\n", run.broker)?;
    writeln!(text, "```sh\n{}\n```\n", run.command)?;
    writeln!(text, "{}\n", circumstances(run))?;
    writeln!(text, "{}", table(run, "**all**").markdown())?;
    writeln!(text, "{}\n", figures(&run.verdict))?;
    writeln!(text, "{}\n", notes_and_violations(run, "- "))?;
    Ok(text)
}

fn plain(run: &RunReport) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{}\n{}\n",
        run.broker,
        "=".repeat(run.broker.chars().count())
    )?;
    writeln!(text, "{}\n{}\n", run.command, circumstances(run))?;
    writeln!(text, "{}", table(run, "all").plain())?;
    writeln!(text, "{}\n", figures(&run.verdict))?;
    writeln!(text, "{}\n", notes_and_violations(run, "  "))?;
    Ok(text)
}

fn circumstances(run: &RunReport) -> String {
    let mut parts = Vec::new();
    // Some runs submit everything at once, and leave nothing to chance.
    if run.rate > 0 {
        parts.push(format!("Seed {}", run.seed));
        parts.push(format!("{} submissions a second", grouped(run.rate as usize)));
    }
    parts.push(minutes(run.duration));
    parts.push(counted(run.verdict.totals.faults, "fault", "faults"));
    parts.extend(run.versions.iter().cloned());
    format!("{}.", parts.join(" · "))
}

fn table(run: &RunReport, all: &str) -> Table {
    let mut table = Table::of(&COLUMNS);
    for line in &run.verdict.faults {
        table.push(row(line));
    }
    let totals = &run.verdict.totals;
    table.push(row(&FaultLine {
        fault: all.to_owned(),
        target: String::new(),
        times: totals.faults,
        accepted: totals.accepted,
        lost: totals.lost,
        doubled: totals.doubled,
        repeated: totals.repeated,
        longest_stall: totals.longest_stall,
    }));
    table
}

fn row(line: &FaultLine) -> Vec<String> {
    vec![
        line.fault.clone(),
        line.target.clone(),
        grouped(line.times),
        grouped(line.accepted),
        grouped(line.lost),
        grouped(line.doubled),
        grouped(line.repeated),
        seconds(line.longest_stall),
    ]
}

fn figures(verdict: &Verdict) -> String {
    let it = &verdict.totals;
    let finished: Vec<String> = it
        .finished
        .iter()
        .map(|(state, number)| format!("{} {state}", grouped(*number)))
        .collect();
    let ended = match finished.is_empty() {
        true => "none ended".to_owned(),
        false => format!("ended: {}", finished.join(", ")),
    };
    format!(
        "{} accepted by {}; {} whose answer did not arrive; {ended}. {}: {}, {}. {} never came to a call. The slowest \
         task took {} from its acceptance to its end.",
        counted(it.accepted, "task", "tasks"),
        counted(it.answers, "answer", "answers"),
        counted(it.untold, "more", "more"),
        counted(it.starts, "call of a handler", "calls of handlers"),
        counted(it.repeated, "repeated", "repeated"),
        counted(it.scripted, "told to fail", "told to fail"),
        counted(it.unstarted, "claim", "claims"),
        seconds(it.slowest),
    )
}

fn notes_and_violations(run: &RunReport, bullet: &str) -> String {
    let found = run.verdict.violations.iter().map(ToString::to_string);
    let violations: Vec<String> = run.problems.iter().cloned().chain(found).collect();
    let mut lines: Vec<String> = run.notes.iter().map(|note| format!("{bullet}{note}")).collect();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    if violations.is_empty() {
        lines.push(format!(
            "No violation. The limit of a stall is {}.",
            seconds(run.limit)
        ));
    } else {
        let number = counted(violations.len(), "VIOLATION", "VIOLATIONS");
        lines.push(format!("{number}:\n"));
        lines.extend(
            violations
                .iter()
                .take(LISTED_MAX)
                .map(|it| format!("{bullet}{it}")),
        );
    }
    if violations.len() > LISTED_MAX {
        lines.push(format!(
            "{bullet}and {} more",
            grouped(violations.len() - LISTED_MAX)
        ));
    }
    lines.join("\n")
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::check::{Breach, Totals, Violation};

    fn run(violations: Vec<Violation>) -> RunReport {
        let line = |fault: &str, target: &str, repeated| FaultLine {
            fault: fault.to_owned(),
            target: target.to_owned(),
            times: 12,
            accepted: 1_480,
            lost: 0,
            doubled: 0,
            repeated,
            longest_stall: Duration::from_millis(5_240),
        };
        RunReport {
            broker: "NATS + PostgreSQL".to_owned(),
            command: "forebay-chaos run --broker nats --faults 24 --seed 7".to_owned(),
            seed: 7,
            rate: 40,
            duration: Duration::from_secs(754),
            limit: Duration::from_secs(15),
            versions: vec!["PostgreSQL 15.18".to_owned(), "NATS 2.15.1".to_owned()],
            notes: vec![],
            problems: vec![],
            verdict: Verdict {
                violations,
                faults: vec![line("kill -9", "worker", 31), line("cut", "api–nats", 0)],
                totals: Totals {
                    faults: 24,
                    answers: 30_160,
                    accepted: 30_000,
                    untold: 1,
                    lost: 0,
                    doubled: 0,
                    starts: 31_031,
                    repeated: 31,
                    scripted: 1_000,
                    unstarted: 4,
                    finished: BTreeMap::from([("cancelled".to_owned(), 9), ("succeeded".to_owned(), 29_992)]),
                    longest_stall: Duration::from_millis(5_240),
                    slowest: Duration::from_secs(11),
                },
            },
        }
    }

    fn violation() -> Violation {
        Violation {
            at: Duration::from_millis(12_345),
            task: Some(Uuid::from_u128(7)),
            breach: Breach::Lost { state: None },
        }
    }

    #[test]
    fn a_good_run_in_markdown() {
        insta::assert_snapshot!(render(&[run(vec![])]));
    }

    #[test]
    fn a_bad_run_in_plain_text() {
        let mut bad = run(vec![violation(); LISTED_MAX + 1]);
        bad.notes
            .push("all was final 3.2 s after the last submission".to_owned());
        bad.problems.push("the api panicked".to_owned());
        insta::assert_snapshot!(render_plain(&[bad]));
    }

    #[test]
    fn the_page_keeps_its_text() {
        let page = format!("# Page\n\nbefore\n\n{BEGIN}\nformer\n{END}\n\nafter\n");
        let once = put_into(&page, &[run(vec![])]).expect("it has its markers");
        assert!(
            once.starts_with("# Page\n\nbefore\n\n<!-- chaos:begin -->\n\n### NATS"),
            "{once}"
        );
        assert!(once.ends_with("\n<!-- chaos:end -->\n\nafter\n"), "{once}");
        assert!(!once.contains("former"));
        assert_eq!(put_into(&once, &[run(vec![])]).expect("it has its markers"), once);
        assert!(once.contains("No violation."));
        assert!(put_into("# Page", &[]).is_err());
        assert!(put_into(&format!("{END}{BEGIN}"), &[]).is_err());
    }

    #[test]
    fn what_is_written_to_a_file_is_read_back() {
        let report = run(vec![violation()]);
        let text = serde_json::to_string(&report).expect("it is plain data");
        assert_eq!(
            serde_json::from_str::<RunReport>(&text).expect("it was just written"),
            report
        );
    }

    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 999, 1_000, 12_345, 1_000_000].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,000,000"]);
    }
}
