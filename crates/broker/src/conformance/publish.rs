use std::time::Duration;

use forebay_core::{Json, PAYLOAD_BYTES_MAX, SubmitRequest, TraceParent};
use futures::future::join_all;

use super::{Fixture, kit::*};
use crate::{Broker, Message};

/// What is confirmed is delivered, to the lane it was published to, with the time of its publishing.
pub async fn a_confirmed_message_is_delivered_to_its_lane(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("one"));
    let tasks = tasks(&lane, 1);
    make_ready(&fixture, &tasks).await;
    let mut subscription = consume(&*broker, &lane).await;
    let taken = take(&mut subscription, 1).await;
    assert_eq!(ids_of(&taken), ids(&tasks));
    let age = tasks[0].created_at.duration_until(taken[0].published_at);
    assert!(age.as_secs().abs() < 60, "published {age:?} after it was made");
    finish(&fixture, &subscription, taken).await;
    assert_quiet(&mut subscription).await;
}

/// A submission is for the recorder, whether it is due or not; no executor sees one that is not in the store.
pub async fn a_submission_is_for_the_recorder_only(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("later"));
    let mut subscription = consume(&*broker, &lane).await;
    let mut submitted = vec![parked(&lane)];
    if !fixture.records_by_itself() {
        submitted.push(task(&lane));
    }
    publish(&*broker, &submitted).await;
    if !fixture.records_by_itself() {
        let mut recorder = record(&*broker).await;
        assert_eq!(ids_of(&take(&mut recorder, 2).await), ids(&submitted));
    }
    assert_quiet(&mut subscription).await;
}

/// What was recorded is published for the executors, and the recorder does not see it.
pub async fn what_is_ready_is_for_its_lane_only(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("due"));
    let task = task(&lane);
    make_ready(&fixture, std::slice::from_ref(&task)).await;
    let mut subscription = consume(&*broker, &lane).await;
    let taken = take(&mut subscription, 1).await;
    assert_eq!(taken[0].message, Ok(ready(&task)));
    let mut recorder = record(&*broker).await;
    assert_quiet(&mut recorder).await;
}

/// Submissions and what is ready may be published in one batch, in any mixture; each gets to its readers, in order.
pub async fn a_mixed_batch_is_delivered_to_each_reader(fixture: impl Fixture) {
    let (broker, lanes) = (fixture.broker(), [lane("mix"), lane("mix_high")]);
    let (submitted, due) = (tasks(&lanes[0], 5), lanes.each_ref().map(|lane| tasks(lane, 5)));
    if fixture.records_by_itself() {
        publish(&*broker, &due.concat()).await;
    }
    let mut batch = Vec::new();
    for place in 0..5 {
        batch.push(ready(&due[0][place]));
        batch.push(Message::Submission(submitted[place].clone()));
        batch.push(ready(&due[1][place]));
    }
    publish_messages(&*broker, batch).await;
    if !fixture.records_by_itself() {
        let mut recorder = record(&*broker).await;
        assert_eq!(ids_of(&take(&mut recorder, 5).await), ids(&submitted));
    }
    let mut expected = due.clone();
    if fixture.records_by_itself() {
        expected[0].extend(submitted);
    }
    for (lane, expected) in lanes.iter().zip(expected) {
        let mut subscription = consume(&*broker, lane).await;
        let mut came = ids_of(&take(&mut subscription, expected.len()).await);
        came.sort_unstable();
        let mut expected = ids(&expected);
        expected.sort_unstable();
        assert_eq!(came, expected, "in lane {lane}");
    }
}

/// The recorder sees all submissions of all lanes, ready or not, and each once if it acknowledges in time.
pub async fn the_recorder_reads_every_submission_once(fixture: impl Fixture) {
    let broker = fixture.broker();
    let mut recorder = record(&*broker).await;
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
    if !fixture.records_by_itself() {
        let mut recorder = record(&*broker).await;
        let taken = take(&mut recorder, 1).await;
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
    make_ready(&fixture, first).await;
    for part in rest.chunks(300) {
        make_ready(&fixture, part).await;
    }
    let seen = drain(&fixture, &mut subscription, published.len()).await;
    assert_once(&seen, &published);
}

/// The same of submissions.
pub async fn three_thousand_submissions_arrive_once_and_in_order(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("many"));
    let published = tasks(&lane, 3_000);
    let (first, rest) = published.split_at(1_500);
    publish(&*broker, first).await;
    for part in rest.chunks(300) {
        publish(&*broker, part).await;
    }
    if fixture.records_by_itself() {
        return;
    }
    let mut recorder = record(&*broker).await;
    let mut came = Vec::new();
    while came.len() < published.len() {
        let taken = take(&mut recorder, 1).await;
        came.extend(ids_of(&taken));
        finish(&fixture, &recorder, taken).await;
        let more = recorder.consumer.next(700, QUIET).await;
        let more = more.expect("a healthy subscription delivers");
        assert!(more.len() <= 700);
        came.extend(ids_of(&more));
        finish(&fixture, &recorder, more).await;
    }
    assert_eq!(came, ids(&published));
    assert_quiet(&mut recorder).await;
}

/// The largest payloads there are, twenty in one batch.
pub async fn large_payloads_are_published_together(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("large"));
    let published: Vec<_> = (0..20).map(|_| large(&lane, PAYLOAD_BYTES_MAX)).collect();
    publish(&*broker, &published).await;
    let mut reader = if fixture.records_by_itself() {
        consume(&*broker, &lane).await
    } else {
        record(&*broker).await
    };
    let seen = drain(&fixture, &mut reader, published.len()).await;
    assert_once(&seen, &published);
}

/// Many publish at once, batches and single messages, over two connections.
pub async fn concurrent_publishers_lose_nothing(fixture: impl Fixture) {
    let (broker, another, lane) = (fixture.broker(), fixture.another().await, lane("crowd"));
    let fixture = &fixture;
    let published = tasks(&lane, 400);
    let publishing = published.chunks(40).enumerate().map(|(index, part)| {
        let broker: &dyn Broker = if index % 2 == 0 { &*broker } else { &*another };
        async move {
            for few in part.chunks(1 + index % 5) {
                make_ready_by(fixture, broker, few).await;
                if !fixture.records_by_itself() {
                    publish(broker, few).await;
                }
            }
        }
    });
    join_all(publishing).await;
    if !fixture.records_by_itself() {
        let seen = drain(fixture, &mut record(&*broker).await, published.len()).await;
        assert_once(&seen, &published);
    }
    let mut subscription = consume(&*broker, &lane).await;
    let seen = drain(fixture, &mut subscription, published.len()).await;
    assert_once(&seen, &published);
}

/// A healthy broker says that it is.
pub async fn a_healthy_broker_says_so(fixture: impl Fixture) {
    let checked = tokio::time::timeout(Duration::from_secs(5), fixture.broker().check()).await;
    checked.expect("an answer in time").expect("a healthy broker");
}
