//! A worker that acknowledges before the store has committed loses tasks in a crash. If it did not, a fault suite that
//! finds nothing would prove nothing.

use std::{sync::Arc, time::Duration};

use forebay_broker::{Broker, Depth, Source};
use forebay_core::{Lane, SystemClock};
use forebay_runtime::{health::Health, metrics::Metrics};
use forebay_worker::{Sabotage, Worker};

use crate::support::{World, holds, options, succeed};

fn worker(world: &World, sabotage: Option<Sabotage>) -> Worker {
    let worker = Worker::new(
        options(),
        succeed(),
        Arc::clone(&world.store) as Arc<dyn forebay_store::Store>,
        Arc::clone(&world.broker) as Arc<dyn Broker>,
        Arc::new(SystemClock),
        Arc::new(Metrics::new()),
        Health::default(),
    );
    match sabotage {
        Some(sabotage) => worker.sabotage(sabotage),
        None => worker,
    }
}

fn is_empty(world: &World) -> bool {
    let lanes = Lane::all_of(&forebay_core::QueueName::default());
    let sources = lanes.into_iter().map(Source::Lane).chain([Source::Submissions]);
    sources
        .into_iter()
        .all(|source| world.broker.depth_of(&source) == Depth::default())
}

#[tokio::test]
async fn what_is_acknowledged_before_the_commit_is_lost_in_a_crash() {
    let world = World::default();
    let sabotage = Sabotage {
        acknowledge_first: Some(Duration::from_secs(3_600)),
    };
    let id = world.submit(crate::support::request()).await;
    let run = tokio::spawn(worker(&world, Some(sabotage)).run(Default::default()));
    holds("the broker has forgotten the task", || is_empty(&world)).await;
    run.abort();
    // The abort's own error.
    let _ = run.await;
    assert_eq!(world.store.task(id), None, "and the store has never heard of it");
}

#[tokio::test]
async fn the_feature_alone_changes_nothing() {
    let world = World::default();
    world.store.set_away(true);
    let id = world.submit(crate::support::request()).await;
    let run = tokio::spawn(worker(&world, None).run(Default::default()));
    holds("the store was asked", || world.store.refused_calls() > 3).await;
    run.abort();
    // The abort's own error.
    let _ = run.await;
    assert!(!is_empty(&world), "the broker still has it");
    world.store.set_away(false);
    let run = world.worker(options(), succeed());
    world.wait_for(id, forebay_core::State::Succeeded).await;
    run.drain().await;
}
