//! How the stream is set up, filled, and trimmed.

use forebay_broker::{Broker, PublishError};
use forebay_broker_nats::{NatsBroker, NatsOptions};
use forebay_core::{Json, SubmitRequest};
use forebay_testkit::{nats::Setup, wait};
use serde_json::{Value, json};

use crate::support::*;

/// What is submitted together costs the server one sync.
#[tokio::test]
async fn a_batch_of_submissions_is_as_few_messages_as_hold_it() {
    let served = fresh().await;
    let lane = lane("bundle");
    served.try_submit(&tasks(&lane, 1_000)).await.unwrap();
    assert_eq!(served.stored(INTAKE).await, 1);
    served.try_submit(&tasks(&lane, 2_500)).await.unwrap();
    assert_eq!(served.stored(INTAKE).await, 4);
    served.try_submit(&tasks(&lane, 1)).await.unwrap();
    assert_eq!(served.stored(INTAKE).await, 5);
    let payload = Json::parse(format!("\"{}\"", "x".repeat(200_000)).as_bytes()).unwrap();
    let large = || SubmitRequest {
        payload: Some(payload.clone()),
        ..SubmitRequest::default()
    };
    let batch: Vec<_> = (0..12).map(|_| task(&lane, large())).collect();
    served.try_submit(&batch).await.unwrap();
    assert_eq!(
        served.stored(INTAKE).await,
        8,
        "five fit below the server's bound on a message"
    );
}

/// The server's own bound on a message is an operator's to set.
#[tokio::test]
async fn bundles_respect_what_the_server_takes() {
    let served = served(
        Setup {
            extra: "max_payload: 24KB".to_owned(),
            ..Setup::default()
        },
        |_| {},
    )
    .await;
    let published = tasks(&lane("small"), 1_200);
    served.try_submit(&published).await.unwrap();
    assert!(served.stored(INTAKE).await > 2);
    assert_eq!(take(&mut served.record().await, 1_200).await, ids(&published));
}

/// What is ready is in the store, so it need not be synced; what was submitted must be.
#[tokio::test]
async fn the_lanes_are_not_synced_and_the_intake_is() {
    let served = fresh().await;
    let modes = [(READY, json!("async")), (INTAKE, Value::Null)];
    for (stream, mode) in &modes {
        let info = served.api(&format!("STREAM.INFO.{stream}"), &Value::Null).await;
        assert_eq!(info["config"]["persist_mode"], *mode, "{info}");
    }
    // Connecting again finds it as it is.
    NatsBroker::connect(&served.options).await.unwrap();
}

/// As where the stream was made by an earlier server, or has replicas: the mode can't be changed.
#[tokio::test]
async fn lanes_that_are_synced_stay_so() {
    let served = fresh().await;
    served.api(&format!("STREAM.DELETE.{READY}"), &Value::Null).await;
    let synced = json!({ "name": READY, "subjects": ["ready.*.*"], "storage": "file", "discard": "new" });
    served.api(&format!("STREAM.CREATE.{READY}"), &synced).await;
    let broker = NatsBroker::connect(&served.options).await.unwrap();
    let task = tasks(&lane("synced"), 1);
    assert_eq!(broker.publish(vec![ready(&task[0])]).await, [Ok(())]);
    assert_eq!(served.stored(READY).await, 1);
}

#[tokio::test]
async fn a_full_intake_says_so_and_keeps_what_it_has() {
    let served = served(Setup::default(), |options| options.stream_bytes_max = 1024 * 1024).await;
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
        match served.try_submit(std::slice::from_ref(&next)).await {
            Ok(()) => kept.push(next),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, PublishError::Full);
    assert!(kept.len() >= 8, "{} were kept", kept.len());
    assert_eq!(served.try_submit(&[big(), big()]).await, Err(PublishError::Full));
    assert_eq!(
        served.stored(INTAKE).await,
        kept.len() as u64,
        "a refused message was kept"
    );
    // The lanes have room of their own.
    served.try_ready(&kept).await.unwrap();
    assert_eq!(take(&mut served.record().await, kept.len()).await, ids(&kept));
}

#[tokio::test]
async fn a_full_lane_says_so_and_takes_more_once_it_is_trimmed() {
    let served = served(Setup::default(), |options| options.stream_bytes_max = 256 * 1024).await;
    let lane = lane("full");
    let (mut confirmed, mut refused) = (0, None);
    while refused.is_none() {
        match served.try_ready(&tasks(&lane, 100)).await {
            Ok(()) => confirmed += 100,
            Err(error) => refused = Some(error),
        }
    }
    assert_eq!(refused, Some(PublishError::Full));
    let stored = served.stored(READY).await;
    assert!(
        stored >= confirmed && confirmed >= 100,
        "{stored} of {confirmed} are there"
    );
    assert_eq!(served.try_ready(&tasks(&lane, 1)).await, Err(PublishError::Full));
    take(&mut served.consume(&lane).await, usize::try_from(stored).unwrap()).await;
    let room = || async {
        served.broker.trim().await.map_err(|error| error.to_string())?;
        served
            .try_ready(&tasks(&lane, 50))
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(true)
    };
    wait::until("room in the lane", PATIENCE, room).await;
    // The intake is another stream.
    served.try_submit(&tasks(&lane, 100)).await.unwrap();
}

/// Those of a run that the stream refused are told, though only the last is confirmed.
#[tokio::test]
async fn what_is_refused_in_the_middle_of_a_run_is_noticed() {
    let served = fresh().await;
    let mut info = served.api(&format!("STREAM.INFO.{READY}"), &Value::Null).await;
    info["config"]["max_msgs_per_subject"] = json!(10);
    info["config"]["discard_new_per_subject"] = json!(true);
    let updated = served
        .api(&format!("STREAM.UPDATE.{READY}"), &info["config"])
        .await;
    assert!(updated["error"].is_null(), "{updated}");
    let [narrow, wide] = [lane("narrow"), lane("wide")];
    served.try_ready(&tasks(&wide, 1)).await.unwrap();
    let mut run = tasks(&narrow, 12);
    run.extend(tasks(&wide, 1));
    assert_eq!(served.try_ready(&run).await, Err(PublishError::Full));
    assert_eq!(served.stored(READY).await, 12);
}

/// A stream that an earlier version or an operator made is brought up to date; what is not ours to set stays.
#[tokio::test]
async fn settings_are_brought_up_to_date() {
    let served = fresh().await;
    for (stream, bytes_max) in [(INTAKE, 64 * 1024 * 1024), (READY, 16 * 1024 * 1024)] {
        let mut info = served.api(&format!("STREAM.INFO.{stream}"), &Value::Null).await;
        assert_eq!(info["config"]["retention"], "limits");
        assert_eq!(info["config"]["discard"], "new");
        assert_eq!(info["config"]["storage"], "file");
        info["config"]["description"] = json!("ours");
        served
            .api(&format!("STREAM.UPDATE.{stream}"), &info["config"])
            .await;
        let options = NatsOptions {
            stream_bytes_max: 64 * 1024 * 1024,
            ..served.options.clone()
        };
        NatsBroker::connect(&options).await.unwrap();
        let info = served.api(&format!("STREAM.INFO.{stream}"), &Value::Null).await;
        assert_eq!(info["config"]["max_bytes"], bytes_max);
        assert_eq!(info["config"]["description"], "ours");
    }
}

#[tokio::test]
async fn a_stream_with_another_retention_is_a_clear_error() {
    let served = fresh().await;
    served.api("STREAM.DELETE.FOREBAY", &Value::Null).await;
    let other =
        json!({ "name": "FOREBAY", "subjects": ["submit"], "retention": "workqueue", "storage": "file" });
    served.api("STREAM.CREATE.FOREBAY", &other).await;
    let error = NatsBroker::connect(&served.options).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("set up the streams"), "{error}");
    assert!(source.contains("retention"), "{source}");
}

#[tokio::test]
async fn durable_consumers_never_expire() {
    let served = fresh().await;
    served.try_ready(&tasks(&lane("durable"), 1)).await.unwrap();
    for (stream, name) in [(INTAKE, "recorder"), (READY, "lane_durable_default")] {
        let info = served
            .api(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null)
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
    for lane in [&one, &other, &one, &other] {
        served.try_submit(&tasks(lane, 20)).await.unwrap();
        served.try_ready(&tasks(lane, 20)).await.unwrap();
    }
    let left = async || (served.stored(INTAKE).await, served.stored(READY).await);
    served.broker.trim().await.unwrap();
    assert_eq!(left().await, (4, 80), "nothing is acknowledged yet");
    take(&mut served.record().await, 70).await;
    take(&mut served.consume(&one).await, 40).await;
    let trimmed_to = |expected| {
        let (served, left) = (&served, &left);
        async move || {
            served.broker.trim().await.map_err(|error| error.to_string())?;
            let left = left().await;
            if left == expected {
                Ok(true)
            } else {
                Err(format!("{left:?} messages are left"))
            }
        }
    };
    // What one lane still holds keeps nothing of the other. Of the last bundle a half is not recorded.
    wait::until("the first lane to be empty", PATIENCE, trimmed_to((1, 40))).await;
    assert_eq!(take(&mut served.consume(&other).await, 40).await.len(), 40);
    wait::until("the lanes to be empty", PATIENCE, trimmed_to((1, 0))).await;
    take(&mut served.record().await, 20).await;
    wait::until("the streams to be empty", PATIENCE, trimmed_to((0, 0))).await;
}

/// Nobody made a consumer for this lane yet: its messages are not known to be read by anyone.
#[tokio::test]
async fn trim_keeps_a_lane_that_has_no_consumer() {
    let served = fresh().await;
    let lane = lane("nobody");
    served.try_ready(&tasks(&lane, 3)).await.unwrap();
    served
        .api(
            &format!("CONSUMER.DELETE.{READY}.lane_nobody_default"),
            &Value::Null,
        )
        .await;
    served.broker.trim().await.unwrap();
    assert_eq!(served.stored(READY).await, 3);
    assert_eq!(served.broker.depth(&lane).await.unwrap().waiting, 3);
}
