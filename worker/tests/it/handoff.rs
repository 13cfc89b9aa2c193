//! What the recorder of a worker starts at once, past the lanes, and what it does not.

use std::time::Duration;

use forebay_broker::{Broker, Message, Source};
use forebay_core::{Lane, Priority, QueueName, State, Submission, SubmitRequest, TaskId};
use forebay_worker::{IntakeOptions, WorkerOptions};
use tokio::time::Instant;

use crate::{
    broker::Lanes,
    starts::{MANY, Starts},
    support::{PATIENCE, World, holds, options, request, submission, undispatched},
};

/// Hands over, and nothing that a lane does not take is published again.
fn handing_over(concurrency: usize) -> WorkerOptions {
    let options = undispatched();
    WorkerOptions {
        concurrency,
        intake: IntakeOptions {
            hand_off: true,
            ..options.intake
        },
        ..options
    }
}

fn in_lane(world: &World, priority: Priority) -> u64 {
    let lane = Lane::new(QueueName::default(), priority);
    world.broker.depth_of(&Source::Lane(lane)).waiting
}

/// One after the other, each recorded before the next is submitted.
async fn submit_in_turn(world: &World, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = world.submit(request()).await;
        holds("it is recorded", || world.store.task(id).is_some()).await;
        ids.push(id);
    }
    ids
}

async fn all_is_acknowledged(world: &World) {
    holds("all is acknowledged", || {
        world.broker.depth_of(&Source::Submissions).is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_there_is_room_for_needs_no_lane() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    world.broker.set_lanes(Lanes::Full);
    let worker = world.worker(handing_over(100), starts.handlers());
    worker.is_healthy().await;
    let ids = world.submit_many(90).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    all_is_acknowledged(&world).await;
    let fences: Vec<u32> = ids
        .iter()
        .map(|id| world.store.task(*id).unwrap().fence)
        .collect();
    assert!(fences.iter().all(|&fence| fence == 1), "{fences:?}");
    holds("no claim is left", || world.store.claims_held() == 0).await;
    assert!(worker.metric("forebay_record_lag_seconds_count 90"));
    worker.drain().await;
}

#[tokio::test]
async fn what_there_is_no_room_for_waits_in_its_lane() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(2), starts.handlers());
    worker.is_healthy().await;
    let ids = submit_in_turn(&world, 5).await;
    holds("three wait", || in_lane(&world, Priority::Default) == 3).await;
    holds("two run", || starts.count() == 2).await;
    all_is_acknowledged(&world).await;
    starts.open(&world, &ids).await;
    worker.is_healthy().await;
    worker.drain().await;
}

#[tokio::test]
async fn nothing_overtakes_what_waits_in_its_lane() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(1), starts.handlers());
    worker.is_healthy().await;
    let mut ids = submit_in_turn(&world, 12).await;
    holds("eleven wait", || in_lane(&world, Priority::Default) == 11).await;
    starts.let_through(4);
    holds("the fifth runs", || starts.count() == 5).await;
    ids.extend(submit_in_turn(&world, 3).await);
    starts.open(&world, &ids).await;
    assert_eq!(starts.order(), ids);
    worker.drain().await;
}

#[tokio::test]
async fn once_its_lane_is_empty_what_comes_is_handed_over_again() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(2), starts.handlers());
    worker.is_healthy().await;
    let ids = submit_in_turn(&world, 10).await;
    starts.open(&world, &ids).await;
    world.broker.set_lanes(Lanes::Full);
    // What comes before the worker has found its lane empty is refused there.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let id = world.submit(request()).await;
        all_is_acknowledged(&world).await;
        if world.store.task(id).unwrap().state != State::Queued {
            break;
        }
        assert!(Instant::now() < deadline, "nothing is handed over any more");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    worker.drain().await;
}

#[tokio::test]
async fn what_has_a_time_or_a_key_is_only_recorded() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    world.broker.set_lanes(Lanes::Full);
    let worker = world.worker(handing_over(10), starts.handlers());
    worker.is_healthy().await;
    let with = |key: Option<&str>, delay_seconds| SubmitRequest {
        idempotency_key: key.map(ToOwned::to_owned),
        delay_seconds,
        ..request()
    };
    let later = world.submit(with(None, Some(3_600.0))).await;
    world.wait_for(later, State::Scheduled).await;
    let plain = world.submit(with(None, None)).await;
    world.wait_for(plain, State::Succeeded).await;
    let keyed = world.submit(with(Some("k"), None)).await;
    all_is_acknowledged(&world).await;
    assert_eq!(world.store.task(keyed).unwrap().state, State::Queued);
    assert_eq!(starts.order(), [plain]);
    worker.drain().await;
}

/// Delivers all at once, in this order; returns the ids.
fn deliver(world: &World, requests: Vec<SubmitRequest>) -> Vec<TaskId> {
    let tasks: Vec<Submission> = requests.into_iter().map(submission).collect();
    let bundle = tasks.iter().map(|task| Ok(Message::Submission(task.clone())));
    world.broker.put_bundle(Source::Submissions, bundle.collect());
    tasks.iter().map(|task| task.id).collect()
}

#[tokio::test]
async fn of_what_comes_together_the_more_urgent_is_started_first() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(1), starts.handlers());
    worker.is_healthy().await;
    let with = |priority: &str| SubmitRequest {
        priority: Some(priority.to_owned()),
        ..request()
    };
    let ids = deliver(
        &world,
        ["low", "default", "low", "high", "default"].map(with).to_vec(),
    );
    starts.open(&world, &ids).await;
    assert_eq!(starts.order()[0], ids[3]);
    worker.drain().await;
}

#[tokio::test]
async fn what_is_left_to_its_lane_is_not_overtaken_by_what_came_with_it() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(1), starts.handlers());
    worker.is_healthy().await;
    let keyed = SubmitRequest {
        idempotency_key: Some("k".to_owned()),
        ..request()
    };
    let ids = deliver(&world, vec![keyed, request(), request()]);
    starts.open(&world, &ids).await;
    assert_eq!(starts.order(), ids);
    worker.drain().await;
}

#[tokio::test]
async fn a_lost_answer_starts_nothing_twice() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    let worker = world.worker(handing_over(50), starts.handlers());
    worker.is_healthy().await;
    world.store.lose_answers(3);
    let ids = world.submit_many(40).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    all_is_acknowledged(&world).await;
    let mut ran = starts.order();
    ran.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(ran, expected);
    worker.drain().await;
}

#[tokio::test]
async fn what_is_delivered_again_is_not_started_again() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(10), starts.handlers());
    worker.is_healthy().await;
    let task = submission(request());
    let message = || vec![Message::Submission(task.clone())];
    world.broker.publish(message()).await;
    holds("it runs", || starts.count() == 1).await;
    world.broker.publish(message()).await;
    all_is_acknowledged(&world).await;
    starts.open(&world, &[task.id]).await;
    world.broker.publish(message()).await;
    all_is_acknowledged(&world).await;
    worker.drain().await;
    assert_eq!(starts.order(), [task.id]);
    assert_eq!(world.store.task(task.id).unwrap().fence, 1);
}

#[tokio::test]
async fn a_worker_that_was_declared_dead_only_records() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    let worker = world.worker(handing_over(10), starts.handlers());
    worker.is_healthy().await;
    world.store.forget_workers();
    let ids = world.submit_many(30).await;
    // Through the lane where it must, and in its next life.
    world.wait_for_all(&ids, State::Succeeded).await;
    all_is_acknowledged(&world).await;
    assert_eq!(starts.count(), 30);
    worker.drain().await;
}

#[tokio::test]
async fn one_that_the_store_refuses_does_not_keep_its_neighbours() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    let worker = world.worker(handing_over(100), starts.handlers());
    worker.is_healthy().await;
    let tasks: Vec<Submission> = (0..20).map(|_| submission(request())).collect();
    world.store.poison(tasks[7].id);
    let bundle = tasks.iter().map(|task| Ok(Message::Submission(task.clone())));
    world.broker.put_bundle(Source::Submissions, bundle.collect());
    let good: Vec<TaskId> = [&tasks[..7], &tasks[8..]]
        .concat()
        .iter()
        .map(|it| it.id)
        .collect();
    world.wait_for_all(&good, State::Succeeded).await;
    all_is_acknowledged(&world).await;
    assert_eq!(world.store.rejects().len(), 1);
    assert!(world.store.task(tasks[7].id).is_none());
    worker.drain().await;
}

#[tokio::test]
async fn what_is_refused_a_start_stays_before_what_found_no_seat() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(2), starts.handlers());
    worker.is_healthy().await;
    let tasks: Vec<Submission> = (0..5).map(|_| submission(request())).collect();
    world.store.poison(tasks[0].id);
    let bundle = tasks.iter().map(|task| Ok(Message::Submission(task.clone())));
    world.broker.put_bundle(Source::Submissions, bundle.collect());
    let good: Vec<TaskId> = tasks[1..].iter().map(|task| task.id).collect();
    starts.open(&world, &good).await;
    assert_eq!(starts.order(), good);
    worker.drain().await;
}

#[tokio::test]
async fn a_start_that_may_have_happened_is_asked_for_until_it_is_known() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    let worker = world.worker(handing_over(10), starts.handlers());
    worker.is_healthy().await;
    world.store.lose_claims(true);
    let id = world.submit(request()).await;
    holds("it is started, unheard", || {
        world
            .store
            .task(id)
            .is_some_and(|task| task.state == State::Running)
    })
    .await;
    world.store.poison(id);
    let before = world.store.refused_calls();
    world.store.lose_claims(false);
    holds("it was refused", || world.store.refused_calls() > before + 1).await;
    world.store.heal(id);
    world.wait_for(id, State::Succeeded).await;
    assert_eq!(starts.order(), [id]);
    assert!(world.store.rejects().is_empty());
    worker.drain().await;
}

#[tokio::test]
async fn an_outage_is_waited_out() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    let worker = world.worker(handing_over(10), starts.handlers());
    worker.is_healthy().await;
    world.store.set_away(true);
    let before = world.store.refused_calls();
    let ids = world.submit_many(8).await;
    holds("it was tried", || world.store.refused_calls() > before + 3).await;
    world.store.set_away(false);
    world.wait_for_all(&ids, State::Succeeded).await;
    assert_eq!(starts.count(), 8);
    worker.drain().await;
}

#[tokio::test]
async fn a_draining_worker_starts_nothing() {
    let world = World::default();
    let starts = Starts::with_passes(0);
    let worker = world.worker(handing_over(10), starts.handlers());
    worker.is_healthy().await;
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    worker.stop.cancel();
    let later = world.submit(request()).await;
    starts.let_through(1);
    worker.drain().await;
    assert_eq!(world.store.task(id).unwrap().state, State::Succeeded);
    let untouched = world.store.task(later).map(|task| (task.state, task.fence));
    assert!(
        matches!(untouched, None | Some((State::Queued, _))),
        "{untouched:?}"
    );
}

#[tokio::test]
async fn options_may_forbid_it() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    world.broker.set_lanes(Lanes::Full);
    let worker = world.worker(
        WorkerOptions {
            intake: options().intake,
            ..handing_over(10)
        },
        starts.handlers(),
    );
    let ids = world.submit_many(5).await;
    world.wait_for_all(&ids, State::Queued).await;
    all_is_acknowledged(&world).await;
    assert_eq!(starts.order(), []);
    worker.drain().await;
}
