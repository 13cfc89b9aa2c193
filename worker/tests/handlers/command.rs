use std::{io::Write, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use forebay_worker::handlers::{
    Handler, HandlerError, RESULT_BYTES_MAX, StopReason, command::CommandHandler,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::{TRACE, WITHIN, execution, wait_for, wait_for_death};

const NONE: [&str; 0] = [];

fn sh(script: &str) -> CommandHandler {
    CommandHandler::new("sh", ["-c", script])
}

fn permanent(error: &HandlerError) -> &str {
    match error {
        HandlerError::Permanent { message } => message,
        other => panic!("not permanent: {other:?}"),
    }
}

fn retryable(error: &HandlerError) -> &str {
    match error {
        HandlerError::Retryable { message } => message,
        other => panic!("not retryable: {other:?}"),
    }
}

/// The process ids that a program has written to `file`, once there are `count` of them.
async fn pids(file: &Path, count: usize) -> Vec<i32> {
    wait_for("process ids", || async move {
        let text = std::fs::read_to_string(file).ok()?;
        let complete = text.ends_with('\n') && text.lines().count() == count;
        complete.then(|| text.lines().map(|line| line.trim().parse().unwrap()).collect())
    })
    .await
}

/// Starts a child that starts another, all of which ignore SIGTERM where `trap` says so, and writes down their ids.
fn family(folder: &TempDir, trap: &str) -> CommandHandler {
    let pids = folder.path().join("pids");
    let file = pids.display();
    sh(&format!(
        "{trap}; sh -c 'echo $$ >> {file}; sleep 600 & echo $! >> {file}; wait' & echo $$ >> {file}; wait; wait"
    ))
}

#[tokio::test]
async fn the_payload_goes_in_and_the_result_comes_out() {
    let text = r#"{"b": [1, 2.50, "ä\u0000"], "a": null}"#;
    let result = CommandHandler::new("cat", NONE)
        .run(execution(text))
        .await
        .unwrap();
    assert_eq!(result.as_str(), text);
}

#[tokio::test]
async fn arguments_are_not_for_a_shell() {
    let handler = CommandHandler::new("printf", ["%s", "\"$HOME; *\""]);
    assert_eq!(
        handler.run(execution("1")).await.unwrap().as_str(),
        r#""$HOME; *""#
    );
}

#[tokio::test]
async fn no_output_is_null() {
    assert_eq!(sh("true").run(execution("1")).await.unwrap().as_str(), "null");
    assert_eq!(
        sh("echo; echo").run(execution("1")).await.unwrap().as_str(),
        "null"
    );
}

#[tokio::test]
async fn output_that_is_not_json_is_permanent_and_quoted() {
    let error = sh("echo 'done: 3 files'; seq 1 5000")
        .run(execution("1"))
        .await
        .unwrap_err();
    let message = permanent(&error);
    assert!(message.contains("stdout is not valid JSON"), "{message}");
    assert!(message.contains(r#""done: 3 files\n1\n2"#), "{message}");
    assert!(message.len() < 600, "{message}");
    permanent(&sh("printf '\\377'").run(execution("1")).await.unwrap_err());
    permanent(&sh("echo '{} {}'").run(execution("1")).await.unwrap_err());
}

#[tokio::test]
async fn every_exit_code_says_whether_to_try_again() {
    for code in 1..=255 {
        let error = sh(&format!(
            "echo first >&2; echo 'no such order' >&2; echo >&2; exit {code}"
        ))
        .run(execution("1"))
        .await
        .unwrap_err();
        let message = if code == 65 {
            permanent(&error)
        } else {
            retryable(&error)
        };
        assert_eq!(message, format!("sh exited with code {code}: no such order"));
    }
}

#[tokio::test]
async fn a_result_does_not_count_when_the_exit_code_says_otherwise() {
    let error = sh("echo '{\"ok\":true}'; exit 75")
        .run(execution("1"))
        .await
        .unwrap_err();
    assert_eq!(retryable(&error), "sh exited with code 75");
}

#[tokio::test]
async fn death_by_a_signal_is_tried_again() {
    let error = sh("echo out of memory >&2; kill -SEGV $$")
        .run(execution("1"))
        .await
        .unwrap_err();
    assert_eq!(
        retryable(&error),
        "sh was killed by signal 11 (SIGSEGV): out of memory"
    );
}

#[tokio::test]
async fn a_missing_program_is_permanent_and_named() {
    let error = CommandHandler::new("no-such-program", NONE)
        .run(execution("1"))
        .await
        .unwrap_err();
    assert!(
        permanent(&error).contains("the program no-such-program was not found"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_folder_is_permanent_and_named() {
    let error = sh("true")
        .cwd("/no/such/folder")
        .run(execution("1"))
        .await
        .unwrap_err();
    assert!(permanent(&error).contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_program_is_permanent() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("notes");
    std::fs::write(&file, "\0\0\0").unwrap();
    let handler = CommandHandler::new(&file, NONE);
    assert!(permanent(&handler.run(execution("1")).await.unwrap_err()).contains("can't be run"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(permanent(&handler.run(execution("1")).await.unwrap_err()).contains("can't be run"));
}

#[tokio::test]
async fn runs_in_its_folder_and_finds_programs_there() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("where");
    std::fs::write(&file, "#!/bin/sh\nprintf '\"%s\"' \"$(pwd -P)\"\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let handler = CommandHandler::new("./where", NONE).cwd(folder.path());
    let result = handler.run(execution("1")).await.unwrap();
    let expected = folder.path().canonicalize().unwrap();
    assert_eq!(
        serde_json::from_str::<String>(result.as_str()).unwrap(),
        expected.to_str().unwrap()
    );
}

#[tokio::test]
async fn tells_the_program_about_the_task() {
    let script = r#"printf '["%s","%s","%s","%s","%s","%s","%s","%s"]' "$FOREBAY_TASK_ID" "$FOREBAY_ATTEMPT" \
        "$FOREBAY_FENCE" "$FOREBAY_KIND" "$FOREBAY_QUEUE" "$TRACEPARENT" "$SIZE" "$PATH""#;
    let handler = sh(script)
        .env("SIZE", "large".into())
        .env("FOREBAY_TASK_ID", "can't be overridden".into());
    let mut attempt = execution("1");
    attempt.attempt = 3;
    attempt.fence = 5;
    let id = attempt.id.to_string();
    let result = handler.run(attempt).await.unwrap();
    let path = std::env::var("PATH").unwrap();
    let seen: Vec<String> = serde_json::from_str(result.as_str()).unwrap();
    assert_eq!(
        seen,
        [&id, "3", "5", "thumbnail", "images", TRACE, "large", &path]
    );
}

#[tokio::test]
async fn without_a_trace_there_is_no_traceparent() {
    let mut attempt = execution("1");
    attempt.traceparent = None;
    let result = sh(r#"printf '"%s"' "${TRACEPARENT-unset}""#)
        .run(attempt)
        .await
        .unwrap();
    assert_eq!(result.as_str(), r#""unset""#);
}

#[tokio::test]
async fn megabytes_go_in_unread_without_a_hang() {
    let big = format!("\"{}\"", "x".repeat(1 << 20));
    // Never reads; reads nothing until its end; closes its input.
    for script in ["echo 1", "sleep 0.1; echo 1", "exec 0<&-; sleep 0.1; echo 1"] {
        let result = timeout(WITHIN, sh(script).run(execution(&big))).await.unwrap();
        assert_eq!(result.unwrap().as_str(), "1");
    }
}

#[tokio::test]
async fn large_input_output_and_log_flow_at_the_same_time() {
    let big = format!("\"{}\"", "x".repeat(RESULT_BYTES_MAX - 2));
    let attempt = execution(&big);
    let log = attempt.log.clone();
    let result = timeout(WITHIN, sh("tee /dev/stderr").run(attempt))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(result.as_bytes().len(), RESULT_BYTES_MAX);
    assert_eq!(log.text().unwrap().len(), 8 * 1024);
}

#[tokio::test]
async fn too_much_output_is_permanent_and_ends_the_program() {
    let endless = CommandHandler::new("yes", NONE);
    let error = timeout(WITHIN, endless.run(execution("1")))
        .await
        .unwrap()
        .unwrap_err();
    assert!(permanent(&error).contains("more than 262144 bytes"), "{error}");
}

#[tokio::test]
async fn the_log_keeps_its_tail_and_the_error_its_last_line() {
    let attempt = execution("1");
    let log = attempt.log.clone();
    let error = sh("seq 1 100000 >&2; printf 'Err\\033[31mor\\n\\n' >&2; exit 1")
        .run(attempt)
        .await
        .unwrap_err();
    assert_eq!(retryable(&error), "sh exited with code 1: Err [31mor");
    let tail = log.text().unwrap();
    assert_eq!(tail.len(), 8 * 1024);
    assert!(tail.contains("99999\n100000\nErr"), "{tail}");
}

#[tokio::test]
async fn what_a_program_leaves_behind_dies_with_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pids");
    // It holds the program's stdout open, which must not keep the attempt waiting either.
    let script = format!("sleep 600 & echo $! > {}; echo 7", file.display());
    let began = Instant::now();
    let result = sh(&script).run(execution("1")).await.unwrap();
    assert_eq!(result.as_str(), "7");
    assert!(began.elapsed() < Duration::from_secs(10));
    wait_for_death(pids(&file, 1).await[0]).await;
}

#[tokio::test]
async fn one_that_leaves_the_group_keeps_nobody_waiting() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pids");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 20' & while [ ! -s {0} ]; do :; done; echo 7",
        file.display()
    );
    let result = timeout(WITHIN / 2, sh(&script).run(execution("1")))
        .await
        .unwrap();
    assert_eq!(result.unwrap().as_str(), "7");
    // Ours to clean up: the process id is from a file that our own child has written.
    let escaped = nix::unistd::Pid::from_raw(pids(&file, 1).await[0]);
    nix::sys::signal::kill(escaped, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_stop_is_asked_for_politely_first() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pids");
    let script = format!(
        "trap 'echo bye >&2; echo 1; exit 0' TERM; echo $$ > {}; while :; do sleep 0.05; done",
        file.display()
    );
    let attempt = execution("1");
    let stop = attempt.stop.clone();
    let asks = async {
        pids(&file, 1).await;
        stop.ask(StopReason::Shutdown);
    };
    let handler = sh(&script);
    let (result, ()) = tokio::join!(handler.run(attempt), asks);
    // A program that finishes its work when it is asked to end has succeeded.
    assert_eq!(result.unwrap().as_str(), "1");
}

#[tokio::test]
async fn a_stop_ends_grandchildren_too() {
    let folder = TempDir::new().unwrap();
    let handler = family(&folder, ":");
    let attempt = execution("1");
    let stop = attempt.stop.clone();
    let began = Instant::now();
    let run = tokio::spawn(async move { handler.run(attempt).await });
    let family = pids(&folder.path().join("pids"), 3).await;
    stop.ask(StopReason::TimedOut);
    let error = timeout(WITHIN, run).await.unwrap().unwrap().unwrap_err();
    assert_eq!(
        retryable(&error),
        "sh was killed by signal 15 (SIGTERM) after it was asked to end: it took longer than its timeout"
    );
    assert!(began.elapsed() < WITHIN);
    for pid in family {
        wait_for_death(pid).await;
    }
}

#[tokio::test]
async fn who_ignores_the_request_is_killed_after_the_grace() {
    let folder = TempDir::new().unwrap();
    let handler = family(&folder, "trap '' TERM");
    let attempt = execution("1");
    let stop = attempt.stop.clone();
    let run = tokio::spawn(async move { handler.run(attempt).await });
    let family = pids(&folder.path().join("pids"), 3).await;
    let asked_at = Instant::now();
    stop.ask(StopReason::Cancelled);
    let error = timeout(WITHIN, run).await.unwrap().unwrap().unwrap_err();
    assert!(
        asked_at.elapsed() >= Duration::from_secs(2),
        "killed without grace"
    );
    assert!(retryable(&error).contains("signal 9 (SIGKILL)"), "{error}");
    for pid in family {
        wait_for_death(pid).await;
    }
}

#[tokio::test]
async fn dropping_the_attempt_kills_the_family() {
    let folder = TempDir::new().unwrap();
    let handler = family(&folder, "trap '' TERM");
    let run = tokio::spawn(async move { handler.run(execution("1")).await });
    let family = pids(&folder.path().join("pids"), 3).await;
    run.abort();
    for pid in family {
        wait_for_death(pid).await;
    }
}

#[tokio::test]
async fn dropping_many_attempts_leaves_no_zombies() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pids");
    let script = format!("echo $$ >> {}; sleep 600", file.display());
    let runs: Vec<_> = (0..20)
        .map(|_| {
            let handler = sh(&script);
            tokio::spawn(async move { handler.run(execution("1")).await })
        })
        .collect();
    let started = pids(&file, 20).await;
    runs.iter().for_each(tokio::task::JoinHandle::abort);
    for pid in started {
        let entry = format!("/proc/{pid}");
        wait_for("a reaped child", || async {
            (!Path::new(&entry).exists()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_hundred_at_once_get_each_its_own() {
    let handler = sh("cat");
    let runs = (0..100).map(|n| {
        let handler = handler.clone();
        tokio::spawn(async move { (n, handler.run(execution(&n.to_string())).await.unwrap()) })
    });
    for run in runs.collect::<Vec<_>>() {
        let (n, result) = timeout(WITHIN, run).await.unwrap().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(result.as_str()).unwrap(),
            Value::from(n)
        );
    }
}

/// Runs this test binary again with an environment that a test can't give to itself.
#[tokio::test]
async fn our_secrets_are_kept_from_programs() {
    let name = "command::our_secrets_are_kept_from_programs";
    if std::env::var_os("FOREBAY_DATABASE_URL").is_none() {
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("FOREBAY_DATABASE_URL", "postgres://u:hush@db/f")
            .env("FOREBAY_BROKER_URL", "nats://u:hush@nats")
            .env("FOREBAY_URL", "http://127.0.0.1:1")
            .env("BILLING_SECRET", "hush")
            .env("UNRELATED", "stays")
            .output()
            .await
            .unwrap();
        std::io::stderr().write_all(&output.stderr).unwrap();
        assert!(
            output.status.success(),
            "the same test with secrets in its environment failed"
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let attempt = execution("1");
    let log = attempt.log.clone();
    let handler = sh("env >&2").hide_env("BILLING_SECRET");
    handler.run(attempt).await.unwrap();
    let seen = log.text().unwrap();
    assert!(!seen.contains("hush"), "{seen}");
    assert!(
        seen.contains("UNRELATED=stays\n") && seen.contains("FOREBAY_URL=http://127.0.0.1:1\n"),
        "{seen}"
    );
    let with_env = sh("true").env("TOKEN", "hush".into());
    assert!(!format!("{with_env:?}").contains("hush"));
}

#[tokio::test]
async fn lines_on_stderr_say_how_far_it_is() {
    let execution = execution("1");
    let script = "echo begin >&2; echo 'forebay-progress: 0.375 page 3 of 8' >&2; echo end >&2; exit 1";
    let error = sh(script).run(execution.clone()).await.unwrap_err();
    assert!(retryable(&error).ends_with(": end"), "{error}");
    assert_eq!(execution.progress.said(), Some((0.375, "page 3 of 8".to_owned())));
    assert_eq!(execution.log.text().unwrap(), "begin\nend\n");
}

/// A program that is at it for long is heard at once, not when it has ended.
#[tokio::test]
async fn progress_is_heard_while_the_program_runs() {
    let execution = execution("1");
    let handler = sh("printf 'forebay-progress: 0.5\\n' >&2; read line; exec sleep 600");
    let running = tokio::spawn({
        let execution = execution.clone();
        async move { handler.run(execution).await }
    });
    wait_for("its word", || async { execution.progress.said() }).await;
    execution.stop.ask(StopReason::Cancelled);
    assert!(timeout(WITHIN, running).await.unwrap().unwrap().is_err());
}
