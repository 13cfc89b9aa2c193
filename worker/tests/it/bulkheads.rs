//! A flood of one kind leaves room for the others, and is not kept from other workers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_broker::Source;
use forebay_core::{Lane, Priority, QueueName, State, SubmitRequest, TaskId};
use forebay_worker::{HandlerSettings, Handlers, WorkerOptions};
use tokio::sync::Semaphore;

use crate::support::{World, holds, options, request, settings, undispatched};

/// How often each task was started, and a gate that the slow kind waits at.
#[derive(Clone)]
struct Kinds {
    starts: Arc<Mutex<HashMap<TaskId, u32>>>,
    gate: Arc<Semaphore>,
}

impl Kinds {
    fn new() -> Self {
        Self {
            starts: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    /// Handlers for `slow`, which waits at the gate, and `quick`, which does not.
    fn handlers(&self, slow: &HandlerSettings) -> Handlers {
        let (of_slow, of_quick) = (self.clone(), self.clone());
        let waits = move |(): (), execution: forebay_worker::Execution| {
            let this = of_slow.clone();
            async move {
                this.note(execution.id);
                let _pass = this.gate.acquire().await;
                Ok(())
            }
        };
        let does_not = move |(): (), execution: forebay_worker::Execution| {
            of_quick.note(execution.id);
            async { Ok(()) }
        };
        Handlers::new()
            .function(
                "slow",
                HandlerSettings {
                    timeout: Duration::from_secs(60),
                    ..slow.clone()
                },
                waits,
            )
            .and_then(|it| it.function("quick", settings(), does_not))
            .unwrap()
    }

    fn note(&self, id: TaskId) {
        *self.starts.lock().unwrap().entry(id).or_default() += 1;
    }

    fn starts(&self, ids: &[TaskId]) -> Vec<u32> {
        let starts = self.starts.lock().unwrap();
        ids.iter()
            .map(|id| starts.get(id).copied().unwrap_or(0))
            .collect()
    }
}

async fn submit(world: &World, kind: &str, priority: &str, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let asked = SubmitRequest {
            kind: kind.to_owned(),
            priority: Some(priority.to_owned()),
            ..request()
        };
        ids.push(world.submit(asked).await);
    }
    ids
}

fn lane() -> Source {
    Source::Lane(Lane::new(QueueName::default(), Priority::Default))
}

#[tokio::test]
async fn a_flood_in_the_most_urgent_lane_leaves_room_for_all_others() {
    let world = World::default();
    let kinds = Kinds::new();
    let flood = submit(&world, "slow", "high", 500).await;
    let mut others = submit(&world, "quick", "default", 5).await;
    others.extend(submit(&world, "quick", "low", 5).await);
    let worker = world.worker(options(), kinds.handlers(&settings()));
    // Not one of the flood ends meanwhile.
    world.wait_for_all(&others, State::Succeeded).await;
    holds("of ten slots, one is out of reach for the flood", || {
        kinds.starts(&flood).iter().sum::<u32>() == 9
    })
    .await;
    worker.is_healthy().await;
    kinds.gate.add_permits(1_000);
    world.wait_for_all(&flood, State::Succeeded).await;
    assert!(kinds.starts(&flood).iter().all(|&starts| starts == 1));
    worker.drain().await;
}

#[tokio::test]
async fn a_kind_at_the_bound_of_its_settings_holds_no_more_slots() {
    let world = World::default();
    let kinds = Kinds::new();
    let few = HandlerSettings {
        concurrency: Some(2),
        ..settings()
    };
    let flood = submit(&world, "slow", "default", 30).await;
    let worker = world.worker(undispatched(), kinds.handlers(&few));
    holds("two of them run", || {
        kinds.starts(&flood).iter().sum::<u32>() == 2
    })
    .await;
    let others = submit(&world, "quick", "high", 50).await;
    world.wait_for_all(&others, State::Succeeded).await;
    holds("eight slots are free", || {
        worker.metric("forebay_worker_slots{state=\"free\"} 8")
    })
    .await;
    // First in, first out, within what is at hand.
    assert_eq!(kinds.starts(&flood)[..3], [1, 1, 0]);
    kinds.gate.add_permits(1_000);
    world.wait_for_all(&flood, State::Succeeded).await;
    assert!(kinds.starts(&flood).iter().all(|&starts| starts == 1));
}

#[tokio::test]
async fn what_comes_behind_a_flood_runs_in_its_turn() {
    let world = World::default();
    let kinds = Kinds::new();
    kinds.gate.add_permits(1_000);
    let mut all = submit(&world, "slow", "default", 2_000).await;
    all.extend(submit(&world, "quick", "default", 5).await);
    // Nobody publishes again: what were not run straight from the lane would not be run.
    let _worker = world.worker(undispatched(), kinds.handlers(&settings()));
    world.wait_for_all(&all, State::Succeeded).await;
    assert!(kinds.starts(&all).iter().all(|&starts| starts == 1));
}

#[tokio::test]
async fn a_flood_is_not_kept_from_a_worker_that_has_room() {
    let world = World::default();
    let kinds = Kinds::new();
    // As many as two workers can run.
    let flood = submit(&world, "slow", "default", 18).await;
    let _first = world.worker(undispatched(), kinds.handlers(&settings()));
    holds("the first runs nine, and holds some", || {
        kinds.starts(&flood).iter().sum::<u32>() == 9 && world.broker.depth_of(&lane()).delivered > 0
    })
    .await;
    let _second = world.worker(undispatched(), kinds.handlers(&settings()));
    holds("the second runs all others", || {
        kinds.starts(&flood).iter().all(|&starts| starts == 1)
    })
    .await;
    kinds.gate.add_permits(1_000);
    world.wait_for_all(&flood, State::Succeeded).await;
}

#[tokio::test]
async fn what_is_held_goes_back_when_the_worker_stops() {
    let world = World::default();
    let kinds = Kinds::new();
    let flood = submit(&world, "slow", "default", 50).await;
    let first = world.worker(undispatched(), kinds.handlers(&settings()));
    holds("a few are held", || {
        let depth = world.broker.depth_of(&lane());
        depth.waiting + depth.delivered == 41 && (1..=10).contains(&depth.delivered)
    })
    .await;
    kinds.gate.add_permits(1_000);
    first.drain().await;
    assert_eq!(
        world.broker.depth_of(&lane()).delivered,
        0,
        "nothing is kept from others"
    );
    let _second = world.worker(options(), kinds.handlers(&settings()));
    world.wait_for_all(&flood, State::Succeeded).await;
    assert!(kinds.starts(&flood).iter().all(|&starts| starts == 1));
}

#[tokio::test]
async fn tasks_on_their_last_life_do_not_hold_up_their_lane() {
    let world = World::default();
    let kinds = Kinds::new();
    let options = || WorkerOptions {
        lost_max: 2,
        ..options()
    };
    let shaken = submit(&world, "slow", "default", 9).await;
    let starts = || kinds.starts(&shaken).iter().sum::<u32>();
    let first = world.worker(options(), kinds.handlers(&settings()));
    holds("all run", || starts() == 9).await;
    first.crash().await;
    let second = world.worker(options(), kinds.handlers(&settings()));
    holds("one of them runs again", || starts() == 10).await;
    let others = submit(&world, "quick", "default", 50).await;
    world.wait_for_all(&others, State::Succeeded).await;
    assert_eq!(starts(), 10, "one at a time");
    kinds.gate.add_permits(1_000);
    world.wait_for_all(&shaken, State::Succeeded).await;
    second.drain().await;
}
