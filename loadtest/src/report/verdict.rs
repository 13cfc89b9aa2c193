//! What a run means, in words.

use super::{Report, Summary, Verdict};
use crate::ledger::Account;

/// So much of the p99 may be the generator's own doing before a warning says so.
const LAG_SHARE_MAX: f64 = 0.1;
/// Less lag than this is never worth a warning, in milliseconds.
const LAG_MS_MIN: f64 = 1.0;
/// More of a wait for a free connection than this is worth a warning.
const QUEUED_MS_MAX: f64 = 5.0;
/// More of a lag than this always is.
const BEHIND_MS_MAX: f64 = 100.0;

/// Judges a report that is complete but for its verdict.
pub(crate) fn judge(report: &Report) -> Verdict {
    let (summary, account) = (&report.summary, &report.account);
    let passed = account.holds && summary.accepted > 0;
    let mut sentences = vec![promise(account)];
    sentences.push(answers(summary));
    sentences.extend(latency(report));
    sentences.extend(turnaround(report));
    Verdict {
        passed,
        title: title(summary, account).to_owned(),
        sentences,
        warnings: warnings(report),
    }
}

fn title(summary: &Summary, account: &Account) -> &'static str {
    if summary.accepted == 0 {
        "Nothing was accepted"
    } else if account.holds {
        "Every accepted task has exactly one outcome"
    } else if account.lost > 0 {
        "Accepted tasks were lost"
    } else if account.answered_twice + account.executed_twice > 0 {
        "Tasks were doubled"
    } else {
        "Not every accepted task came to an end in time"
    }
}

fn promise(account: &Account) -> String {
    let number = number;
    let mut text = format!(
        "{} accepted = {} succeeded + {} failed + {} cancelled + {} expired",
        number(account.accepted),
        number(account.succeeded),
        number(account.failed),
        number(account.cancelled),
        number(account.expired),
    );
    let faults = [
        (account.lost, "lost"),
        (account.unfinished, "not final in time"),
        (account.answered_twice, "answered with an id that another had"),
    ];
    for (count, what) in faults {
        if count > 0 {
            text += &format!(" + {} {what}", number(count));
        }
    }
    text += ".";
    if account.executed_twice > 0 {
        text += &format!(
            " {} were started more often than their attempts explain.",
            number(account.executed_twice)
        );
    }
    if account.restarted > 0 {
        text += &format!(
            " {} were started again for a recorded reason.",
            number(account.restarted)
        );
    }
    text
}

fn answers(summary: &Summary) -> String {
    let mut text = format!(
        "Of {} submitted in {} s, {} were accepted ({} a second)",
        number(summary.submitted),
        decimal(summary.seconds),
        number(summary.accepted),
        number(summary.accepted_per_second.round() as u64),
    );
    let others = [
        (summary.refused, "refused"),
        (summary.failed, "answered with an error"),
        (summary.unanswered, "not answered"),
        (summary.unsent, "not sent for want of time"),
    ];
    for (count, what) in others {
        if count > 0 {
            text += &format!(", {} {what}", number(count));
        }
    }
    if others.iter().all(|(count, _)| *count == 0) {
        text += ", and none was refused";
    }
    text + "."
}

fn latency(report: &Report) -> Option<String> {
    let told = report.latency.percentiles_ms?;
    Some(format!(
        "From the time it was due, half of the tasks were accepted within {} ms, 99 % within {} ms, all within {} ms.",
        decimal(told.p50),
        decimal(told.p99),
        decimal(told.max)
    ))
}

fn turnaround(report: &Report) -> Option<String> {
    let (wait, all) = (report.wait.percentiles_ms?, report.turnaround.percentiles_ms?);
    let rate = report.summary.finished_per_second?;
    Some(format!(
        "After acceptance, half of them started within {} ms and ended within {} ms, 99 % within {} and {} ms; {} ended a second.",
        decimal(wait.p50),
        decimal(all.p50),
        decimal(wait.p99),
        decimal(all.p99),
        number(rate.round() as u64)
    ))
}

fn warnings(report: &Report) -> Vec<String> {
    let summary = &report.summary;
    let mut warnings = Vec::new();
    if let (Some(lag), Some(latency)) = (report.lag.percentiles_ms, report.latency.percentiles_ms) {
        let share = lag.p99 > LAG_MS_MIN && lag.p99 > latency.p99 * LAG_SHARE_MAX;
        if share || lag.max > BEHIND_MS_MAX {
            warnings.push(format!(
                "The generator fell behind by {} ms at the worst (99 % of the tasks: {} ms). Latency counts that in: \
                 it is from when a task was due, not from when it was sent.",
                decimal(lag.max),
                decimal(lag.p99)
            ));
        }
    }
    if let (Some(queued), Some(lag)) = (report.queued.percentiles_ms, report.lag.percentiles_ms)
        && queued.p99 - lag.p99 > QUEUED_MS_MAX
    {
        warnings.push(format!(
                "Tasks waited for a free connection, 99 % of them up to {} ms: all {} were busy. Either the server could \
                 take no more, or --connections is too small.",
                decimal(queued.p99),
                report.settings.connections
            ));
    }
    if summary.held_back > 0 {
        warnings.push(format!(
            "{} tasks at a time were unanswered, which is the bound (--in-flight-max), so the load was less than planned.",
            number(report.settings.in_flight_max as u64)
        ));
    }
    if summary.unsent > 0 {
        warnings.push(format!(
            "{} tasks were due and never sent: the load was more than the generator or the server could take.",
            number(summary.unsent)
        ));
    }
    if summary.unanswered > 0 {
        warnings.push(format!(
            "{} submissions have no answer. They may have been accepted; {} tasks were found that no answer names.",
            number(summary.unanswered),
            number(report.account.strangers)
        ));
    } else if report.account.strangers > 0 && summary.refused == 0 {
        warnings.push(format!(
            "{} tasks were found that no answer names.",
            number(report.account.strangers)
        ));
    }
    if summary.interrupted {
        warnings.push("The run was ended by hand.".to_owned());
    }
    if report.environment.generator_build == "debug" {
        warnings
            .push("The generator is a debug build, several times slower than a release build.".to_owned());
    }
    warnings
}

/// With a comma for every three digits.
pub(super) fn number(number: u64) -> String {
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

/// With as many digits as say something.
pub(super) fn decimal(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.995 => format!("{value:.2}"),
        small if small < 99.5 => format!("{value:.1}"),
        _ => number(value.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read() {
        assert_eq!(
            (number(7), number(1_234), number(1_234_567)),
            ("7".into(), "1,234".into(), "1,234,567".into())
        );
        let written = [0.0, 0.126, 0.999, 7.25, 99.9, 1_234.5].map(decimal);
        assert_eq!(written, ["0", "0.13", "1.0", "7.2", "100", "1,235"]);
    }
}
