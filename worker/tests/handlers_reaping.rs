//! A worker that is the first process of its container reaps the orphans of its commands: nobody else would.
//! Alone in its binary, since being a subreaper, which is as good as being the first, is a property of the process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{path::Path, time::Duration};

use forebay_core::{Json, Project, TaskId, Timestamp};
use forebay_worker::handlers::{Execution, Handler, LogTail, Progress, Stop, command::CommandHandler};
use tokio::time::{Instant, sleep};

fn execution() -> Execution {
    let at: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    Execution {
        id: TaskId::new(at, &[7; 10]),
        kind: "orphans".parse().unwrap(),
        queue: "default".parse().unwrap(),
        project: Project::default(),
        attempt: 1,
        max_attempts: 1,
        fence: 1,
        payload: Json::null(),
        traceparent: None,
        timeout: Duration::from_secs(60),
        deadline: Instant::now() + Duration::from_secs(60),
        heartbeat_timeout: None,
        stop: Stop::new(),
        log: LogTail::new(),
        progress: Progress::new(),
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn orphans_are_reaped_after_success_and_after_a_drop() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $! >> pids; sleep 600 & echo $! >> pids; ";
    let leaves = CommandHandler::new("sh", ["-c", &format!("{script} echo 1")]).cwd(folder.path());
    leaves.run(execution()).await.unwrap();
    let hangs = CommandHandler::new("sh", ["-c", &format!("{script} wait")]).cwd(folder.path());
    let hanging = tokio::spawn(async move { hangs.run(execution()).await });
    let give_up_at = Instant::now() + Duration::from_secs(20);
    let text = loop {
        let text = std::fs::read_to_string(folder.path().join("pids")).unwrap();
        if text.lines().count() == 4 && text.ends_with('\n') {
            break text;
        }
        assert!(Instant::now() < give_up_at, "only these have started: {text}");
        sleep(Duration::from_millis(10)).await;
    };
    hanging.abort();
    for pid in text.lines() {
        while Path::new("/proc").join(pid).exists() {
            assert!(Instant::now() < give_up_at, "process {pid} was not reaped");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
