//! How workers end, in good order and otherwise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay_broker::Source;
use forebay_core::{Json, State, SubmitRequest};
use forebay_core::{Lane, Priority, QueueName};
use forebay_worker::{HandlerError, StopReason, WorkerOptions};
use tokio::sync::Semaphore;

use crate::support::{PATIENCE, World, handle, holds, options, request, succeed, undispatched};

#[tokio::test]
async fn what_runs_may_finish() {
    let world = World::default();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let worker = world.worker(
        options(),
        handle(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                let _pass = gate.acquire().await;
                Ok(Json::null())
            }
        }),
    );
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    worker.stop.cancel();
    let later = world.submit(request()).await;
    open.add_permits(1);
    worker.drain().await;
    assert_eq!(world.store.task(id).unwrap().state, State::Succeeded);
    let untouched = world.store.task(later).map(|task| (task.state, task.fence));
    assert!(
        matches!(untouched, None | Some((State::Queued, 0))),
        "{untouched:?}"
    );
    let lane = Source::Lane(Lane::new(QueueName::default(), Priority::Default));
    let waiting = [Source::Submissions, lane].map(|source| world.broker.depth_of(&source).waiting);
    assert_eq!(waiting.iter().sum::<u64>(), 1, "it is left to other workers");
}

#[tokio::test]
async fn what_does_not_finish_is_handed_back_and_costs_no_attempt() {
    let world = World::default();
    let options = WorkerOptions {
        drain_timeout: Duration::from_millis(50),
        ..options()
    };
    let obedient = handle(|execution| async move {
        assert_eq!(execution.stop.cancelled().await, StopReason::Shutdown);
        Err(HandlerError::permanent(
            "what is said while being stopped does not count",
        ))
    });
    let stubborn = handle(|_| async {
        std::future::pending::<()>().await;
        Ok(Json::null())
    });
    for handlers in [obedient, stubborn] {
        let worker = world.worker(options.clone(), handlers);
        let id = world.submit(request()).await;
        world.wait_for(id, State::Running).await;
        worker.drain().await;
        let task = world.store.task(id).unwrap();
        assert_eq!((task.state, task.attempt), (State::Retrying, 0));
        assert_eq!(task.errors[0].outcome, "interrupted");
        let second = world.worker(options.clone(), succeed());
        let task = world.wait_for(id, State::Succeeded).await;
        assert_eq!((task.attempt, task.fence, world.store.lost(id)), (1, 2, 0));
        second.drain().await;
    }
}

#[tokio::test]
async fn tasks_of_a_crashed_worker_are_finished_by_another() {
    let world = World::default();
    let first = world.worker(
        options(),
        handle(|_| async {
            std::future::pending::<()>().await;
            Ok(Json::null())
        }),
    );
    let ids = world.submit_many(10).await;
    world.wait_for_all(&ids, State::Running).await;
    first.crash().await;
    let _second = world.worker(options(), succeed());
    for id in ids {
        let task = world.wait_for(id, State::Succeeded).await;
        assert_eq!((task.attempt, task.fence, world.store.lost(id)), (1, 2, 1));
    }
}

#[tokio::test]
async fn a_task_that_kills_its_workers_fails_in_the_end() {
    let world = World::default();
    let id = world.submit(request()).await;
    for _ in 0..3 {
        let worker = world.worker(
            options(),
            handle(|_| async {
                std::future::pending::<()>().await;
                Ok(Json::null())
            }),
        );
        world.wait_for(id, State::Running).await;
        worker.crash().await;
        world.store.forget_workers();
    }
    assert_eq!(world.store.task(id).unwrap().state, State::Failed);
}

/// Those that were there twice when it struck are on their last life, as it is. Run beside it once more they would fail.
#[tokio::test]
async fn a_poisoned_task_does_not_take_its_neighbours_with_it() {
    let world = World::default();
    let strike = Arc::new(Semaphore::new(0));
    let struck = Arc::clone(&strike);
    let handlers = move || {
        let struck = Arc::clone(&struck);
        handle(move |execution| {
            let struck = Arc::clone(&struck);
            async move {
                if execution.payload.as_str() == "\"poison\"" {
                    struck.add_permits(1);
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(Json::null())
            }
        })
    };
    let neighbours = world.submit_many(6).await;
    let poison = world
        .submit(SubmitRequest {
            payload: Some(Json::of("poison").unwrap()),
            ..request()
        })
        .await;
    for _ in 0..3 {
        let worker = world.worker(options(), handlers());
        let strikes = tokio::time::timeout(PATIENCE, strike.acquire()).await;
        strikes.expect("it strikes").unwrap().forget();
        worker.crash().await;
        world.store.forget_workers();
    }
    assert_eq!(world.store.task(poison).unwrap().state, State::Failed);
    let _worker = world.worker(options(), handlers());
    world.wait_for_all(&neighbours, State::Succeeded).await;
    let shared = neighbours.iter().map(|id| world.store.lost(*id)).max();
    assert!(shared >= Some(1), "nobody was there when it struck");
}

#[tokio::test]
async fn a_worker_that_was_cut_off_cannot_overwrite_what_came_after() {
    let world = World::default();
    let cut_off = world.store.connection();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&has_ended);
    let zombie = world.worker_on(
        Arc::clone(&cut_off),
        undispatched(),
        handle(move |_| {
            let (gate, ended) = (Arc::clone(&gate), Arc::clone(&ended));
            async move {
                let _pass = gate.acquire().await;
                ended.store(true, Ordering::Release);
                Ok(Json::of("the zombie's").unwrap())
            }
        }),
    );
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    cut_off.set_away(true);
    let _other = world.worker(
        options(),
        handle(|_| async { Ok(Json::of("the other's").unwrap()) }),
    );
    world.wait_for(id, State::Succeeded).await;
    // The zombie ends its attempt, and hears only later that it was declared dead.
    open.add_permits(1);
    holds("the zombie's handler ends", || has_ended.load(Ordering::Acquire)).await;
    let before = cut_off.refused_calls();
    holds("it has asked again and again", || {
        cut_off.refused_calls() > before + 5
    })
    .await;
    cut_off.set_away(false);
    zombie.is_healthy().await;
    holds("what it says is refused", || world.store.fenced() == 1).await;
    holds("it is counted", || zombie.metric("forebay_fenced_writes_total 1")).await;
    let task = world.store.task(id).unwrap();
    assert_eq!(task.result.unwrap().as_str(), "\"the other's\"");
    // And it works again, under a new id.
    let next = world.submit_many(20).await;
    world.wait_for_all(&next, State::Succeeded).await;
    zombie.drain().await;
}

#[tokio::test]
async fn a_worker_that_was_declared_dead_abandons_what_it_runs_and_begins_anew() {
    let world = World::default();
    let stopped = Arc::new(AtomicUsize::new(0));
    let starts = Arc::new(AtomicUsize::new(0));
    let (count_stops, count_starts) = (Arc::clone(&stopped), Arc::clone(&starts));
    let worker = world.worker(
        options(),
        handle(move |execution| {
            let (stopped, start) = (
                Arc::clone(&count_stops),
                count_starts.fetch_add(1, Ordering::SeqCst),
            );
            async move {
                if start == 0 {
                    execution.stop.cancelled().await;
                    stopped.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Json::null())
            }
        }),
    );
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    world.store.forget_workers();
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(stopped.load(Ordering::SeqCst), 1);
    assert_eq!((task.fence, world.store.lost(id)), (2, 1));
    assert_eq!(
        world.store.completions(),
        1,
        "what was abandoned is not even handed in"
    );
    worker.is_healthy().await;
    worker.drain().await;
}
