//! A task as a person reads it.

use forebay_client::{Progress, Task};
use jiff::Timestamp;

use super::print::Printer;
use crate::exit::Result;

/// The columns of [`row`].
pub(crate) const COLUMNS: [&str; 7] = ["ID", "STATE", "KIND", "QUEUE", "ATTEMPT", "CREATED", "ERROR"];

/// How much of a payload, a result or an error a line shows.
pub(crate) const SHORT: usize = 60;
pub(super) const LONG: usize = 2_000;

/// A task as one line of a list.
pub(crate) fn row(task: &Task) -> Vec<String> {
    vec![
        task.id.clone(),
        state(task),
        task.kind.clone(),
        task.queue.clone(),
        attempts(task),
        ago(Timestamp::now(), &task.created_at),
        task.error
            .as_ref()
            .map_or_else(String::new, |error| cut(&error.message, SHORT)),
    ]
}

/// Its state, and whether it is about to be cancelled.
pub(crate) fn state(task: &Task) -> String {
    match task.cancel_requested && !task.is_final() {
        true => format!("{} (cancel requested)", task.state),
        false => task.state.clone(),
    }
}

fn attempts(task: &Task) -> String {
    match task.max_attempts {
        Some(max) => format!("{}/{max}", task.attempt),
        None => task.attempt.to_string(),
    }
}

/// How far a task is, as it says: `37 %  page 3 of 8`.
pub(crate) fn progress(progress: &Progress) -> String {
    // What is not done is not shown as done.
    let percent = (progress.fraction.clamp(0.0, 1.0) * 100.0 + 1e-9).floor();
    match progress.message.as_str() {
        "" => format!("{percent} %"),
        message => format!("{percent} %  {}", cut(message, LONG)),
    }
}

/// All of a task.
pub(crate) fn task(out: &mut Printer, task: &Task) -> Result<()> {
    if out.is_json() {
        return out.json(task);
    }
    let now = Timestamp::now();
    let when = |time: &Option<String>| time.as_ref().map(|time| format!("{time}  ({})", ago(now, time)));
    let lines = [
        ("id", Some(task.id.clone())),
        ("state", Some(state(task))),
        ("kind", Some(task.kind.clone())),
        (
            "queue",
            Some(format!("{} ({} priority)", task.queue, task.priority)),
        ),
        ("attempt", Some(attempts(task))),
        (
            "progress",
            task.progress
                .as_ref()
                .map(|it| format!("{}  ({})", progress(it), ago(now, &it.at))),
        ),
        ("tags", (!task.tags.is_empty()).then(|| task.tags.join(", "))),
        ("run at", when(&task.run_at)),
        ("created", when(&Some(task.created_at.clone()))),
        ("started", when(&task.started_at)),
        ("finished", when(&task.finished_at)),
        (
            "timeout",
            task.timeout_seconds.map(|seconds| format!("{seconds} s")),
        ),
        ("worker", task.worker.clone()),
        ("payload", task.payload.as_ref().map(|json| cut(json.get(), LONG))),
        ("result", task.result.as_ref().map(|json| cut(json.get(), LONG))),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            out.line(format_args!("{name:<9} {value}"))?;
        }
    }
    for error in &task.errors {
        let message = cut(&error.message, LONG);
        out.line(format_args!(
            "error     attempt {} {}, {}: {message}",
            error.attempt, error.outcome, error.at
        ))?;
    }
    if let Some(log) = task.log.as_deref().filter(|log| !log.is_empty()) {
        out.line("log")?;
        for line in log.lines() {
            out.line(format_args!("  {}", printable(line)))?;
        }
    }
    Ok(())
}

/// How long ago a time was, or in how long it will be, in its largest unit.
pub(crate) fn ago(now: Timestamp, time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else {
        return time.to_owned();
    };
    let seconds = now.as_second() - then.as_second();
    let (amount, unit) = match seconds.abs() {
        s if s < 120 => (s, "s"),
        s if s < 7_200 => (s / 60, "m"),
        s if s < 172_800 => (s / 3_600, "h"),
        s => (s / 86_400, "d"),
    };
    if seconds < 0 {
        format!("in {amount}{unit}")
    } else {
        format!("{amount}{unit} ago")
    }
}

/// The beginning of a text, on one line, and without what would steer the terminal.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut short: String = printable(&text.replace('\n', " ")).chars().take(max).collect();
    if text.chars().count() > max {
        short.push('…');
    }
    short
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for (time, told) in [
            ("2026-03-01T11:59:30Z", "30s ago"),
            ("2026-03-01T11:00:00Z", "60m ago"),
            ("2026-02-27T12:00:00Z", "2d ago"),
            ("2026-03-01T12:05:00Z", "in 5m"),
            ("soon", "soon"),
        ] {
            assert_eq!(ago(now, time), told);
        }
    }

    #[test]
    fn progress_is_told_in_whole_percents_of_what_is_done() {
        for (fraction, message, told) in [
            (0.375, "page 3 of 8", "37 %  page 3 of 8"),
            (0.29, "", "29 %"),
            (0.999, "", "99 %"),
            (1.0, "a\u{7}b", "100 %  a\u{fffd}b"),
        ] {
            let it = Progress {
                fraction,
                message: message.to_owned(),
                at: String::new(),
            };
            assert_eq!(progress(&it), told);
        }
    }

    #[test]
    fn text_from_a_handler_cannot_steer_the_terminal() {
        assert_eq!(cut("a\u{1b}[31mb\nc", 60), "a\u{fffd}[31mb c");
        assert_eq!(cut("abcdef", 3), "abc…");
    }
}
