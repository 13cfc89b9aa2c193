//! The server dies, hangs, or loses everything, while one and the same broker object goes on.

use std::{collections::BTreeSet, time::Duration};

use forebay_broker::{Broker, Delivery, Message, PublishError, Source, Subscription};
use forebay_broker_nats::NatsBroker;
use forebay_core::{Lane, Signal, Submission, TaskId};
use forebay_testkit::{nats::Setup, wait};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::*;

#[tokio::test]
async fn what_was_confirmed_survives_a_crash_of_the_server() {
    let mut served = fresh().await;
    let lane = lane("crash");
    let (batch, single) = (tasks(&lane, 2_200), tasks(&lane, 1));
    served.try_submit(&batch).await.unwrap();
    served.try_submit(&single).await.unwrap();
    served.server.kill().unwrap();
    served.server.restart().await.unwrap();
    let mut subscription = served.consume_at_last(&Source::Submissions).await;
    let expected: Vec<_> = ids(&batch).into_iter().chain(ids(&single)).collect();
    assert_eq!(take(&mut subscription, 2_201).await, expected);
}

/// What is ready is not synced, so a crash may take some of it, and what was acknowledged may come again; but what is
/// published later is delivered, whatever the server forgot.
#[tokio::test]
async fn a_lane_goes_on_after_a_crash_of_the_server() {
    let mut served = fresh().await;
    let lane = lane("crash");
    let mut subscription = served.consume(&lane).await;
    for _ in 0..3 {
        let before = tasks(&lane, 500);
        served.ready_at_last(&before).await;
        take(&mut subscription, 400).await;
        served.server.kill().unwrap();
        served.server.restart().await.unwrap();
        subscription = served.consume_at_last(&Source::Lane(lane.clone())).await;
        let after = tasks(&lane, 50);
        served.ready_at_last(&after).await;
        let mut missing: BTreeSet<_> = ids(&after).into_iter().collect();
        wait::until("what is ready after the crash", PATIENCE, async || {
            let wait = Duration::from_secs(1);
            let more = subscription.consumer.next(100, wait).await;
            let more = more.map_err(|error| error.to_string())?;
            for delivery in &more {
                missing.remove(&id(delivery));
            }
            let tokens = more.into_iter().map(|delivery| delivery.token).collect();
            subscription
                .acks
                .ack(tokens)
                .await
                .map_err(|error| error.to_string())?;
            if missing.is_empty() {
                Ok(true)
            } else {
                Err(format!("{} of 50 are missing", missing.len()))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn while_the_server_is_down_publishing_fails_fast_and_heals_by_itself() {
    let mut served = fresh().await;
    let lane = lane("down");
    served.try_submit(&tasks(&lane, 1)).await.unwrap();
    served.try_ready(&tasks(&lane, 1)).await.unwrap();
    served.server.kill().unwrap();
    for batch in [tasks(&lane, 1), tasks(&lane, 5)] {
        let since = Instant::now();
        let mut messages: Vec<_> = batch.iter().map(ready).collect();
        messages.extend(batch.into_iter().map(Message::Submission));
        let outcome = served.try_publish(messages).await;
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
    served.submit_at_last(&late).await;
    assert_eq!(take(&mut served.record().await, 4).await[1..], ids(&late));
    served.ready_at_last(&late).await;
    assert_eq!(
        last_of(take_all(&mut served.consume(&lane).await).await, 3),
        ids(&late)
    );
}

#[tokio::test]
async fn a_server_that_hangs_holds_nobody_up() {
    let served = served(Setup::default(), |options| {
        options.publish_timeout = Duration::from_millis(1_500);
    })
    .await;
    let lane = lane("hang");
    let mut subscription = served.consume(&lane).await;
    served.ready_at_last(&tasks(&lane, 1)).await;
    take(&mut subscription, 1).await;
    served.server.pause().unwrap();
    // The last are far more than fits into the buffers on the way.
    let [one, some, many] = [1, 50, 40_000].map(|count| tasks(&lane, count));
    let since = Instant::now();
    let outcomes = tokio::join!(
        served.try_submit(&one),
        served.try_ready(&one),
        served.try_submit(&some),
        served.try_ready(&many),
        served.try_submit(&many)
    );
    for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.3, outcomes.4] {
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
    served.submit_at_last(&tasks(&lane, 1)).await;
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
    served.ready_at_last(&task).await;
    let mut subscription = served.consume_at_last(&Source::Lane(lane)).await;
    assert_eq!(take(&mut subscription, 1).await, ids(&task));
}

#[tokio::test]
async fn a_server_that_lost_everything_is_set_up_again() {
    for publish_first in [true, false] {
        let mut served = fresh().await;
        let lane = lane("wiped");
        served.try_submit(&tasks(&lane, 10)).await.unwrap();
        served.try_ready(&tasks(&lane, 10)).await.unwrap();
        let counted = async || served.broker.depth(&lane).await.map(|depth| depth.waiting == 10);
        wait::until("a depth of ten", PATIENCE, counted).await;
        served.server.stop().await.unwrap();
        served.server.wipe().unwrap();
        served.server.restart().await.unwrap();
        let new = tasks(&lane, 4);
        if publish_first {
            served.ready_at_last(&new).await;
            served.submit_at_last(&new).await;
        }
        let mut subscription = served.consume_at_last(&Source::Lane(lane.clone())).await;
        let mut recorder = served.consume_at_last(&Source::Submissions).await;
        if !publish_first {
            served.submit_at_last(&new).await;
            served.ready_at_last(&new).await;
        }
        assert_eq!(take(&mut subscription, 4).await, ids(&new));
        assert_eq!(take(&mut recorder, 4).await, ids(&new));
    }
}

/// The server numbers its messages anew, so a late acknowledgement names another message than it means.
#[tokio::test]
async fn an_acknowledgement_from_before_the_loss_does_not_take_what_came_after() {
    let mut served = fresh().await;
    let lane = lane("renumbered");
    let wait = Duration::from_secs(5);
    served.try_submit(&tasks(&lane, 5)).await.unwrap();
    let mut before = served.consume_at_last(&Source::Submissions).await;
    let old = before.consumer.next(5, wait).await.unwrap();
    served.server.stop().await.unwrap();
    served.server.wipe().unwrap();
    served.server.restart().await.unwrap();
    let new = tasks(&lane, 5);
    served.submit_at_last(&new).await;
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
    served.try_submit(&tasks(&lane, 10)).await.unwrap();
    served.try_ready(&tasks(&lane, 10)).await.unwrap();
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

/// Somebody deletes a stream while the connection stays. The other keeps what it has.
#[tokio::test]
async fn a_deleted_stream_is_made_again() {
    for (gone, count) in [(READY, 1), (READY, 5), (INTAKE, 1), (INTAKE, 1_500)] {
        let served = fresh().await;
        let lane = lane("deleted");
        let kept = tasks(&lane, count);
        served.try_submit(&kept).await.unwrap();
        served.try_ready(&kept).await.unwrap();
        let source = if gone == READY {
            Source::Lane(lane)
        } else {
            Source::Submissions
        };
        let mut subscription = served.broker.consume(source.clone()).await.unwrap();
        let deleted = served.api(&format!("STREAM.DELETE.{gone}"), &Value::Null).await;
        assert!(deleted["success"].as_bool().unwrap());
        let answer = subscription.consumer.next(1, Duration::from_secs(1)).await;
        assert!(answer.is_err(), "{answer:?} from a consumer that is gone");
        let new = tasks(&lane_of(&kept), count);
        served.try_submit(&new).await.unwrap();
        served.try_ready(&new).await.unwrap();
        for (stream, mut reader) in [
            (READY, served.consume(&lane_of(&kept)).await),
            (INTAKE, served.record().await),
        ] {
            let mut expected = if stream == gone { Vec::new() } else { ids(&kept) };
            expected.extend(ids(&new));
            let came = take(&mut reader, expected.len()).await;
            assert!(came == expected, "not what was expected in {stream}");
        }
    }
}

/// The health check and the dispatcher's trimming also notice.
#[tokio::test]
async fn a_deleted_stream_is_made_again_by_those_who_look() {
    let served = fresh().await;
    for stream in [INTAKE, READY] {
        for look in [true, false] {
            served.api(&format!("STREAM.DELETE.{stream}"), &Value::Null).await;
            if look {
                served.broker.check().await.unwrap();
            } else {
                served.broker.trim().await.unwrap();
            }
            let info = served.api(&format!("STREAM.INFO.{stream}"), &Value::Null).await;
            assert_eq!(info["config"]["name"], stream, "{info}");
        }
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
        .api("CONSUMER.DELETE.FOREBAY_READY.lane_orphan_default", &Value::Null)
        .await;
    assert!(deleted["success"].as_bool().unwrap());
    let answer = timeout(Duration::from_secs(5), waiting)
        .await
        .expect("an answer in time");
    assert!(answer.is_err(), "{answer:?} from a consumer that is gone");
    let task = tasks(&lane, 1);
    served.try_ready(&task).await.unwrap();
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
    let client = async_nats::connect(served.server.url()).await.unwrap();
    let task = tasks(&lane, 1);
    for (subject, mut reader) in [
        ("ready.garbage.default", served.consume(&lane).await),
        ("submit", served.record().await),
    ] {
        client.request(subject, "not ours".into()).await.unwrap();
        let good = if subject == "submit" {
            Message::Submission(task[0].clone())
        } else {
            ready(&task[0])
        };
        served.try_publish(vec![good]).await.unwrap();
        let came = reader.consumer.next(1, Duration::from_secs(5)).await.unwrap();
        let undecodable = came[0].message.as_ref().unwrap_err();
        assert_eq!(
            (undecodable.subject.as_str(), &undecodable.body[..]),
            (subject, &b"not ours"[..])
        );
        reader.acks.ack(vec![came[0].token.clone()]).await.unwrap();
        assert_eq!(take(&mut reader, 1).await, ids(&task));
    }
}

/// A full house of deliveries under way is a pause, not an error, and ends when they are acknowledged.
#[tokio::test]
async fn a_consumer_at_its_limit_waits() {
    let served = fresh().await;
    let lane = lane("limit");
    let mut subscription = served.consume(&lane).await;
    let mut info = served
        .api("CONSUMER.INFO.FOREBAY_READY.lane_limit_default", &Value::Null)
        .await;
    info["config"]["max_ack_pending"] = json!(5);
    let update = json!({ "stream_name": READY, "config": info["config"] });
    let made = served
        .api("CONSUMER.CREATE.FOREBAY_READY.lane_limit_default", &update)
        .await;
    assert_eq!(made["config"]["max_ack_pending"], 5, "{made}");
    let published = tasks(&lane, 12);
    served.try_ready(&published).await.unwrap();
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
    served.try_ready(&published).await.unwrap();
    for (lane, expected) in lanes.iter().zip(published.chunks(3)) {
        assert_eq!(take(&mut served.consume(lane).await, 3).await, ids(expected));
    }
}

fn lane_of(tasks: &[Submission]) -> Lane {
    tasks[0].lane.clone()
}

/// Takes what there is.
async fn take_all(subscription: &mut Subscription) -> Vec<TaskId> {
    let mut ids = take(subscription, 1).await;
    loop {
        let more = subscription
            .consumer
            .next(100, Duration::from_millis(500))
            .await
            .expect("a healthy subscription");
        if more.is_empty() {
            return ids;
        }
        ids.extend(more.iter().map(id));
    }
}

fn last_of(mut ids: Vec<TaskId>, count: usize) -> Vec<TaskId> {
    ids.split_off(ids.len() - count)
}
