//! The k6 scripts, run by the real k6.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use forebay_testkit::{process::free_port, wait};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{
    fake::{Fake, Mischief},
    program::forebay,
};

/// Settings that make every script short; each reads those that concern it.
const SHORT: [(&str, &str); 9] = [
    ("RATE", "40"),
    ("DURATION", "2s"),
    ("FROM", "10"),
    ("TO", "60"),
    ("BURSTS", "1"),
    ("BURST_RATE", "100"),
    ("QUIET_SECONDS", "1"),
    ("BURST_SECONDS", "1"),
    // How fast it is on a busy machine is not the question here.
    ("P99_MS", "20000"),
];

fn k6() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join(".tools/venv/bin/k6");
    assert!(
        path.exists(),
        "k6 is not installed: run scripts/install-test-tools"
    );
    path
}

async fn run(script: &str, url: &str, summary: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("k6").join(script);
    let mut command = Command::new(k6());
    command
        .args(["run", "--quiet", "--no-usage-report", "--address", ""])
        .arg(script)
        .env("FOREBAY_URL", url)
        .env("K6_SUMMARY", summary)
        .envs(SHORT)
        .env("DRAIN_SECONDS", "30")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command.output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `forebay dev`, and where it is.
async fn dev(data: &Path) -> (Child, String) {
    let url = format!("127.0.0.1:{}", free_port().unwrap());
    let child = Command::new(forebay())
        .args(["dev", "--data"])
        .arg(data)
        .env("FOREBAY_HTTP_ADDR", &url)
        .env("FOREBAY_GRPC_ADDR", "127.0.0.1:0")
        .env("FOREBAY_ADMIN_ADDR", "127.0.0.1:0")
        .env("FOREBAY_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = format!("http://{url}");
    let ready = format!("{url}/health/ready");
    wait::until("forebay dev to be ready", Duration::from_secs(30), || {
        let asked = reqwest::get(ready.clone());
        async move { asked.await.is_ok_and(|answer| answer.status().is_success()) }
    })
    .await;
    (child, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_script_passes_against_forebay() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, url) = dev(&folder.path().join("data")).await;
    for script in ["steady.js", "burst.js", "ramp.js", "soak.js"] {
        let summary = folder.path().join(script);
        let output = run(script, &url, &summary).await;
        assert!(output.status.success(), "{script}: {}", said(&output));
        let summary: Value = serde_json::from_slice(&std::fs::read(&summary).unwrap()).unwrap();
        assert!(summary["accepted"].as_u64().unwrap() > 50, "{script}: {summary}");
        assert_eq!(summary["accepted"], summary["finished"], "{script}");
        assert_eq!(summary["whole"], true, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_fails_where_a_task_is_lost() {
    let lose = Mischief {
        lose: Some(5),
        ..Mischief::default()
    };
    let fake = Fake::start(lose).await;
    let folder = tempfile::tempdir().unwrap();
    let output = run("steady.js", &fake.url, &folder.path().join("summary")).await;
    assert!(!output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("ACCEPTED TASKS ARE MISSING"),
        "{}",
        said(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_fails_where_there_is_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let output = run("steady.js", &url, &folder.path().join("summary")).await;
    assert!(!output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("there is no Forebay at"),
        "{}",
        said(&output)
    );
}
