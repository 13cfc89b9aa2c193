//! Everything goes wrong at once, for a while; then all that was accepted must have succeeded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_core::{Json, State, TaskId};
use forebay_worker::{HandlerError, HandlerSettings, Handlers, IntakeOptions, WorkerOptions};
use tokio::time::Instant;

use crate::{
    store::MemoryStore,
    support::{Running, World, handle_with, options, request, settings},
};

/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(3);

/// A small generator of its own, so that a seed says what happens.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

type Runs = Arc<Mutex<HashMap<TaskId, u32>>>;

/// A handler that fails in every way there is, and succeeds in the end.
fn moody(runs: Runs) -> Handlers {
    let settings = HandlerSettings {
        timeout: Duration::from_millis(150),
        ..settings()
    };
    handle_with(settings, move |execution| {
        let run = {
            let mut runs = runs.lock().unwrap();
            let run = runs.entry(execution.id).or_default();
            *run += 1;
            *run
        };
        let mood = Dice(u64::from(run) + 7 * execution.id.unix_millis() + 1).roll(10);
        async move {
            match mood {
                // The waits between attempts double, and the test does not wait for ever.
                _ if run > 6 => Ok(Json::null()),
                0 => std::future::pending().await,
                1 => panic!("a mood"),
                2 => Err(HandlerError::retryable("a mood")),
                3 => Err(HandlerError::snooze(Duration::from_millis(20))),
                4 => {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    Ok(Json::null())
                }
                _ => Ok(Json::null()),
            }
        }
    })
}

struct Chaos {
    world: World,
    dice: Dice,
    runs: Runs,
    workers: Vec<(Arc<MemoryStore>, Running)>,
}

impl Chaos {
    fn start_worker(&mut self) {
        let store = self.world.store.connection();
        let ordinary = options();
        let options = WorkerOptions {
            intake: IntakeOptions {
                hand_off: self.dice.roll(2) == 0,
                ..ordinary.intake
            },
            lost_max: 1_000,
            drain_timeout: Duration::from_millis(100),
            flush_timeout: Duration::from_millis(300),
            ..ordinary
        };
        let worker = self
            .world
            .worker_on(Arc::clone(&store), options, moody(Arc::clone(&self.runs)));
        self.workers.push((store, worker));
    }

    async fn something_happens(&mut self) {
        let which = usize::try_from(self.dice.roll(100)).unwrap() % self.workers.len();
        match self.dice.roll(8) {
            0 => self.workers.swap_remove(which).1.crash().await,
            // With its store away it can't store what it did last, and says so.
            1 => _ = self.workers.swap_remove(which).1.drains().await,
            2 => self.workers[which].0.set_away(true),
            3 | 4 => self.workers[which].0.set_away(false),
            5 => self.workers[which].0.lose_answers(5),
            6 => self.world.broker.deafen(),
            _ => self.world.broker.forget(3),
        }
        while self.workers.len() < 3 {
            self.start_worker();
        }
    }

    async fn calm_down(&mut self) {
        self.world.broker.forget(0);
        for (store, worker) in self.workers.drain(..) {
            store.set_away(false);
            store.lose_answers(0);
            // Its store is back just now: it may have no time left to store what it did last, and then says so.
            _ = worker.drains().await;
        }
        self.start_worker();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_task_succeeds_once() {
    for seed in [0x9e37_79b9, 0x7f4a_7c15] {
        let mut chaos = Chaos {
            world: World::default(),
            dice: Dice(seed),
            runs: Runs::default(),
            workers: Vec::new(),
        };
        chaos.start_worker();
        let mut ids = Vec::new();
        let until = Instant::now() + CHAOS;
        while Instant::now() < until {
            for _ in 0..5 {
                let mut request = request();
                request.max_attempts = Some(1_000);
                ids.push(chaos.world.submit(request).await);
            }
            chaos.something_happens().await;
            tokio::time::sleep(Duration::from_millis(chaos.dice.roll(100))).await;
        }
        chaos.calm_down().await;
        chaos.world.wait_for_all(&ids, State::Succeeded).await;
        for id in ids {
            let task = chaos.world.store.task(id).unwrap();
            let runs = chaos.runs.lock().unwrap()[&id];
            assert!(
                (1..=task.fence).contains(&runs),
                "{runs} runs, {} starts, seed {seed}",
                task.fence
            );
        }
    }
}
