//! The tables: in Markdown, on the page and on the terminal alike.

use std::{fmt::Write, path::Path};

use anyhow::{Context, Result};
use forebay_testkit::broker::BrokerKind;

use super::{
    figures::{Figures, Row, median},
    forebay, limited, priorities, ratios,
    ratios::grouped,
    scale,
};
use crate::{limits, peers};

/// Where the tables of a run begin and end on the page.
const BENCH: [&str; 2] = ["<!-- bench:begin -->", "<!-- bench:end -->"];
/// The same, of a run with many rows.
const SCALE: [&str; 2] = ["<!-- bench-scale:begin -->", "<!-- bench-scale:end -->"];

/// The columns that tell of work done at a rate.
const WORK: [&str; 6] = ["per second", "CPU µs", "load µs", "p50 ms", "p99 ms", "refused"];

/// Those of the peers.
const PEERS: [&str; 11] = [
    "submit/s",
    "submit p99 ms",
    "bulk/s",
    "drain/s",
    "drain with start/s",
    "drain CPU µs",
    "sustained/s",
    "sustained bulk/s",
    "p50 ms",
    "p99 ms",
    "memory MiB",
];

/// Puts the tables of the runs that there are between their markers on the page.
pub(super) fn into_page(page: &Path, bench: &Path, scale: &Path) -> Result<()> {
    let mut text = std::fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    for (markers, results) in [(BENCH, bench), (SCALE, scale)] {
        if results.exists() {
            text = between(&text, markers, &markdown(&Figures::read(results)?))?;
        }
    }
    std::fs::write(page, text).with_context(|| format!("write {}", page.display()))
}

fn between(page: &str, [begin, end]: [&str; 2], tables: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(begin)
        .with_context(|| format!("the page lacks {begin}"))?;
    let (_, after) = rest
        .split_once(end)
        .with_context(|| format!("the page lacks {end}"))?;
    Ok(format!(
        "{before}{begin}\n\n{}\n\n{end}{after}",
        tables.trim_end()
    ))
}

/// All tables of a run.
pub(super) fn markdown(figures: &Figures) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut text, figures);
    text
}

fn write_all(text: &mut String, figures: &Figures) -> std::fmt::Result {
    writeln!(text, "{}\n", circumstances(figures))?;
    write_ratios(text, figures)?;
    for (title, section, columns) in [
        (
            "Forebay on NATS",
            forebay::section(BrokerKind::Nats),
            WORK.as_slice(),
        ),
        (
            "Forebay on RabbitMQ",
            forebay::section(BrokerKind::RabbitMq),
            &WORK,
        ),
        (
            "Forebay at rest, and in one process",
            forebay::SMALL,
            &["MiB", "ms", "per second", "CPU µs"],
        ),
        (
            "The same tasks with and without a limit, submit to outcome",
            limited::SECTION,
            &WORK,
        ),
        (
            "Priorities: both lanes full throughout",
            priorities::SECTION,
            &priorities::COLUMNS,
        ),
        (
            "Many rows",
            scale::SECTION,
            &[
                "per second",
                "ratio",
                "p50 ms",
                "p99 ms",
                "most ms",
                "tasks",
                "MiB",
            ],
        ),
        ("Limits of the parts", limits::SECTION, &WORK[..5]),
        ("Peers", peers::SECTION, &PEERS),
    ] {
        write_table(text, figures, title, section, columns)?;
    }
    write_list(text, "Versions", &figures.versions, " · ")?;
    write_list(text, "Settings", &figures.settings, "\n- ")?;
    write_list(text, "Noise", &figures.remarks, "\n- ")?;
    let failures: Vec<String> = figures
        .failures
        .iter()
        .map(|failure| format!("{}, round {}: {}", failure.case, failure.round, failure.error))
        .collect();
    write_list(text, "Did not come to its end", &failures, "\n- ")
}

fn circumstances(figures: &Figures) -> String {
    let rounds = match figures.rounds() {
        1 => "one round".to_owned(),
        many => format!("medians of {many} interleaved rounds, with their range"),
    };
    let quick = if figures.quick { ", short windows" } else { "" };
    format!(
        "{} · {rounds}{quick} · {}.",
        figures.date,
        figures.machine.join(" · ")
    )
}

fn write_ratios(text: &mut String, figures: &Figures) -> std::fmt::Result {
    let lines = ratios::of(figures);
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "### Ratios\n\n| what | Forebay | against | ratio | aim | reached |\n|---|---:|---:|---:|---|---|"
    )?;
    for line in lines {
        let ratio = line
            .ratio
            .map_or_else(String::new, |ratio| format!("**{ratio:.2}**"));
        let (aim, reached) = line.target.map_or((String::new(), ""), |(aim, reached)| {
            (aim, if reached { "yes" } else { "no" })
        });
        writeln!(
            text,
            "| {} | {} | {} | {ratio} | {aim} | {reached} |",
            line.what, line.figure, line.against
        )?;
    }
    writeln!(text)
}

fn write_table(
    text: &mut String,
    figures: &Figures,
    title: &str,
    section: &str,
    columns: &[&str],
) -> std::fmt::Result {
    let rows: Vec<&Row> = figures.section(section).collect();
    let used: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|column| {
            rows.iter().any(|row| {
                row.series(column)
                    .is_some_and(|all| all.iter().any(|&one| one != 0.0))
            })
        })
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "### {title}\n\n| | {} |\n|---|{}",
        used.join(" | "),
        "---:|".repeat(used.len())
    )?;
    for row in rows {
        write!(text, "| {} |", row.name)?;
        for (index, column) in used.iter().enumerate() {
            let cell = row
                .series(column)
                .map_or_else(String::new, |all| cell(all, index == 0));
            write!(text, " {cell} |")?;
        }
        writeln!(text)?;
    }
    writeln!(text)
}

/// The median; in the first column with the range.
fn cell(readings: &[f64], with_range: bool) -> String {
    let middle = number(median(readings));
    if !with_range || readings.len() < 2 {
        return middle;
    }
    let (low, high) = readings.iter().fold((f64::MAX, f64::MIN), |(low, high), &one| {
        (low.min(one), high.max(one))
    });
    format!("**{middle}** ({} to {})", number(low), number(high))
}

fn number(reading: f64) -> String {
    match reading.abs() {
        size if size >= 100.0 => grouped(reading),
        size if size >= 10.0 => format!("{reading:.1}"),
        _ => format!("{reading:.2}"),
    }
}

fn write_list(text: &mut String, title: &str, items: &[String], divider: &str) -> std::fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let first = if divider.starts_with('\n') { "\n- " } else { " " };
    writeln!(text, "{title}:{first}{}\n", items.join(divider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_replace_what_was_between_the_markers() {
        let mut figures = Figures {
            date: "2026-01-01".into(),
            ..Figures::default()
        };
        for rate in [1_000.0, 3_000.0, 2_000.0] {
            figures.note(limits::SECTION, "a part", "per second", rate);
        }
        let page = format!("before {}\nold\n{} after", BENCH[0], BENCH[1]);
        let once = between(&page, BENCH, &markdown(&figures)).unwrap();
        assert!(once.starts_with("before ") && once.ends_with(" after") && !once.contains("old"));
        assert!(once.contains("| a part | **2,000** (1,000 to 3,000) |"), "{once}");
        assert_eq!(between(&once, BENCH, &markdown(&figures)).unwrap(), once);
        assert!(between("no markers", BENCH, "").is_err());
    }
}
