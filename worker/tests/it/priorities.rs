//! However what is urgent floods a worker, what is less urgent has its turn: the bound of docs/priorities.md.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use forebay_broker::{Broker, Message};
use forebay_core::{Json, SubmitRequest};
use forebay_worker::{HandlerSettings, Handlers, IntakeOptions, WorkerOptions};

use crate::{
    broker::MemoryBroker,
    support::{World, handle_with, holds, options, request, settings, submission},
};

/// Of so many turns, one belongs to who had to wait longest.
const FAIR_TURN: usize = 8;
/// Of the lanes of a queue.
const PRIORITIES: usize = 3;
/// How many tasks of the flood there are at any time: far more than any worker here has slots.
const FLOOD: usize = 200;

/// One of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    queue: &'static str,
    priority: &'static str,
}

/// Tasks by their sort, in the order in which they were started. Each of the flood is followed by another.
#[derive(Clone)]
struct Flood {
    broker: Arc<MemoryBroker>,
    order: Arc<Mutex<Vec<Sort>>>,
    sorts: Arc<Vec<Sort>>,
    flooding: &'static str,
}

impl Flood {
    fn new(world: &World, queues: &[&'static str], flooding: &'static str) -> Self {
        let of = |queue| ["high", "default", "low"].map(|priority| Sort { queue, priority });
        Self {
            broker: Arc::clone(&world.broker),
            order: Arc::default(),
            sorts: Arc::new(queues.iter().copied().flat_map(of).collect()),
            flooding,
        }
    }

    async fn submit(&self, sort: usize) {
        let Sort { queue, priority } = self.sorts[sort];
        let task = submission(SubmitRequest {
            queue: Some(queue.to_owned()),
            priority: Some(priority.to_owned()),
            payload: Some(Json::of(&sort).unwrap()),
            ..request()
        });
        let confirmed = self.broker.publish(vec![Message::Submission(task)]).await;
        assert_eq!(confirmed, [Ok(())]);
    }

    fn handlers(&self, settings: HandlerSettings) -> Handlers {
        let this = self.clone();
        handle_with(settings, move |execution| {
            let this = this.clone();
            async move {
                let sort: usize = execution.payload.as_str().parse().unwrap();
                this.order.lock().unwrap().push(this.sorts[sort]);
                if this.sorts[sort].priority == this.flooding {
                    this.submit(sort).await;
                }
                Ok(Json::null())
            }
        })
    }

    /// Of how many starts there were none of this sort, at most, up to its last one.
    fn longest_without(&self, sort: Sort) -> usize {
        let order = self.order.lock().unwrap();
        let (mut longest, mut since) = (0, 0);
        for &started in order.iter() {
            since += 1;
            if started == sort {
                longest = longest.max(since - 1);
                since = 0;
            }
        }
        longest
    }

    fn counts(&self) -> BTreeMap<Sort, usize> {
        let mut counts = BTreeMap::new();
        for &sort in self.order.lock().unwrap().iter() {
            *counts.entry(sort).or_default() += 1;
        }
        counts
    }

    fn of_flood(&self) -> usize {
        let of_flood = |(sort, count): (Sort, usize)| (sort.priority == self.flooding).then_some(count);
        self.counts().into_iter().filter_map(of_flood).sum()
    }
}

/// Floods a worker for as long as it takes until `count` of each less urgent sort have run. Of each there is one after at
/// most so many starts as the bound says, and meanwhile the flood runs on.
async fn proves_the_bound(
    queues: &[&'static str],
    count: usize,
    slots: usize,
    adjust: impl FnOnce(&mut WorkerOptions, &mut HandlerSettings),
) {
    let world = World::default();
    let flood = Flood::new(&world, queues, "high");
    for (index, sort) in flood.sorts.iter().enumerate() {
        let tasks = if sort.priority == flood.flooding {
            FLOOD
        } else {
            count
        };
        for _ in 0..tasks {
            flood.submit(index).await;
        }
    }
    let mut options = WorkerOptions {
        queues: queues.iter().map(|queue| queue.parse().unwrap()).collect(),
        concurrency: slots,
        ..options()
    };
    let mut settings = settings();
    adjust(&mut options, &mut settings);
    let worker = world.worker(options, flood.handlers(settings));
    let less_urgent = || {
        flood
            .sorts
            .iter()
            .copied()
            .filter(|sort| sort.priority != flood.flooding)
    };
    holds("all that are less urgent have run", || {
        let counts = flood.counts();
        less_urgent().all(|sort| counts.get(&sort) == Some(&count))
    })
    .await;
    let bound = FAIR_TURN * PRIORITIES * queues.len() * slots;
    for sort in less_urgent() {
        let longest = flood.longest_without(sort);
        assert!(
            longest <= bound,
            "{longest} starts without one of {sort:?}, at most {bound} is the bound"
        );
    }
    let (urgent, others) = (flood.of_flood(), count * 2 * queues.len());
    assert!(
        urgent > 2 * others,
        "the urgent come first: {urgent} beside {others}"
    );
    worker.is_healthy().await;
}

fn handing_over(options: &mut WorkerOptions) {
    options.intake = IntakeOptions {
        hand_off: true,
        ..options.intake.clone()
    };
}

#[tokio::test]
async fn with_one_slot() {
    proves_the_bound(&["default"], 20, 1, |_, _| {}).await;
}

#[tokio::test]
async fn with_many_slots() {
    proves_the_bound(&["default"], 100, 10, |_, _| {}).await;
}

#[tokio::test]
async fn with_several_queues() {
    proves_the_bound(&["a", "b", "c"], 10, 2, |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_what_comes_is_handed_over() {
    proves_the_bound(&["default"], 50, 10, |options, _| handing_over(options)).await;
}

#[tokio::test]
async fn where_a_kind_may_hold_few_slots() {
    proves_the_bound(&["default"], 20, 10, |_, settings| settings.concurrency = Some(1)).await;
}
