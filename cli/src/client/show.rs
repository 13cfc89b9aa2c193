//! A task as a person reads it.

use forebay_client::{Progress, Retry, Task, Unique};
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
        ("expires", when(&task.expires_at)),
        (
            "heartbeat",
            task.heartbeat_timeout_seconds
                .map(|seconds| format!("at least every {seconds} s")),
        ),
        ("retry", task.retry.as_ref().map(retry)),
        ("limit key", said(task.limit_key.as_deref())),
        ("unique", task.unique.as_ref().map(unique)),
        ("after", after(task)),
        ("notify", said(Some(&task.notify.join(", ")))),
        ("batch", task.batch.clone()),
        ("payload", task.payload.as_ref().map(|json| cut(json.get(), LONG))),
        ("result", task.result.as_ref().map(|json| cut(json.get(), LONG))),
    ];
    out.fields(lines)?;
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

/// A text, where it says anything.
pub(super) fn said(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| cut(text, LONG))
}

/// How it is tried again: `after 1 s, 10 s`, or what it says of the policy.
pub(super) fn retry(retry: &Retry) -> String {
    if !retry.delays_seconds.is_empty() {
        let delays: Vec<String> = retry
            .delays_seconds
            .iter()
            .map(|seconds| format!("{seconds} s"))
            .collect();
        return format!("after {}", delays.join(", "));
    }
    let parts = [
        retry.base_seconds.map(|seconds| format!("base {seconds} s")),
        retry.factor.map(|factor| format!("factor {factor}")),
        retry.cap_seconds.map(|seconds| format!("cap {seconds} s")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn unique(unique: &Unique) -> String {
    let until = unique.until.as_ref().map(|until| format!(", until {until}"));
    format!("{} on conflict{}", unique.on_conflict, until.unwrap_or_default())
}

fn after(task: &Task) -> Option<String> {
    let ids = said(Some(&task.after.join(", ")))?;
    Some(match task.on_dependency_failure.as_deref() {
        Some("run") => format!("{ids}, whatever becomes of them"),
        _ => ids,
    })
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
