//! A queue that is paused: what comes is recorded, none of it is started, and nothing is lost or multiplied.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_broker::{Broker, Depth, Source};
use forebay_core::{Json, Lane, Priority, QueueName, Signal, State, SubmitRequest, TaskId};
use forebay_store::Operate;
use forebay_worker::{HandlerSettings, Handlers, IntakeOptions, WorkerOptions};
use tokio::sync::Semaphore;

use crate::{
    broker::Lanes,
    support::{World, handle_with, holds, options, request, settings},
};

/// A worker of two queues, of which one is paused in these tests.
fn of_two_queues(hand_off: bool) -> WorkerOptions {
    let options = options();
    WorkerOptions {
        queues: vec![QueueName::default(), other()],
        intake: IntakeOptions {
            hand_off,
            // Nothing is let go for its age alone.
            held_longest: Duration::from_secs(60),
            ..options.intake
        },
        ..options
    }
}

fn other() -> QueueName {
    "other".parse().unwrap()
}

fn lane() -> Source {
    Source::Lane(Lane::new(QueueName::default(), Priority::Default))
}

fn waiting(count: u64) -> Depth {
    Depth {
        waiting: count,
        delivered: 0,
    }
}

/// Which tasks were started, and a gate that each must pass.
#[derive(Clone)]
struct Starts {
    all: Arc<Mutex<Vec<TaskId>>>,
    gate: Arc<Semaphore>,
}

impl Starts {
    fn new(passes: usize) -> Self {
        Self {
            all: Arc::default(),
            gate: Arc::new(Semaphore::new(passes)),
        }
    }

    fn handlers(&self) -> Handlers {
        self.handlers_with(None)
    }

    fn handlers_with(&self, concurrency: Option<usize>) -> Handlers {
        let this = self.clone();
        let settings = HandlerSettings {
            concurrency,
            ..settings()
        };
        handle_with(settings, move |execution| {
            let this = this.clone();
            async move {
                this.all.lock().unwrap().push(execution.id);
                this.gate.acquire().await.unwrap().forget();
                Ok(Json::null())
            }
        })
    }

    fn count(&self) -> usize {
        self.all.lock().unwrap().len()
    }
}

impl World {
    /// As the API does it, or as where nobody hears the signal.
    async fn set_paused(&self, paused: bool, signalled: bool) {
        let queue = QueueName::default();
        assert!(self.store.set_paused(&queue, paused).await.unwrap());
        if signalled {
            self.broker.signal(Signal::QueuesChanged).await.unwrap();
        }
    }

    /// Until the workers have let go of the lanes of the paused queue.
    async fn is_obeyed(&self) {
        holds("its lanes are not read", || {
            let mut lanes = Lane::all_of(&QueueName::default()).into_iter();
            !lanes.any(|lane| self.broker.is_read(&Source::Lane(lane)))
        })
        .await;
    }

    async fn all_are_recorded(&self) {
        holds("all are recorded", || {
            self.broker.depth_of(&Source::Submissions).is_empty()
        })
        .await;
    }

    async fn submit_to(&self, queue: &QueueName) -> TaskId {
        let queue = Some(queue.to_string());
        self.submit(SubmitRequest { queue, ..request() }).await
    }

    /// A task of the other queue runs from end to end, in which time one of this would.
    async fn others_run(&self) {
        let id = self.submit_to(&other()).await;
        self.wait_for(id, State::Succeeded).await;
    }
}

#[tokio::test]
async fn a_queue_that_was_paused_before_is_never_read() {
    for hand_off in [false, true] {
        let world = World::default();
        let starts = Starts::new(1_000);
        world.set_paused(true, false).await;
        let before = world.submit_many(20).await;
        let worker = world.worker(of_two_queues(hand_off), starts.handlers());
        worker.is_healthy().await;
        let after = world.submit_many(20).await;
        world.all_are_recorded().await;
        for _ in 0..10 {
            world.others_run().await;
        }
        assert_eq!(starts.count(), 10);
        assert!(!world.broker.is_read(&lane()), "hand-off: {hand_off}");
        assert_eq!(world.broker.depth_of(&lane()), waiting(40));
        worker.is_healthy().await;
        world.set_paused(false, true).await;
        for ids in [before, after] {
            world.wait_for_all(&ids, State::Succeeded).await;
        }
        assert_eq!(starts.count(), 50);
        worker.drain().await;
    }
}

#[tokio::test]
async fn what_runs_goes_on_and_what_comes_waits() {
    for (hand_off, signalled) in [(true, true), (true, false), (false, true), (false, false)] {
        let world = World::default();
        let starts = Starts::new(0);
        let worker = world.worker(of_two_queues(hand_off), starts.handlers());
        let runs = world.submit_many(3).await;
        world.wait_for_all(&runs, State::Running).await;
        world.set_paused(true, signalled).await;
        world.is_obeyed().await;
        let waits = world.submit_many(30).await;
        starts.gate.add_permits(1_000);
        world.wait_for_all(&runs, State::Succeeded).await;
        world.all_are_recorded().await;
        world.others_run().await;
        assert_eq!(world.broker.depth_of(&lane()), waiting(30));
        worker.is_healthy().await;
        world.set_paused(false, signalled).await;
        world.wait_for_all(&waits, State::Succeeded).await;
        assert_eq!(starts.count(), 34);
        worker.drain().await;
    }
}

#[tokio::test]
async fn what_is_held_goes_back_and_comes_again() {
    let world = World::default();
    let starts = Starts::new(0);
    let worker = world.worker(of_two_queues(false), starts.handlers_with(Some(2)));
    let ids = world.submit_many(10).await;
    holds("some are held", || {
        starts.count() == 2 && world.broker.depth_of(&lane()).delivered > 0
    })
    .await;
    world.set_paused(true, true).await;
    holds("nothing is held", || world.broker.depth_of(&lane()) == waiting(8)).await;
    starts.gate.add_permits(1_000);
    world.wait_for_all(&ids[..2], State::Succeeded).await;
    world.others_run().await;
    assert_eq!(world.broker.depth_of(&lane()), waiting(8));
    world.set_paused(false, true).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    assert_eq!(starts.count(), 11);
    worker.drain().await;
}

/// Neither its own tasks nor those of others are kept from being handed over by what waits in a paused queue.
#[tokio::test]
async fn the_hand_off_goes_on_for_others_and_again_after() {
    let world = World::default();
    let starts = Starts::new(1_000);
    let worker = world.worker(of_two_queues(true), starts.handlers());
    worker.is_healthy().await;
    world.set_paused(true, true).await;
    world.is_obeyed().await;
    // More than there are slots, so that none would be left for others if slots were kept for them.
    let waits = world.submit_many(30).await;
    world.all_are_recorded().await;
    world.broker.set_lanes(Lanes::Full);
    for _ in 0..5 {
        world.others_run().await;
    }
    world.broker.set_lanes(Lanes::Open);
    world.set_paused(false, true).await;
    world.wait_for_all(&waits, State::Succeeded).await;
    // Its lane was found empty, so the next ones need none.
    holds("it is handed over again", || {
        world.broker.depth_of(&lane()).is_empty()
    })
    .await;
    let again = world.submit_many(5).await;
    world.wait_for_all(&again, State::Succeeded).await;
    worker.drain().await;
}

/// A dispatcher that goes on helping other lanes finds nothing to help in this one.
#[tokio::test]
async fn what_waits_is_not_published_again() {
    let world = World::default();
    let starts = Starts::new(1_000);
    let worker = world.worker(of_two_queues(false), starts.handlers());
    // So that the lane has a watermark.
    let first = world.submit(request()).await;
    world.wait_for(first, State::Succeeded).await;
    world.set_paused(true, true).await;
    world.is_obeyed().await;
    let ids = world.submit_many(25).await;
    world.all_are_recorded().await;
    // Each is only found once its lane was empty for a while, which together is longer than any lag.
    for _ in 0..4 {
        world.broker.forget(1);
        world.others_run().await;
        assert!(world.broker.forgotten());
    }
    assert_eq!(world.broker.depth_of(&lane()), waiting(25));
    // What is lost while it is paused is found all the same.
    world.broker.wipe();
    holds("all are published again", || {
        world.broker.depth_of(&lane()) == waiting(25)
    })
    .await;
    world.others_run().await;
    assert_eq!(world.broker.depth_of(&lane()), waiting(25));
    world.set_paused(false, true).await;
    world.wait_for_all(&ids, State::Succeeded).await;
    assert_eq!(starts.count(), 31);
    worker.drain().await;
}

#[tokio::test]
async fn a_worker_that_dies_meanwhile_changes_nothing() {
    let world = World::default();
    let starts = Starts::new(0);
    let worker = world.worker(of_two_queues(true), starts.handlers());
    let lost = world.submit(request()).await;
    world.wait_for(lost, State::Running).await;
    world.set_paused(true, true).await;
    world.is_obeyed().await;
    let waits = world.submit_many(10).await;
    world.all_are_recorded().await;
    worker.crash().await;
    let starts = Starts::new(1_000);
    let second = world.worker(of_two_queues(true), starts.handlers());
    // It is taken back, and waits with the others.
    holds("it waits in its lane", || {
        world.broker.depth_of(&lane()) == waiting(11)
    })
    .await;
    world.others_run().await;
    assert_eq!(starts.count(), 1);
    world.set_paused(false, true).await;
    world.wait_for_all(&waits, State::Succeeded).await;
    assert_eq!(world.wait_for(lost, State::Succeeded).await.fence, 2);
    assert_eq!(starts.count(), 12);
    second.drain().await;
}

/// A worker that can't ask yet may not start anything: it does not know what is paused.
#[tokio::test]
async fn nothing_starts_before_the_pauses_are_known() {
    let world = World::default();
    let starts = Starts::new(1_000);
    let store = world.store.connection();
    store.hide_pauses(true);
    let worker = world.worker_on(Arc::clone(&store), of_two_queues(true), starts.handlers());
    let recorded = world.submit_many(5).await;
    world.all_are_recorded().await;
    holds("it is registered", || store.worker_count() == 1).await;
    assert!(!world.broker.is_read(&lane()));
    assert_eq!(world.broker.depth_of(&lane()), waiting(5));
    let is_said = || {
        let problems = worker.health.problems();
        problems
            .iter()
            .any(|(part, problem)| part == "pauses" && problem.contains("list paused queues"))
    };
    holds("it says why nothing starts", is_said).await;
    store.hide_pauses(false);
    world.wait_for_all(&recorded, State::Succeeded).await;
    worker.is_healthy().await;
    // What was heard last counts, and it is said that nothing newer is known.
    store.hide_pauses(true);
    holds("it says that it can't ask", is_said).await;
    let id = world.submit(request()).await;
    world.wait_for(id, State::Succeeded).await;
    store.hide_pauses(false);
    worker.is_healthy().await;
    worker.drain().await;
}

/// Commands and times go on: what is cancelled ends, what falls due waits.
#[tokio::test]
async fn commands_and_times_go_on() {
    let world = World::default();
    let starts = Starts::new(1_000);
    let worker = world.worker(of_two_queues(true), starts.handlers());
    worker.is_healthy().await;
    world.set_paused(true, true).await;
    world.is_obeyed().await;
    let id = world.submit(request()).await;
    world.wait_for(id, State::Queued).await;
    world.store.cancel(id).await.unwrap();
    world.wait_for(id, State::Cancelled).await;
    let soon = SubmitRequest {
        delay_seconds: Some(0.05),
        ..request()
    };
    let due = world.submit(soon).await;
    world.wait_for(due, State::Queued).await;
    world.store.retry(id).await.unwrap();
    world.wait_for(id, State::Queued).await;
    world.others_run().await;
    assert_eq!(starts.count(), 1);
    world.set_paused(false, true).await;
    world.wait_for_all(&[due, id], State::Succeeded).await;
    worker.drain().await;
}
