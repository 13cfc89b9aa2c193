//! What becomes ready, and what was lost.

use std::time::Duration;

use forebay_core::{Clock, Json, State, SubmitRequest, SystemClock};
use forebay_worker::HandlerError;

use crate::support::{World, handle, holds, options, request, succeed};

#[tokio::test]
async fn a_scheduled_task_runs_on_time() {
    let world = World::default();
    let _worker = world.worker(options(), succeed());
    let due = SystemClock.now() + Duration::from_millis(400);
    let id = world
        .submit(SubmitRequest {
            run_at: Some(due),
            ..request()
        })
        .await;
    world.wait_for(id, State::Scheduled).await;
    let task = world.wait_for(id, State::Succeeded).await;
    let late = Duration::try_from(task.started_at.unwrap().duration_since(due)).expect("not before its time");
    assert!(late < Duration::from_secs(3), "{late:?} late");
}

#[tokio::test]
async fn more_than_a_batch_becomes_due_at_once() {
    let world = World::default();
    let due = SystemClock.now() + Duration::from_millis(300);
    let mut ids = Vec::new();
    for _ in 0..1_200 {
        let run_at = Some(due);
        ids.push(world.submit(SubmitRequest { run_at, ..request() }).await);
    }
    let _worker = world.worker(options(), succeed());
    world.wait_for_all(&ids, State::Succeeded).await;
}

#[tokio::test]
async fn what_was_dispatched_and_forgotten_is_published_again() {
    let world = World::default();
    let worker = world.worker(
        options(),
        handle(|execution| async move {
            match execution.attempt {
                1 => Err(HandlerError::retry_after(Duration::from_millis(50), "once more")),
                _ => Ok(Json::null()),
            }
        }),
    );
    let id = world.submit(request()).await;
    world.wait_for(id, State::Retrying).await;
    world.broker.forget(1);
    holds("the message is lost", || world.broker.forgotten()).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!((task.attempt, task.fence), (2, 2));
    worker.is_healthy().await;
}

#[tokio::test]
async fn a_lost_message_is_noticed_in_a_lane_that_is_never_empty() {
    let world = World::default();
    world.broker.forget(1);
    let lost = world.submit(request()).await;
    // Slow enough that something always waits.
    let _worker = world.worker(
        forebay_worker::WorkerOptions {
            concurrency: 1,
            ..options()
        },
        handle(|_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Json::null())
        }),
    );
    let feed = async {
        loop {
            world.submit_many(5).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    };
    tokio::select! {
        () = feed => unreachable!("it never ends"),
        _ = world.wait_for(lost, State::Succeeded) => {}
    }
}

#[tokio::test]
async fn a_wiped_broker_loses_nothing_that_was_recorded() {
    let world = World::default();
    let recorder = forebay_worker::WorkerOptions {
        roles: "recorder".parse().unwrap(),
        ..options()
    };
    let recording = world.worker(recorder, succeed());
    let ids = world.submit_many(1_200).await;
    world.wait_for_all(&ids, State::Queued).await;
    recording.drain().await;
    world.broker.wipe();
    let _worker = world.worker(options(), succeed());
    world.wait_for_all(&ids, State::Succeeded).await;
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_dispatched_later() {
    let world = World::default();
    let worker = world.worker(options(), succeed());
    let run_at = Some(SystemClock.now() + Duration::from_millis(200));
    let id = world.submit(SubmitRequest { run_at, ..request() }).await;
    world.wait_for(id, State::Scheduled).await;
    world.broker.set_away(true);
    holds("the dispatcher has tried", || {
        let problems = worker.health.problems();
        problems
            .iter()
            .any(|(part, what)| part == "dispatcher due" && what.contains("could not be published"))
    })
    .await;
    assert_eq!(world.store.task(id).unwrap().state, State::Scheduled);
    world.broker.set_away(false);
    world.wait_for(id, State::Succeeded).await;
    worker.is_healthy().await;
}

/// What fails together may succeed in parts, and one that fails by itself is not to hold up the others for ever.
#[tokio::test]
async fn fewer_ends_are_seen_to_together_while_that_fails() {
    let world = World::default();
    world.store.fail_to_settle(10);
    let worker = world.worker(options(), succeed());
    holds("it has failed, and goes on", || {
        world.store.settle_limits().len() >= 13
    })
    .await;
    let failing = [500, 250, 125, 62, 31, 15, 7, 3, 1, 1];
    assert_eq!(
        world.store.settle_limits()[..13],
        [&failing[..], &[1, 2, 4]].concat()
    );
    worker.is_healthy().await;
}
