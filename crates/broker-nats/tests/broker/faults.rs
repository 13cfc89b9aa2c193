//! The server dies, hangs, or loses everything, while one and the same broker object goes on.

use std::time::Duration;

use forebay_broker::{Broker, Delivery, Message, PublishError, Source};
use forebay_broker_nats::NatsBroker;
use forebay_core::Signal;
use forebay_testkit::{nats::Setup, wait};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::*;

#[tokio::test]
async fn what_was_confirmed_survives_a_crash_of_the_server() {
    let mut served = fresh().await;
    let lane = lane("crash");
    let (batch, single) = (tasks(&lane, 200), tasks(&lane, 1));
    served.try_publish(&batch).await.unwrap();
    served.try_publish(&single).await.unwrap();
    served.server.kill().unwrap();
    served.server.restart().await.unwrap();
    let mut subscription = served.consume_at_last(&Source::Lane(lane)).await;
    let expected: Vec<_> = ids(&batch).into_iter().chain(ids(&single)).collect();
    assert_eq!(take(&mut subscription, 201).await, expected);
}

#[tokio::test]
async fn while_the_server_is_down_publishing_fails_fast_and_heals_by_itself() {
    let mut served = fresh().await;
    let lane = lane("down");
    served.try_publish(&tasks(&lane, 1)).await.unwrap();
    served.server.kill().unwrap();
    for batch in [tasks(&lane, 1), tasks(&lane, 5)] {
        let since = Instant::now();
        let outcome = served.try_publish(&batch).await;
        assert!(
            matches!(outcome, Err(PublishError::Unavailable(_))),
            "{outcome:?}"
        );
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "it took {:?}",
            since.elapsed()
        );
    }
    assert!(served.broker.check().await.is_err());
    assert!(
        served.broker.depth(&lane).await.is_err(),
        "an unknown depth is not zero"
    );
    assert!(served.broker.unrecorded().await.is_err());
    served.server.restart().await.unwrap();
    let late = tasks(&lane, 3);
    served.publish_at_last(&late).await;
    let mut subscription = served.consume(&lane).await;
    assert_eq!(take(&mut subscription, 4).await[1..], ids(&late));
}

#[tokio::test]
async fn a_server_that_hangs_holds_nobody_up() {
    let served = served(Setup::default(), |options| {
        options.publish_timeout = Duration::from_millis(1_500);
    })
    .await;
    let lane = lane("hang");
    let mut subscription = served.consume(&lane).await;
    served.publish_at_last(&tasks(&lane, 1)).await;
    take(&mut subscription, 1).await;
    served.server.pause().unwrap();
    // The last is far more than fits into the buffers on the way.
    let [one, some, many] = [1, 50, 5_000].map(|count| tasks(&lane, count));
    let since = Instant::now();
    let outcomes = tokio::join!(
        served.try_publish(&one),
        served.try_publish(&some),
        served.try_publish(&many)
    );
    for outcome in [outcomes.0, outcomes.1, outcomes.2] {
        assert!(
            matches!(outcome, Err(PublishError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        since.elapsed()
    );
    let checked = timeout(Duration::from_secs(2), served.broker.check()).await;
    assert!(checked.expect("an answer in time").is_err());
    assert!(served.broker.depth(&lane).await.is_err());
    served.server.resume().unwrap();
    served.publish_at_last(&tasks(&lane, 1)).await;
}

#[tokio::test]
async fn a_subscription_notices_that_the_server_hangs() {
    for wait in [Duration::from_millis(500), Duration::from_secs(20)] {
        let served = fresh().await;
        let mut subscription = served.consume(&lane("deaf")).await;
        assert_eq!(subscription.consumer.next(1, Duration::ZERO).await.unwrap(), []);
        served.server.pause().unwrap();
        let since = Instant::now();
        let answer = subscription.consumer.next(10, wait).await;
        assert!(answer.is_err(), "{answer:?} from a server that hangs");
        let limit = wait.min(Duration::from_secs(3)) + Duration::from_secs(1);
        assert!(since.elapsed() < limit, "it took {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn a_subscription_notices_that_the_server_died() {
    let mut served = fresh().await;
    let lane = lane("gone");
    let mut subscription = served.consume(&lane).await;
    let mut waiting = Box::pin(subscription.consumer.next(10, Duration::from_secs(30)));
    assert!((&mut waiting).now_or_never().is_none());
    served.server.kill().unwrap();
    let answer = timeout(Duration::from_secs(5), waiting)
        .await
        .expect("an answer in time");
    assert!(answer.is_err(), "{answer:?} from a server that died");
    served.server.restart().await.unwrap();
    let task = tasks(&lane, 1);
    served.publish_at_last(&task).await;
    let mut subscription = served.consume_at_last(&Source::Lane(lane)).await;
    assert_eq!(take(&mut subscription, 1).await, ids(&task));
}

#[tokio::test]
async fn a_server_that_lost_everything_is_set_up_again() {
    for publish_first in [true, false] {
        let mut served = fresh().await;
        let lane = lane("wiped");
        served.try_publish(&tasks(&lane, 10)).await.unwrap();
        assert_eq!(served.broker.depth(&lane).await.unwrap().waiting, 10);
        served.server.stop().await.unwrap();
        served.server.wipe().unwrap();
        served.server.restart().await.unwrap();
        let new = tasks(&lane, 4);
        if publish_first {
            served.publish_at_last(&new).await;
        }
        let mut subscription = served.consume_at_last(&Source::Lane(lane.clone())).await;
        if !publish_first {
            served.publish_at_last(&new).await;
        }
        assert_eq!(take(&mut subscription, 4).await, ids(&new));
        let mut recorder = served.consume_at_last(&Source::Submissions).await;
        assert_eq!(take(&mut recorder, 4).await, ids(&new));
    }
}

/// The server numbers its messages anew, so a late acknowledgement names another message than it means.
#[tokio::test]
async fn an_acknowledgement_from_before_the_loss_does_not_take_what_came_after() {
    let mut served = fresh().await;
    let lane = lane("renumbered");
    let wait = Duration::from_secs(5);
    served.try_publish(&tasks(&lane, 5)).await.unwrap();
    let mut before = served.consume_at_last(&Source::Submissions).await;
    let old = before.consumer.next(5, wait).await.unwrap();
    served.server.stop().await.unwrap();
    served.server.wipe().unwrap();
    served.server.restart().await.unwrap();
    let new = tasks(&lane, 5);
    served.publish_at_last(&new).await;
    let mut after = served.consume_at_last(&Source::Submissions).await;
    let again = after.consumer.next(5, wait).await.unwrap();
    assert_eq!((old.len(), again.len()), (5, 5));
    let tokens = |deliveries: Vec<Delivery>| deliveries.into_iter().map(|it| it.token).collect();
    assert!(before.acks.ack(tokens(old)).await.is_err());
    after.acks.hand_back(tokens(again)).await.unwrap();
    let mut taken = take(&mut after, 5).await;
    taken.sort_unstable();
    assert_eq!(taken, ids(&new));
}

#[tokio::test]
async fn counts_of_a_server_that_lost_everything_are_zero() {
    let mut served = fresh().await;
    let lane = lane("wiped");
    served.try_publish(&tasks(&lane, 10)).await.unwrap();
    served.server.kill().unwrap();
    served.server.wipe().unwrap();
    served.server.restart().await.unwrap();
    let broker = &served.broker;
    wait::until("a depth of zero", PATIENCE, || async {
        broker.depth(&lane).await.map(|depth| depth.is_empty())
    })
    .await;
    assert_eq!(broker.unrecorded().await.unwrap(), 0);
    broker.check().await.unwrap();
    broker.trim().await.unwrap();
}

/// Somebody deletes the stream while the connection stays.
#[tokio::test]
async fn a_deleted_stream_is_made_again() {
    for count in [1, 5] {
        let served = fresh().await;
        let lane = lane("deleted");
        served.try_publish(&tasks(&lane, count)).await.unwrap();
        let mut subscription = served.consume(&lane).await;
        assert!(
            served.api("STREAM.DELETE.FOREBAY", &Value::Null).await["success"]
                .as_bool()
                .unwrap()
        );
        let answer = subscription.consumer.next(1, Duration::from_secs(1)).await;
        assert!(answer.is_err(), "{answer:?} from a consumer that is gone");
        let new = tasks(&lane, count);
        served.try_publish(&new).await.unwrap();
        let mut subscription = served.consume(&lane).await;
        assert_eq!(take(&mut subscription, new.len()).await, ids(&new));
    }
}

#[tokio::test]
async fn a_deleted_consumer_is_made_again() {
    let served = fresh().await;
    let lane = lane("orphan");
    let mut subscription = served.consume(&lane).await;
    let mut waiting = Box::pin(subscription.consumer.next(10, Duration::from_secs(30)));
    assert!((&mut waiting).now_or_never().is_none());
    let waits = || async { served.waiting_pulls("lane_orphan_default").await == 1 };
    wait::until("the pull to arrive", PATIENCE, waits).await;
    let deleted = served
        .api("CONSUMER.DELETE.FOREBAY.lane_orphan_default", &Value::Null)
        .await;
    assert!(deleted["success"].as_bool().unwrap());
    let answer = timeout(Duration::from_secs(5), waiting)
        .await
        .expect("an answer in time");
    assert!(answer.is_err(), "{answer:?} from a consumer that is gone");
    let task = tasks(&lane, 1);
    served.try_publish(&task).await.unwrap();
    // The server counts a moment after it confirms.
    let counted = async || served.broker.depth(&lane).await.map(|depth| depth.waiting == 1);
    wait::until("a depth of one", PATIENCE, counted).await;
    let mut subscription = served.consume(&lane).await;
    assert_eq!(take(&mut subscription, 1).await, ids(&task));
}

#[tokio::test]
async fn signals_are_heard_again_after_a_reconnect() {
    let mut served = fresh().await;
    let mut heard = served.broker.signals().await.unwrap();
    served.server.kill().unwrap();
    served.server.restart().await.unwrap();
    let signal = Signal::Cancel(ids(&tasks(&lane("x"), 1)));
    // The first may be sent before the listener is back, so it is said until it is heard.
    let (broker, said) = (&served.broker, &signal);
    let saying = wait::until("a signal", PATIENCE, async || {
        let _ = broker.signal(said.clone()).await;
        timeout(Duration::from_millis(50), heard.next())
            .await
            .ok()
            .flatten()
    });
    assert_eq!(saying.await, signal);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_a_clear_error() {
    let mut served = fresh().await;
    served.api("STREAM.DELETE.FOREBAY", &Value::Null).await;
    served.server.pause().unwrap();
    let since = Instant::now();
    let error = NatsBroker::connect(&served.options).await.unwrap_err();
    assert!(error.to_string().contains("connect to NATS"), "{error}");
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "it took {:?}",
        since.elapsed()
    );
    served.server.kill().unwrap();
    let since = Instant::now();
    NatsBroker::connect(&served.options).await.unwrap_err();
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "a refused connection is known at once"
    );
}

/// What is not of our making is handed out as it is, and holds up nothing.
#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_delivered_as_such() {
    let served = fresh().await;
    let lane = lane("garbage");
    let mut subscription = served.consume(&lane).await;
    let client = async_nats::connect(served.server.url()).await.unwrap();
    client
        .request("submit.garbage.default", "not ours".into())
        .await
        .unwrap();
    let task = tasks(&lane, 1);
    served.try_publish(&task).await.unwrap();
    let came = subscription
        .consumer
        .next(1, Duration::from_secs(5))
        .await
        .unwrap();
    let undecodable = came[0].message.as_ref().unwrap_err();
    assert_eq!(
        (undecodable.subject.as_str(), &undecodable.body[..]),
        ("submit.garbage.default", &b"not ours"[..])
    );
    subscription.acks.ack(vec![came[0].token.clone()]).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, ids(&task));
}

/// A full house of deliveries under way is a pause, not an error, and ends when they are acknowledged.
#[tokio::test]
async fn a_consumer_at_its_limit_waits() {
    let served = fresh().await;
    let lane = lane("limit");
    let mut subscription = served.consume(&lane).await;
    let mut info = served
        .api("CONSUMER.INFO.FOREBAY.lane_limit_default", &Value::Null)
        .await;
    info["config"]["max_ack_pending"] = json!(5);
    let update = json!({ "stream_name": "FOREBAY", "config": info["config"] });
    let made = served
        .api("CONSUMER.CREATE.FOREBAY.lane_limit_default", &update)
        .await;
    assert_eq!(made["config"]["max_ack_pending"], 5, "{made}");
    let published = tasks(&lane, 12);
    served.try_publish(&published).await.unwrap();
    let held = subscription
        .consumer
        .next(10, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(held.len(), 5);
    for wait in [Duration::ZERO, Duration::from_millis(200)] {
        assert_eq!(subscription.consumer.next(10, wait).await.unwrap(), []);
    }
    subscription
        .acks
        .ack(held.into_iter().map(|delivery| delivery.token).collect())
        .await
        .unwrap();
    assert_eq!(take(&mut subscription, 7).await, ids(&published)[5..]);
}

#[tokio::test]
async fn a_batch_over_several_lanes_is_published_to_each() {
    let served = fresh().await;
    let lanes = [lane("a"), lane("b")];
    let published: Vec<_> = lanes.iter().flat_map(|lane| tasks(lane, 3)).collect();
    let batch = published.iter().cloned().map(Message::Submission).collect();
    assert!(served.broker.publish(batch).await.iter().all(Result::is_ok));
    for (lane, expected) in lanes.iter().zip(published.chunks(3)) {
        assert_eq!(take(&mut served.consume(lane).await, 3).await, ids(expected));
    }
}
