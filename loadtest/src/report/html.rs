//! The report as one page that needs nothing else: no network, and no script to be read.

use super::{
    Distribution, Percentiles, Point, Report,
    chart::{Bars, Plot, Series, escape},
    page,
    verdict::{decimal, number},
};

/// The page.
pub(crate) fn html(report: &Report) -> String {
    let verdict = &report.verdict;
    let (class, word) = if verdict.passed {
        ("good", "passed")
    } else {
        ("bad", "failed")
    };
    let sentences: String = verdict
        .sentences
        .iter()
        .map(|text| format!("<p>{}</p>", escape(text)))
        .collect();
    let warnings: String = verdict
        .warnings
        .iter()
        .map(|text| format!("<li>{}</li>", escape(text)))
        .collect();
    let warnings = if warnings.is_empty() {
        warnings
    } else {
        format!("<ul class=\"warnings\">{warnings}</ul>")
    };
    let body = format!(
        r#"<header><p class="kind">Forebay load test · {profile} · {transport} · {began}</p>
<h1>{title}</h1><p><span class="badge {class}">{word}</span></p></header>
<section class="words">{sentences}{warnings}</section>
<section class="tiles">{tiles}</section>
<section class="plots">{plots}</section>
<section class="tables">{tables}</section>
<footer>Latency is counted from the time at which a task was due, whatever held it up, so a stall of the server shows in full.
Written by {generator}.</footer>"#,
        profile = escape(&report.settings.profile),
        transport = transport(report),
        began = escape(report.began_at.split('.').next().unwrap_or_default()),
        title = escape(&verdict.title),
        tiles = tiles(report),
        plots = plots(report),
        tables = tables(report),
        generator = escape(&report.environment.generator),
    );
    page::frame(&format!("Forebay load test: {}", report.settings.profile), &body)
}

fn transport(report: &Report) -> &'static str {
    use crate::transport::Transport;
    match report.settings.transport {
        Transport::Http => "HTTP, one task a request",
        Transport::Ndjson => "HTTP, streams of NDJSON",
        Transport::Grpc => "gRPC streams",
    }
}

fn tile(name: &str, value: &str, unit: &str) -> String {
    format!("<div><span>{name}</span><strong>{value}<small> {unit}</small></strong></div>")
}

fn tiles(report: &Report) -> String {
    let summary = &report.summary;
    let mut tiles = tile("accepted", &number(summary.accepted), "tasks");
    tiles += &tile("accepted, rate", &decimal(summary.accepted_per_second), "/s");
    if let Some(rate) = summary.finished_per_second {
        tiles += &tile("ended, rate", &decimal(rate), "/s");
    }
    if let Some(told) = report.latency.percentiles_ms {
        tiles += &tile("submission p50", &decimal(told.p50), "ms");
        tiles += &tile("submission p99", &decimal(told.p99), "ms");
    }
    if let Some(told) = report.turnaround.percentiles_ms {
        tiles += &tile("until end, p99", &decimal(told.p99), "ms");
    }
    tiles += &tile("lost", &number(report.account.lost), "");
    tiles += &tile(
        "doubled",
        &number(report.account.answered_twice + report.account.executed_twice),
        "",
    );
    tiles
}

/// A value of each point, over time.
fn over<'a>(
    report: &'a Report,
    value: impl Fn(&Point) -> Option<f64> + 'a,
) -> impl Iterator<Item = (f64, Option<f64>)> + 'a {
    report.points.iter().map(move |point| (point.at, value(point)))
}

fn rate<'a>(report: &'a Report, count: impl Fn(&Point) -> Option<u64> + 'a) -> Vec<(f64, Option<f64>)> {
    over(report, move |point| {
        count(point).map(|count| count as f64 / point.seconds.max(1e-3))
    })
    .collect()
}

fn plots(report: &Report) -> String {
    let seconds = report.points.last().map_or(1.0, |point| point.at);
    let mut html = throughput(report).html(seconds);
    html += &latency(report).html(seconds);
    html += &distribution(report).html();
    html += &depth(report).html(seconds);
    html += &workers(report).html(seconds);
    html += &memory(report).html(seconds);
    for plot in database(report).into_iter().chain(generator(report)) {
        html += &plot.html(seconds);
    }
    html
}

fn throughput(report: &Report) -> Plot {
    let line = |name: &str, class, count: fn(&Point) -> Option<u64>| {
        Series::new(name, class, rate(report, count).into_iter())
    };
    let mut series = vec![
        line("planned", "dashed", |point| Some(point.planned)),
        line("submitted", "c4", |point| Some(point.submitted)),
        line("accepted", "c1", |point| Some(point.accepted)),
        line("ended", "c2", |point| point.finished),
    ];
    if report.summary.refused > 0 {
        series.push(line("refused", "c3", |point| Some(point.refused)));
    }
    if report.summary.failed + report.summary.unanswered > 0 {
        series.push(line("errors", "c5", |point| {
            Some(point.failed + point.unanswered)
        }));
    }
    Plot {
        title: "Throughput",
        note: "Tasks a second: as planned, as handed out, as accepted, and as ended on a worker.",
        unit: "tasks/s",
        log: false,
        series,
    }
}

fn latency(report: &Report) -> Plot {
    let line = |name: &str, class, value: fn(&Percentiles) -> f64| {
        let values = over(report, move |point| point.latency_ms.as_ref().map(value));
        Series::new(name, class, values)
    };
    Plot {
        title: "Latency of submissions",
        note: "From the time a task was due to its durable acceptance, in each interval; a logarithmic scale.",
        unit: "ms",
        log: true,
        series: vec![
            line("p50", "c2", |told| told.p50),
            line("p90", "c1", |told| told.p90),
            line("p99", "c4", |told| told.p99),
            line("p99.9", "c3", |told| told.p999),
            line("max", "dashed", |told| told.max),
        ],
    }
}

fn shares(distribution: &Distribution) -> Vec<(f64, f64)> {
    let all = distribution.count.max(1) as f64;
    let shares = distribution
        .buckets
        .iter()
        .map(|bucket| (bucket.up_to_ms, bucket.count as f64 * 100.0 / all));
    shares.collect()
}

fn distribution(report: &Report) -> Bars {
    let mut marks = Vec::new();
    if let Some(told) = report.latency.percentiles_ms {
        marks = vec![("p50", told.p50), ("p99", told.p99), ("p99.9", told.p999)];
    }
    Bars {
        title: "Distribution",
        note: "How often each latency occurred over the whole run: of submissions (marked), and from acceptance to the end of a task.",
        sets: vec![
            ("until ended", "c2", shares(&report.turnaround)),
            ("until accepted", "c1", shares(&report.latency)),
        ],
        marks,
    }
}

fn depth(report: &Report) -> Plot {
    let line = |name: &str, class, value: fn(&Point) -> Option<u64>| {
        Series::new(
            name,
            class,
            over(report, move |point| value(point).map(|count| count as f64)),
        )
    };
    Plot {
        title: "Queue",
        note: "Tasks that wait in the broker, that workers have, and that are not due yet.",
        unit: "tasks",
        log: false,
        series: vec![
            line("ready", "c1", |point| point.ready),
            line("running", "c2", |point| point.running),
            line("scheduled", "c4", |point| point.scheduled),
        ],
    }
}

fn workers(report: &Report) -> Plot {
    let line = |name: &str, class, value: fn(&Point) -> Option<u64>| {
        Series::new(
            name,
            class,
            over(report, move |point| value(point).map(|count| count as f64)),
        )
    };
    Plot {
        title: "Workers",
        note: "Worker processes, the tasks they can run at once, and those they ran.",
        unit: "",
        log: false,
        series: vec![
            line("slots", "dashed", |point| point.slots),
            line("busy", "c2", |point| point.busy),
            line("workers", "c3", |point| point.workers),
        ],
    }
}

fn memory(report: &Report) -> Plot {
    let classes = ["c1", "c2", "c3", "c4", "c5"];
    let names: std::collections::BTreeSet<&String> = report
        .points
        .iter()
        .flat_map(|point| point.memory_mib.keys())
        .collect();
    let series = names.into_iter().enumerate().map(|(index, name)| {
        let class = if name == "generator" {
            "dashed"
        } else {
            classes[index % classes.len()]
        };
        Series::new(
            name,
            class,
            over(report, |point| point.memory_mib.get(name).copied()),
        )
    });
    Plot {
        title: "Memory",
        note: "Resident memory of the processes that could be asked.",
        unit: "MiB",
        log: false,
        series: series.collect(),
    }
}

fn database(report: &Report) -> [Plot; 2] {
    let line = |name: &str, class, value: fn(&crate::database::Figures) -> f64| {
        Series::new(
            name,
            class,
            over(report, move |point| point.database.as_ref().map(value)),
        )
    };
    [
        Plot {
            title: "Rows",
            note: "Rows of the tables of tasks, and former versions that await vacuum, as the database's statistics have them.",
            unit: "rows",
            log: false,
            series: vec![
                line("live", "c1", |figures| figures.live_tuples as f64),
                line("dead", "c3", |figures| figures.dead_tuples as f64),
            ],
        },
        Plot {
            title: "Size of the tables",
            note: "The tables of tasks with their indexes.",
            unit: "MiB",
            log: false,
            series: vec![line("tables", "c1", |figures| {
                figures.bytes as f64 / 1024.0 / 1024.0
            })],
        },
    ]
}

/// Whether the figures are the server's, or the generator's own.
fn generator(report: &Report) -> [Plot; 2] {
    [
        Plot {
            title: "Behind schedule",
            note: "How late the generator handed out a task at the worst: its own fault, not the server's.",
            unit: "ms",
            log: true,
            series: vec![Series::new(
                "behind",
                "c3",
                over(report, |point| point.behind_ms_max),
            )],
        },
        Plot {
            title: "Unanswered",
            note: "Submissions that were due and not yet answered.",
            unit: "tasks",
            log: false,
            series: vec![Series::new(
                "unanswered",
                "c4",
                over(report, |point| Some(point.in_flight as f64)),
            )],
        },
    ]
}

fn table(title: &str, rows: &[(&str, String)]) -> String {
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>", escape(value)))
        .collect();
    format!("<div><h3>{title}</h3><table>{rows}</table></div>")
}

fn tables(report: &Report) -> String {
    let mut html = times(report);
    html += &account(report);
    html += &answers(report);
    html += &settings(report);
    html += &environment(report);
    html
}

fn times(report: &Report) -> String {
    let rows = [
        ("until a connection was free", &report.queued),
        ("until accepted", &report.latency),
        ("until started", &report.wait),
        ("until ended", &report.turnaround),
        ("generator behind", &report.lag),
    ];
    let rows = rows.iter().filter_map(|(name, distribution)| {
        let told = distribution.percentiles_ms?;
        let cells: String = [told.p50, told.p90, told.p99, told.p999, told.max]
            .iter()
            .map(|ms| format!("<td>{}</td>", decimal(*ms)))
            .collect();
        Some(format!("<tr><th>{name}</th>{cells}</tr>"))
    });
    let rows: String = rows.collect();
    format!(
        "<div class=\"wide\"><h3>Times, in ms</h3><table><tr><th></th><td>p50</td><td>p90</td><td>p99</td><td>p99.9</td><td>max</td></tr>{rows}</table></div>"
    )
}

fn counted<'a>(counts: &[(&'a str, u64)]) -> Vec<(&'a str, String)> {
    let row = |(name, count): &(&'a str, u64)| (*name, number(*count));
    counts.iter().map(row).collect()
}

fn account(report: &Report) -> String {
    let account = &report.account;
    let counts = [
        ("accepted", account.accepted),
        ("succeeded", account.succeeded),
        ("failed", account.failed),
        ("cancelled", account.cancelled),
        ("expired", account.expired),
        ("lost", account.lost),
        ("not final in time", account.unfinished),
        ("answered twice", account.answered_twice),
        ("executed twice", account.executed_twice),
        ("started again for a reason", account.restarted),
        ("found, but named by no answer", account.strangers),
    ];
    let mut rows = counted(&counts);
    rows.push(("looked up by", account.checked_by.clone()));
    if !account.examples.is_empty() {
        rows.push(("at fault", account.examples.join(" ")));
    }
    table("What became of the tasks", &rows)
}

fn answers(report: &Report) -> String {
    let summary = &report.summary;
    let counts = [
        ("submitted", summary.submitted),
        ("accepted", summary.accepted),
        ("refused (429, 503)", summary.refused),
        ("answered with an error", summary.failed),
        ("not answered", summary.unanswered),
        ("not sent in time", summary.unsent),
        ("sent again after a refusal", summary.retried),
    ];
    let mut rows = counted(&counts);
    let reasons: Vec<String> = summary
        .reasons
        .iter()
        .map(|(why, count)| format!("{} × {why}", number(*count)))
        .collect();
    if !reasons.is_empty() {
        rows.push(("reasons", reasons.join("; ")));
    }
    rows.push(("submitting took", format!("{} s", decimal(summary.seconds))));
    if let Some(seconds) = summary.seconds_to_last_end {
        rows.push(("the last task ended after", format!("{} s", decimal(seconds))));
    }
    rows.push((
        "generator behind at the worst",
        format!("{} ms", decimal(summary.behind_ms_max)),
    ));
    let each = summary.generator_cpu_seconds * 1e6 / (summary.submitted.max(1) as f64);
    rows.push((
        "generator's processor time",
        format!(
            "{} s, {} µs a task",
            decimal(summary.generator_cpu_seconds),
            decimal(each)
        ),
    ));
    table("Answers", &rows)
}

fn settings(report: &Report) -> String {
    let settings = &report.settings;
    let spacing = format!("{:?}, seed {}", settings.spacing, settings.seed).to_lowercase();
    let rows = [
        ("profile", settings.profile.clone()),
        ("duration", format!("{} s", decimal(settings.seconds))),
        ("planned", format!("{} tasks", number(settings.tasks_planned))),
        ("arrivals", spacing),
        ("transport", transport(report).to_owned()),
        ("server", settings.url.clone()),
        (
            "connections",
            format!("{} on {} thread(s)", settings.connections, settings.threads),
        ),
        ("unanswered at most", number(settings.in_flight_max as u64)),
        ("time-out", format!("{} s", decimal(settings.timeout_seconds))),
        ("retries", settings.retries_max.to_string()),
        (
            "kind and queue",
            format!("{} in {}", settings.kind, settings.queue),
        ),
        ("priorities", settings.priorities.clone()),
        (
            "payload",
            format!("{} bytes", number(settings.payload_bytes as u64)),
        ),
        ("tag", settings.tag.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    table("Settings", &rows)
}

fn environment(report: &Report) -> String {
    let environment = &report.environment;
    let mut rows = vec![
        ("server", environment.server.clone()),
        (
            "generator",
            format!(
                "{} ({} build)",
                environment.generator, environment.generator_build
            ),
        ),
        ("system", environment.os.clone()),
        ("processor", environment.processor.clone()),
        ("cores", environment.cores.to_string()),
    ];
    if let Some(database) = &environment.database {
        rows.insert(1, ("database", database.clone()));
    }
    if let Some(started) = &report.settings.started_by_us {
        rows.push(("started for this run", started.clone()));
    }
    table("Environment", &rows)
}
