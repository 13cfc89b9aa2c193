//! The executor: receives what is ready, claims it, runs its handlers and hands in the outcomes.
//!
//! [`Executor::run`] is the one loop that branches. Whatever takes long is on a task of its own, owned by this loop,
//! so that the loop itself never waits: rounds of the [`intake`], [`claim`]s, [`attempt`]s, acknowledgements. When the
//! executor is dropped, so are they all.

mod admit;
mod attempt;
mod beat;
mod bulkhead;
mod claim;
mod completer;
mod drain;
mod held;
mod intake;
mod life;
mod parked;
mod running;
mod slots;
mod trace;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use forebay_core::{Kind, State, TaskEvent};
use forebay_store::{ClaimRequest, Claimed};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    attempt::Attempt,
    beat::{Beat, Watermarks},
    bulkhead::Bulkheads,
    claim::{Answer, Batch, CLAIM_MAX, Candidate, start_of},
    completer::{Claims, Completer, Finished},
    held::Held,
    intake::Intake,
    life::Life,
    parked::Parked,
    running::{Running, Start},
    slots::Slots,
};
use crate::{
    handlers::{Registered, Stop, StopReason},
    shared::Shared,
    subscribe::Receipts,
};

/// How many claims are with the store at once.
const CLAIMS_MAX: usize = 4;
/// While a claim is under way, a further one must be worth it: it waits until it has this many tasks, or until that
/// one returns.
const CLAIM_WORTHWHILE: usize = 50;
/// How many outcomes may wait to be written; attempts beyond wait to hand theirs in.
const FINISHED_MAX: usize = 10_000;
/// How often gauges and health are brought up to date.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Executor {
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    intake: Intake,
    parked: Parked,
    bulkheads: Bulkheads,
    held: Held,
    /// What waits to be claimed.
    waiting: Batch,
    claims: JoinSet<Answer>,
    attempts: JoinSet<()>,
    /// Acknowledgements and the like, each bounded in time.
    chores: JoinSet<()>,
    /// What lives as long as the executor; each says its name when it ends.
    parts: JoinSet<&'static str>,
    finished: mpsc::Sender<Finished>,
    notes: Arc<Claims>,
    running: Arc<Running>,
    watermarks: Arc<Watermarks>,
    life: Arc<Life>,
    draining: Arc<AtomicBool>,
    /// Ends the heartbeat, which is the last to end.
    rest: CancellationToken,
    unknown_kinds: BTreeSet<Kind>,
    /// Tasks of such kinds that were handed back before.
    handed_back: HashSet<Start>,
}

impl Executor {
    /// An executor, with its heartbeat and its completer under way.
    pub(crate) fn new(shared: Arc<Shared>, stop: &CancellationToken) -> Self {
        let slots = Slots::new(shared.options.concurrency.max(1));
        let (finished, receiver) = mpsc::channel(slots.total().min(FINISHED_MAX));
        let mut executor = Self {
            intake: Intake::new(&shared, Arc::clone(&slots), stop),
            parked: Parked::new(shared.options.intake.unknown_kind_pause),
            bulkheads: Bulkheads::new(&shared.handlers, slots.total(), shared.options.lost_max),
            held: Held::new(
                bulkhead::kept_free(shared.options.concurrency),
                shared.options.intake.held_longest,
            ),
            waiting: Batch::default(),
            claims: JoinSet::new(),
            attempts: JoinSet::new(),
            chores: JoinSet::new(),
            parts: JoinSet::new(),
            finished,
            notes: Arc::default(),
            running: Arc::default(),
            watermarks: Arc::default(),
            life: Arc::default(),
            draining: Arc::default(),
            rest: CancellationToken::new(),
            unknown_kinds: BTreeSet::new(),
            handed_back: HashSet::new(),
            shared,
            slots,
        };
        executor.start_parts(receiver);
        executor
    }

    /// Runs tasks until `stop`, then drains.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut life = self.life.watch();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !stop.is_cancelled() {
            self.start_held();
            self.receive_more();
            self.claim_waiting();
            tokio::select! {
                () = stop.cancelled() => {}
                Some(pulled) = self.intake.next() => self.admit(pulled),
                Some(answer) = self.claims.join_next() => self.begin(unpanicked(answer)?),
                Some(ended) = self.attempts.join_next() => unpanicked(ended)?,
                Some(done) = self.chores.join_next() => unpanicked(done)?,
                Some(part) = self.parts.join_next() => bail!("the {} has ended", unpanicked(part)?),
                () = self.slots.freed() => {}
                () = self.parked.due() => self.let_go_parked(),
                () = self.held.due() => self.let_go_held(),
                Ok(()) = life.changed() => self.heed_life(),
                _ = tick.tick() => self.report(),
            }
        }
        self.drain().await
    }

    fn start_parts(&mut self, finished: mpsc::Receiver<Finished>) {
        let options = &self.shared.options;
        let ttl = options.lease.max(options.intake.health_ttl);
        let beat = Beat {
            shared: Arc::clone(&self.shared),
            life: Arc::clone(&self.life),
            running: Arc::clone(&self.running),
            watermarks: Arc::clone(&self.watermarks),
            slots: Arc::clone(&self.slots),
            draining: Arc::clone(&self.draining),
            started_at: self.shared.clock.now(),
            reporter: self.shared.health.component("heartbeat", ttl),
        };
        let completer = Completer {
            shared: Arc::clone(&self.shared),
            finished,
            running: Arc::clone(&self.running),
            claims: Arc::clone(&self.notes),
            life: Arc::clone(&self.life),
        };
        let signals = beat::obey_signals(Arc::clone(&self.shared), Arc::clone(&self.running));
        let rest = self.rest.clone();
        self.parts.spawn(async move {
            beat.run(rest).await;
            "heartbeat"
        });
        self.parts.spawn(async move {
            completer.run().await;
            COMPLETER
        });
        self.parts.spawn(async move {
            signals.await;
            "signal listener"
        });
    }

    fn receive_more(&mut self) {
        if self.life.id().is_some() && !self.parked.is_full() {
            self.intake.ask(|lane| self.held.is_full(lane));
        }
    }

    fn claim_waiting(&mut self) {
        let Some(worker) = self.life.id() else {
            return;
        };
        while !self.waiting.is_empty() {
            let under_way = self.claims.len();
            let worthwhile = under_way < CLAIMS_MAX && self.waiting.len() >= CLAIM_WORTHWHILE;
            if under_way > 0 && !worthwhile {
                return;
            }
            let batch = self.waiting.take(CLAIM_MAX);
            self.claims
                .spawn(claim::claim(Arc::clone(&self.shared), worker, batch));
        }
    }

    /// The store has answered: acknowledges all, since from now on it guards what was granted, and what it turned away
    /// is not needed; and starts what was granted.
    fn begin(&mut self, answer: Answer) {
        // What was granted to a worker that was declared dead since was taken back with it.
        let alive = self.life.is(answer.worker);
        let mut done = Receipts::default();
        for claim::Granted {
            claim,
            batch,
            answers,
        } in answer.granted
        {
            let mut attempts = Vec::new();
            let answers = answers.into_iter().chain(std::iter::repeat(None));
            for ((request, candidate), claimed) in
                batch.requests.into_iter().zip(batch.candidates).zip(answers)
            {
                let Candidate {
                    registered,
                    stop,
                    slot,
                    place,
                    acks,
                    token,
                    published_at,
                } = candidate;
                self.watermarks.raise(request.delivered.lane(), published_at);
                done.add(&acks, token);
                let start = start_of(&request.delivered);
                match claimed.filter(|_| alive) {
                    Some(claimed) => {
                        let registered = self.handler_of(&claimed, &request, registered, &stop);
                        debug_assert_eq!((claimed.id, claimed.fence), start, "the claim's own start");
                        self.running.claimed(start);
                        let worker = answer.worker;
                        attempts.push(Attempt {
                            claimed,
                            registered,
                            stop,
                            slot,
                            place,
                            claim,
                            worker,
                        });
                    }
                    None => self.running.release(start),
                }
            }
            self.start(claim, attempts);
        }
        let mut back = Receipts::default();
        for batch in answer.unclaimed {
            self.life.question();
            self.give_up(batch, &mut back);
        }
        self.answer(done, back);
    }

    /// The handler of what was claimed. That is of another kind than the delivery where two requests under one
    /// idempotency key were accepted at the same moment; where there is no handler for it here, it goes back.
    fn handler_of(
        &self,
        claimed: &Claimed,
        request: &ClaimRequest,
        delivered: Arc<Registered>,
        stop: &Stop,
    ) -> Arc<Registered> {
        if claimed.kind == *request.delivered.kind() {
            return delivered;
        }
        match self.shared.handlers.get(&claimed.kind) {
            Some(registered) => Arc::clone(registered),
            None => {
                stop.ask(StopReason::Shutdown);
                delivered
            }
        }
    }

    fn start(&mut self, claim: forebay_core::ClaimId, attempts: Vec<Attempt>) {
        if attempts.is_empty() {
            return;
        }
        self.notes.begin(claim, attempts.len());
        let now = self.shared.clock.now();
        for attempt in attempts {
            if self.draining.load(Ordering::Acquire) {
                attempt.stop.ask(StopReason::Shutdown);
            }
            self.shared.events.send(started(&attempt.claimed, now));
            let run = attempt::run(Arc::clone(&self.shared), attempt, self.finished.clone());
            self.attempts.spawn(run);
        }
    }

    /// What was not claimed goes back.
    fn give_up(&self, batch: Batch, back: &mut Receipts) {
        for (request, candidate) in batch.requests.iter().zip(batch.candidates) {
            self.running.release(start_of(&request.delivered));
            back.add(&candidate.acks, candidate.token);
        }
    }

    fn answer(&mut self, done: Receipts, back: Receipts) {
        if !done.is_empty() {
            self.chores.spawn(done.ack());
        }
        if !back.is_empty() {
            self.chores.spawn(back.hand_back());
        }
    }

    fn leave(&mut self, left: Receipts) {
        if !left.is_empty() {
            self.chores.spawn(left.leave());
        }
    }

    fn let_go_parked(&mut self) {
        let (left, back) = self.parked.take_due();
        self.leave(left);
        self.answer(Receipts::default(), back);
    }

    fn let_go_held(&mut self) {
        let back = self.held.take_due();
        self.answer(Receipts::default(), back);
    }

    /// A worker that is not registered claims nothing.
    fn heed_life(&mut self) {
        if self.life.id().is_none() {
            self.hand_back_waiting();
        }
    }

    fn hand_back_waiting(&mut self) {
        let mut back = Receipts::default();
        let waiting = std::mem::take(&mut self.waiting);
        self.give_up(waiting, &mut back);
        self.answer(Receipts::default(), back);
    }

    fn report(&self) {
        let free = self.slots.free();
        self.shared.metrics.worker_slots(self.slots.total() - free, free);
        self.intake.report_resting();
    }
}

/// The name of the part that the drain waits for.
const COMPLETER: &str = "completer";

/// A panic in our own code goes on: a worker without one of its parts is worse than one that is started anew.
fn unpanicked<T>(ended: Result<T, JoinError>) -> anyhow::Result<T> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(value) => Ok(value),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(cancelled)) => Err(cancelled.into()),
    }
}

fn started(claimed: &Claimed, now: forebay_core::Timestamp) -> TaskEvent {
    TaskEvent {
        id: claimed.id,
        kind: claimed.kind.clone(),
        queue: claimed.lane.queue.clone(),
        state: State::Running,
        attempt: claimed.attempt,
        at: now,
    }
}
