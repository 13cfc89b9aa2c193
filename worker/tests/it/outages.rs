//! Store and broker go away, and come back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use forebay_broker::Source;
use forebay_core::{Json, State};
use forebay_worker::{Handlers, Roles, WorkerOptions};

use tokio::sync::Semaphore;

use crate::support::{LEASE, World, handle, holds, options, request, succeed, undispatched};

#[tokio::test]
async fn while_the_store_is_away_the_broker_holds_what_comes_and_nothing_is_lost() {
    let world = World::default();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let worker = world.worker(
        options(),
        handle(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(Json::null()) }
        }),
    );
    let first = world.submit(request()).await;
    world.wait_for(first, State::Succeeded).await;
    world.store.set_away(true);
    let ids = world.submit_many(50).await;
    let before = world.store.refused_calls();
    holds("the worker has tried", || {
        world.store.refused_calls() > before + 30
    })
    .await;
    holds("it is said to be unhealthy", || {
        !worker.health.problems().is_empty()
    })
    .await;
    let recorded = world.broker.depth_of(&Source::Submissions);
    assert_eq!(
        recorded.waiting + recorded.delivered,
        50,
        "nothing is acknowledged"
    );
    world.store.set_away(false);
    world.wait_for_all(&ids, State::Succeeded).await;
    assert_eq!(runs.load(Ordering::SeqCst), 51, "each ran once");
    worker.is_healthy().await;
    worker.drain().await;
}

#[tokio::test]
async fn answers_that_are_lost_change_nothing() {
    let world = World::default();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let worker = world.worker(
        options(),
        handle(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(Json::null()) }
        }),
    );
    worker.is_healthy().await;
    for round in 1..=5 {
        world.store.lose_answers(20);
        let ids = world.submit_many(20).await;
        world.wait_for_all(&ids, State::Succeeded).await;
        assert_eq!(runs.load(Ordering::SeqCst), 20 * round);
    }
    world.store.lose_answers(0);
    worker.drain().await;
    assert_eq!(world.store.claims_held(), 0);
}

#[tokio::test]
async fn a_broker_that_comes_back_is_used_again() {
    let world = World::default();
    let worker = world.worker(options(), succeed());
    worker.is_healthy().await;
    world.broker.set_away(true);
    holds("it is said to be unhealthy", || {
        !worker.health.problems().is_empty()
    })
    .await;
    world.broker.set_away(false);
    worker.is_healthy().await;
    let id = world.submit(request()).await;
    world.wait_for(id, State::Succeeded).await;
}

#[tokio::test]
async fn a_deaf_subscription_is_noticed_and_made_anew() {
    let world = World::default();
    let worker = world.worker(options(), succeed());
    worker.is_healthy().await;
    let before = world.broker.consumers();
    world.broker.deafen();
    let ids = world.submit_many(10).await;
    holds("health names a lane", || {
        let problems = worker.health.problems();
        problems
            .iter()
            .any(|(part, what)| part.starts_with("lane ") && what.contains("deaf"))
    })
    .await;
    world.wait_for_all(&ids, State::Succeeded).await;
    worker.is_healthy().await;
    assert_eq!(
        world.broker.consumers(),
        before + 4,
        "three lanes and the recorder"
    );
}

#[tokio::test]
async fn one_poisoned_message_never_stops_its_neighbours() {
    let world = World::default();
    let before = world.submit_many(20).await;
    let poisoned = world.submit(request()).await;
    let after = world.submit_many(20).await;
    world.store.poison(poisoned);
    let worker = world.worker(options(), succeed());
    world.wait_for_all(&before, State::Succeeded).await;
    world.wait_for_all(&after, State::Succeeded).await;
    holds("it is set aside", || world.store.rejects().len() == 1).await;
    let reject = &world.store.rejects()[0];
    assert_eq!(reject.subject, "submit");
    assert!(reject.reason.contains("a poisoned row"), "{}", reject.reason);
    assert!(forebay_broker::wire::decode("submit", reject.body.clone()).is_ok());
    holds("it is counted", || {
        worker.metric("forebay_undecodable_messages_total 1")
    })
    .await;
    holds("and acknowledged", || {
        world.broker.depth_of(&Source::Submissions).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_recorder_alone_records() {
    let world = World::default();
    let options = WorkerOptions {
        roles: Roles {
            recorder: true,
            executor: false,
            dispatcher: false,
        },
        ..options()
    };
    let worker = world.worker(options, succeed());
    let ids = world.submit_many(2_500).await;
    world.wait_for_all(&ids, State::Queued).await;
    holds("all is acknowledged", || {
        world.broker.depth_of(&Source::Submissions).is_empty()
    })
    .await;
    worker.is_healthy().await;
    worker.drain().await;
}

#[tokio::test]
async fn an_outage_of_the_store_does_not_look_like_the_death_of_all_workers() {
    let world = World::default();
    let executors = world.store.connection();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let executor = world.worker_on(
        Arc::clone(&executors),
        undispatched(),
        handle(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                let _pass = gate.acquire().await;
                Ok(Json::null())
            }
        }),
    );
    let dispatchers = world.store.connection();
    let dispatching = WorkerOptions {
        roles: "dispatcher".parse().unwrap(),
        ..options()
    };
    let dispatcher = world.worker_on(Arc::clone(&dispatchers), dispatching, Handlers::new());
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    executor.is_healthy().await;
    dispatcher.is_healthy().await;
    executors.set_away(true);
    dispatchers.set_away(true);
    holds("the outage lasts longer than the lease", || {
        !executor.health.problems().is_empty()
    })
    .await;
    // The dispatcher is the first to see the store again, and looks for dead workers some times.
    dispatchers.set_away(false);
    tokio::time::sleep(LEASE / 3).await;
    executors.set_away(false);
    dispatcher.is_healthy().await;
    executor.is_healthy().await;
    tokio::time::sleep(LEASE).await;
    open.add_permits(1);
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!((task.fence, world.store.lost(id)), (1, 0));
}
