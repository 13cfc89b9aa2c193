//! What handlers say of how far they are, and when it is known.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use forebay_broker::Broker;
use forebay_core::{Json, Signal, State, TaskId, TaskProgress};
use forebay_worker::{Handlers, Progress, WorkerOptions};
use futures::StreamExt;
use tokio::sync::Notify;

use crate::support::{World, handle, holds, options, request, succeed, until};

/// Beats so seldom by itself that none of it falls into a test.
fn seldom() -> WorkerOptions {
    WorkerOptions {
        lease: Duration::from_secs(600),
        heartbeat: Some(Duration::from_secs(100)),
        ..options()
    }
}

/// Tasks whose progress the test says in their stead, until it ends them.
#[derive(Default, Clone)]
struct Puppets {
    progress: Arc<Mutex<Vec<(TaskId, Progress)>>>,
    end: Arc<Notify>,
}

impl Puppets {
    fn handlers(&self) -> Handlers {
        let puppets = self.clone();
        handle(move |execution| {
            let puppets = puppets.clone();
            async move {
                let end = puppets.end.notified();
                let speaks = (execution.id, execution.progress.clone());
                puppets.progress.lock().unwrap().push(speaks);
                end.await;
                Ok(Json::null())
            }
        })
    }

    /// Where the latest attempt of a task speaks, once it runs.
    async fn of(&self, id: TaskId) -> Progress {
        until("it runs", || {
            let all = self.progress.lock().unwrap();
            let found = all.iter().rev().find(|(known, _)| *known == id);
            found.map(|(_, progress)| progress.clone()).ok_or(())
        })
        .await
    }

    fn end_all(&self) {
        self.end.notify_waiters();
    }
}

impl World {
    fn progress(&self, id: TaskId) -> Option<TaskProgress> {
        self.store.task(id)?.progress
    }

    async fn shows(&self, id: TaskId, fraction: f64, message: &str) {
        until("it is known how far the task is", || match self.progress(id) {
            Some(shown) if (shown.fraction, shown.message.as_str()) == (fraction, message) => Ok(()),
            other => Err(other),
        })
        .await;
    }
}

/// The first word is known at once, what follows within about a second, and what is not said costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_known_within_a_second() {
    let (world, puppets) = (World::default(), Puppets::default());
    let worker = world.worker(seldom(), puppets.handlers());
    let (id, silent) = (world.submit(request()).await, world.submit(request()).await);
    let progress = puppets.of(id).await;
    puppets.of(silent).await;
    for (fraction, message) in [(0.25, "a"), (0.5, ""), (0.125, "back")] {
        let said = Instant::now();
        progress.set(fraction, message);
        world.shows(id, fraction, message).await;
        assert!(said.elapsed() < Duration::from_secs(5), "{:?}", said.elapsed());
    }
    assert_eq!((world.progress(silent), world.store.progress_notes()), (None, 3));
    puppets.end_all();
    world.wait_for_all(&[id, silent], State::Succeeded).await;
    world.shows(id, 0.125, "back").await;
    worker.drain().await;
}

/// A handler that says a thousand things a second is heard once a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_it_is_said_it_is_written_once_a_second() {
    let (world, puppets) = (World::default(), Puppets::default());
    let worker = world.worker(seldom(), puppets.handlers());
    let id = world.submit(request()).await;
    let progress = puppets.of(id).await;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_millis(2_500) {
        count += 1;
        progress.set(0.5, count.to_string());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (notes, seconds) = (world.store.progress_notes(), began.elapsed().as_secs_f64());
    assert!(
        notes >= 2 && notes as f64 <= seconds + 2.0,
        "{notes} in {seconds} s"
    );
    world.shows(id, 0.5, &count.to_string()).await;
    puppets.end_all();
    worker.drain().await;
}

/// Once the store is back it hears the latest word of each, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_did_not_hear_is_said_again() {
    let (world, puppets) = (World::default(), Puppets::default());
    let worker = world.worker(seldom(), puppets.handlers());
    let ids = [world.submit(request()).await, world.submit(request()).await];
    let (first, second) = (puppets.of(ids[0]).await, puppets.of(ids[1]).await);
    first.set(0.1, "before");
    world.shows(ids[0], 0.1, "before").await;
    world.store.set_away(true);
    first.set(0.2, "meanwhile");
    second.set(0.3, "the other");
    holds("both were said in vain", || world.store.unheard_notes() >= 2).await;
    first.set(0.4, "at last");
    let notes = world.store.progress_notes();
    world.store.set_away(false);
    world.shows(ids[0], 0.4, "at last").await;
    world.shows(ids[1], 0.3, "the other").await;
    assert_eq!(world.store.progress_notes(), notes + 2);
    puppets.end_all();
    worker.drain().await;
}

/// It speaks for its start: after a death of the worker the next one begins without, and the former is not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_start_has_no_say() {
    let (world, puppets) = (World::default(), Puppets::default());
    let options = WorkerOptions {
        heartbeat: Some(Duration::from_millis(50)),
        ..seldom()
    };
    let worker = world.worker(options, puppets.handlers());
    let id = world.submit(request()).await;
    let former = puppets.of(id).await;
    former.set(0.9, "nearly");
    world.shows(id, 0.9, "nearly").await;
    world.store.forget_workers();
    until("it was started again", || {
        let runs = |task: &forebay_core::Task| task.fence == 2 && task.state == State::Running;
        world.store.task(id).filter(runs).ok_or(())
    })
    .await;
    assert_eq!(world.progress(id), None);
    let mut now = None;
    until("the next start runs", || {
        let all = puppets.progress.lock().unwrap();
        now = all.get(1).map(|(_, progress)| progress.clone());
        now.is_some().then_some(()).ok_or(all.len())
    })
    .await;
    former.set(1.0, "still here");
    now.expect("it runs").set(0.1, "anew");
    world.shows(id, 0.1, "anew").await;
    former.set(1.0, "still here");
    let notes = world.store.progress_notes();
    holds("the former was passed over", || {
        world.store.progress_notes() > notes
    })
    .await;
    world.shows(id, 0.1, "anew").await;
    puppets.end_all();
    worker.drain().await;
}

/// More than one heartbeat carries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_heard_however_many_there_are() {
    const COUNT: usize = 1_300;
    let (world, puppets) = (World::default(), Puppets::default());
    let options = WorkerOptions {
        concurrency: COUNT + 100,
        ..seldom()
    };
    let worker = world.worker(options, puppets.handlers());
    let ids = world.submit_many(COUNT).await;
    holds("all run", || puppets.progress.lock().unwrap().len() == COUNT).await;
    for (_, progress) in &*puppets.progress.lock().unwrap() {
        progress.set(0.5, "half");
    }
    for &id in &ids {
        world.shows(id, 0.5, "half").await;
    }
    puppets.end_all();
    worker.drain().await;
}

/// Those who show the task need not look for it all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_watches_is_told() {
    let (world, puppets) = (World::default(), Puppets::default());
    let mut signals = world.broker.signals().await.unwrap();
    let worker = world.worker(seldom(), puppets.handlers());
    let id = world.submit(request()).await;
    puppets.of(id).await.set(0.5, "half");
    let told = async {
        while let Some(signal) = signals.next().await {
            if let Signal::Progress(ids) = signal {
                return ids;
            }
        }
        panic!("the broker ended");
    };
    let told = tokio::time::timeout(crate::support::PATIENCE, told)
        .await
        .unwrap();
    assert_eq!(told, [id]);
    world.shows(id, 0.5, "half").await;
    puppets.end_all();
    worker.drain().await;
}

/// Tasks that say nothing say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_of_those_who_say_nothing() {
    let world = World::default();
    let worker = world.worker(options(), succeed());
    let ids = world.submit_many(200).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    assert_eq!(world.store.progress_notes(), 0);
    worker.drain().await;
}
