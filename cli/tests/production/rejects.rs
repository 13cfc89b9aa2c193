//! What nobody can decode holds nothing up, comes once, and is seen.

use std::process::Command;

use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};

use crate::stack::{PATIENCE, Stack, User};

const RUBBISH: [(&str, &[u8]); 5] = [
    ("submit", b"{\"kind\": \"echo\"}"),
    ("submit", b"\xff\xff\xff"),
    ("ready.default.default", b""),
    ("ready.default.default", b"\x00 and so on"),
    ("ready.default.high", b"hello"),
];

async fn echo(user: &User, api: &str, count: usize) {
    let mut ids = Vec::new();
    for number in 0..count {
        let task = json!({"kind": "echo", "payload": number});
        ids.push(user.accepted(api, &task, None).await);
    }
    for id in ids {
        assert_eq!(user.finished(api, &id).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_the_broker_is_set_aside_once_and_the_lanes_go_on() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let (user, api) = (User::default(), stack.api().await);
    let worker = stack.worker(&["--builtin-handlers"]).await;
    // The lanes are there now.
    echo(&user, &api.http, 1).await;
    let nats = async_nats::connect(stack.broker.url()).await.unwrap();
    for (subject, body) in RUBBISH {
        nats.publish(subject, body.into()).await.unwrap();
    }
    nats.flush().await.unwrap();
    echo(&user, &api.http, 20).await;

    let rejects = async || -> Value {
        let answer = reqwest::get(format!("{}/v1/rejects", api.http)).await.unwrap();
        answer.json().await.unwrap()
    };
    let found = wait::until("all of it to be set aside", PATIENCE, || async {
        let found = rejects().await;
        if found["count"] == RUBBISH.len() {
            Ok(Some(found))
        } else {
            Err(found.to_string())
        }
    })
    .await;
    let mut subjects: Vec<&str> = found["rejects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reject| reject["subject"].as_str().unwrap())
        .collect();
    subjects.sort_unstable();
    let mut expected = RUBBISH.map(|(subject, _)| subject);
    expected.sort_unstable();
    assert_eq!(subjects, expected);
    assert_eq!(
        worker.metric("forebay_undecodable_messages_total").await,
        RUBBISH.len() as f64
    );
    let shown = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["rejects", "--limit", "3"])
        .env("FOREBAY_URL", &api.http)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.starts_with("REJECTED") && shown.ends_with("and 2 before them\n"),
        "{shown}"
    );

    // It does not come again.
    echo(&user, &api.http, 20).await;
    assert_eq!(rejects().await["count"], RUBBISH.len());
    // What is shown may be a second old.
    wait::until("nothing to be left in the lanes", PATIENCE, || async {
        let queue = reqwest::get(format!("{}/v1/queues/default", api.http)).await;
        let queue: Value = queue.unwrap().json().await.unwrap();
        queue["ready"] == 0
    })
    .await;
    worker.wait_until_ready().await;
}
