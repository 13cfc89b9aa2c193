use std::collections::BTreeMap;

use super::*;
use crate::{database::Figures, tally::histogram};

/// A report with something in every member.
fn sample() -> Report {
    let mut latency = histogram();
    for us in [900, 1_000, 1_100, 2_500, 40_000] {
        latency.record(us).unwrap();
    }
    let distribution = Distribution::of(&latency);
    let point = Point {
        at: 0.5,
        seconds: 0.5,
        planned: 5,
        submitted: 5,
        accepted: 5,
        finished: Some(5),
        latency_ms: distribution.percentiles_ms,
        behind_ms_max: Some(0.08),
        in_flight: 1,
        ready: Some(2),
        running: Some(1),
        scheduled: Some(0),
        workers: Some(1),
        slots: Some(100),
        busy: Some(1),
        memory_mib: BTreeMap::from([("api".to_owned(), 17.5)]),
        generator_cores: Some(0.05),
        database: Some(Figures {
            live_tuples: 5,
            dead_tuples: 2,
            bytes: 81_920,
            active: 1,
        }),
        ..Point::default()
    };
    let mut report = Report {
        version: VERSION,
        began_at: "2026-03-01T12:00:00.5Z".to_owned(),
        settings: Settings {
            profile: "steady, 10/s".to_owned(),
            transport: Transport::Http,
            url: "127.0.0.1:8080".to_owned(),
            started_by_us: None,
            seconds: 0.5,
            tasks_planned: 5,
            tasks_max: None,
            in_flight_max: 20_000,
            spacing: Spacing::Poisson,
            seed: 1,
            connections: 32,
            threads: 1,
            timeout_seconds: 30.0,
            retries_max: 0,
            kind: "echo".to_owned(),
            queue: "default".to_owned(),
            priorities: "default".to_owned(),
            payload_bytes: 256,
            tag: Some("<load>".to_owned()),
            check: Check::Api,
            drain_seconds: 300.0,
        },
        environment: Environment {
            generator: "forebay-loadtest 0.1.0".to_owned(),
            generator_build: "release".to_owned(),
            server: "Forebay 0.1.0".to_owned(),
            database: Some("PostgreSQL 15.9".to_owned()),
            os: "linux 6.1".to_owned(),
            processor: "one".to_owned(),
            cores: 2,
        },
        summary: Summary {
            seconds: 0.5,
            seconds_to_last_end: Some(0.52),
            submitted: 5,
            accepted: 5,
            accepted_per_second: 10.0,
            finished_per_second: Some(9.615),
            ..Summary::default()
        },
        account: Account {
            checked_by: "api".to_owned(),
            accepted: 5,
            succeeded: 5,
            holds: true,
            ..Account::default()
        },
        verdict: Verdict::default(),
        latency: distribution.clone(),
        lag: Distribution::default(),
        queued: Distribution::default(),
        wait: distribution.clone(),
        turnaround: distribution,
        points: vec![point],
    };
    report.verdict = judge(&report);
    report
}

#[test]
fn the_form_of_the_report_is_kept() {
    insta::assert_json_snapshot!(sample());
}

#[test]
fn a_report_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    sample().write_json(&path).unwrap();
    let read = Report::read_json(&path).unwrap();
    assert_eq!(
        serde_json::to_value(&read).unwrap(),
        serde_json::to_value(sample()).unwrap()
    );
}

#[test]
fn the_page_shows_everything_and_takes_text_as_text() {
    let page = html(&sample());
    for plot in [
        "Throughput",
        "Latency of submissions",
        "Distribution",
        "Queue",
        "Workers",
        "Memory",
        "Rows",
        "Size of the tables",
        "Behind schedule",
        "Unanswered",
    ] {
        assert!(page.contains(&format!("<h3>{plot}</h3>")), "{plot}");
    }
    assert!(page.contains("&lt;load&gt;") && !page.contains("<load>"));
    assert!(
        !page.contains("NaN") && !page.contains("inf"),
        "a number that is none"
    );
}

#[test]
fn a_broken_promise_fails_whatever_else_was_well() {
    let mut report = sample();
    assert!(judge(&report).passed && judge(&report).warnings.is_empty());
    report.account.lost = 1;
    report.account.succeeded = 4;
    report.account.holds = false;
    let verdict = judge(&report);
    assert!(!verdict.passed);
    assert!(verdict.sentences[0].contains("1 lost"), "{:?}", verdict.sentences);
    let nothing = Report {
        summary: Summary::default(),
        ..sample()
    };
    assert!(
        !judge(&nothing).passed,
        "a run in which nothing was accepted proves nothing"
    );
}

#[test]
fn a_generator_that_was_late_says_so() {
    let mut report = sample();
    let mut lag = histogram();
    lag.record(250_000).unwrap();
    report.lag = Distribution::of(&lag);
    let warnings = judge(&report).warnings;
    assert!(warnings[0].contains("fell behind by 250 ms"), "{warnings:?}");
}

#[test]
fn a_distribution_loses_nobody() {
    let mut histogram = histogram();
    for us in 1..10_000 {
        histogram.record(us * 7).unwrap();
    }
    let distribution = Distribution::of(&histogram);
    assert_eq!(
        distribution
            .buckets
            .iter()
            .map(|bucket| bucket.count)
            .sum::<u64>(),
        9_999
    );
    assert!(distribution.buckets.is_sorted_by(|a, b| a.up_to_ms < b.up_to_ms));
    assert!(distribution.buckets.len() < 45);
}
