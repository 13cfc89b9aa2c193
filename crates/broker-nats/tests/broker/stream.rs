//! How the stream is set up, filled, and trimmed.

use base64::{Engine, prelude::BASE64_STANDARD};
use forebay_broker::{Broker, Message, PublishError, Source};
use forebay_broker_nats::{NatsBroker, NatsOptions};
use forebay_core::{Json, Ready, SubmitRequest};
use forebay_testkit::{nats::Setup, wait};
use serde_json::{Value, json};

use crate::support::*;

/// The headers of a stored message.
async fn headers(served: &Served, seq: u64) -> String {
    let message = served.api("STREAM.MSG.GET.FOREBAY", &json!({ "seq": seq })).await;
    let encoded = message["message"]["hdrs"].as_str().unwrap_or_default();
    let decoded = BASE64_STANDARD.decode(encoded).expect("base64");
    String::from_utf8(decoded).expect("text")
}

#[tokio::test]
async fn a_batch_is_one_atomic_batch_and_a_lone_message_is_none() {
    let served = fresh().await;
    let lane = lane("atomic");
    served.try_publish(&tasks(&lane, 1_500)).await.unwrap();
    served.try_publish(&tasks(&lane, 1)).await.unwrap();
    assert!(headers(&served, 1).await.contains("Nats-Batch-Sequence: 1\r\n"));
    for (seq, sequence) in [(1_000, 1_000), (1_500, 500)] {
        let last = headers(&served, seq).await;
        assert!(last.contains("Nats-Batch-Commit: 1\r\n"), "{last}");
        assert!(
            last.contains(&format!("Nats-Batch-Sequence: {sequence}\r\n")),
            "{last}"
        );
    }
    assert_eq!(headers(&served, 1_501).await, "");
    // A batch of a few costs the server more than its messages do.
    served.try_publish(&tasks(&lane, 5)).await.unwrap();
    assert_eq!(headers(&served, 1_506).await, "");
}

#[tokio::test]
async fn without_atomic_batches_messages_go_singly() {
    let served = fresh_with_single_publishes().await;
    served.try_publish(&tasks(&lane("single"), 40)).await.unwrap();
    assert_eq!(headers(&served, 40).await, "");
}

/// The server's bounds on batches are an operator's to set: what it refuses as a batch goes singly.
#[tokio::test]
async fn a_batch_that_is_refused_for_being_one_goes_singly() {
    let served = fresh().await;
    let lane = lane("refused");
    served.try_publish(&tasks(&lane, 2)).await.unwrap();
    let mut info = served.api("STREAM.INFO.FOREBAY", &Value::Null).await;
    info["config"]["allow_atomic"] = json!(false);
    let updated = served.api("STREAM.UPDATE.FOREBAY", &info["config"]).await;
    assert!(updated["error"].is_null(), "{updated}");
    let published = tasks(&lane, 50);
    served.try_publish(&published).await.unwrap();
    assert_eq!(headers(&served, 52).await, "");
    assert_eq!(
        take(&mut served.consume(&lane).await, 52).await[2..],
        ids(&published)
    );
}

#[tokio::test]
async fn a_full_stream_says_so_and_keeps_what_it_has() {
    for atomic in [true, false] {
        let served = served(Setup::default(), |options| {
            options.stream_bytes_max = 1024 * 1024;
            options.atomic_batches = atomic;
        })
        .await;
        let lane = lane("full");
        let payload = Json::parse(format!("\"{}\"", "x".repeat(100_000)).as_bytes()).unwrap();
        let big = || {
            task(
                &lane,
                SubmitRequest {
                    payload: Some(payload.clone()),
                    ..SubmitRequest::default()
                },
            )
        };
        let mut kept = Vec::new();
        let refused = loop {
            let next = big();
            match served.try_publish(std::slice::from_ref(&next)).await {
                Ok(()) => kept.push(next),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, PublishError::Full);
        assert!(kept.len() >= 8, "{} were kept", kept.len());
        let batch = [big(), big()];
        assert_eq!(served.try_publish(&batch).await, Err(PublishError::Full));
        assert_eq!(
            served.stored().await,
            kept.len() as u64,
            "a refused message was kept"
        );
        assert_eq!(
            take(&mut served.consume(&lane).await, kept.len()).await,
            ids(&kept)
        );
    }
}

/// A stream that an earlier version or an operator made is brought up to date; what is not ours to set stays.
#[tokio::test]
async fn settings_are_brought_up_to_date() {
    let served = fresh_with_single_publishes().await;
    let mut info = served.api("STREAM.INFO.FOREBAY", &Value::Null).await;
    assert_eq!(info["config"]["retention"], "limits");
    assert_eq!(info["config"]["discard"], "new");
    assert_eq!(info["config"]["storage"], "file");
    info["config"]["description"] = json!("ours");
    info["config"]["allow_atomic"] = json!(false);
    served.api("STREAM.UPDATE.FOREBAY", &info["config"]).await;
    let options = NatsOptions {
        stream_bytes_max: 64 * 1024 * 1024,
        atomic_batches: true,
        ..served.options.clone()
    };
    let broker = NatsBroker::connect(&options).await.unwrap();
    let lane = lane("updated");
    let batch = tasks(&lane, 40).into_iter().map(Message::Submission).collect();
    assert!(broker.publish(batch).await.iter().all(Result::is_ok));
    assert!(headers(&served, 40).await.contains("Nats-Batch-Commit"));
    let info = served.api("STREAM.INFO.FOREBAY", &Value::Null).await;
    assert_eq!(info["config"]["max_bytes"], 64 * 1024 * 1024);
    assert_eq!(info["config"]["description"], "ours");
}

#[tokio::test]
async fn a_stream_with_another_retention_is_a_clear_error() {
    let served = fresh().await;
    served.api("STREAM.DELETE.FOREBAY", &Value::Null).await;
    let other =
        json!({ "name": "FOREBAY", "subjects": ["submit.*.*"], "retention": "workqueue", "storage": "file" });
    served.api("STREAM.CREATE.FOREBAY", &other).await;
    let error = NatsBroker::connect(&served.options).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("set up the stream"), "{error}");
    assert!(source.contains("retention"), "{source}");
}

#[tokio::test]
async fn durable_consumers_never_expire() {
    let served = fresh().await;
    served.try_publish(&tasks(&lane("durable"), 1)).await.unwrap();
    for name in ["recorder", "lane_durable_default"] {
        let info = served
            .api(&format!("CONSUMER.INFO.FOREBAY.{name}"), &Value::Null)
            .await;
        assert_eq!(info["config"]["durable_name"], name);
        assert_eq!(info["config"]["inactive_threshold"].as_u64().unwrap_or(0), 0);
        assert_eq!(info["config"]["ack_policy"], "explicit");
        assert_eq!(info["config"]["max_deliver"], -1);
    }
}

#[tokio::test]
async fn once_all_is_acknowledged_trim_leaves_nothing() {
    let served = fresh().await;
    let (one, other) = (lane("one"), lane("other"));
    let due = |task: &forebay_core::Submission| {
        let (id, kind, lane) = (task.id, task.kind.clone(), task.lane.clone());
        Message::Ready(Ready {
            id,
            kind,
            lane,
            fence: 1,
            lost: 0,
        })
    };
    let parked = SubmitRequest {
        delay_seconds: Some(60.0),
        ..SubmitRequest::default()
    };
    for lane in [&one, &other] {
        let mut batch: Vec<Message> = tasks(lane, 20).into_iter().map(Message::Submission).collect();
        batch.extend(tasks(lane, 20).iter().map(due));
        batch.push(Message::Submission(task(lane, parked.clone())));
        batch.extend(tasks(lane, 5).iter().map(due));
        assert!(served.broker.publish(batch).await.iter().all(Result::is_ok));
    }
    served.broker.trim().await.unwrap();
    assert_eq!(served.stored().await, 92, "nothing is acknowledged yet");
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    take(&mut recorder, 42).await;
    take(&mut served.consume(&one).await, 45).await;
    let trimmed_to = |messages| {
        let served = &served;
        async move || {
            served.broker.trim().await.map_err(|error| error.to_string())?;
            let stored = served.stored().await;
            if stored == messages {
                Ok(true)
            } else {
                Err(format!("{stored} messages are left"))
            }
        }
    };
    // What one lane still holds keeps nothing of the other. Of it, only the parked one was nobody's but the recorder's.
    wait::until("the first lane to be empty", PATIENCE, trimmed_to(45)).await;
    assert_eq!(take(&mut served.consume(&other).await, 45).await.len(), 45);
    wait::until("the stream to be empty", PATIENCE, trimmed_to(0)).await;
}

/// Nobody made a consumer for this lane yet: its messages are not known to be read by anyone.
#[tokio::test]
async fn trim_keeps_a_lane_that_has_no_consumer() {
    let served = fresh().await;
    let lane = lane("nobody");
    served.try_publish(&tasks(&lane, 3)).await.unwrap();
    served
        .api("CONSUMER.DELETE.FOREBAY.lane_nobody_default", &Value::Null)
        .await;
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    take(&mut recorder, 3).await;
    served.broker.trim().await.unwrap();
    assert_eq!(served.stored().await, 3);
    assert_eq!(served.broker.depth(&lane).await.unwrap().waiting, 3);
}
