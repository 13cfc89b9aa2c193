//! The store against [`Lifecycle`]: the same random steps, taken by both, must lead to the same tasks.
//!
//! Time has no part in it: every delay is nothing or an hour.

use std::{collections::BTreeSet, sync::Arc};

use forebay_core::{Decision, Lifecycle, Outcome, Refused, State, Submission, TaskId, Timestamp, WorkerId};

use super::support::*;
use crate::{Changed, ClaimRequest, Completed, Completion, Recorded, StartRequest, Store};

const TASKS: usize = 5;
const WORKERS: usize = 3;
const STEPS: usize = 500;
const LOST_MAX: u32 = 3;

/// The first series of random steps.
pub async fn the_store_does_as_the_model_seed_1(store: Arc<dyn Store>) {
    run(store, 1).await;
}

/// The second series of random steps.
pub async fn the_store_does_as_the_model_seed_2(store: Arc<dyn Store>) {
    run(store, 2).await;
}

/// The third series of random steps.
pub async fn the_store_does_as_the_model_seed_3(store: Arc<dyn Store>) {
    run(store, 3).await;
}

/// The fourth series of random steps.
pub async fn the_store_does_as_the_model_seed_4(store: Arc<dyn Store>) {
    run(store, 4).await;
}

/// Pseudo-random numbers (SplitMix64): the same for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn decision(&mut self) -> Decision {
        match self.below(9) {
            0 | 1 => Decision::Succeed,
            2 => Decision::Fail,
            3 => Decision::Cancel,
            4 | 5 => RETRY_NOW,
            6 => RETRY_LATER,
            _ => HAND_BACK,
        }
    }
}

/// A task, and what the model knows of it once it is recorded.
struct Known {
    said: Submission,
    model: Option<Lifecycle>,
}

struct World {
    store: Arc<dyn Store>,
    random: Random,
    tasks: Vec<Known>,
    workers: Vec<WorkerId>,
    done: Done,
}

/// How often the steps led to something: a run in which everything is turned away shows nothing.
#[derive(Debug, Default)]
struct Done {
    claims: usize,
    starts: usize,
    completions: usize,
    dispatches: usize,
    losses: usize,
    commands: usize,
}

/// Takes [`STEPS`] random steps, and compares after each.
async fn run(store: Arc<dyn Store>, seed: u64) {
    let mut world = World {
        random: Random(seed),
        tasks: Vec::new(),
        workers: Vec::new(),
        done: Done::default(),
        store,
    };
    for _ in 0..WORKERS {
        world.workers.push(worker(&*world.store).await);
    }
    let mut history = Vec::new();
    for number in 0..STEPS {
        let in_play = world.tasks.iter().filter(|it| it.is_in_play()).count();
        if in_play < TASKS {
            world.add_task().await;
        }
        let step = world.step().await;
        history.push(step);
        world
            .compare(&format!(
                "seed {seed}, step {number}: {:?}",
                &history[history.len().saturating_sub(12)..]
            ))
            .await;
    }
    let Done {
        claims,
        starts,
        completions,
        dispatches,
        losses,
        commands,
    } = world.done;
    let enough =
        claims >= 40 && starts >= 5 && completions >= 20 && dispatches >= 10 && losses >= 3 && commands >= 10;
    assert!(enough, "the steps must lead somewhere: {:?}", world.done);
}

impl Known {
    fn is_final(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.state.is_final())
    }

    /// Whether the steps to come may move it: it has not ended, and does not wait for an hour.
    fn is_in_play(&self) -> bool {
        let Some(model) = &self.model else {
            return true;
        };
        !self.is_final()
            && model
                .run_at
                .is_none_or(|due| due < plus(self.said.created_at, 1_800))
    }
}

impl World {
    async fn add_task(&mut self) {
        let said = match self.random.below(4) {
            0 => parked(&*self.store, 3_600).await,
            1 => parked(&*self.store, -5).await,
            _ => task(&*self.store).await,
        };
        self.tasks.push(Known { said, model: None });
    }

    /// Takes one random step, and returns its name.
    async fn step(&mut self) -> &'static str {
        match self.random.below(20) {
            0..=1 => self.record().await,
            2 => self.start().await,
            3..=7 => self.claim().await,
            8..=12 => self.complete().await,
            13..=15 if self.random.one_in(4) => self.cancel().await,
            13..=15 => self.dispatch().await,
            16 => self.retry().await,
            17 if self.is_any_running() => self.lose_workers().await,
            17 => self.claim().await,
            18 => self.deregister().await,
            _ => self.heartbeat_and_republish().await,
        }
    }

    /// The tasks that may move, and a few that should not.
    fn candidates(&self) -> Vec<usize> {
        let (in_play, mut rest): (Vec<usize>, Vec<usize>) =
            (0..self.tasks.len()).partition(|&index| self.tasks[index].is_in_play());
        rest.drain(..rest.len().saturating_sub(3));
        [in_play, rest].concat()
    }

    /// Some tasks, each once.
    fn some_tasks(&mut self) -> Vec<usize> {
        let candidates = self.candidates();
        let count = 1 + self.random.below(TASKS);
        let chosen: BTreeSet<usize> = (0..count)
            .map(|_| candidates[self.random.below(candidates.len())])
            .collect();
        chosen.into_iter().collect()
    }

    fn a_task(&mut self) -> usize {
        let candidates = self.candidates();
        candidates[self.random.below(candidates.len())]
    }

    fn a_worker(&mut self) -> WorkerId {
        self.workers[self.random.below(WORKERS)]
    }

    async fn record(&mut self) -> &'static str {
        let chosen = self.some_tasks();
        let batch: Vec<Submission> = chosen
            .iter()
            .map(|&index| self.tasks[index].said.clone())
            .collect();
        let answers = self.store.record(&batch).await.expect("record");
        for (index, answer) in chosen.into_iter().zip(answers) {
            let known = &mut self.tasks[index];
            let expected = if known.model.is_some() {
                Recorded::Duplicate
            } else {
                Recorded::New
            };
            assert_eq!(answer, expected);
            known.model.get_or_insert(Lifecycle::accepted(known.said.run_at));
        }
        "record"
    }

    async fn start(&mut self) -> &'static str {
        let (chosen, worker) = (self.some_tasks(), self.a_worker());
        let batch: Vec<StartRequest> = chosen
            .iter()
            .map(|&index| StartRequest {
                task: self.tasks[index].said.clone(),
                max_attempts: MAX_ATTEMPTS,
                timeout: TIMEOUT,
            })
            .collect();
        let at = now(&*self.store).await;
        let answers = self.store.record_and_claim(worker, claim_id(), &batch).await;
        for (index, (_, answer)) in chosen.into_iter().zip(answers.expect("record and claim")) {
            let known = &mut self.tasks[index];
            let model = known.model.get_or_insert(Lifecycle::accepted(known.said.run_at));
            let granted = model.claim(0, worker, at).is_ok();
            self.done.starts += usize::from(granted);
            let expected = granted.then_some((model.fence, model.attempt));
            assert_eq!(answer.map(|it| (it.fence, it.attempt)), expected);
        }
        "record and claim"
    }

    /// A fence that is mostly the current one.
    fn a_fence(&mut self, current: u32) -> u32 {
        match self.random.below(6) {
            0 => current.saturating_sub(1),
            1 => current + 1,
            _ => current,
        }
    }

    fn a_request(&mut self, index: usize) -> ClaimRequest {
        let known = &self.tasks[index];
        let (said, fence) = (
            known.said.clone(),
            known.model.as_ref().map_or(0, |model| model.fence),
        );
        let fence = self.a_fence(fence);
        wants(ready(&said, fence))
    }

    async fn claim(&mut self) -> &'static str {
        let (chosen, worker) = (self.some_tasks(), self.a_worker());
        let batch: Vec<ClaimRequest> = chosen.iter().map(|&index| self.a_request(index)).collect();
        let at = now(&*self.store).await;
        let answers = self.store.claim(worker, claim_id(), &batch).await.expect("claim");
        for ((index, request), answer) in chosen.into_iter().zip(batch).zip(answers) {
            let known = &mut self.tasks[index];
            let granted = known
                .model
                .as_mut()
                .is_some_and(|model| model.claim(request.ready.fence, worker, at).is_ok());
            let expected = granted.then(|| known.model.as_ref().map(|model| (model.fence, model.attempt)));
            self.done.claims += usize::from(granted);
            let answer = answer.map(|it| Some((it.fence, it.attempt)));
            assert_eq!(
                answer, expected,
                "claim of {:?} with {:?}",
                known.model, request.ready
            );
        }
        "claim"
    }

    fn a_completion(&mut self, index: usize) -> Completion {
        let model = self.tasks[index].model.as_ref();
        let (fence, attempt) = model.map_or((1, 1), |model| (model.fence, model.attempt));
        Completion {
            id: self.tasks[index].said.id,
            fence: self.a_fence(fence),
            attempt,
            outcome: Outcome::Failed,
            decision: self.random.decision(),
            result: None,
            error: None,
            log: None,
            limited: false,
        }
    }

    async fn complete(&mut self) -> &'static str {
        let mut chosen = self.some_tasks();
        let running = self.indices_where(|model| model.state == State::Running);
        let worker = if running.is_empty() || self.random.one_in(6) {
            self.a_worker()
        } else {
            let index = running[self.random.below(running.len())];
            chosen.push(index);
            chosen.sort_unstable();
            chosen.dedup();
            self.tasks[index]
                .model
                .as_ref()
                .and_then(|model| model.worker)
                .expect("it runs")
        };
        let batch: Vec<Completion> = chosen.iter().map(|&index| self.a_completion(index)).collect();
        let at = now(&*self.store).await;
        let answers = self.store.complete(worker, &batch, &[]).await.expect("complete");
        for ((index, completion), answer) in chosen.into_iter().zip(batch).zip(answers) {
            let expected = match &mut self.tasks[index].model {
                None => Err(Refused::Fenced),
                Some(model) => model
                    .complete(completion.fence, worker, completion.decision, at)
                    .map(|()| model.state),
            };
            match expected {
                Ok(state) => {
                    self.done.completions += 1;
                    assert_eq!(answer, Completed::Applied(state));
                }
                Err(Refused::Fenced) => assert_eq!(answer, Completed::Fenced),
                // Written before, or taken away: nothing is written now, which `compare` checks.
                Err(_) => {}
            }
        }
        "complete"
    }

    async fn dispatch(&mut self) -> &'static str {
        if self.random.one_in(4) {
            let events = self
                .store
                .dispatch_due(1_000, &Sink::closed())
                .await
                .expect("dispatch");
            assert_eq!(events, []);
            return "dispatch unconfirmed";
        }
        let at = now(&*self.store).await;
        let sink = Sink::open();
        let events = self.store.dispatch_due(1_000, &sink).await.expect("dispatch");
        let mut expected = Vec::new();
        for known in &mut self.tasks {
            if let Some(model) = &mut known.model
                && model.dispatch(at).is_ok()
            {
                expected.push(known.said.id);
            }
        }
        self.done.dispatches += expected.len();
        assert_eq!(sorted(sink.ids()), sorted(expected.iter().copied()));
        assert_eq!(sorted(events.iter().map(|event| event.id)), sorted(expected));
        "dispatch"
    }

    async fn cancel(&mut self) -> &'static str {
        let index = self.a_task();
        let answer = self
            .store
            .cancel(self.tasks[index].said.id)
            .await
            .expect("cancel");
        let expected = self.tasks[index].model.as_mut().map(Lifecycle::cancel);
        self.done.commands += usize::from(matches!(answer, Changed::Done(_)));
        assert_changed(&answer, expected);
        "cancel"
    }

    async fn retry(&mut self) -> &'static str {
        // Mostly one for which it is possible.
        let mut index = self.a_task();
        for _ in 0..10 {
            if !self.tasks[index].is_final() {
                index = self.a_task();
            }
        }
        let at = now(&*self.store).await;
        let answer = self.store.retry(self.tasks[index].said.id).await.expect("retry");
        let expected = self.tasks[index].model.as_mut().map(|model| model.retry(at));
        self.done.commands += usize::from(matches!(answer, Changed::Done(_)));
        assert_changed(&answer, expected);
        "retry"
    }

    async fn lose_workers(&mut self) -> &'static str {
        let at = now(&*self.store).await;
        let events = bury_all(&*self.store, LOST_MAX).await;
        let mut expected = Vec::new();
        for known in &mut self.tasks {
            if let Some(model) = &mut known.model
                && let Some(holder) = model.worker
                && model.take_back(holder, LOST_MAX, at).is_ok()
            {
                expected.push((known.said.id, model.state, model.attempt));
            }
        }
        let mut events: Vec<_> = events.iter().map(|it| (it.id, it.state, it.attempt)).collect();
        self.done.losses += events.len();
        events.sort_unstable();
        expected.sort_unstable();
        assert_eq!(events, expected);
        for worker in &mut self.workers {
            *worker = super::support::worker(&*self.store).await;
        }
        "lose workers"
    }

    async fn deregister(&mut self) -> &'static str {
        let number = self.random.below(WORKERS);
        let leaving = self.workers[number];
        let at = now(&*self.store).await;
        self.store.deregister(leaving).await.expect("deregister");
        for model in self.tasks.iter_mut().filter_map(|known| known.model.as_mut()) {
            if model.state == State::Running {
                let fence = model.fence;
                // Turned away where another worker runs it.
                let _ = model.complete(fence, leaving, HAND_BACK, at);
            }
        }
        self.workers[number] = worker(&*self.store).await;
        "deregister"
    }

    async fn heartbeat_and_republish(&mut self) -> &'static str {
        let (worker, at) = (self.a_worker(), now(&*self.store).await);
        let reply = self.store.heartbeat(&beat(worker, at)).await.expect("heartbeat");
        let to_cancel = self.ids_where(|model| {
            model.state == State::Running && model.worker == Some(worker) && model.cancel_requested
        });
        assert_eq!(sorted(reply.cancel), to_cancel);
        let horizons = [(lane("default.default"), plus(at, 3_600))];
        let sink = Sink::open();
        let answer = self
            .store
            .republish_lost(&horizons, Timestamp::UNIX_EPOCH, 1_000, &sink)
            .await
            .expect("publish again");
        let queued = self.ids_where(|model| model.state == State::Queued);
        assert_eq!((answer.count, sorted(sink.ids())), (queued.len(), queued));
        "heartbeat and republish"
    }

    fn indices_where(&self, holds: impl Fn(&Lifecycle) -> bool) -> Vec<usize> {
        let matching = |known: &Known| known.model.as_ref().is_some_and(&holds);
        (0..self.tasks.len())
            .filter(|&index| matching(&self.tasks[index]))
            .collect()
    }

    fn is_any_running(&self) -> bool {
        !self
            .indices_where(|model| model.state == State::Running)
            .is_empty()
    }

    fn ids_where(&self, holds: impl Fn(&Lifecycle) -> bool) -> Vec<TaskId> {
        let matching = self.indices_where(holds);
        sorted(matching.into_iter().map(|index| self.tasks[index].said.id))
    }

    /// Every task is in the store what it is in the model.
    async fn compare(&self, step: &str) {
        let in_an_hour = plus(now(&*self.store).await, 1_800);
        for known in &self.tasks {
            let found = self.store.get(known.said.id).await.expect("read");
            let Some(model) = &known.model else {
                assert_eq!(found, None, "{step}");
                continue;
            };
            let found = found.expect("a recorded task is found");
            assert_eq!(
                (found.state, found.fence, found.attempt),
                (model.state, model.fence, model.attempt),
                "{step}: {model:?}"
            );
            assert_eq!(
                found.finished_at.is_some(),
                model.state.is_final(),
                "{step}: {model:?}"
            );
            if model.state == State::Running {
                assert_eq!(found.worker, model.worker, "{step}");
                assert_eq!(found.cancel_requested, model.cancel_requested, "{step}");
            }
            if let Some(due) = model.run_at {
                let later = found.run_at.is_some_and(|found| found > in_an_hour);
                assert_eq!(
                    later,
                    due > in_an_hour,
                    "{step}: due {:?}, model {due}",
                    found.run_at
                );
            }
        }
    }
}

fn assert_changed(answer: &Changed, expected: Option<Result<(), Refused>>) {
    match (answer, expected) {
        (Changed::NotFound, None) | (Changed::Done(_), Some(Ok(()))) => {}
        (Changed::Refused(_, why), Some(Err(expected))) => assert_eq!(*why, expected),
        (answer, expected) => panic!("{answer:?} where the model says {expected:?}"),
    }
}
