//! A worker that was stopped, was declared dead, and wakes up.

use std::path::Path;

use forebay_testkit::{broker::BrokerKind, wait};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    a_worker_that_wakes_up_after_its_lease_cannot_write
}

/// Waits for a file, and returns its fencing token.
const HANDLERS: &str = r#"
[[handler]]
kind = "wait"
command = ["sh", "-c", "echo $FOREBAY_FENCE >> starts; until [ -e gate ]; do sleep 0.05; done; echo $FOREBAY_FENCE"]
"#;

async fn starts(folder: &Path, expected: &str) {
    wait::until("the handler to start", PATIENCE, || async {
        let starts = std::fs::read_to_string(folder.join("starts")).unwrap_or_default();
        if starts == expected { Ok(true) } else { Err(starts) }
    })
    .await;
}

async fn a_worker_that_wakes_up_after_its_lease_cannot_write(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("forebay.toml");
    std::fs::write(&config, HANDLERS).unwrap();
    let args = ["--config", config.to_str().unwrap(), "--lease", "2s"];
    let (user, api, zombie) = (User::default(), stack.api().await, stack.worker(&args).await);
    let id = user.accepted(&api.http, &json!({ "kind": "wait" }), None).await;
    starts(folder.path(), "1\n").await;
    let other = stack.worker(&args).await;
    zombie.signal(Signal::SIGSTOP);
    starts(folder.path(), "1\n2\n").await;
    std::fs::write(folder.path().join("gate"), "").unwrap();
    let finished = user.finished(&api.http, &id).await;
    assert_eq!(
        (&finished["state"], &finished["result"], &finished["attempt"]),
        (&json!("succeeded"), &json!(2), &json!(1)),
        "{finished}"
    );
    assert_eq!(other.metric("forebay_fenced_writes_total").await, 0.0);

    // Its own program has ended meanwhile, and succeeded as well.
    zombie.signal(Signal::SIGCONT);
    wait::until(
        "the zombie's write to be refused, counted and logged",
        PATIENCE,
        || async {
            let fenced = zombie.metric("forebay_fenced_writes_total").await;
            let log = zombie.logged();
            if fenced >= 1.0 && log.contains("an outcome was refused") && log.contains(&id) {
                Ok(true)
            } else {
                Err(format!("{fenced} {log}"))
            }
        },
    )
    .await;
    zombie.wait_until_ready().await;
    assert_eq!(
        user.get(&api.http, &id).await.unwrap(),
        finished,
        "the outcome is the other's"
    );
    // It begins a new life, and is of use again.
    let next = user.accepted(&api.http, &json!({ "kind": "wait" }), None).await;
    assert_eq!(user.finished(&api.http, &next).await["result"], 1);
}
