//! What the recorder does with what it is given, and what follows when something fails between its steps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use forebay_broker::{Broker, Message, Source, Undecodable};
use forebay_core::{Fingerprint, Json, Lane, Signal, State, Submission, SubmitRequest, TaskId};
use forebay_store::Record;
use forebay_worker::Handlers;
use futures::StreamExt;

use crate::{
    broker::{Item, Lanes},
    support::{PATIENCE, World, handle, holds, options, request, submission, succeed, undispatched},
};

type Runs = Arc<Mutex<HashMap<TaskId, u32>>>;

/// A handler that counts how often each task is run.
fn counting(runs: &Runs) -> Handlers {
    let runs = Arc::clone(runs);
    handle(move |execution| {
        *runs.lock().unwrap().entry(execution.id).or_default() += 1;
        async { Ok(Json::null()) }
    })
}

fn is_recorded(world: &World) -> bool {
    world.broker.depth_of(&Source::Submissions).is_empty()
}

fn lanes_are_empty(world: &World) -> bool {
    let lanes = Lane::all_of(&Default::default());
    lanes
        .map(Source::Lane)
        .iter()
        .all(|lane| world.broker.depth_of(lane).is_empty())
}

#[tokio::test]
async fn a_recorder_that_dies_before_it_has_published_is_made_up_for() {
    let world = World::default();
    let runs = Runs::default();
    world.broker.set_lanes(Lanes::Silent);
    let first = world.worker(undispatched(), counting(&runs));
    let ids = world.submit_many(50).await;
    world.wait_for_all(&ids, State::Queued).await;
    first.crash().await;
    assert!(
        !is_recorded(&world),
        "nothing is acknowledged before it is published"
    );
    assert!(lanes_are_empty(&world));
    world.broker.set_lanes(Lanes::Open);
    // No dispatcher: it is the broker that delivers them again.
    let _second = world.worker(undispatched(), counting(&runs));
    world.wait_for_all(&ids, State::Succeeded).await;
    holds("all is acknowledged", || is_recorded(&world)).await;
    assert!(runs.lock().unwrap().values().all(|&runs| runs == 1));
}

#[tokio::test]
async fn lanes_that_are_full_do_not_hold_up_the_recorder() {
    let world = World::default();
    let runs = Runs::default();
    world.broker.set_lanes(Lanes::Full);
    let worker = world.worker(options(), counting(&runs));
    let ids = world.submit_many(3_000).await;
    world.wait_for_all(&ids, State::Queued).await;
    holds("all is acknowledged", || is_recorded(&world)).await;
    assert!(lanes_are_empty(&world));
    world.broker.set_lanes(Lanes::Open);
    world.wait_for_all(&ids, State::Succeeded).await;
    assert!(runs.lock().unwrap().values().all(|&runs| runs == 1));
    worker.is_healthy().await;
    worker.drain().await;
}

#[tokio::test]
async fn a_broker_that_goes_away_between_commit_and_publish_loses_nothing() {
    let world = World::default();
    let runs = Runs::default();
    let worker = world.worker(options(), counting(&runs));
    world.store.set_away(true);
    let before = world.store.refused_calls();
    let ids = world.submit_many(50).await;
    holds("the recorder has tried", || {
        world.store.refused_calls() > before + 5
    })
    .await;
    world.broker.set_away(true);
    world.store.set_away(false);
    world.wait_for_all(&ids, State::Queued).await;
    world.broker.set_away(false);
    world.wait_for_all(&ids, State::Succeeded).await;
    holds("all is acknowledged", || is_recorded(&world)).await;
    assert!(runs.lock().unwrap().values().all(|&runs| runs == 1));
    worker.is_healthy().await;
    worker.drain().await;
}

#[tokio::test]
async fn a_bad_item_does_not_spoil_its_bundle() {
    let world = World::default();
    let good: Vec<Submission> = (0..20).map(|_| submission(request())).collect();
    let poisoned = submission(request());
    world.store.poison(poisoned.id);
    let later = submission(SubmitRequest {
        delay_seconds: Some(3_600.0),
        ..request()
    });
    let mut bundle: Vec<Item> = [&later, &poisoned]
        .into_iter()
        .chain(&good)
        .map(|task| Ok(Message::Submission(task.clone())))
        .collect();
    let undecodable = Undecodable {
        subject: "submit".to_owned(),
        body: Bytes::from_static(b"\xff"),
        reason: "not a task".to_owned(),
    };
    bundle.insert(9, Err(undecodable.clone()));
    world.broker.put_bundle(Source::Submissions, bundle);
    let worker = world.worker(undispatched(), succeed());
    let ids: Vec<TaskId> = good.iter().map(|task| task.id).collect();
    world.wait_for_all(&ids, State::Succeeded).await;
    assert_eq!(world.store.task(later.id).unwrap().state, State::Scheduled);
    holds("the bundle is acknowledged", || is_recorded(&world)).await;
    let rejects = world.store.rejects();
    let bodies: Vec<&[u8]> = rejects.iter().map(|reject| &reject.body[..]).collect();
    let poison = forebay_broker::wire::encode(&Message::Submission(poisoned.clone()));
    assert_eq!(bodies.len(), 2, "{rejects:?}");
    assert!(bodies.contains(&&undecodable.body[..]) && bodies.contains(&&poison[..]));
    assert!(world.store.task(poisoned.id).is_none());
    assert!(worker.metric("forebay_undecodable_messages_total 2"));
}

#[tokio::test]
async fn what_is_known_is_published_again_and_what_conflicts_is_not() {
    let world = World::default();
    let runs = Runs::default();
    let known = submission(request());
    world.store.record(std::slice::from_ref(&known)).await.unwrap();
    let other = Submission {
        fingerprint: Some(Fingerprint([7; 16])),
        payload: Json::parse(b"7").unwrap(),
        ..known.clone()
    };
    let conflicting = world.broker.publish(vec![Message::Submission(other)]).await;
    assert_eq!(conflicting, [Ok(())]);
    let recorder = forebay_worker::WorkerOptions {
        roles: "recorder".parse().unwrap(),
        ..options()
    };
    let recording = world.worker(recorder, counting(&runs));
    holds("the other is acknowledged", || is_recorded(&world)).await;
    assert!(lanes_are_empty(&world), "and was not published");
    world
        .broker
        .publish(vec![Message::Submission(known.clone())])
        .await;
    holds("the known one is published", || !lanes_are_empty(&world)).await;
    recording.drain().await;
    let _worker = world.worker(undispatched(), counting(&runs));
    let task = world.wait_for(known.id, State::Succeeded).await;
    assert_eq!(task.payload, known.payload);
    assert_eq!(runs.lock().unwrap().clone(), HashMap::from([(known.id, 1)]));
}

#[tokio::test]
async fn the_lag_of_the_recorder_is_measured() {
    let world = World::default();
    let worker = world.worker(undispatched(), succeed());
    let ids = world.submit_many(7).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    holds("each is counted", || {
        worker.metric("forebay_record_lag_seconds_count 7")
    })
    .await;
}

/// Nobody else knows of it at that moment.
#[tokio::test]
async fn what_is_over_as_it_is_recorded_is_told() {
    let world = World::default();
    let mut signals = world.broker.signals().await.unwrap();
    let over = submission(request());
    world.store.turn_away(over.id);
    let ids = [submission(request()), over.clone()].map(Message::Submission);
    assert_eq!(world.broker.publish(ids.into()).await, [Ok(()), Ok(())]);
    let recorder = forebay_worker::WorkerOptions {
        roles: "recorder".parse().unwrap(),
        ..options()
    };
    let recording = world.worker(recorder, succeed());
    let told = async {
        while let Some(signal) = signals.next().await {
            if let Signal::Events(events) = signal {
                return events;
            }
        }
        panic!("the broker ended");
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    let told: Vec<_> = told.iter().map(|event| (event.id, event.state)).collect();
    assert_eq!(told, [(over.id, State::Cancelled)]);
    recording.drain().await;
}
