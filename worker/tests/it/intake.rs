//! What is received, in which order, and what is not for this worker.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_broker::{Broker, Message, Source, Undecodable};
use forebay_core::{Fingerprint, Json, Lane, Priority, QueueName, State, Submission, SubmitRequest};
use forebay_worker::{Handlers, WorkerOptions};
use tokio::sync::Semaphore;

use crate::support::{World, handle, holds, options, request, settings, submission, succeed, undispatched};

fn lane(priority: Priority) -> Source {
    Source::Lane(Lane::new(QueueName::default(), priority))
}

#[tokio::test]
async fn the_urgent_come_first_and_the_others_are_not_starved() {
    let world = World::default();
    for priority in ["low", "default", "high"] {
        for _ in 0..50 {
            world
                .submit(SubmitRequest {
                    priority: Some(priority.to_owned()),
                    payload: Some(Json::of(priority).unwrap()),
                    ..request()
                })
                .await;
        }
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    let options = WorkerOptions {
        concurrency: 2,
        ..options()
    };
    let _worker = world.worker(
        options,
        handle(move |execution| {
            log.lock().unwrap().push(execution.payload.as_str().to_owned());
            async { Ok(Json::null()) }
        }),
    );
    holds("all have run", || order.lock().unwrap().len() == 150).await;
    let order = order.lock().unwrap();
    let among = |range: std::ops::Range<usize>, priority: &str| {
        order[range]
            .iter()
            .filter(|ran| ran.trim_matches('"') == priority)
            .count()
    };
    assert!(among(0..50, "high") >= 35, "the urgent come first: {order:?}");
    assert!(among(0..50, "low") >= 1, "the low are not starved: {order:?}");
    assert!(among(100..150, "low") >= 35, "the low come last: {order:?}");
    assert!(among(0..150, "high") == 50 && among(0..150, "low") == 50);
}

#[tokio::test]
async fn several_queues_share_a_worker() {
    let world = World::default();
    let queues = ["a", "b", "c"];
    let options = WorkerOptions {
        queues: queues.map(|queue| queue.parse().unwrap()).to_vec(),
        concurrency: 1,
        ..options()
    };
    let worker = world.worker(options, succeed());
    let mut ids = Vec::new();
    for n in 0..60 {
        let queue = Some(queues[n % 3].to_owned());
        ids.push(world.submit(SubmitRequest { queue, ..request() }).await);
    }
    world.wait_for_all(&ids, State::Succeeded).await;
    worker.is_healthy().await;
}

#[tokio::test]
async fn a_kind_that_is_not_known_here_is_left_to_others() {
    let world = World::default();
    let first = world.worker(
        undispatched(),
        Handlers::new()
            .function("other", settings(), |(): (), _| async { Ok(()) })
            .unwrap(),
    );
    let ids = world.submit_many(30).await;
    let other = world
        .submit(SubmitRequest {
            kind: "other".to_owned(),
            ..request()
        })
        .await;
    world.wait_for(other, State::Succeeded).await;
    let untouched = |id| world.store.task(id).map(|task| (task.state, task.fence));
    assert!(
        ids.iter().all(|id| untouched(*id) == Some((State::Queued, 0))),
        "they were not even claimed"
    );
    first.is_healthy().await;
    // Nor do they stay in the lane, where they would keep others from being delivered and forgotten.
    let lane = Source::Lane(Lane::new(QueueName::default(), Priority::Default));
    holds("the lane is free", || world.broker.depth_of(&lane).is_empty()).await;
    let _second = world.worker(options(), succeed());
    world.wait_for_all(&ids, State::Succeeded).await;
}

/// Two requests under one idempotency key, accepted at the same moment: the one that was recorded first is the task.
#[tokio::test]
async fn of_two_requests_under_one_key_one_runs_by_its_own_kind() {
    let world = World::default();
    let first = submission(request());
    let second = Submission {
        kind: "other".parse().unwrap(),
        fingerprint: Some(Fingerprint([1; 16])),
        ..first.clone()
    };
    let runs = Arc::new(Mutex::new(Vec::new()));
    let note = |kind: &'static str| {
        let runs = Arc::clone(&runs);
        move |(): (), _| {
            runs.lock().unwrap().push(kind);
            async move { Ok(kind) }
        }
    };
    let handlers = Handlers::new()
        .function("test", settings(), note("test"))
        .and_then(|it| it.function("other", settings(), note("other")));
    let both = [first.clone(), second].map(Message::Submission);
    world.broker.publish(both.to_vec()).await;
    let _worker = world.worker(undispatched(), handlers.unwrap());
    let task = world.wait_for(first.id, State::Succeeded).await;
    assert_eq!(task.result.unwrap().as_str(), "\"test\"");
    holds("both are acknowledged, by recorder and executor", || {
        world.broker.depth_of(&Source::Submissions).is_empty()
            && world.broker.depth_of(&lane(Priority::Default)).is_empty()
    })
    .await;
    assert_eq!(*runs.lock().unwrap(), ["test"]);
}

#[tokio::test]
async fn a_message_that_comes_twice_runs_its_task_once() {
    let world = World::default();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let runs = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&runs);
    let _worker = world.worker(
        undispatched(),
        handle(move |_| {
            *counter.lock().unwrap() += 1;
            let gate = Arc::clone(&gate);
            async move {
                let _pass = gate.acquire().await;
                Ok(Json::null())
            }
        }),
    );
    let message = Message::Submission(submission(request()));
    let Message::Submission(task) = &message else {
        unreachable!("it was made above");
    };
    let id = task.id;
    world.broker.publish(vec![message.clone(), message.clone()]).await;
    world.wait_for(id, State::Running).await;
    world.broker.publish(vec![message.clone()]).await;
    // Submissions are acknowledged after what is ready was published.
    let empty = || {
        let sources = [Source::Submissions, lane(Priority::Default)];
        sources
            .iter()
            .all(|source| world.broker.depth_of(source).is_empty())
    };
    holds("all copies are acknowledged while the task runs", empty).await;
    open.add_permits(10);
    world.wait_for(id, State::Succeeded).await;
    world.broker.publish(vec![message]).await;
    holds("the late copy is acknowledged", empty).await;
    assert_eq!(*runs.lock().unwrap(), 1);
}

#[tokio::test]
async fn messages_that_nobody_can_decode_are_set_aside_once() {
    let world = World::default();
    let worker = world.worker(options(), succeed());
    let undecodable = |verb: &str| Undecodable {
        subject: format!("{verb}.default.default"),
        body: Bytes::from_static(b"\xff"),
        reason: "not a message".to_owned(),
    };
    world.broker.put(Source::Submissions, Err(undecodable("submit")));
    world
        .broker
        .put(lane(Priority::Default), Err(undecodable("submit")));
    world
        .broker
        .put(lane(Priority::Default), Err(undecodable("ready")));
    let id = world.submit(request()).await;
    world.wait_for(id, State::Succeeded).await;
    holds("all are set aside", || world.store.rejects().len() == 3).await;
    holds("all are counted", || {
        worker.metric("forebay_undecodable_messages_total 3")
    })
    .await;
    holds("nothing is left", || {
        world.broker.depth_of(&Source::Submissions).is_empty()
            && world.broker.depth_of(&lane(Priority::Default)).is_empty()
    })
    .await;
    assert_eq!(world.store.rejects().len(), 3);
}
