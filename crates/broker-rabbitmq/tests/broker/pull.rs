//! That a lane is pulled, though RabbitMQ pushes: no more than asked for, nothing hoarded, nothing lost.

use std::time::Duration;

use forebay_broker::Broker;
use forebay_core::TaskId;
use forebay_testkit::wait;
use tokio::time::{Instant, timeout};

use crate::support::*;

/// Neither what is held nor the acknowledgement of it attracts more than was asked for.
#[tokio::test]
async fn what_was_not_asked_for_is_left_to_others() {
    let served = fresh().await;
    let lane = lane("modest");
    served.try_ready(&tasks(&lane, 60)).await.unwrap();
    let (mut one, mut other) = (served.consume(&lane).await, served.consume(&lane).await);
    for acknowledge in [true, false] {
        let held = hold(&mut one, 10).await;
        let tokens = held.into_iter().map(|delivery| delivery.token).collect();
        if acknowledge {
            one.acks.ack(tokens).await.unwrap();
        }
        let left = if acknowledge { 50 } else { 20 };
        let depth = async || {
            served
                .broker
                .depth(&lane)
                .await
                .map(|depth| depth.waiting == left)
        };
        wait::until("the rest to wait", PATIENCE, depth).await;
        take(&mut other, 20).await;
    }
}

/// A call that waits returns with the first that comes. What came just behind it goes back where no other call is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_too_late_goes_back() {
    let served = fresh().await;
    let lane = lane("late");
    let (mut one, mut other) = (served.consume(&lane).await, served.consume(&lane).await);
    for _ in 0..20 {
        let published = tasks(&lane, 10);
        let publishing = async {
            // Long enough for the other to wait.
            tokio::time::sleep(Duration::from_millis(20)).await;
            served.try_ready(&published).await.unwrap();
        };
        let (came, ()) = tokio::join!(one.consumer.next(10, PATIENCE), publishing);
        let came = came.unwrap();
        assert!((1..=10).contains(&came.len()), "{} came", came.len());
        let (delivered, waiting) = (came.len() as u64, 10 - came.len() as u64);
        wait::until("the rest to wait", PATIENCE, async || {
            let depth = served.broker.depth(&lane).await.map_err(|e| e.to_string())?;
            if (depth.waiting, depth.delivered) == (waiting, delivered) {
                Ok(true)
            } else {
                Err(format!("{depth:?} with {delivered} handed out"))
            }
        })
        .await;
        let mut seen: Vec<_> = came.iter().map(id).collect();
        let tokens = came.into_iter().map(|delivery| delivery.token).collect();
        one.acks.ack(tokens).await.unwrap();
        seen.extend(take(&mut other, 10 - seen.len()).await);
        seen.sort_unstable();
        assert_eq!(seen, ids(&published));
    }
}

/// A call that was dropped may have asked for more than the next one does.
#[tokio::test]
async fn a_smaller_call_after_an_abandoned_one_gets_what_it_asked_for() {
    let served = fresh().await;
    let lane = lane("smaller");
    let published = tasks(&lane, 40);
    let mut subscription = served.consume(&lane).await;
    let mut came: Vec<TaskId> = Vec::new();
    for (round, few) in published.chunks(8).enumerate() {
        let abandoned = subscription.consumer.next(8, Duration::from_secs(30));
        let patience = Duration::from_micros(1 + 700 * round as u64);
        assert!(timeout(patience, abandoned).await.is_err());
        served.try_ready(few).await.unwrap();
        while came.len() < 8 * (round + 1) {
            let more = subscription
                .consumer
                .next(3, Duration::from_secs(5))
                .await
                .unwrap();
            assert!((1..=3).contains(&more.len()), "{} instead of up to 3", more.len());
            came.extend(more.iter().map(id));
            let tokens = more.into_iter().map(|delivery| delivery.token).collect();
            subscription.acks.ack(tokens).await.unwrap();
        }
    }
    assert_eq!(came, ids(&published));
}

/// A consumer may be dropped at any moment, with or without its answering side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_consumer_leaves_all_to_others_at_once() {
    let served = fresh().await;
    let lane = lane("dropped");
    let published = tasks(&lane, 50);
    served.try_ready(&published).await.unwrap();
    let mut kept = Vec::new();
    for round in 0..40_u64 {
        let mut dying = served.consume(&lane).await;
        let patience = Duration::from_micros(round * 211 % 6_000);
        let _ = timeout(patience, dying.consumer.next(20, Duration::from_secs(30))).await;
        if round % 2 == 0 {
            kept.push(dying.acks);
        }
    }
    // As long as somebody may acknowledge what was handed out, that is held; all else waits.
    let held = async || served.broker.depth(&lane).await.map(|depth| depth.waiting);
    let since = Instant::now();
    drop(kept);
    wait::until("all to wait", PATIENCE, async || {
        held().await.map(|waiting| waiting == 50)
    })
    .await;
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        since.elapsed()
    );
    let mut came = take(&mut served.consume(&lane).await, 50).await;
    came.sort_unstable();
    assert_eq!(came, ids(&published));
}

/// A worker that stops drops its subscription first, and may acknowledge what it claimed after that.
#[tokio::test]
async fn what_was_handed_out_can_be_acknowledged_after_the_consumer_is_gone() {
    let served = fresh().await;
    let lane = lane("late");
    served.try_ready(&tasks(&lane, 4)).await.unwrap();
    let mut subscription = served.consume(&lane).await;
    let held = hold(&mut subscription, 4).await;
    let acks = std::sync::Arc::clone(&subscription.acks);
    drop(subscription);
    let tokens: Vec<_> = held.into_iter().map(|delivery| delivery.token).collect();
    acks.ack(tokens[..3].to_vec()).await.unwrap();
    assert_eq!(served.broker.depth(&lane).await.unwrap().delivered, 1);
    drop(acks);
    let one_waits = async || {
        served
            .broker
            .depth(&lane)
            .await
            .map(|depth| (depth.waiting, depth.delivered) == (1, 0))
    };
    wait::until("one to wait", PATIENCE, one_waits).await;
}

/// An answer to what another subscription delivered is an error, and does not touch what has the same number here.
#[tokio::test]
async fn answers_go_to_the_subscription_that_delivered() {
    let served = fresh().await;
    let lanes = [lane("a"), lane("b")];
    for lane in &lanes {
        served.try_ready(&tasks(lane, 2)).await.unwrap();
    }
    let mut subscriptions = [served.consume(&lanes[0]).await, served.consume(&lanes[1]).await];
    let held = hold(&mut subscriptions[0], 2).await;
    hold(&mut subscriptions[1], 2).await;
    let tokens: Vec<_> = held.into_iter().map(|delivery| delivery.token).collect();
    assert!(subscriptions[1].acks.ack(tokens.clone()).await.is_err());
    assert_eq!(served.broker.depth(&lanes[1]).await.unwrap().delivered, 2);
    subscriptions[0].acks.ack(tokens.clone()).await.unwrap();
    // Twice is once.
    subscriptions[0].acks.ack(tokens).await.unwrap();
    assert_eq!(
        subscriptions[0]
            .consumer
            .next(1, Duration::from_millis(50))
            .await
            .unwrap(),
        []
    );
}
