//! What is less urgent beside a flood of what is urgent: how much of the worker it gets, and how long none of it is
//! started. All of it is recorded before the worker begins, so that both lanes are full from the first moment to the last
//! start that counts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forebay_testkit::broker::BrokerKind;

use super::{
    Pace,
    figures::Figures,
    http::address,
    stream::{self, Reins},
};
use crate::stack::Stack;

/// The table that the figures go to.
pub(crate) const SECTION: &str = "priorities";
/// Its columns.
pub(crate) const COLUMNS: [&str; 5] = [
    "tasks",
    "share %",
    "most starts without",
    "at most, as promised",
    "longest without ms",
];

/// Slots of the worker.
const SLOTS: u64 = 50;
/// Of the flood.
const URGENT: u64 = 30_000;
/// Of each less urgent priority.
const OTHERS: u64 = 500;
/// What the promise says, in turns: docs/priorities.md.
const TURNS: u64 = 8 * 3;

const PATIENCE: Duration = Duration::from_secs(120);
/// How long a recorder may take to publish what is ready, once the last row is there.
const UNTIL_READY: Duration = Duration::from_secs(1);

/// What was started, in that order, with its priority and the time in seconds. What was claimed together has one time.
const STARTS: &str = "SELECT priority, extract(epoch FROM started_at) FROM tasks
    WHERE started_at IS NOT NULL ORDER BY started_at, priority";

/// One start: whether it was of the priority that is looked at, and when.
type Start = (bool, f64);

/// A task that takes a moment, so that its slot is what others wait for.
fn line(priority: &str) -> String {
    format!(r#"{{"kind":"sleep","priority":"{priority}","payload":{{"seconds":0.005}}}}"#)
}

/// Measures it on NATS.
pub(super) async fn measure(pace: Pace, figures: &mut Figures) -> Result<()> {
    let stack = Stack::start(BrokerKind::Nats).await?;
    let server = address(&stack.api.http)?;
    let (urgent, others) = (URGENT / pace.shrink, OTHERS / pace.shrink);
    let mut accepted = 0;
    let lines: [(stream::Line, u64); 3] = [
        (|_| line("low"), others),
        (|_| line("default"), others),
        (|_| line("high"), urgent),
    ];
    for (line, count) in lines {
        let bulk = stream::ndjson_of(server, 1, Reins::new(PATIENCE, count), false, line).await?;
        accepted += bulk.accepted;
    }
    ensure!(accepted == urgent + 2 * others, "only {accepted} were accepted");
    record(&stack, accepted).await?;
    let worker = stack.worker(&SLOTS.to_string()).await?;
    worker.wait_until_succeeded(accepted).await?;
    let starts = stack.postgres.psql("postgres", STARTS)?;
    for priority in ["default", "low"] {
        note(figures, priority, &starts)?;
    }
    Ok(())
}

async fn record(stack: &Stack, accepted: u64) -> Result<()> {
    let recorder = stack.worker_with(&["--roles", "recorder"]).await?;
    let deadline = Instant::now() + PATIENCE;
    while stack.count_tasks()?.0 < accepted {
        ensure!(
            Instant::now() < deadline,
            "not all {accepted} tasks were recorded"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(UNTIL_READY).await;
    drop(recorder);
    Ok(())
}

fn note(figures: &mut Figures, priority: &str, starts: &str) -> Result<()> {
    let parsed = starts.lines().map(|line| {
        let (of, at) = line.split_once('|').context("a priority and a time")?;
        Ok((of == priority, at.parse()?))
    });
    let starts: Vec<Start> = parsed.collect::<Result<_>>()?;
    let seen = Seen::of(&starts)?;
    let row = format!("{priority}, beside a flood of high");
    let bound = TURNS * SLOTS;
    for (column, reading) in [
        ("tasks", seen.count as f64),
        ("share %", seen.share * 100.0),
        ("most starts without", seen.most_starts as f64),
        ("at most, as promised", bound as f64),
        ("longest without ms", seen.longest * 1e3),
    ] {
        figures.note(SECTION, &row, column, reading);
    }
    ensure!(
        seen.most_starts <= bound,
        "{} tasks were started before one of {priority}, more than {bound}",
        seen.most_starts
    );
    Ok(())
}

/// What became of one priority, up to its last start.
#[derive(Debug, PartialEq)]
struct Seen {
    count: u64,
    /// Of all that was started meanwhile.
    share: f64,
    /// How many others were started between two of it, or before the first.
    most_starts: u64,
    /// The same in seconds, from the first start of all.
    longest: f64,
}

impl Seen {
    fn of(starts: &[Start]) -> Result<Self> {
        let last = starts
            .iter()
            .rposition(|(is_it, _)| *is_it)
            .context("none was started")?;
        let starts = &starts[..=last];
        let (mut most_starts, mut longest, mut count) = (0, 0.0, 0);
        let (mut others, mut since) = (0, starts[0].1);
        for &(is_it, at) in starts {
            if is_it {
                count += 1;
                most_starts = most_starts.max(others);
                longest = f64::max(longest, at - since);
                (others, since) = (0, at);
            } else {
                others += 1;
            }
        }
        Ok(Self {
            count,
            share: count as f64 / starts.len() as f64,
            most_starts,
            longest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_without_is_found_and_what_follows_the_last_does_not_count() {
        let starts = [
            (false, 1.0),
            (true, 1.5),
            (false, 1.5),
            (false, 2.0),
            (false, 3.0),
            (true, 3.5),
            (true, 3.5),
            (false, 9.0),
        ];
        let seen = Seen {
            count: 3,
            share: 3.0 / 7.0,
            most_starts: 3,
            longest: 2.0,
        };
        assert_eq!(Seen::of(&starts).unwrap(), seen);
        assert!(Seen::of(&starts[7..]).is_err());
    }

    #[test]
    fn lines_are_tasks_of_their_priority() {
        let line: serde_json::Value = serde_json::from_str(&line("low")).unwrap();
        assert_eq!(
            (&line["kind"], &line["priority"]),
            (&"sleep".into(), &"low".into())
        );
        assert_eq!(line["payload"]["seconds"], 0.005);
    }
}
