//! What schedules submit, by several dispatchers, through outages, and on time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_core::{Clock, Json, Schedule, ScheduleRequest, State, SystemClock, Task, TaskId, Timestamp};
use forebay_store::Schedules;
use forebay_worker::{DispatcherOptions, Handlers, Roles, WorkerOptions};

use crate::support::{World, handle, holds, options, request, succeed};

fn every_second(overlap: &str) -> Schedule {
    let request = ScheduleRequest {
        cron: "* * * * * *".to_owned(),
        overlap: Some(overlap.to_owned()),
        task: request(),
        ..ScheduleRequest::default()
    };
    request
        .accept("ticking".parse().unwrap(), SystemClock.now())
        .unwrap()
}

/// The ticks that have come since it was put.
fn passed(schedule: &Schedule) -> Vec<Timestamp> {
    let now = SystemClock.now();
    let ticks = schedule.upcoming(schedule.created_at, 100).into_iter();
    ticks.take_while(|tick| *tick <= now).collect()
}

fn task_of(world: &World, schedule: &Schedule, tick: Timestamp) -> Option<Task> {
    world.store.task(TaskId::of_tick(&schedule.name, tick))
}

/// A handler that notes the ids of what it runs.
fn noting(seen: &Arc<Mutex<Vec<TaskId>>>) -> Handlers {
    let seen = Arc::clone(seen);
    handle(move |execution| {
        seen.lock().unwrap().push(execution.id);
        async { Ok(Json::null()) }
    })
}

#[tokio::test]
async fn each_tick_is_run_once_by_three_workers() {
    let world = World::default();
    let seen = Arc::default();
    let _workers: Vec<_> = (0..3).map(|_| world.worker(options(), noting(&seen))).collect();
    let put = world
        .store
        .put_schedule(&every_second("allow"))
        .await
        .unwrap()
        .schedule;
    holds("three ticks have come", || passed(&put).len() >= 3).await;
    let ticks = passed(&put);
    for tick in &ticks {
        holds("its task is done", || {
            task_of(&world, &put, *tick).is_some_and(|task| task.state == State::Succeeded)
        })
        .await;
    }
    let mut runs = BTreeMap::new();
    for id in seen.lock().unwrap().iter() {
        *runs.entry(*id).or_insert(0) += 1;
    }
    for tick in ticks {
        assert_eq!(runs.get(&TaskId::of_tick(&put.name, tick)), Some(&1), "{tick}");
    }
}

/// With the intervals that a worker has unless told otherwise.
#[tokio::test]
async fn a_task_starts_within_200_ms_of_its_tick() {
    let world = World::default();
    let usual = DispatcherOptions {
        due_interval: DispatcherOptions::default().due_interval,
        ..options().dispatcher
    };
    let _worker = world.worker(
        WorkerOptions {
            dispatcher: usual,
            ..options()
        },
        succeed(),
    );
    let put = world
        .store
        .put_schedule(&every_second("allow"))
        .await
        .unwrap()
        .schedule;
    holds("four ticks have come", || passed(&put).len() >= 4).await;
    let mut lateness = BTreeSet::new();
    for tick in passed(&put) {
        let id = TaskId::of_tick(&put.name, tick);
        holds("its task is there", || world.store.task(id).is_some()).await;
        let started = world.wait_for(id, State::Succeeded).await.started_at.unwrap();
        lateness.insert(Duration::try_from(started.duration_since(tick)).expect("not before its time"));
    }
    // The machine may be busy for a while; if no tick at all is on time, it isn't the machine.
    assert!(
        lateness.first().unwrap() < &Duration::from_millis(200),
        "{lateness:?}"
    );
}

#[tokio::test]
async fn a_tick_waits_for_the_task_of_the_one_before() {
    let world = World::default();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let worker = world.worker(
        options(),
        handle(move |_| {
            let gate = Arc::clone(&opened);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(Json::null())
            }
        }),
    );
    let put = world
        .store
        .put_schedule(&every_second("queue"))
        .await
        .unwrap()
        .schedule;
    holds("three ticks have come", || passed(&put).len() >= 3).await;
    let first = TaskId::of_tick(&put.name, passed(&put)[0]);
    world.wait_for(first, State::Running).await;
    let kept = || async { world.store.schedule(&put.name).await.unwrap().unwrap() };
    let mut schedule = kept().await;
    while schedule.waiting.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        schedule = kept().await;
    }
    assert_eq!(
        schedule.last_tick.map(|(_, task)| task),
        Some(first),
        "one at a time"
    );
    gate.add_permits(1_000);
    world.wait_for(first, State::Succeeded).await;
    // One that had to wait has its turn.
    let mut latest = first;
    while latest == first {
        tokio::time::sleep(Duration::from_millis(5)).await;
        latest = kept().await.last_tick.unwrap().1;
    }
    world.wait_for(latest, State::Succeeded).await;
    assert!(
        worker
            .metrics
            .encode()
            .contains("forebay_schedule_ticks_total{outcome=\"fired\"}")
    );
}

#[tokio::test]
async fn an_outage_of_the_store_is_made_up_for() {
    let world = World::default();
    let worker = world.worker(options(), succeed());
    let put = world
        .store
        .put_schedule(&every_second("allow"))
        .await
        .unwrap()
        .schedule;
    world.store.set_away(true);
    holds("two ticks have come", || passed(&put).len() >= 2).await;
    world.store.set_away(false);
    for tick in passed(&put) {
        let id = TaskId::of_tick(&put.name, tick);
        holds("its task is there", || world.store.task(id).is_some()).await;
        world.wait_for(id, State::Succeeded).await;
    }
    worker.is_healthy().await;
}

#[tokio::test]
async fn an_executor_alone_fires_nothing() {
    let world = World::default();
    let put = world
        .store
        .put_schedule(&every_second("allow"))
        .await
        .unwrap()
        .schedule;
    let executor = WorkerOptions {
        roles: Roles::EXECUTOR,
        ..options()
    };
    let _executor = world.worker(executor, succeed());
    holds("a tick has come", || !passed(&put).is_empty()).await;
    // A dispatcher that comes now finds it as it was left.
    assert!(task_of(&world, &put, passed(&put)[0]).is_none());
    let _worker = world.worker(options(), succeed());
    let first = TaskId::of_tick(&put.name, passed(&put)[0]);
    holds("its task is there", || world.store.task(first).is_some()).await;
}
