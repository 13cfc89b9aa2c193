//! How queues are set up, what happens when somebody else sets them up, and what they hold.

use std::time::Duration;

use forebay_broker::{Broker, PublishError, Source, conformance::Fixture};
use forebay_broker_rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use forebay_core::{Json, Lane, Signal, SubmitRequest, TaskId};
use forebay_testkit::wait;
use futures::FutureExt;
use lapin::{
    options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::support::*;

#[tokio::test]
async fn a_wrong_url_is_a_clear_error() {
    for url in ["nats://127.0.0.1", "amqp://127.0.0.1:1/%2f,nonsense"] {
        let error = RabbitMqBroker::connect(&RabbitMqOptions::new(url))
            .await
            .unwrap_err();
        assert!(
            error.source.to_string().contains("URL is wrong"),
            "{}",
            error.source
        );
    }
    let options = RabbitMqOptions::new("amqp://user:secret@127.0.0.1/%2f");
    assert!(!format!("{options:?}").contains("secret"));
}

#[tokio::test]
async fn the_servers_are_tried_in_turn() {
    let served = fresh().await;
    let port = forebay_testkit::process::free_port().unwrap();
    let options = options(format!("amqp://127.0.0.1:{port}/%2f, {}", served.options.url));
    RabbitMqBroker::connect(&options)
        .await
        .unwrap()
        .check()
        .await
        .unwrap();
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

/// A lane whose queue can't be made holds up no other, and no submission.
#[tokio::test]
async fn a_lane_that_cannot_be_set_up_fails_alone() {
    let served = fresh().await;
    let lanes = [lane("barred"), lane("free")];
    let client = served.client().await;
    let somebody_elses = QueueDeclareOptions::exclusive();
    client
        .queue_declare(
            "forebay.lane.barred.default".into(),
            somebody_elses,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let published: Vec<_> = lanes.iter().flat_map(|lane| tasks(lane, 2)).collect();
    let mut batch: Vec<_> = published.iter().map(ready).collect();
    batch.extend(submissions(&published[..2]));
    let outcomes = served.broker.publish(batch).await;
    let failed = |outcome: &Result<(), PublishError>| matches!(outcome, Err(PublishError::Unavailable(_)));
    assert!(outcomes[..2].iter().all(failed), "{outcomes:?}");
    assert!(outcomes[2..].iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(
        take(&mut served.consume(&lanes[1]).await, 2).await,
        ids(&published[2..])
    );
}

/// A new queue is not used before the server has written down where it is, though callers have less patience.
#[tokio::test]
async fn the_recorders_queue_is_left_alone_until_it_has_settled() {
    let served = fresh_with(|options| options.publish_timeout = Duration::from_millis(400)).await;
    let request = SubmitRequest {
        delay_seconds: Some(3_600.0),
        ..SubmitRequest::default()
    };
    let parked = task(&lane("settling"), request);
    served.submit_at_last(std::slice::from_ref(&parked)).await;
    served.delete("forebay.recorder").await;
    let deleted = tokio::time::Instant::now();
    served.submit_at_last(&[parked]).await;
    let took = deleted.elapsed();
    assert!(took >= Duration::from_millis(700), "it was used after {took:?}");
}

/// What no queue wants comes back, and is published again once the queue is there. What comes back is tied to the
/// right message, though the server confirms in any order.
#[tokio::test]
async fn what_comes_back_is_published_again() {
    let served = fresh().await;
    let [gone, there] = [lane("gone"), lane("there")];
    for count in [1, 40] {
        for lane in [&gone, &there] {
            served.try_ready(&tasks(lane, 1)).await.unwrap();
            take(&mut served.consume(lane).await, 1).await;
        }
        served.delete("forebay.lane.gone.default").await;
        let tasks: Vec<_> = (0..count)
            .flat_map(|_| {
                [
                    task(&gone, SubmitRequest::default()),
                    task(&there, SubmitRequest::default()),
                ]
            })
            .collect();
        let outcomes = served.broker.publish(tasks.iter().map(ready).collect()).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        for lane in [&gone, &there] {
            let expected: Vec<_> = tasks
                .iter()
                .filter(|task| task.lane == *lane)
                .map(|task| task.id)
                .collect();
            assert_eq!(take(&mut served.consume(lane).await, count).await, expected);
            assert!(
                served.broker.depth(lane).await.unwrap().is_empty(),
                "each comes once"
            );
        }
    }
}

#[tokio::test]
async fn a_deleted_queue_ends_the_subscription_and_is_made_again() {
    let served = fresh().await;
    let lane = lane("orphan");
    let lane_source = Source::Lane(lane.clone());
    for (source, queue) in [
        (&lane_source, "forebay.lane.orphan.default"),
        (&Source::Submissions, "forebay.recorder"),
    ] {
        let mut subscription = served.broker.consume(source.clone()).await.unwrap();
        let mut waiting = Box::pin(subscription.consumer.next(10, Duration::from_secs(30)));
        assert!((&mut waiting).now_or_never().is_none());
        served.delete(queue).await;
        let answer = timeout(Duration::from_secs(5), waiting)
            .await
            .expect("an answer in time");
        assert!(answer.is_err(), "{answer:?} from a queue that is gone");
        drop(subscription);
        let mut subscription = served.broker.consume(source.clone()).await.unwrap();
        let task = tasks(&lane, 1);
        let published = match source {
            Source::Lane(_) => served.try_ready(&task).await,
            Source::Submissions => served.try_submit(&task).await,
        };
        published.unwrap();
        assert_eq!(take(&mut subscription, 1).await, ids(&task));
    }
}

/// Nobody consumes when the recorder's queue is deleted. A whole bundle comes back then.
#[tokio::test]
async fn submissions_find_the_recorders_queue_made_again() {
    let served = fresh().await;
    let lane = lane("submitted");
    served.delete("forebay.recorder").await;
    assert_eq!(served.broker.unrecorded().await.unwrap(), 0);
    let submitted = tasks(&lane, 30);
    served.try_submit(&submitted).await.unwrap();
    assert_ne!(served.broker.unrecorded().await.unwrap(), 0);
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    assert_eq!(take(&mut recorder, 30).await, ids(&submitted));
    assert_eq!(served.broker.unrecorded().await.unwrap(), 0);
}

/// Submissions that are published together are one message for the server, unless they are large.
#[tokio::test]
async fn submissions_travel_together() {
    let served = fresh().await;
    let lane = lane("together");
    let mut submitted = tasks(&lane, 2_500);
    let payload = format!("\"{}\"", "x".repeat(150_000));
    let large = || SubmitRequest {
        payload: Json::parse(payload.as_bytes()).ok(),
        ..SubmitRequest::default()
    };
    submitted.extend((0..8).map(|_| task(&lane, large())));
    served.try_submit(&submitted).await.unwrap();
    // Three of up to a thousand, of which the last has six of the large ones too, and one with the other two.
    assert_eq!(served.broker.unrecorded().await.unwrap(), 4);
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    let held = hold(&mut recorder, submitted.len()).await;
    assert_eq!(held.iter().map(id).collect::<Vec<_>>(), ids(&submitted));
    let mut tokens: Vec<_> = held.into_iter().map(|delivery| delivery.token).collect();
    let last = tokens.split_off(2_506);
    let first = tokens.remove(0);
    recorder.acks.ack(tokens).await.unwrap();
    assert_eq!(served.broker.unrecorded().await.unwrap(), 2);
    recorder.acks.ack(last).await.unwrap();
    assert_eq!(served.broker.unrecorded().await.unwrap(), 1);
    recorder.acks.hand_back(vec![first]).await.unwrap();
    assert_eq!(take(&mut recorder, 1_000).await, ids(&submitted[..1_000]));
    assert_eq!(served.broker.unrecorded().await.unwrap(), 0);
}

#[tokio::test]
async fn a_queue_with_other_settings_is_used_as_it_is() {
    let served = fresh().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), 50_i64.into());
    let declared = served
        .client()
        .await
        .queue_declare(
            "forebay.lane.other.default".into(),
            QueueDeclareOptions::durable(),
            arguments,
        )
        .await;
    declared.unwrap();
    let (lane, task) = (lane("other"), tasks(&lane("other"), 1));
    served.try_ready(&task).await.unwrap();
    assert_eq!(take(&mut served.consume(&lane).await, 1).await, ids(&task));
}

/// Handed back as often as one likes, a message stays.
#[tokio::test]
async fn a_message_that_is_handed_back_again_and_again_stays() {
    let served = fresh().await;
    let lane = lane("again");
    let task = tasks(&lane, 1);
    served.try_ready(&task).await.unwrap();
    let mut subscription = served.consume(&lane).await;
    for _ in 0..30 {
        let held = hold(&mut subscription, 1).await;
        let tokens = held.into_iter().map(|delivery| delivery.token).collect();
        subscription.acks.hand_back(tokens).await.unwrap();
    }
    for _ in 0..30 {
        hold(&mut subscription, 1).await;
        subscription = served.consume(&lane).await;
    }
    assert_eq!(take(&mut subscription, 1).await, ids(&task));
}

#[tokio::test]
async fn a_full_queue_refuses_until_there_is_room() {
    let served = fresh_with(|options| options.queue_bytes_max = 50_000).await;
    let lane = lane("full");
    let payload = format!("\"{}\"", "x".repeat(5_000));
    let large = || {
        let payload = Json::parse(payload.as_bytes()).ok();
        task(
            &lane,
            SubmitRequest {
                payload,
                ..SubmitRequest::default()
            },
        )
    };
    let mut taken = Vec::new();
    wait::until("a refusal", PATIENCE, async || {
        let next = [large(), large()];
        match served.try_submit(&next).await {
            Ok(()) => taken.extend(ids(&next)),
            Err(error) => {
                assert_eq!(error, PublishError::Full);
                return true;
            }
        }
        assert!(taken.len() < 100, "there is no bound");
        false
    })
    .await;
    let ready = fill(&served, &lane).await;
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    assert_eq!(take(&mut recorder, taken.len()).await, taken);
    served.submit_at_last(&[large()]).await;
    let mut subscription = served.consume(&lane).await;
    assert_eq!(take(&mut subscription, ready.len()).await, ready);
    served.ready_at_last(&tasks(&lane, 1)).await;
}

/// Publishes what is ready until some of it is refused. Says what was not.
async fn fill(served: &Served, lane: &Lane) -> Vec<TaskId> {
    let mut taken = Vec::new();
    wait::until("a refusal", PATIENCE, async || {
        let tasks = tasks(lane, 100);
        let outcomes = served.broker.publish(tasks.iter().map(ready).collect()).await;
        let mut refused = false;
        for (task, outcome) in tasks.iter().zip(outcomes) {
            match outcome {
                Ok(()) => taken.push(task.id),
                Err(error) => {
                    assert_eq!(error, PublishError::Full);
                    refused = true;
                }
            }
        }
        refused
    })
    .await;
    taken
}

/// What is not of our making is handed out as it is, and holds up nothing.
#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_delivered_as_such() {
    let served = fresh().await;
    let lane = lane("garbage");
    let mut lane_reader = served.consume(&lane).await;
    let mut recorder = served.broker.consume(Source::Submissions).await.unwrap();
    let client = served.client().await;
    for (exchange, key) in [
        ("forebay", "ready.garbage.default"),
        ("", "forebay.lane.garbage.default"),
        ("forebay", "submit"),
        ("", "forebay.recorder"),
    ] {
        let subscription = if key.contains("garbage") {
            &mut lane_reader
        } else {
            &mut recorder
        };
        let options = BasicPublishOptions::default();
        client
            .basic_publish(
                exchange.into(),
                key.into(),
                options,
                b"not ours",
                Default::default(),
            )
            .await
            .unwrap();
        let came = hold(subscription, 1).await;
        let undecodable = came[0].message.as_ref().unwrap_err();
        assert_eq!(
            (undecodable.subject.as_str(), &undecodable.body[..]),
            (key, &b"not ours"[..])
        );
        subscription.acks.ack(vec![came[0].token.clone()]).await.unwrap();
    }
    let task = tasks(&lane, 1);
    served.try_submit(&task).await.unwrap();
    assert_eq!(take(&mut recorder, 1).await, ids(&task));
    served.try_ready(&task).await.unwrap();
    assert_eq!(take(&mut lane_reader, 1).await, ids(&task));
}

/// What other processes' recorders hold is not recorded yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_recorders_elsewhere_hold_is_counted() {
    let served = fresh().await;
    let (another, third, lane) = (served.another().await, served.another().await, lane("elsewhere"));
    // One by one: what is published together counts as one.
    for task in tasks(&lane, 7) {
        served.try_submit(&[task]).await.unwrap();
    }
    let mut elsewhere = another.consume(Source::Submissions).await.unwrap();
    let held = hold(&mut elsewhere, 7).await;
    let mut here = served.broker.consume(Source::Submissions).await.unwrap();
    for task in tasks(&lane, 2) {
        served.try_submit(&[task]).await.unwrap();
    }
    for broker in [
        &served.broker() as &dyn std::ops::Deref<Target = dyn Broker>,
        &another,
        &third,
    ] {
        assert_eq!(broker.unrecorded().await.unwrap(), 9);
    }
    let tokens: Vec<_> = held.into_iter().map(|delivery| delivery.token).collect();
    elsewhere.acks.ack(tokens[..3].to_vec()).await.unwrap();
    assert_eq!(third.unrecorded().await.unwrap(), 6);
    // With its end the rest goes to the others, and is at no moment uncounted. While it ends the count may be unknown.
    drop(elsewhere);
    drop(another);
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        if let Ok(unrecorded) = third.unrecorded().await {
            assert!(unrecorded >= 6 - 2, "{unrecorded} of what nobody acknowledged");
        }
    }
    wait::until("six again", PATIENCE, async || {
        third.unrecorded().await.map(|count| count == 6)
    })
    .await;
    take(&mut here, 6).await;
    wait::until("none", PATIENCE, async || {
        third.unrecorded().await.map(|count| count == 0)
    })
    .await;
}

/// A queue that does not answer its own server is said to have no consumers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_recorders_hold_is_counted_while_the_queue_is_slow() {
    let mut served = alone().await;
    for task in tasks(&lane("slow"), 3) {
        served.submit_at_last(&[task]).await;
    }
    let another = served.another().await;
    let mut recorder = another.consume(Source::Submissions).await.unwrap();
    let _held = hold(&mut recorder, 3).await;
    let fits = "spawn(fun() -> \
        Name = rabbit_misc:r(<<\"/\">>, queue, <<\"forebay.recorder\">>), \
        {ok, Queue} = rabbit_amqqueue:lookup(Name), \
        {Server, _} = amqqueue:get_pid(Queue), \
        [begin erlang:suspend_process(whereis(Server)), timer:sleep(300), \
               erlang:resume_process(whereis(Server)), timer:sleep(40) end || _ <- lists:seq(1, 10)] end)";
    served.server().eval(fits).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_millis(3_500) {
        let asked = tokio::time::Instant::now();
        // It may be unknown. What is known is true.
        if let Ok(unrecorded) = served.broker.unrecorded().await {
            assert!(unrecorded >= 3, "{unrecorded} of what nobody acknowledged");
        }
        slowest = slowest.max(asked.elapsed());
    }
    let server_gives_up = Duration::from_millis(250);
    assert!(slowest >= server_gives_up, "the queue was not slow: {slowest:?}");
    wait::until("three", PATIENCE, async || {
        served.broker.unrecorded().await.map(|count| count == 3)
    })
    .await;
}

/// Without a recorder an unknown task is found to be unknown quickly.
#[tokio::test]
async fn that_nothing_is_unrecorded_is_known_soon() {
    let served = fresh().await;
    assert_eq!(served.broker.unrecorded().await.unwrap(), 0);
    let quick = async || {
        let asked = tokio::time::Instant::now();
        assert_eq!(served.broker.unrecorded().await.unwrap(), 0);
        asked.elapsed() < Duration::from_millis(200)
    };
    wait::until("a quick answer", PATIENCE, quick).await;
}

/// One who reads submissions and does not answer leaves the number unknown.
#[tokio::test]
async fn without_the_answer_of_a_recorder_the_count_is_not_known() {
    let served = fresh().await;
    served.try_submit(&tasks(&lane("silent"), 1)).await.unwrap();
    let client = served.client().await;
    let options = BasicConsumeOptions::default();
    let mut silent = client
        .basic_consume(
            "forebay.recorder".into(),
            "silent".into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    futures::StreamExt::next(&mut silent).await.unwrap().unwrap();
    let asked = tokio::time::Instant::now();
    assert!(served.broker.unrecorded().await.is_err());
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        asked.elapsed()
    );
}

/// The API tells a task that was just accepted from one that does not exist by this, while recorders snatch what
/// comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_on_its_way_to_a_recorder_is_counted() {
    let served = fresh().await;
    let (another, lane) = (served.another().await, lane("snatched"));
    let mut recorders = [
        served.broker.consume(Source::Submissions).await.unwrap(),
        another.consume(Source::Submissions).await.unwrap(),
    ];
    for round in 0..150 {
        let task = tasks(&lane, 1);
        served.try_submit(&task).await.unwrap();
        for _ in 0..3 {
            let unrecorded = served.broker.unrecorded().await.unwrap();
            assert_ne!(unrecorded, 0, "missed in round {round}");
        }
        let [one, other] = &mut recorders;
        let wait = Duration::from_secs(10);
        let (acks, came) = tokio::select! {
            came = one.consumer.next(1, wait) => (&one.acks, came),
            came = other.consumer.next(1, wait) => (&other.acks, came),
        };
        let tokens = came.unwrap().into_iter().map(|delivery| delivery.token).collect();
        acks.ack(tokens).await.unwrap();
    }
    assert_eq!(served.broker.unrecorded().await.unwrap(), 0);
}

/// Signals go on coming however many there are, and one who does not listen costs a bounded amount of memory.
#[tokio::test]
async fn signals_in_great_number_arrive() {
    let served = fresh().await;
    let mut signals = served.broker.signals().await.unwrap();
    let _idle = served.broker.signals().await.unwrap();
    for task in tasks(&lane("signals"), 3_000) {
        let signal = Signal::Cancel(vec![task.id]);
        served.broker.signal(signal.clone()).await.unwrap();
        let heard = timeout(PATIENCE, futures::StreamExt::next(&mut signals)).await;
        assert_eq!(heard.expect("a signal in time"), Some(signal));
    }
}
