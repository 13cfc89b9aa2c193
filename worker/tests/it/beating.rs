//! What a worker says of itself, and how soon.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_core::{Json, State};
use forebay_worker::{Handlers, WorkerOptions};
use tokio::sync::Semaphore;

use crate::support::{World, handle, holds, options, request, succeed};

/// Beats so seldom by itself that none of it falls into a test.
fn seldom() -> WorkerOptions {
    WorkerOptions {
        lease: Duration::from_secs(600),
        heartbeat: Some(Duration::from_secs(100)),
        ..options()
    }
}

/// Tasks that end once they are let.
fn gated(gate: &Arc<Semaphore>) -> Handlers {
    let gate = Arc::clone(gate);
    handle(move |_| {
        let opens = Arc::clone(&gate);
        async move {
            opens.acquire().await.expect("it is never closed").forget();
            Ok(Json::null())
        }
    })
}

impl World {
    /// Whether the one worker says that so many run, and that so many have ended.
    fn is_said(&self, busy: u32, finished: u64) -> bool {
        let infos = self.store.infos();
        let [info] = infos.as_slice() else { return false };
        info.busy.iter().map(|(_, count)| count).sum::<u32>() == busy
            && info.finished.iter().map(|(_, count)| count).sum::<u64>() == finished
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_and_what_has_ended_is_said_within_a_second() {
    let world = World::default();
    let gate = Arc::new(Semaphore::new(0));
    let began = Instant::now();
    let worker = world.worker(seldom(), gated(&gate));
    let ids = world.submit_many(3).await;
    world.wait_for_all(&ids, State::Running).await;
    let said = |busy, finished| world.is_said(busy, finished);
    let runs = Instant::now();
    holds("it says that three run", || said(3, 0)).await;
    assert!(runs.elapsed() < Duration::from_secs(5), "{:?}", runs.elapsed());
    gate.add_permits(2);
    holds("it says that two have ended", || said(1, 2)).await;
    gate.add_permits(1);
    holds("it says that all have ended", || said(0, 3)).await;
    let (beats, seconds) = (world.store.heartbeats(), began.elapsed().as_secs_f64());
    assert!(beats as f64 <= seconds + 1.0, "{beats} in {seconds} s");
    worker.drain().await;
}

/// In a time of its own, which passes only while all wait. What comes first after the registration or a periodic heartbeat
/// need not wait for a second; what comes after that is said a second later.
#[tokio::test(start_paused = true)]
async fn the_first_news_is_said_at_once_and_the_next_a_second_later() {
    let (at_once, second) = (Duration::from_millis(100), Duration::from_secs(1));
    let now = tokio::time::Instant::now;
    let world = World::default();
    let gate = Arc::new(Semaphore::new(0));
    let options = WorkerOptions {
        heartbeat: Some(Duration::from_secs(10)),
        ..seldom()
    };
    let worker = world.worker(options, gated(&gate));
    holds("it is registered", || world.store.worker_count() == 1).await;

    let first = world.submit(request()).await;
    world.wait_for(first, State::Running).await;
    let runs = now();
    holds("it says that one runs", || world.is_said(1, 0)).await;
    assert!(runs.elapsed() < at_once, "{:?}", runs.elapsed());
    let said = now();
    gate.add_permits(1);
    world.wait_for(first, State::Succeeded).await;
    holds("it says that it has ended", || world.is_said(0, 1)).await;
    // As seen by looking every few milliseconds.
    let apart = said.elapsed() + Duration::from_millis(50);
    assert!(apart >= second, "{apart:?}");
    assert_eq!(world.store.heartbeats(), 2);

    holds("the periodic one has come", || world.store.heartbeats() == 3).await;
    let later = world.submit(request()).await;
    world.wait_for(later, State::Running).await;
    let runs = now();
    holds("it says that the other runs", || world.is_said(1, 1)).await;
    assert!(runs.elapsed() < at_once, "{:?}", runs.elapsed());
    assert_eq!(world.store.heartbeats(), 4);
    gate.add_permits(1);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_life_counts_from_zero() {
    let world = World::default();
    let worker = world.worker(seldom(), succeed());
    let ids = world.submit_many(5).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    let finished = |infos: &[forebay_core::WorkerInfo]| -> Option<u64> {
        let [info] = infos else { return None };
        Some(info.finished.iter().map(|(_, count)| count).sum())
    };
    holds("five have ended", || finished(&world.store.infos()) == Some(5)).await;
    let former = world.store.infos()[0].id;
    world.store.forget_workers();
    let more = world.submit_many(2).await;
    world.wait_for_all(&more, State::Succeeded).await;
    holds("two have ended in the new life", || {
        let infos = world.store.infos();
        finished(&infos) == Some(2) && infos[0].id != former
    })
    .await;
    worker.drain().await;
}

/// One that idles, and one that is at work all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_heartbeats_are_a_second_apart_and_an_idle_worker_is_silent() {
    let world = World::default();
    let worker = world.worker(seldom(), succeed());
    holds("it is registered", || world.store.worker_count() == 1).await;
    let idle = Instant::now();
    while idle.elapsed() < Duration::from_millis(1_300) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.store.heartbeats(), 0, "it has nothing to say");
    let busy = Instant::now();
    while busy.elapsed() < Duration::from_millis(2_500) {
        world.submit_many(1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (beats, seconds) = (world.store.heartbeats(), busy.elapsed().as_secs_f64());
    assert!(
        beats >= 2 && beats as f64 <= seconds + 2.0,
        "{beats} in {seconds} s"
    );
    worker.drain().await;
}
