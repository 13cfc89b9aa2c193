use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Fixture, kit::*};

/// A worker dies with deliveries that it did not acknowledge: others get them.
pub async fn what_a_dead_subscription_held_is_delivered_again(fixture: impl Fixture) {
    let (broker, another, lane) = (fixture.broker(), fixture.another().await, lane("orphans"));
    let published = tasks(&lane, 5);
    make_ready(&fixture, &published).await;
    let mut dying = consume(&*another, &lane).await;
    let held = take(&mut dying, 5).await;
    assert_eq!(held.len(), 5);
    drop(dying);
    let mut heir = consume(&*broker, &lane).await;
    let deadline = Instant::now() + fixture.redelivery() + PATIENCE;
    let mut came = Vec::new();
    while came.len() < published.len() {
        assert!(Instant::now() < deadline, "{} of 5 came again", came.len());
        let more = heir
            .consumer
            .next(5, Duration::from_secs(1))
            .await
            .expect("a healthy subscription");
        came.extend(ids_of(&more));
        finish(&fixture, &heir, more).await;
    }
    came.sort_unstable();
    assert_eq!(came, ids(&published));
}

/// A worker that is told to stop hands back what it did not start, and others need not wait.
pub async fn what_is_handed_back_is_delivered_again_at_once(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("returns"));
    let published = tasks(&lane, 4);
    make_ready(&fixture, &published).await;
    let mut one = consume(&*broker, &lane).await;
    let mut other = consume(&*broker, &lane).await;
    let mut held = take(&mut one, 4).await;
    let kept = held.split_off(2);
    let returned = ids_of(&held);
    let tokens = held.into_iter().map(|delivery| delivery.token).collect();
    let since = Instant::now();
    one.acks.hand_back(tokens).await.expect("a healthy subscription");
    let mut came = ids_of(&take(&mut other, 2).await);
    let took = since.elapsed();
    assert!(took < fixture.redelivery() / 2, "it took {took:?}");
    came.sort_unstable();
    assert_eq!(came, returned);
    finish(&fixture, &one, kept).await;
}

/// What a worker leaves to the store makes way for what is behind it.
pub async fn what_is_left_to_the_store_is_not_delivered_again_at_once(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("left"));
    let published = tasks(&lane, 3);
    make_ready(&fixture, &published).await;
    let mut one = consume(&*broker, &lane).await;
    let mut other = consume(&*broker, &lane).await;
    let left = take(&mut one, 2).await;
    let tokens = left.into_iter().map(|delivery| delivery.token).collect();
    one.acks.leave(tokens).await.expect("a healthy subscription");
    let behind = take(&mut other, 1).await;
    assert_eq!(ids_of(&behind), ids(&published[2..]));
    finish(&fixture, &other, behind).await;
    assert_quiet(&mut one).await;
    assert_quiet(&mut other).await;
}

/// A recorder that stops hands back what it did not record. What came with it may come again as well.
pub async fn submissions_handed_back_are_delivered_again_at_once(fixture: impl Fixture) {
    if fixture.records_by_itself() {
        return;
    }
    let (broker, lane) = (fixture.broker(), lane("returns"));
    let published = tasks(&lane, 12);
    publish(&*broker, &published).await;
    let mut one = record(&*broker).await;
    let mut held = take(&mut one, 9).await;
    let returned: Vec<_> = held.split_off(3);
    finish(&fixture, &one, held).await;
    let tokens = returned.into_iter().map(|delivery| delivery.token).collect();
    let since = Instant::now();
    one.acks.hand_back(tokens).await.expect("a healthy subscription");
    // With what it has not handed out either.
    drop(one);
    let mut other = record(&*broker).await;
    let mut came = BTreeSet::new();
    while came.len() < 12 && !published[3..].iter().all(|task| came.contains(&task.id)) {
        let taken = take(&mut other, 1).await;
        came.extend(ids_of(&taken));
        finish(&fixture, &other, taken).await;
    }
    let took = since.elapsed();
    assert!(took < fixture.redelivery() / 2, "it took {took:?}");
}

/// A recorder dies with a part of what came together recorded and acknowledged, and the rest not.
pub async fn a_dead_recorder_leaves_nothing_unrecorded(fixture: impl Fixture) {
    if fixture.records_by_itself() {
        return;
    }
    let (broker, another, lane) = (fixture.broker(), fixture.another().await, lane("orphans"));
    let published = tasks(&lane, 10);
    publish(&*broker, &published).await;
    let mut dying = record(&*another).await;
    let mut held = take(&mut dying, 7).await;
    held.truncate(4);
    let mut recorded: BTreeSet<_> = ids_of(&held).into_iter().collect();
    finish(&fixture, &dying, held).await;
    drop((dying, another));
    let mut heir = record(&*broker).await;
    let deadline = Instant::now() + fixture.redelivery() + PATIENCE;
    while recorded.len() < published.len() {
        assert!(Instant::now() < deadline, "{} of 10 are recorded", recorded.len());
        let more = heir.consumer.next(5, Duration::from_secs(1)).await;
        let more = more.expect("a healthy subscription");
        recorded.extend(ids_of(&more));
        finish(&fixture, &heir, more).await;
    }
}

/// Never more than was asked for, and what was not asked for is left to others.
pub async fn no_more_than_max_is_delivered(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("bounded"));
    make_ready(&fixture, &tasks(&lane, 30)).await;
    let mut one = consume(&*broker, &lane).await;
    for max in [1, 3, 10] {
        let taken = one
            .consumer
            .next(max, Duration::from_secs(5))
            .await
            .expect("a healthy subscription");
        assert!(
            (1..=max).contains(&taken.len()),
            "{} deliveries instead of up to {max}",
            taken.len()
        );
        finish(&fixture, &one, taken).await;
    }
    let none = one.consumer.next(0, QUIET).await.expect("a healthy subscription");
    assert_eq!(none, []);
    let mut other = consume(&*broker, &lane).await;
    take(&mut other, 16).await;
}

/// Where nothing comes, the answer is nothing, in time, as often as one asks.
pub async fn an_idle_lane_answers_in_time(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("idle"));
    let mut subscription = consume(&*broker, &lane).await;
    for wait in [
        Duration::ZERO,
        Duration::from_millis(5),
        Duration::from_millis(700),
        Duration::from_secs(3),
    ] {
        let since = Instant::now();
        let came = subscription
            .consumer
            .next(10, wait)
            .await
            .expect("a healthy subscription");
        let took = since.elapsed();
        assert_eq!(came, []);
        assert!(
            took < wait + Duration::from_secs(1),
            "{took:?} instead of {wait:?}"
        );
        assert!(
            took + Duration::from_millis(20) >= wait,
            "{took:?} instead of {wait:?}"
        );
    }
}

/// A worker that waits has the task a moment after its publishing.
pub async fn a_publish_wakes_a_waiting_consumer(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("prompt"));
    let mut subscription = consume(&*broker, &lane).await;
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let next = tasks(&lane, 1);
        let waiting = async {
            let taken = take(&mut subscription, 1).await;
            (taken, Instant::now())
        };
        let publishing = async {
            // Long enough for the other to wait.
            tokio::time::sleep(Duration::from_millis(30)).await;
            make_ready(&fixture, &next).await;
            Instant::now()
        };
        let ((taken, came), confirmed) = tokio::join!(waiting, publishing);
        fastest = fastest.min(came.saturating_duration_since(confirmed));
        assert_eq!(ids_of(&taken), ids(&next));
        finish(&fixture, &subscription, taken).await;
    }
    assert!(
        fastest < Duration::from_millis(100),
        "even the fastest took {fastest:?}"
    );
}

/// A caller may drop a call to `next` whenever it likes.
pub async fn an_abandoned_call_loses_nothing(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("fickle"));
    let mut subscription = consume(&*broker, &lane).await;
    let published = tasks(&lane, 60);
    let publishing = async {
        for few in published.chunks(3) {
            make_ready(&fixture, few).await;
        }
    };
    let consuming = async {
        let mut came = Vec::new();
        for round in 0..200_u64 {
            let patience = Duration::from_micros(round * 37 % 3_000);
            let call = subscription.consumer.next(7, Duration::from_secs(30));
            if let Ok(taken) = timeout(patience, call).await {
                let taken = taken.expect("a healthy subscription");
                came.extend(ids_of(&taken));
                finish(&fixture, &subscription, taken).await;
            }
        }
        came
    };
    let (mut came, ()) = tokio::join!(consuming, publishing);
    // What an abandoned call was about to return may take until the next delivery of it.
    let deadline = Instant::now() + fixture.redelivery() + PATIENCE;
    while came.len() < published.len() {
        assert!(
            Instant::now() < deadline,
            "{} of {} came",
            came.len(),
            published.len()
        );
        let more = subscription.consumer.next(7, Duration::from_secs(1)).await;
        let more = more.expect("a healthy subscription");
        came.extend(ids_of(&more));
        finish(&fixture, &subscription, more).await;
    }
    came.sort_unstable();
    assert_eq!(came, ids(&published));
}
