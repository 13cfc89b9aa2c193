//! A task that kills every worker that runs it.

use std::time::Duration;

use forebay_testkit::broker::BrokerKind;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stack::{Forebay, PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    a_task_that_kills_its_workers_fails_and_takes_nobody_with_it
}

/// The poisoned one kills its parent, the worker. Its neighbours take long enough to be there when it strikes.
const HANDLERS: &str = r#"
[[handler]]
kind = "poison"
command = ["sh", "-c", "grep -q forebay /proc/$PPID/comm && kill -9 $PPID"]

[[handler]]
kind = "neighbour"
command = ["sh", "-c", "sleep 1; echo 1"]
"#;

/// How many share the worker with it.
const NEIGHBOURS: usize = 8;

/// Starts the worker again, whenever it has died, until the task is final. Says how often that was.
async fn keep_alive(worker: &mut Forebay, user: &User, api: &str, id: &str) -> (usize, Value) {
    let deadline = Instant::now() + PATIENCE;
    let mut deaths = 0;
    loop {
        if worker.has_ended() {
            deaths += 1;
            worker.start_again();
        }
        // Not readable before a worker has lived long enough to record it.
        let task = user.get(api, id).await.unwrap_or_default();
        if matches!(task["state"].as_str(), Some("succeeded" | "failed")) {
            return (deaths, task);
        }
        assert!(Instant::now() < deadline, "after {deaths} deaths: {task}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_task_that_kills_its_workers_fails_and_takes_nobody_with_it(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("forebay.toml");
    std::fs::write(&config, HANDLERS).unwrap();
    let (user, api) = (User::default(), stack.api().await);
    let submit = async |kind: &str| {
        let id = user.submit(&api.http, &json!({ "kind": kind }), None).await;
        id.expect("accepted")
    };
    // Before there is a worker, so that they are claimed together.
    let mut neighbours = Vec::new();
    for _ in 0..NEIGHBOURS {
        neighbours.push(submit("neighbour").await);
    }
    let poison = submit("poison").await;
    let args = [
        "--config",
        config.to_str().unwrap(),
        "--lease",
        "2s",
        "--concurrency",
        "20",
    ];
    let mut worker = stack.worker_without_waiting(&args);

    let (mut deaths, failed) = keep_alive(&mut worker, &user, &api.http, &poison).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let error = &failed["error"];
    assert_eq!(error["outcome"], "lost", "{failed}");
    assert_eq!(
        error["message"], "worker_lost: the worker died 3 times while it ran this task",
        "{failed}"
    );
    assert_eq!(failed["errors"].as_array().unwrap().len(), 3);
    let mut shared = 0;
    for id in &neighbours {
        let (more, task) = keep_alive(&mut worker, &user, &api.http, id).await;
        deaths += more;
        assert_eq!(
            (&task["state"], &task["result"]),
            (&json!("succeeded"), &json!(1)),
            "{task}"
        );
        shared += usize::from(!task["errors"].as_array().unwrap().is_empty());
    }
    assert_eq!(deaths, 3, "it killed three workers, and no more");
    assert!(shared > 0, "nobody was there when it struck");
}
