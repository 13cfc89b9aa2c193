//! The observer against a store and a broker that can be away.

#![expect(clippy::unwrap_used, reason = "what does not unwrap here is a failed test")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use forebay_autoscale::{Bounds, Observer, Sources, Unknown};
use forebay_broker::{Broker, BrokerError, Depth, Message, PublishError, Source, Subscription};
use forebay_core::{
    Lane, Priority, QueueName, Signal, State, SystemClock, Task, TaskEvent, TaskId, Timestamp, WorkerId,
    WorkerInfo,
};
use forebay_runtime::metrics::Metrics;
use forebay_store::{
    OldestReady, Page, PageToken, QueueCounts, Read, ReadyWalk, Rejects, StoreError, TaskFilter,
};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    #[default]
    Up,
    Down,
    Hangs,
}

#[derive(Debug, Default)]
struct Inner {
    store: Mood,
    broker: Mood,
    queues: Vec<QueueCounts>,
    workers: Vec<WorkerInfo>,
    /// What waits in the default lane of each queue.
    ready: u64,
    /// So many are claimed as soon as one has looked at their lane, or at the store.
    claimed: u64,
    claimed_after_store: bool,
    /// How long a look at a lane takes.
    slow: Duration,
    /// Which queues' lanes were looked at.
    looked_at: BTreeSet<QueueName>,
    counts: usize,
    walks: Vec<ReadyWalk>,
}

impl Inner {
    fn claim(&mut self) {
        let claimed = std::mem::take(&mut self.claimed);
        self.ready -= claimed;
        self.queues[0].running += claimed;
    }
}

#[derive(Debug, Clone)]
struct World {
    inner: Arc<Mutex<Inner>>,
    signals: broadcast::Sender<Signal>,
    metrics: Arc<Metrics>,
}

impl World {
    /// One queue in which nothing is, and whoever watches it.
    fn new() -> (Self, Observer) {
        let world = Self {
            inner: Arc::default(),
            signals: broadcast::Sender::new(16),
            metrics: Arc::default(),
        };
        world.lock().queues.push(QueueCounts {
            name: images(),
            running: 0,
            scheduled: 0,
            throttled: 0,
            paused: false,
        });
        let sources = Sources {
            store: Arc::new(world.clone()),
            broker: Arc::new(world.clone()),
            clock: Arc::new(SystemClock),
            metrics: Arc::clone(&world.metrics),
        };
        (world, Observer::new(sources, Bounds::default()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.encode().contains(line)
    }

    async fn store(&self, doing: &'static str) -> forebay_store::Result<MutexGuard<'_, Inner>> {
        let mood = self.lock().store;
        match mood {
            Mood::Up => Ok(self.lock()),
            Mood::Hangs => std::future::pending().await,
            Mood::Down => Err(StoreError::Unavailable {
                doing,
                source: "no route to host".into(),
            }),
        }
    }

    async fn broker(&self) -> forebay_broker::Result<()> {
        let mood = self.lock().broker;
        match mood {
            Mood::Up => Ok(()),
            Mood::Hangs => std::future::pending().await,
            Mood::Down => Err(BrokerError::new("count", "no servers")),
        }
    }
}

fn images() -> QueueName {
    "images".parse().unwrap()
}

#[async_trait]
impl Read for World {
    async fn get(&self, _: TaskId) -> forebay_store::Result<Option<Task>> {
        Ok(None)
    }

    async fn unique_holder(
        &self,
        _: &forebay_core::Project,
        _: forebay_core::UniqueMark,
    ) -> forebay_store::Result<Option<Task>> {
        Ok(None)
    }

    async fn list(&self, _: &TaskFilter, _: usize, _: Option<PageToken>) -> forebay_store::Result<Page> {
        Ok(Page {
            tasks: Vec::new(),
            next: None,
        })
    }

    async fn queues(&self) -> forebay_store::Result<Vec<QueueCounts>> {
        let mut inner = self.store("list queues").await?;
        inner.counts += 1;
        let answer = inner.queues.clone();
        if inner.claimed_after_store {
            inner.claim();
        }
        Ok(answer)
    }

    async fn paused_queues(&self) -> forebay_store::Result<Vec<QueueName>> {
        Ok(Vec::new())
    }

    async fn oldest_ready(&self, _: &QueueName, walk: ReadyWalk) -> forebay_store::Result<OldestReady> {
        let mut inner = self.store("look for the oldest").await?;
        inner.walks.push(walk);
        Ok(OldestReady {
            age: (walk.noted > 0).then_some(Duration::from_secs(7)),
            walk: ReadyWalk {
                noted: walk.noted + 1,
                ..walk
            },
            is_complete: walk.noted > 0,
        })
    }

    async fn workers(&self) -> forebay_store::Result<Vec<WorkerInfo>> {
        Ok(self.store("list workers").await?.workers.clone())
    }

    async fn rejects(&self, _: usize, _: usize) -> forebay_store::Result<Rejects> {
        Ok(Rejects::default())
    }
}

#[async_trait]
impl Broker for World {
    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<(), PublishError>> {
        vec![Err(PublishError::Full); batch.len()]
    }

    async fn consume(&self, _: Source) -> forebay_broker::Result<Subscription> {
        Err(BrokerError::new("consume", "not faked"))
    }

    async fn depth(&self, lane: &Lane) -> forebay_broker::Result<Depth> {
        self.broker().await?;
        let slow = self.lock().slow;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        let mut inner = self.lock();
        inner.looked_at.insert(lane.queue.clone());
        let is_used = lane.queue == images() && lane.priority == Priority::Default;
        let waiting = if is_used { inner.ready } else { 0 };
        if is_used && !inner.claimed_after_store {
            inner.claim();
        }
        Ok(Depth {
            waiting,
            delivered: 0,
        })
    }

    async fn unrecorded(&self) -> forebay_broker::Result<u64> {
        Ok(0)
    }

    async fn signal(&self, signal: Signal) -> forebay_broker::Result<()> {
        let _ = self.signals.send(signal);
        Ok(())
    }

    async fn signals(&self) -> forebay_broker::Result<BoxStream<'static, Signal>> {
        self.broker().await?;
        let receiver = self.signals.subscribe();
        let next = |mut receiver: broadcast::Receiver<Signal>| async move {
            let signal = receiver.recv().await.ok()?;
            Some((signal, receiver))
        };
        Ok(futures::stream::unfold(receiver, next).boxed())
    }

    async fn trim(&self) -> forebay_broker::Result<()> {
        Ok(())
    }

    async fn check(&self) -> forebay_broker::Result<()> {
        self.broker().await
    }
}

fn worker(running: u32) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId::new(Timestamp::UNIX_EPOCH, &[1; 10]),
        name: "w1".into(),
        queues: vec![images()],
        slots: 4,
        busy: vec![(images(), running)],
        finished: Vec::new(),
        draining: false,
        started_at: Timestamp::UNIX_EPOCH,
        heartbeat_at: Timestamp::UNIX_EPOCH,
    }
}

fn queued() -> Signal {
    Signal::Events(vec![TaskEvent {
        id: TaskId::from_bytes([1; 16]),
        kind: "echo".parse().unwrap(),
        queue: images(),
        state: State::Queued,
        attempt: 0,
        at: Timestamp::UNIX_EPOCH,
    }])
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_a_second_old_at_the_most() {
    let (world, observer) = World::new();
    world.lock().ready = 5;
    world.lock().queues[0].running = 9;
    world.lock().workers.push(worker(9));
    let sample = observer.sample(&images()).await.unwrap();
    assert_eq!((sample.ready, sample.running, sample.gated), (5, 9, 0));
    assert_eq!(sample.desired_workers, 3, "what runs keeps its slots");
    world.lock().ready = 6;
    seconds(0.9).await;
    assert_eq!(observer.sample(&images()).await.unwrap().ready, 5);
    seconds(0.2).await;
    assert_eq!(observer.sample(&images()).await.unwrap().ready, 6);
    assert_eq!(
        world.lock().counts,
        3,
        "the first time, it is asked which there are"
    );
    assert!(world.shows("forebay_queue_ready{queue=\"images\"} 6"));
}

#[tokio::test(start_paused = true)]
async fn what_is_away_is_named_and_never_a_zero() {
    for (store, broker) in [
        (Mood::Down, Mood::Up),
        (Mood::Hangs, Mood::Up),
        (Mood::Up, Mood::Down),
        (Mood::Up, Mood::Hangs),
        (Mood::Down, Mood::Down),
    ] {
        let (world, observer) = World::new();
        world.lock().ready = 5;
        assert!(observer.sample(&images()).await.is_ok());
        assert!(world.shows("forebay_queue_desired_workers{queue=\"images\"}"));
        (world.lock().store, world.lock().broker) = (store, broker);
        seconds(1.1).await;
        let mut since = None;
        for queue in [images(), "unheard-of".parse().unwrap(), images()] {
            let began = tokio::time::Instant::now();
            let unknown = observer.sample(&queue).await.expect_err("it is not known");
            assert!(
                began.elapsed() <= Duration::from_millis(2_100),
                "{:?}",
                began.elapsed()
            );
            let named = match unknown {
                Unknown::Store { .. } => (false, true),
                Unknown::Broker { .. } => (true, false),
                Unknown::Both { .. } => (false, false),
            };
            assert_eq!(named, (store == Mood::Up, broker == Mood::Up), "{unknown}");
            if store != Mood::Hangs && broker != Mood::Hangs {
                assert_eq!(*since.get_or_insert(unknown.since()), unknown.since());
            }
        }
        observer.count().await;
        assert!(!world.shows("forebay_queue_desired_workers{"));
        assert_eq!(world.shows("forebay_queue_ready{"), broker == Mood::Up);
        (world.lock().store, world.lock().broker) = (Mood::Up, Mood::Up);
        seconds(1.1).await;
        assert_eq!(observer.sample(&images()).await.unwrap().ready, 5, "it is back");
        assert!(world.shows("forebay_queue_desired_workers{queue=\"images\"}"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_pause_holds_back_is_gated() {
    let (world, observer) = World::new();
    world.lock().ready = 5;
    world.lock().queues[0].paused = true;
    let sample = observer.sample(&images()).await.unwrap();
    assert_eq!((sample.ready, sample.gated, sample.desired_workers), (0, 5, 0));
    assert_eq!(sample.oldest_ready_age, None);
    assert_eq!(world.lock().walks, []);
}

#[tokio::test(start_paused = true)]
async fn what_a_limit_holds_back_is_gated_and_no_reason_for_a_worker() {
    let (world, observer) = World::new();
    world.lock().queues[0].throttled = 700;
    let sample = observer.sample(&images()).await.unwrap();
    assert_eq!((sample.ready, sample.gated, sample.desired_workers), (0, 700, 0));
    world.lock().ready = 5;
    seconds(1.1).await;
    let sample = observer.sample(&images()).await.unwrap();
    assert_eq!((sample.ready, sample.gated), (5, 700));
    assert!(sample.desired_workers > 0);
    // With a pause, what waits in its lanes is beside it.
    world.lock().queues[0].paused = true;
    seconds(1.1).await;
    let sample = observer.sample(&images()).await.unwrap();
    assert_eq!((sample.ready, sample.gated), (0, 705));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_queue_is_a_known_zero_and_its_lanes_are_not_looked_at() {
    let (world, observer) = World::new();
    let unheard_of = "unheard-of".parse().unwrap();
    let sample = observer.sample(&unheard_of).await.unwrap();
    assert_eq!((sample.ready, sample.running, sample.desired_workers), (0, 0, 0));
    // Without the broker nobody knows, even if the last count is new.
    world.lock().broker = Mood::Down;
    let unknown = observer.sample(&unheard_of).await.unwrap_err();
    assert!(matches!(unknown, Unknown::Broker { .. }), "{unknown}");
    assert_eq!(world.lock().looked_at, BTreeSet::from([images()]));
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_during_a_count_is_not_lost_from_it() {
    for claimed_after_store in [false, true] {
        let (world, observer) = World::new();
        for first in [true, false] {
            {
                let mut inner = world.lock();
                inner.claimed_after_store = claimed_after_store;
                (inner.ready, inner.claimed) = (2, 2);
                inner.queues[0].running = 0;
            }
            let count = observer.count().await;
            let images = &count.queues[0];
            let all = images.ready.unwrap() + images.running.unwrap();
            assert!(all >= 2, "{images:?}, first: {first}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_takes_long_serves_for_longer() {
    let (world, observer) = World::new();
    // Three lanes.
    world.lock().slow = Duration::from_secs(1);
    let stop = CancellationToken::new();
    tokio::spawn({
        let (observer, stop) = (observer.clone(), stop.clone());
        async move { observer.run(stop).await }
    });
    seconds(3.5).await;
    for second in 0..10 {
        world.lock().ready = second;
        for _ in 0..10 {
            let sample = observer.sample(&images()).await.unwrap();
            assert!(sample.ready + 7 >= second, "{sample:?} at {second}");
            seconds(0.1).await;
        }
    }
    // Nobody counts any more.
    stop.cancel();
    seconds(10.1).await;
    assert!(observer.sample(&images()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_silent_while_others_are_not_does_not_count_as_serving() {
    let (world, observer) = World::new();
    let at = |second| Timestamp::from_second(second).unwrap();
    let other = WorkerInfo {
        queues: vec!["other".parse().unwrap()],
        heartbeat_at: at(100),
        ..worker(0)
    };
    for (heard, counts_early) in [(85, false), (84, true)] {
        let heard_at = WorkerInfo {
            heartbeat_at: at(heard),
            ..worker(0)
        };
        world.lock().workers = vec![heard_at, other.clone()];
        let stop = CancellationToken::new();
        tokio::spawn({
            let (observer, stop) = (observer.clone(), stop.clone());
            async move { observer.run(stop).await }
        });
        seconds(1.05).await;
        let before = world.lock().counts;
        world.signals.send(queued()).unwrap();
        seconds(0.05).await;
        assert_eq!(world.lock().counts > before, counts_early, "heard of at {heard}");
        stop.cancel();
        seconds(2.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_is_asked_for_where_something_is_ready_and_its_walk_goes_on() {
    let (world, observer) = World::new();
    observer.count().await;
    assert_eq!(world.lock().walks, []);
    world.lock().ready = 1;
    let ages: Vec<_> = futures::stream::iter(0..3)
        .then(|_| async { observer.count().await.queues[0].oldest_ready_age })
        .collect()
        .await;
    let seven = Some(Duration::from_secs(7));
    assert_eq!(ages, [None, seven, seven]);
    let walks = world.lock().walks.clone();
    assert_eq!(walks.iter().map(|walk| walk.noted).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(walks[0].from.is_some(), "nothing waited a moment before");
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_workers_wakes_as_soon_as_its_task_is_in_a_lane() {
    let (world, observer) = World::new();
    let stop = CancellationToken::new();
    let mut wakes = observer.wakes();
    let running = tokio::spawn({
        let (observer, stop) = (observer.clone(), stop.clone());
        async move { observer.run(stop).await }
    });
    seconds(1.05).await;
    // Accepted, and recorded a little later.
    let told = tokio::time::Instant::now();
    world.signals.send(queued()).unwrap();
    seconds(0.05).await;
    world.lock().ready = 1;
    assert_eq!(wakes.next().await, images());
    assert!(
        told.elapsed() < Duration::from_millis(250),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(observer.sample(&images()).await.unwrap().ready, 1);
    // Only from idle to busy.
    let again = tokio::time::timeout(Duration::from_secs(10), wakes.next()).await;
    assert!(again.is_err(), "{again:?}");
    // Without a word, it is a second.
    world.lock().ready = 0;
    seconds(2.0).await;
    world.lock().ready = 1;
    let woken = tokio::time::timeout(Duration::from_millis(1_100), wakes.next()).await;
    assert_eq!(woken, Ok(images()));
    // Resumed.
    world.lock().queues[0].paused = true;
    seconds(2.0).await;
    world.lock().queues[0].paused = false;
    world.signals.send(Signal::QueuesChanged).unwrap();
    let woken = tokio::time::timeout(Duration::from_millis(50), wakes.next()).await;
    assert_eq!(woken, Ok(images()));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_of_a_queue_with_workers_cause_no_counts() {
    let (world, observer) = World::new();
    world.lock().workers.push(worker(0));
    let stop = CancellationToken::new();
    tokio::spawn({
        let (observer, stop) = (observer.clone(), stop.clone());
        async move { observer.run(stop).await }
    });
    seconds(1.05).await;
    let before = world.lock().counts;
    for _ in 0..50 {
        world.signals.send(queued()).unwrap();
        seconds(0.01).await;
    }
    assert_eq!(world.lock().counts, before);
    // And where there are none, no more than ten a second.
    world.lock().workers.clear();
    seconds(1.0).await;
    let before = world.lock().counts;
    for _ in 0..100 {
        world.signals.send(queued()).unwrap();
        seconds(0.01).await;
    }
    let counts = world.lock().counts - before;
    assert!((2..=13).contains(&counts), "{counts}");
    stop.cancel();
}
