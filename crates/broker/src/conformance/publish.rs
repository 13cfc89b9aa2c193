use std::time::Duration;

use forebay_core::{Json, PAYLOAD_BYTES_MAX, SubmitRequest, TraceParent};
use futures::future::join_all;

use super::{Fixture, kit::*};
use crate::{Broker, Message, Source};

/// What is confirmed is delivered, to the lane it was published to, with the time of its publishing.
pub async fn a_confirmed_message_is_delivered_to_its_lane(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("one"));
    let tasks = tasks(&lane, 1);
    publish(&*broker, &tasks).await;
    let mut subscription = consume(&*broker, &lane).await;
    let taken = take(&mut subscription, 1).await;
    assert_eq!(ids_of(&taken), ids(&tasks));
    let age = tasks[0].created_at.duration_until(taken[0].published_at);
    assert!(age.as_secs().abs() < 60, "published {age:?} after it was made");
    finish(&fixture, &subscription, taken).await;
    assert_quiet(&mut subscription).await;
}

/// A submission that is not yet due is recorded, and no executor sees it.
pub async fn a_parked_submission_is_for_the_recorder_only(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("later"));
    let mut subscription = consume(&*broker, &lane).await;
    let task = parked(&lane);
    publish(&*broker, std::slice::from_ref(&task)).await;
    if !fixture.records_by_itself() {
        let mut recorder = broker.consume(Source::Submissions).await.expect("a recorder");
        assert_eq!(ids_of(&take(&mut recorder, 1).await), [task.id]);
    }
    assert_quiet(&mut subscription).await;
}

/// What was recorded before is published for the executors, and the recorder does not see it.
pub async fn a_recorded_task_that_became_ready_is_for_its_lane_only(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("due"));
    let task = task(&lane);
    if fixture.records_by_itself() {
        publish(&*broker, std::slice::from_ref(&task)).await;
    }
    publish_messages(&*broker, vec![ready(&task)]).await;
    let mut subscription = consume(&*broker, &lane).await;
    let taken = take(&mut subscription, 1).await;
    assert_eq!(taken[0].message, Ok(ready(&task)));
    let mut recorder = broker.consume(Source::Submissions).await.expect("a recorder");
    assert_quiet(&mut recorder).await;
}

/// The recorder sees all submissions of all lanes, ready or not, and each once if it acknowledges in time.
pub async fn the_recorder_reads_every_submission_once(fixture: impl Fixture) {
    let broker = fixture.broker();
    let mut recorder = broker.consume(Source::Submissions).await.expect("a recorder");
    let mut published = Vec::new();
    for queue in ["a", "b", "a_high"] {
        published.extend(tasks(&lane(queue), 7));
        published.push(parked(&lane(queue)));
    }
    publish(&*broker, &published).await;
    if fixture.records_by_itself() {
        assert_quiet(&mut recorder).await;
        return;
    }
    let seen = drain(&fixture, &mut recorder, published.len()).await;
    assert_once(&seen, &published);
}

/// A submission arrives as it was.
pub async fn every_field_of_a_submission_arrives(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("whole"));
    let task = task_with(
        &lane,
        SubmitRequest {
            payload: Json::parse(br#"{"text": "\u0000 \ud800 \u00e4", "n": 1e400}"#).ok(),
            project: Some("acme".to_owned()),
            tags: vec!["blue".to_owned()],
            max_attempts: Some(3),
            timeout_seconds: Some(1.5),
            idempotency_key: Some("order-17".to_owned()),
            traceparent: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ..SubmitRequest::default()
        },
    );
    publish(&*broker, std::slice::from_ref(&task)).await;
    let mut subscription = consume(&*broker, &lane).await;
    let taken = take(&mut subscription, 1).await;
    if fixture.records_by_itself() {
        assert_eq!(taken[0].message, Ok(ready(&task)));
    } else {
        assert_eq!(taken[0].message, Ok(Message::Submission(task)));
    }
}

/// An empty batch has no outcomes.
pub async fn nothing_to_publish_is_nothing_wrong(fixture: impl Fixture) {
    assert_eq!(fixture.broker().publish(Vec::new()).await, []);
}

/// Batches larger and smaller than what goes together at once: all of them arrive, each once.
pub async fn three_thousand_messages_arrive_once(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("many"));
    let mut subscription = consume(&*broker, &lane).await;
    let published = tasks(&lane, 3_000);
    let (first, rest) = published.split_at(1_500);
    publish(&*broker, first).await;
    for part in rest.chunks(300) {
        publish(&*broker, part).await;
    }
    let seen = drain(&fixture, &mut subscription, published.len()).await;
    assert_once(&seen, &published);
}

/// The largest payloads there are, twenty in one batch.
pub async fn large_payloads_are_published_together(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("large"));
    let published: Vec<_> = (0..20).map(|_| large(&lane, PAYLOAD_BYTES_MAX)).collect();
    publish(&*broker, &published).await;
    let mut subscription = consume(&*broker, &lane).await;
    let seen = drain(&fixture, &mut subscription, published.len()).await;
    assert_once(&seen, &published);
}

/// Many publish at once, batches and single messages, over two connections.
pub async fn concurrent_publishers_lose_nothing(fixture: impl Fixture) {
    let (broker, another, lane) = (fixture.broker(), fixture.another().await, lane("crowd"));
    let published = tasks(&lane, 400);
    let publishing = published.chunks(40).enumerate().map(|(index, part)| {
        let broker: &dyn Broker = if index % 2 == 0 { &*broker } else { &*another };
        async move {
            for few in part.chunks(1 + index % 5) {
                publish(broker, few).await;
            }
        }
    });
    join_all(publishing).await;
    let mut subscription = consume(&*broker, &lane).await;
    let seen = drain(&fixture, &mut subscription, published.len()).await;
    assert_once(&seen, &published);
}

/// A healthy broker says that it is.
pub async fn a_healthy_broker_says_so(fixture: impl Fixture) {
    let checked = tokio::time::timeout(Duration::from_secs(5), fixture.broker().check()).await;
    checked.expect("an answer in time").expect("a healthy broker");
}
