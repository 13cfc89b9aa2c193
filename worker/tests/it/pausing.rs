//! A queue that is paused: what comes is recorded, none of it is started, and nothing is lost or multiplied.

use std::{sync::Arc, time::Duration};

use forebay_broker::{Broker, Depth, Source};
use forebay_core::{Lane, Priority, QueueName, Signal, State, SubmitRequest, TaskId};
use forebay_store::Operate;
use forebay_worker::{HandlerSettings, IntakeOptions, WorkerOptions};

use crate::{
    broker::Lanes,
    starts::{MANY, Starts},
    support::{Running, World, holds, options, request, settings},
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

impl World {
    /// A healthy worker of two queues, and what it starts; the first `passes` are let through.
    async fn with_two_queues(hand_off: bool, passes: usize) -> (Self, Running, Starts) {
        let world = Self::default();
        let starts = Starts::with_passes(passes);
        let worker = world.worker(of_two_queues(hand_off), starts.handlers());
        worker.is_healthy().await;
        (world, worker, starts)
    }

    /// As the API does it, or as where nobody hears the signal.
    async fn set_paused(&self, paused: bool, signalled: bool) {
        let queue = QueueName::default();
        assert!(self.store.set_paused(&queue, paused).await.unwrap());
        if signalled {
            self.broker.signal(Signal::QueuesChanged).await.unwrap();
        }
    }

    /// Until the workers have left the lanes of the paused queue.
    async fn is_obeyed(&self) {
        holds("its lanes are not read", || {
            let mut lanes = Lane::all_of(&QueueName::default()).into_iter();
            !lanes.any(|lane| self.broker.is_read(&Source::Lane(lane)))
        })
        .await;
    }

    async fn pause(&self) {
        self.set_paused(true, true).await;
        self.is_obeyed().await;
    }

    /// Tasks of the paused queue, recorded; whatever else was submitted is, too.
    async fn submit_recorded(&self, count: usize) -> Vec<TaskId> {
        let ids = self.submit_many(count).await;
        holds("all are recorded", || {
            self.broker.depth_of(&Source::Submissions).is_empty()
        })
        .await;
        ids
    }

    /// A task of the other queue runs from end to end, in which time one of this would.
    async fn others_run(&self) {
        let queue = Some(other().to_string());
        let id = self.submit(SubmitRequest { queue, ..request() }).await;
        self.wait_for(id, State::Succeeded).await;
    }

    fn lane_is(&self, expected: Depth) -> bool {
        self.broker.depth_of(&lane()) == expected
    }

    /// So many wait in the lane, and go on to do so while others run.
    async fn they_wait(&self, count: u64) {
        holds("they wait in their lane", || self.lane_is(waiting(count))).await;
        self.others_run().await;
        assert_eq!(self.broker.depth_of(&lane()), waiting(count));
    }

    /// The queue is resumed: these run, which makes so many starts in all, and the worker ends in good order.
    async fn resume(&self, ids: &[TaskId], starts: (&Starts, usize), worker: Running) {
        self.set_paused(false, true).await;
        self.wait_for_all(ids, State::Succeeded).await;
        let (starts, count) = starts;
        assert_eq!(starts.count(), count);
        worker.drain().await;
    }
}

#[tokio::test]
async fn a_queue_that_was_paused_before_is_never_read() {
    for hand_off in [false, true] {
        let world = World::default();
        let starts = Starts::with_passes(MANY);
        world.set_paused(true, false).await;
        let mut ids = world.submit_many(20).await;
        let worker = world.worker(of_two_queues(hand_off), starts.handlers());
        worker.is_healthy().await;
        ids.extend(world.submit_recorded(20).await);
        for _ in 0..10 {
            world.others_run().await;
        }
        assert_eq!(starts.count(), 10);
        assert!(!world.broker.is_read(&lane()), "hand-off: {hand_off}");
        assert!(world.lane_is(waiting(40)));
        worker.is_healthy().await;
        world.resume(&ids, (&starts, 50), worker).await;
    }
}

#[tokio::test]
async fn what_runs_goes_on_and_what_comes_waits() {
    for (hand_off, signalled) in [(true, true), (true, false), (false, true), (false, false)] {
        let (world, worker, starts) = World::with_two_queues(hand_off, 0).await;
        let runs = world.submit_many(3).await;
        world.wait_for_all(&runs, State::Running).await;
        world.set_paused(true, signalled).await;
        world.is_obeyed().await;
        let waits = world.submit_recorded(30).await;
        starts.open(&world, &runs).await;
        world.they_wait(30).await;
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
    let starts = Starts::with_passes(0);
    let two_at_once = HandlerSettings {
        concurrency: Some(2),
        ..settings()
    };
    let worker = world.worker(of_two_queues(false), starts.handlers_with(two_at_once));
    let ids = world.submit_many(10).await;
    holds("some are held", || {
        starts.count() == 2 && world.broker.depth_of(&lane()).delivered > 0
    })
    .await;
    world.set_paused(true, true).await;
    holds("nothing is held", || world.lane_is(waiting(8))).await;
    starts.open(&world, &ids[..2]).await;
    world.they_wait(8).await;
    world.resume(&ids, (&starts, 11), worker).await;
}

/// A subscription that is only dropped may still be sent something, and nobody would answer for that.
#[tokio::test]
async fn its_subscriptions_end_in_good_order() {
    let (world, worker, starts) = World::with_two_queues(false, MANY).await;
    assert_eq!(world.broker.closed(), 0);
    world.pause().await;
    let lanes = Lane::all_of(&QueueName::default()).len();
    assert_eq!(world.broker.closed(), lanes, "its own, and no others");
    let ids = world.submit_recorded(5).await;
    world.they_wait(5).await;
    assert_eq!(world.broker.closed(), lanes);
    world.resume(&ids, (&starts, 6), worker).await;
    assert_eq!(world.broker.closed(), world.broker.consumers());
}

/// Neither its own tasks nor those of others are kept from being handed over by what waits in a paused queue.
#[tokio::test]
async fn the_hand_off_goes_on_for_others_and_again_after() {
    let (world, worker, _starts) = World::with_two_queues(true, MANY).await;
    world.pause().await;
    // More than there are slots, so that none would be left for others if slots were kept for them.
    let waits = world.submit_recorded(30).await;
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
    let (world, worker, starts) = World::with_two_queues(false, MANY).await;
    // So that the lane has a watermark.
    let first = world.submit(request()).await;
    world.wait_for(first, State::Succeeded).await;
    world.pause().await;
    let ids = world.submit_recorded(25).await;
    // Each is only found once its lane was empty for a while, which together is longer than any lag.
    for _ in 0..4 {
        world.broker.forget(1);
        world.others_run().await;
        assert!(world.broker.forgotten());
    }
    assert!(world.lane_is(waiting(25)));
    // What is lost while it is paused is found all the same.
    world.broker.wipe();
    world.they_wait(25).await;
    world.resume(&ids, (&starts, 31), worker).await;
}

#[tokio::test]
async fn a_worker_that_dies_meanwhile_changes_nothing() {
    let (world, worker, _stuck) = World::with_two_queues(true, 0).await;
    let lost = world.submit(request()).await;
    world.wait_for(lost, State::Running).await;
    world.pause().await;
    let mut ids = world.submit_recorded(10).await;
    worker.crash().await;
    let starts = Starts::with_passes(MANY);
    let second = world.worker(of_two_queues(true), starts.handlers());
    // It is taken back, and waits with the others.
    world.they_wait(11).await;
    assert_eq!(starts.count(), 1);
    ids.push(lost);
    world.resume(&ids, (&starts, 12), second).await;
    assert_eq!(world.store.task(lost).unwrap().fence, 2);
}

/// A worker that can't ask yet may not start anything: it does not know what is paused.
#[tokio::test]
async fn nothing_starts_before_the_pauses_are_known() {
    let world = World::default();
    let starts = Starts::with_passes(MANY);
    let store = world.store.connection();
    store.hide_pauses(true);
    let worker = world.worker_on(Arc::clone(&store), of_two_queues(true), starts.handlers());
    let recorded = world.submit_recorded(5).await;
    holds("it is registered", || store.worker_count() == 1).await;
    assert!(!world.broker.is_read(&lane()));
    assert!(world.lane_is(waiting(5)));
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
    let (world, worker, starts) = World::with_two_queues(true, MANY).await;
    world.pause().await;
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
    world.resume(&[due, id], (&starts, 3), worker).await;
}
