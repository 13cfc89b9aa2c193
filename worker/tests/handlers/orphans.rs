//! A worker that is killed takes what it runs with it.

use std::{path::Path, process::Stdio};

use forebay_worker::handlers::{Handler, command::CommandHandler};
use tempfile::TempDir;

use super::{execution, is_alive, wait_for, wait_for_death};

const FOLDER: &str = "TEST_ORPHANS_FOLDER";

/// Runs this test binary again as the worker, and kills it.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn what_a_killed_worker_ran_dies() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return work(Path::new(&folder)).await;
    }
    let folder = TempDir::new().unwrap();
    let mut worker = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "orphans::what_a_killed_worker_ran_dies", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let file = folder.path().join("pids");
    let family: Vec<i32> = wait_for("the programs of the worker", || async {
        let text = std::fs::read_to_string(&file).ok()?;
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == 3 && text.ends_with('\n')).then_some(pids)
    })
    .await;
    assert!(family.iter().all(|&pid| is_alive(pid)), "{family:?}");
    worker.kill().await.unwrap();
    for pid in family {
        wait_for_death(pid).await;
    }
}

/// A program, its child, and a grandchild in a session of its own; all of them deaf to SIGTERM and SIGHUP.
async fn work(folder: &Path) {
    let script = "trap '' TERM HUP; echo $$ >> pids
        sh -c 'echo $$ >> pids; setsid sh -c \"echo \\$\\$ >> pids; exec sleep 600\"' & wait";
    let handler = CommandHandler::new("sh", ["-c", script]).cwd(folder);
    panic!(
        "the program ended by itself: {:?}",
        handler.run(execution("1")).await
    );
}
