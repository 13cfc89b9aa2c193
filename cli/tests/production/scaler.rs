//! `forebay scaler`, called as KEDA calls it.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::json;
use tonic::Code;

use crate::{
    external::Trigger,
    stack::{PATIENCE, Stack, User, on_every_broker},
};

on_every_broker! {
    a_pool_at_zero_is_woken_within_a_second_of_its_first_task
    an_outage_is_unavailable_and_ends_no_stream
}

const WAKE_MAX: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(2);

async fn a_pool_at_zero_is_woken_within_a_second_of_its_first_task(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let (user, api) = (User::default(), stack.api().await);
    let _recorder = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    let scaler = stack.scaler().await;
    let trigger = Trigger::new(&scaler.grpc, &[("queue", "default"), ("target_per_worker", "20")]);
    assert_eq!(trigger.spec().await.unwrap(), ("forebay-tasks".to_owned(), 20.0));
    assert_eq!(trigger.value().await.unwrap(), 0.0);
    let mut pushes = trigger.pushes().await.unwrap();
    assert_eq!(pushes.next().await.unwrap(), Some(false));

    let id = user.accepted(&api.http, &json!({"kind": "echo"}), None).await;
    let accepted = Instant::now();
    assert_eq!(pushes.next().await.unwrap(), Some(true));
    let mut quickest = accepted.elapsed();
    for queue in ["second", "third"] {
        if quickest > WAKE_MAX {
            quickest = woken_after(&api.http, &scaler.grpc, queue).await;
        }
    }
    assert!(quickest < WAKE_MAX, "woken after {quickest:?} at best");
    assert!(trigger.is_active().await.unwrap());
    assert_eq!(trigger.value().await.unwrap(), 1.0);

    let _executor = stack.worker(&["--roles", "executor", "--builtin-handlers"]).await;
    assert_eq!(user.finished(&api.http, &id).await["state"], "succeeded");
    wait::until("the pool to be idle", PATIENCE, || async {
        trigger.is_active().await.map(|active| !active)
    })
    .await;
    assert_eq!(trigger.value().await.unwrap(), 0.0);
    let said = pushes.next_within(SILENCE).await;
    assert!(said.is_none(), "that it is idle is found out by polls: {said:?}");
}

/// Another queue that nobody has used: a machine that is busy for a moment is not the product's fault.
async fn woken_after(api: &str, scaler: &str, queue: &str) -> Duration {
    let mut pushes = Trigger::new(scaler, &[("queue", queue)]).pushes().await.unwrap();
    assert_eq!(pushes.next().await.unwrap(), Some(false));
    let task = json!({"kind": "echo", "queue": queue});
    User::default().accepted(api, &task, None).await;
    let accepted = Instant::now();
    assert_eq!(pushes.next().await.unwrap(), Some(true));
    accepted.elapsed()
}

async fn an_outage_is_unavailable_and_ends_no_stream(kind: BrokerKind) {
    let mut stack = Stack::on(kind).await;
    let (user, api) = (User::default(), stack.api().await);
    let _recorder = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    let mut scaler = stack.scaler().await;
    let trigger = Trigger::new(&scaler.grpc, &[("queue", "default")]);
    user.accepted(&api.http, &json!({"kind": "echo"}), None).await;
    wait::until("the task to be ready", PATIENCE, || async {
        trigger.value().await.map(|value| value == 1.0)
    })
    .await;
    let mut pushes = trigger.pushes().await.unwrap();
    assert_eq!(pushes.next().await.unwrap(), Some(true));

    stack.broker.settle().await.unwrap();
    stack.broker.kill().unwrap();
    let unknown = wait::until("the outage to be told", PATIENCE, || async {
        match trigger.value().await {
            Err(status) => Ok(Some(status)),
            // What was counted before it, for a second.
            Ok(value) => {
                assert_eq!(value, 1.0);
                Err(value)
            }
        }
    })
    .await;
    assert_eq!(unknown.code(), Code::Unavailable);
    assert!(unknown.message().contains("broker"), "{unknown:?}");
    assert_eq!(trigger.is_active().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(trigger.spec().await.unwrap().0, "forebay-tasks");
    let said = pushes.next_within(SILENCE).await;
    assert!(said.is_none(), "an outage is no push: {said:?}");

    stack.broker.restart().await.unwrap();
    wait::until("the figures to be known again", PATIENCE, || async {
        trigger.value().await.map(|value| value == 1.0)
    })
    .await;
    scaler.wait_until_ready().await;
    let ends = async { (scaler.terminate().await, pushes.next().await) };
    assert_eq!(ends.await.1.unwrap(), None, "the stream ends with OK");
}

#[test]
fn what_serves_one_process_alone_cannot_be_observed_by_another() {
    for (database, broker) in [
        ("sqlite://forebay.db", "nats://127.0.0.1:1"),
        ("postgres://127.0.0.1:1/forebay", "embedded://"),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args([
                "scaler",
                "--grpc-addr",
                "127.0.0.1:0",
                "--admin-addr",
                "127.0.0.1:0",
            ])
            .env("FOREBAY_DATABASE_URL", database)
            .env("FOREBAY_BROKER_URL", broker)
            .output()
            .unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success());
        assert!(said.contains("serve one process alone"), "{said}");
    }
}
