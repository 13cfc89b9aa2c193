//! `forebay dev` from outside: the built binary, its client commands, its death and its return.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod composition;
mod degraded;
mod http;
mod limits;
mod operations;
mod page;
mod schedules;
mod schemas;
mod support;
mod timed;

use std::{fmt::Write, net::TcpListener, time::Instant};

use support::{Dev, Ended, WITHIN, forebay, http_get, stderr, stdout};
use tempfile::tempdir;

#[test]
fn a_task_is_submitted_executed_and_read() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let output = dev.call(&[
        "submit",
        "echo",
        r#"{"hello": 1.0e2}"#,
        "--wait",
        "30s",
        "--tag",
        "a",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        stdout(&output).ends_with("succeeded\n{\"hello\": 1.0e2}\n"),
        "{}",
        stdout(&output)
    );

    let listed = dev.json(&["list", "--state", "succeeded", "--tag", "a"]);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["attempt"]),
        (&"echo".into(), &1.into())
    );
    let queues = dev.json_until(&["queues"], |queues| !queues.is_empty());
    assert_eq!(queues[0]["name"], "default");
    assert_eq!(dev.json(&["workers"])[0]["slots"], 100);
    assert_eq!(stdout(&dev.call(&["rejects"])), "nothing was set aside\n");
    let id = listed[0]["id"].as_str().unwrap();
    let text = stdout(&dev.call(&["get", id]));
    assert!(
        text.contains("state     succeeded\n") && text.contains("payload   {\"hello\": 1.0e2}"),
        "{text}"
    );
    let watched = dev.call(&["watch", id]);
    assert_eq!(watched.status.code(), Some(0), "{watched:?}");

    let (status, metrics) = http_get(&dev.admin);
    assert_eq!(status, 200);
    assert!(
        metrics
            .contains(r#"forebay_tasks_finished_total{queue="default",kind="echo",outcome="succeeded"} 1"#)
    );
    assert!(
        metrics.contains("forebay_publish_batch_size_count 1\n"),
        "publishes are measured once"
    );
    let ready = dev.admin.replace("/metrics", "/health/ready");
    assert_eq!(http_get(&ready).0, 200, "{}", http_get(&ready).1);
    assert!(
        dev.welcome
            .contains("curl -H 'Content-Type: application/json' -H 'Prefer: wait=10' \\\n")
    );
    assert!(dev.welcome.contains(&format!("{}/v1/tasks", dev.url)));
}

#[test]
fn a_health_check_asks_the_binary_itself() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let address = dev
        .admin
        .trim_start_matches("http://")
        .trim_end_matches("/metrics");
    let ask = |more: &[&str]| dev.call(&[&["health", "--admin-addr"], more].concat());
    let began = Instant::now();
    while !ask(&[address]).status.success() {
        assert!(began.elapsed() < WITHIN, "{:?}", ask(&[address]));
    }
    assert_eq!(stdout(&ask(&[address])), "ready\n");
    assert_eq!(stdout(&ask(&[address, "--live"])), "live\n");

    let nobody = ask(&["127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        stderr(&nobody).contains("127.0.0.1:1 cannot be asked"),
        "{nobody:?}"
    );
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let silence = ask(&[&silent_address, "--timeout", "100ms"]);
    assert_eq!(silence.status.code(), Some(1));
    assert!(
        stderr(&silence).contains("did not answer within 100ms"),
        "{silence:?}"
    );
}

#[test]
fn exit_codes_tell_what_happened() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let code = |args: &[&str]| dev.call(args).status.code();
    let fail = r#"{"permanent": true, "message": "as asked"}"#;
    let failed = dev.call(&["submit", "fail", fail, "--wait", "30s"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stdout(&failed).contains("failed: as asked"),
        "{}",
        stdout(&failed)
    );
    let pending = dev.call(&[
        "submit",
        "sleep",
        r#"{"seconds": 60}"#,
        "--wait",
        "200ms",
        "--json",
    ]);
    assert_eq!(pending.status.code(), Some(5), "{pending:?}");
    assert_eq!(code(&["submit", "echo", "{not json"]), Some(2));
    let refused = dev.call(&["submit", "Two Words"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(
        stderr(&refused).contains("kind: must match"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(code(&["get", "0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f"]), Some(4));
    assert_eq!(code(&["get", "no-id"]), Some(4));
    assert_eq!(code(&["--no-such-flag"]), Some(2));
    assert_eq!(code(&["list", "--url", "http://127.0.0.1:1"]), Some(3));

    let sleeper = dev.json(&["list", "--kind", "sleep"]).remove(0)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    dev.json(&["cancel", &sleeper]);
    let watched = dev.call(&["watch", &sleeper]);
    assert_eq!(watched.status.code(), Some(1), "{watched:?}");
    assert_eq!(dev.wait_for(&sleeper, &["cancelled"])["state"], "cancelled");
}

#[test]
fn a_file_of_tasks_is_accepted_line_by_line() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let mut lines = String::new();
    for n in 0..250 {
        writeln!(lines, r#"{{"kind":"echo","payload":{n}}}"#).unwrap();
    }
    lines.push_str("{\"kind\":\"No\"}\n");
    std::fs::write(folder.path().join("tasks.ndjson"), lines).unwrap();
    let output = dev.call(&["submit", "--file", "tasks.ndjson", "--ids", "ids.txt"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(stdout(&output), "250 accepted, 1 refused\n");
    assert!(stderr(&output).contains("line 251:"), "{}", stderr(&output));
    let ids = std::fs::read_to_string(folder.path().join("ids.txt")).unwrap();
    assert_eq!(ids.lines().count(), 250);
    for id in ids.lines().step_by(50) {
        dev.wait_for(id, &["succeeded"]);
    }
    assert_eq!(
        dev.call(&["submit", "--file", "nowhere.ndjson"]).status.code(),
        Some(2)
    );
}

#[test]
fn what_was_accepted_survives_a_crash() {
    let folder = tempdir().unwrap();
    // Nobody waits for the lease of a process that is certainly dead.
    let flags = ["--lease", "1h", "--concurrency", "4"];
    let dev = Dev::start(folder.path(), &flags);
    let mut lines = String::new();
    for _ in 0..40 {
        lines.push_str("{\"kind\":\"sleep\",\"payload\":{\"seconds\":0.2}}\n");
    }
    lines.push_str("{\"kind\":\"echo\",\"delay_seconds\":1}\n");
    std::fs::write(folder.path().join("tasks.ndjson"), lines).unwrap();
    let output = dev.call(&["submit", "--file", "tasks.ndjson", "--ids", "ids.txt"]);
    assert!(output.status.success(), "{output:?}");
    let ids = std::fs::read_to_string(folder.path().join("ids.txt")).unwrap();
    dev.wait_for(ids.lines().next().unwrap(), &["succeeded"]);
    dev.crash();

    let dev = Dev::start(folder.path(), &flags);
    for id in ids.lines() {
        let task = dev.wait_for(id, &["succeeded", "failed"]);
        assert_eq!(task["state"], "succeeded", "{task}");
    }
    let all = dev.json(&["list", "--limit", "1000"]);
    assert_eq!(all.len(), 41);
}

#[test]
fn a_drain_lets_what_runs_finish() {
    let folder = tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let id = |task: &serde_json::Value| task["id"].as_str().unwrap().to_owned();
    let running = id(&dev.json(&["submit", "sleep", r#"{"seconds": 1}"#])[0]);
    let later = id(&dev.json(&["submit", "echo", "1", "--delay", "1h"])[0]);
    dev.wait_for(&running, &["running"]);
    let status = dev.stop();
    assert_eq!(status.code(), Some(0));

    let dev = Dev::start(folder.path(), &[]);
    let task = &dev.json(&["get", &running])[0];
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&"succeeded".into(), &1.into()),
        "{task}"
    );
    assert_eq!(dev.json(&["get", &later])[0]["state"], "scheduled");
}

#[test]
fn handlers_come_from_the_file() {
    let folder = tempdir().unwrap();
    let file = "[[handler]]\nkind = 'upper'\ncommand = ['tr', 'a-z', 'A-Z']\n";
    std::fs::write(folder.path().join("forebay.toml"), file).unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let output = dev.call(&["submit", "upper", r#""hello""#, "--wait", "30s"]);
    assert!(stdout(&output).ends_with("succeeded\n\"HELLO\"\n"), "{output:?}");
    drop(dev);

    std::fs::write(
        folder.path().join("forebay.toml"),
        "[[handler]]\nkind = 'x'\n[[handler]]\nkin = 'y'\n",
    )
    .unwrap();
    let output = forebay(folder.path()).arg("dev").ended();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let lines: Vec<String> = stderr(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("forebay: forebay.toml: handler"))
    );
}

/// The example of the documentation.
#[test]
fn a_command_says_how_far_it_is() {
    const PAGE: &str = include_str!("../../../docs/progress.md");
    let block = |language: &str| {
        let begin = PAGE.split_once(&format!("\n```{language}\n")).unwrap().1;
        begin.split_once("```\n").unwrap().0
    };
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("forebay.toml"), block("toml")).unwrap();
    std::fs::write(folder.path().join("resize-all.sh"), block("sh")).unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let id = dev.json(&["submit", "resize-all", "{}"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let seen = dev.json_until(&["get", &id], |task| task[0]["progress"]["fraction"].is_number());
    assert_eq!(seen[0]["state"], "running", "{seen:?}");
    let message = seen[0]["progress"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("page ") && message.ends_with(" of 4"),
        "{seen:?}"
    );

    let watched = dev.json(&["watch", &id]);
    let told: Vec<f64> = watched
        .iter()
        .filter_map(|event| event["progress"]["fraction"].as_f64())
        .collect();
    assert!(!told.is_empty() && told.is_sorted(), "{watched:?}");
    let task = dev.wait_for(&id, &["succeeded"]);
    assert_eq!(
        (&task["result"], &task["log"]),
        (&"done".into(), &serde_json::Value::Null)
    );
    let text = stdout(&dev.call(&["get", &id]));
    let fraction = task["progress"]["fraction"].as_f64().unwrap();
    assert!(
        text.contains(&format!("progress  {} %  page ", (fraction * 100.0).round())),
        "{text}"
    );
}

#[test]
fn what_stands_in_the_way_is_named() {
    let folder = tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = forebay(folder.path()).args(["dev", "--http-addr", &addr]).ended();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&addr) && said.contains("--http-addr or FOREBAY_HTTP_ADDR"),
        "{said}"
    );

    let dev = Dev::start(folder.path(), &[]);
    let output = forebay(folder.path())
        .args([
            "dev",
            "--http-addr",
            ":0",
            "--grpc-addr",
            ":0",
            "--admin-addr",
            ":0",
        ])
        .ended();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("forebay-data is in use by another Forebay process"),
        "{output:?}"
    );
    drop(dev);
}

#[test]
fn nobody_needs_to_read_what_it_says() {
    let folder = tempdir().unwrap();
    let dev = Dev::start_unread(folder.path());
    assert_eq!(
        dev.json(&["submit", "echo", "--wait", "30s"])[0]["state"],
        "succeeded"
    );
    assert_eq!(dev.stop().code(), Some(0));
}

#[test]
fn a_wrong_configuration_is_one_line_for_each_mistake() {
    let folder = tempdir().unwrap();
    let output = forebay(folder.path())
        .args(["api", "--http-addr", "here"])
        .env("FOREBAY_HTTP_ADRR", "x")
        .env("FOREBAY_BROKER_URL", "kafka://u:geheim@h")
        .ended();
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 4, "{said}");
    for part in [
        "FOREBAY_HTTP_ADRR",
        "did you mean FOREBAY_HTTP_ADDR?",
        "must be nats://HOST:4222, tls://HOST:4222, amqp://HOST:5672/VHOST",
        "--http-addr",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(
        said.contains("FOREBAY_DATABASE_URL is not set") && !said.contains("geheim"),
        "{said}"
    );
}

#[test]
fn dependencies_that_cannot_be_reached_are_one_line() {
    let folder = tempdir().unwrap();
    let start = |database: &str| {
        forebay(folder.path())
            .args([
                "worker",
                "--admin-addr",
                "127.0.0.1:0",
                "--log",
                "off",
                "--database-url",
                database,
            ])
            .env("FOREBAY_BROKER_URL", "nats://127.0.0.1:1")
            .ended()
    };
    let output = start("postgres://u:geheim@127.0.0.1:1/d");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("postgres://u:****@127.0.0.1:1/d") && !said.contains("geheim"),
        "{said}"
    );
    let said = stderr(&start("sqlite://f.db"));
    assert!(
        said.contains("`forebay dev`") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn the_effective_configuration_is_shown_with_its_sources() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("forebay.toml"), "log_format = 'json'\n").unwrap();
    let config = |flags: &[&str]| {
        forebay(folder.path())
            .args(["config", "--queues", "a,b"])
            .args(flags)
            .env("FOREBAY_DATABASE_URL", "postgres://u:geheim@h/d")
            .ended()
    };
    let text = stdout(&config(&[]));
    let row = |key: &str| {
        text.lines()
            .find(|line| line.split_whitespace().next() == Some(key))
            .unwrap()
    };
    assert!(
        row("database_url").contains("postgres://u:****@h/d")
            && row("database_url").contains("FOREBAY_DATABASE_URL")
    );
    assert!(row("log_format").ends_with("file forebay.toml"), "{text}");
    assert!(
        row("queues").ends_with("a,b                      flag --queues")
            || row("queues").ends_with("flag --queues")
    );
    assert!(row("http_addr").ends_with("default"));
    let json: serde_json::Value = serde_json::from_slice(&config(&["--json"]).stdout).unwrap();
    assert_eq!(json["log_format"]["source"], "file forebay.toml");
    assert_eq!(json["broker_url"]["value"], serde_json::Value::Null);
}
