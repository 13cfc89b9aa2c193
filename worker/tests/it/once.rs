//! Workers that end by themselves: when nothing is ready, or when they have run as many tasks as they may.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay_broker::{Broker, Source};
use forebay_core::{Json, Lane, Priority, QueueName, State, TaskId};
use forebay_worker::{Handlers, IntakeOptions, Roles, WorkerOptions};

use crate::{
    starts::Starts,
    support::{World, handle, holds, options, request, settings, succeed, undispatched},
};

fn once() -> WorkerOptions {
    WorkerOptions {
        roles: Roles::EXECUTOR,
        concurrency: 2,
        once: true,
        look_patience: Duration::from_secs(10),
        ..options()
    }
}

/// A worker that brings what is submitted into the lanes, and runs nothing.
fn recorder() -> WorkerOptions {
    WorkerOptions {
        roles: Roles {
            executor: false,
            ..Roles::ALL
        },
        ..options()
    }
}

/// So many tasks, ready in their lane.
async fn ready(world: &World, count: usize) -> Vec<TaskId> {
    let recorder = world.worker(recorder(), Handlers::new());
    let ids = world.submit_many(count).await;
    world.wait_for_all(&ids, State::Queued).await;
    recorder.drain().await;
    ids
}

#[track_caller]
fn assert_all_are(world: &World, ids: &[TaskId], state: State) {
    for id in ids {
        assert_eq!(world.store.task(*id).unwrap().state, state);
    }
}

/// How many handlers ran at once, at the most, and how many in all.
#[derive(Clone, Default)]
struct Seen {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl Seen {
    fn handlers(&self) -> Handlers {
        let seen = self.clone();
        handle(move |_| {
            let seen = seen.clone();
            async move {
                seen.all.fetch_add(1, Ordering::SeqCst);
                let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                seen.now.fetch_sub(1, Ordering::SeqCst);
                Ok(Json::null())
            }
        })
    }
}

#[tokio::test]
async fn it_runs_what_is_ready_and_ends() {
    let world = World::default();
    let ids = ready(&world, 11).await;
    let seen = Seen::default();
    let worker = world.worker(once(), seen.handlers());
    worker.ends().await.unwrap();
    assert_all_are(&world, &ids, State::Succeeded);
    assert_eq!(seen.most.load(Ordering::SeqCst), 2, "its slots are its bound");
    assert_eq!(world.store.worker_count(), 0, "it has said good-bye");
}

#[tokio::test]
async fn several_share_what_is_ready_and_leave_nothing_behind() {
    let world = World::default();
    let ids = ready(&world, 30).await;
    let seen = Seen::default();
    let workers = [(); 3].map(|()| world.worker(once(), seen.handlers()));
    for worker in workers {
        worker.ends().await.unwrap();
    }
    for id in ids {
        let task = world.store.task(id).unwrap();
        assert_eq!((task.state, task.fence), (State::Succeeded, 1));
    }
}

#[tokio::test]
async fn one_that_finds_nothing_ends_soon() {
    let world = World::default();
    let worker = world.worker(once(), succeed());
    let ended = tokio::time::timeout(Duration::from_secs(5), worker.ends()).await;
    ended.expect("within seconds").unwrap();
}

/// What arrives while it runs something is run too.
#[tokio::test]
async fn it_goes_on_while_something_is_ready() {
    let world = World::default();
    let _recorder = world.worker(recorder(), Handlers::new());
    let id = ready(&world, 1).await[0];
    let starts = Starts::with_passes(0);
    let worker = world.worker(once(), starts.handlers());
    world.wait_for(id, State::Running).await;
    let later = world.submit(request()).await;
    world.wait_for(later, State::Running).await;
    starts.let_through(2);
    worker.ends().await.unwrap();
    assert_all_are(&world, &[id, later], State::Succeeded);
}

/// Kinds that have no handler here are not ready for this worker.
#[tokio::test]
async fn what_it_cannot_run_does_not_keep_it() {
    let world = World::default();
    let ids = ready(&world, 2).await;
    let other = Handlers::new()
        .function("other", settings(), |(): (), _| async { Ok(()) })
        .unwrap();
    world.worker(once(), other).ends().await.unwrap();
    assert_all_are(&world, &ids, State::Queued);
}

/// What another worker has at hand is that one's; if it comes back, it is for whoever is started next.
#[tokio::test]
async fn what_others_hold_does_not_keep_it() {
    let world = World::default();
    let ids = ready(&world, 1).await;
    let lane = Source::Lane(Lane::new(QueueName::default(), Priority::Default));
    let mut other = world.broker.consume(lane).await.unwrap();
    let held = other.consumer.next(1, Duration::ZERO).await.unwrap();
    assert_eq!(held.len(), 1);
    world.worker(once(), succeed()).ends().await.unwrap();
    assert_all_are(&world, &ids, State::Queued);
    let tokens = held.into_iter().map(|delivery| delivery.token).collect();
    other.acks.hand_back(tokens).await.unwrap();
    world.worker(once(), succeed()).ends().await.unwrap();
    assert_all_are(&world, &ids, State::Succeeded);
}

/// In a time of its own, in which a machine that is busy is not slow.
#[tokio::test(start_paused = true)]
async fn one_that_cannot_look_gives_up_and_says_why() {
    let options = WorkerOptions {
        look_patience: Duration::from_millis(700),
        ..once()
    };
    let world = World::default();
    world.broker.set_away(true);
    let worker = world.worker(options.clone(), succeed());
    let error = worker.ends().await.unwrap_err().to_string();
    let expected = "could not find out within 700ms whether anything is ready: lane default.";
    assert!(error.starts_with(expected), "{error}");

    let world = World::default();
    world.store.set_away(true);
    let worker = world.worker(options.clone(), succeed());
    let error = worker.ends().await.unwrap_err().to_string();
    assert!(
        error.ends_with("the store has not registered this worker"),
        "{error}"
    );

    let world = World::default();
    world.store.hide_pauses(true);
    let worker = world.worker(options, succeed());
    let error = worker.ends().await.unwrap_err().to_string();
    assert!(error.contains("ready: pauses: "), "{error}");
    assert!(error.contains("list paused queues"), "{error}");
}

#[tokio::test]
async fn a_short_outage_while_it_looks_is_waited_out() {
    let world = World::default();
    let ids = ready(&world, 5).await;
    world.broker.set_away(true);
    let worker = world.worker(once(), succeed());
    holds("it sees the outage", || {
        let problems = worker.health.problems();
        problems
            .iter()
            .any(|(part, problem)| part.starts_with("lane") && problem != "has not started")
    })
    .await;
    world.broker.set_away(false);
    worker.ends().await.unwrap();
    assert_all_are(&world, &ids, State::Succeeded);
}

#[tokio::test]
async fn it_starts_no_more_tasks_than_it_may() {
    for (concurrency, tasks_max, is_once) in [(1, 1, true), (10, 3, true), (2, 5, true), (4, 7, false)] {
        let world = World::default();
        let ids = ready(&world, 20).await;
        let seen = Seen::default();
        let options = WorkerOptions {
            concurrency,
            once: is_once,
            tasks_max: NonZero::new(tasks_max),
            ..once()
        };
        world.worker(options, seen.handlers()).ends().await.unwrap();
        let done = ids
            .iter()
            .filter(|id| world.store.task(**id).unwrap().state == State::Succeeded);
        assert_eq!(done.count(), tasks_max);
        assert_eq!(seen.all.load(Ordering::SeqCst), tasks_max);
        assert!(seen.most.load(Ordering::SeqCst) <= concurrency);
        let untouched = ids.iter().filter(|id| world.store.task(**id).unwrap().fence == 0);
        assert_eq!(untouched.count(), 20 - tasks_max, "the rest was not even claimed");
    }
}

#[tokio::test]
async fn what_the_recorder_hands_over_counts_too() {
    let world = World::default();
    let seen = Seen::default();
    let options = WorkerOptions {
        concurrency: 4,
        tasks_max: NonZero::new(6),
        intake: IntakeOptions {
            hand_off: true,
            ..options().intake
        },
        ..undispatched()
    };
    let worker = world.worker(options, seen.handlers());
    world.submit_many(20).await;
    worker.ends().await.unwrap();
    assert_eq!(seen.all.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn its_load_is_told_while_it_runs() {
    let world = World::default();
    let ids = ready(&world, 2).await;
    let starts = Starts::with_passes(0);
    let worker = world.worker(once(), starts.handlers());
    world.wait_for_all(&ids, State::Running).await;
    let mut load = worker.load.clone();
    let told = load.wait_for(|load| load.busy == 2 && load.longest > Duration::ZERO);
    tokio::time::timeout(crate::support::PATIENCE, told)
        .await
        .expect("it is told")
        .unwrap();
    starts.let_through(2);
    worker.ends().await.unwrap();
    assert!(load.changed().await.is_err(), "nobody tells any more");
}
