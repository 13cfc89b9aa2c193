//! The handlers that come with the worker, run as the executor runs them: real programs, and a real server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod builtin;
mod command;
mod config;
mod http;
mod orphans;
mod server;

use std::{future::Future, time::Duration};

use forebay_core::{Json, Project, TaskId, Timestamp, TraceParent};
use forebay_worker::handlers::{Execution, LogTail, Progress, Stop};
use tokio::time::{Instant, sleep};

/// How long a test waits for what must come.
const WITHIN: Duration = Duration::from_secs(20);

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The first attempt at a task with this payload.
fn execution(payload: &str) -> Execution {
    let at: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    Execution {
        id: TaskId::new(at, &[7; 10]),
        kind: "thumbnail".parse().unwrap(),
        queue: "images".parse().unwrap(),
        project: Project::default(),
        attempt: 1,
        max_attempts: 5,
        fence: 1,
        payload: Json::parse(payload.as_bytes()).unwrap(),
        traceparent: TraceParent::parse(TRACE),
        timeout: Duration::from_secs(60),
        deadline: Instant::now() + Duration::from_secs(60),
        heartbeat_timeout: None,
        stop: Stop::new(),
        log: LogTail::new(),
        progress: Progress::new(),
    }
}

/// Waits until `probe` has an answer, and fails the test where it has none in time.
async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let give_up_at = Instant::now() + WITHIN;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < give_up_at, "{what}: not within {WITHIN:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a process is gone, or dead and not yet reaped.
async fn wait_for_death(pid: i32) {
    wait_for(&format!("the death of process {pid}"), || async move {
        (!is_alive(pid)).then_some(())
    })
    .await;
}

fn is_alive(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may itself contain some.
        Ok(stat) => !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => false,
    }
}
