//! The executor: receives what is ready, claims it, runs its handlers and hands in the outcomes.
//!
//! [`Executor::run`] is the one loop that branches. Whatever takes long is on a task of its own, owned by this loop,
//! so that the loop itself never waits: rounds of the [`intake`], [`claim`]s, [`attempt`]s, acknowledgements. When the
//! executor is dropped, so are they all.

mod abandon;
mod admit;
mod attempt;
mod beat;
mod begin;
mod bulkhead;
mod claim;
mod completer;
mod drain;
mod handoff;
mod hearing;
mod held;
mod intake;
mod life;
mod meter;
mod news;
mod once;
mod parked;
mod pauses;
mod running;
mod slots;
mod trace;

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZero,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::bail;
use forebay_core::{Kind, QueueName, WorkerId};
use forebay_runtime::metrics::WorkerSlots;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    beat::{Beat, Watermarks},
    bulkhead::Bulkheads,
    claim::{Answer, Batch, CLAIM_MAX, start_of},
    completer::{Claims, Completer, Finished},
    handoff::{Backlogs, Started},
    held::Held,
    intake::Intake,
    life::Life,
    meter::Meter,
    once::Once,
    parked::Parked,
    pauses::{Paused, Pauses},
    running::{Running, Start},
    slots::Slots,
};
pub(crate) use self::{
    handoff::{Handoff, Seat, Seats},
    hearing::{Hearing, hear},
};
use crate::{neighbours::Announced, shared::Shared, subscribe::Receipts};

/// How many claims are with the store at once.
const CLAIMS_MAX: usize = 4;
/// While a claim is under way, a further one must be worth it: it waits until it has this many tasks, or until that
/// one returns.
const CLAIM_WORTHWHILE: usize = 50;
/// How many outcomes may wait to be written; attempts beyond wait to hand theirs in.
const FINISHED_MAX: usize = 10_000;
/// How many batches that the recorder has started may wait to be run; it waits beyond.
const STARTED_MAX: usize = 16;
/// How often gauges and health are brought up to date.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Executor {
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    intake: Intake,
    parked: Parked,
    bulkheads: Arc<Bulkheads>,
    held: Held,
    backlogs: Arc<Backlogs>,
    hearing: Arc<Hearing>,
    pauses: Arc<Pauses>,
    /// The pauses that are obeyed; `None` until the store has told of them once.
    paused: Option<Paused>,
    /// What waits to be claimed.
    waiting: Batch,
    claims: JoinSet<Answer>,
    attempts: JoinSet<()>,
    /// Acknowledgements and the like, each bounded in time.
    chores: JoinSet<()>,
    /// What lives as long as the executor; each says its name when it ends.
    parts: JoinSet<anyhow::Result<&'static str>>,
    /// What the recorder has started; closed where there is none, and once it has ended.
    started: mpsc::Receiver<Started>,
    finished: mpsc::Sender<Finished>,
    notes: Arc<Claims>,
    running: Arc<Running>,
    watermarks: Arc<Watermarks>,
    meter: Meter,
    life: Arc<Life>,
    draining: Arc<AtomicBool>,
    /// The time to drain is over: what begins now is interrupted.
    is_interrupting: bool,
    /// Where the worker ends by itself, once nothing is ready.
    once: Option<Once>,
    /// Ends the heartbeat, which is the last to end.
    rest: CancellationToken,
    /// Tells the neighbours what is run here; `None` once nothing new is.
    announced: Option<Announced>,
    /// What this executor adds to the gauges of the process.
    gauges: WorkerSlots,
    unknown_kinds: BTreeSet<Kind>,
    /// Tasks of such kinds that were handed back before, and how often.
    handed_back: HashMap<Start, u32>,
}

impl Executor {
    /// An executor, with its heartbeat and its completer under way.
    pub(crate) fn new(shared: Arc<Shared>, stop: &CancellationToken) -> Self {
        let tasks_max = shared.options.tasks_max.map(NonZero::get);
        let slots = Slots::new(shared.options.concurrency.max(1), tasks_max);
        let (finished, receiver) = mpsc::channel(slots.total().min(FINISHED_MAX));
        let backlogs = Arc::new(Backlogs::new(shared.options.lanes()));
        let hearing = shared.hearing.clone();
        let hearing = hearing.unwrap_or_else(|| Arc::new(Hearing::new(Arc::clone(&shared.due))));
        let mut executor = Self {
            intake: Intake::new(&shared, Arc::clone(&slots), Arc::clone(&backlogs), stop),
            parked: Parked::new(shared.options.intake.unknown_kind_pause),
            bulkheads: Arc::new(Bulkheads::new(
                &shared.handlers,
                slots.total(),
                shared.options.lost_max,
            )),
            held: Held::new(
                bulkhead::kept_free(shared.options.concurrency),
                shared.options.intake.held_longest,
            ),
            backlogs,
            pauses: Arc::clone(&hearing.pauses),
            hearing,
            paused: None,
            waiting: Batch::default(),
            claims: JoinSet::new(),
            attempts: JoinSet::new(),
            chores: JoinSet::new(),
            parts: JoinSet::new(),
            started: mpsc::channel(1).1,
            finished,
            notes: Arc::default(),
            running: Arc::default(),
            watermarks: Arc::default(),
            meter: Meter::default(),
            life: Arc::default(),
            draining: Arc::default(),
            is_interrupting: false,
            once: Once::of(&shared.options),
            rest: CancellationToken::new(),
            announced: Some(shared.neighbours.announce(
                shared.options.distinct_queues(),
                shared.handlers.kinds().cloned().collect(),
                {
                    let slots = Arc::clone(&slots);
                    move || slots.free() > 0
                },
            )),
            gauges: shared.metrics.worker_slots(),
            unknown_kinds: BTreeSet::new(),
            handed_back: HashMap::new(),
            shared,
            slots,
        };
        executor.start_parts(receiver);
        executor
    }

    /// Lets a recorder start tasks here at once.
    pub(crate) fn handoff(&mut self) -> Handoff {
        let (sender, started) = mpsc::channel(STARTED_MAX);
        self.started = started;
        Handoff::new(self, sender)
    }

    /// Waits until the store knows this worker, and says under which id.
    pub(crate) fn registered(&self) -> impl Future<Output = Option<WorkerId>> + Send + use<> {
        let mut life = self.life.watch();
        async move {
            let known = life.wait_for(Option::is_some).await;
            known.ok().and_then(|id| *id)
        }
    }

    /// Runs tasks until `stop`, or until the worker's own end where its options set one; then drains.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let over = self.work(&stop).await?;
        let patience = tokio::time::sleep(self.shared.options.drain_timeout);
        self.wind_up(patience).await;
        self.finish().await?;
        over.unwrap_or(Ok(()))
    }

    /// Runs tasks until `stop`. Returns how the worker ends where that was by itself.
    async fn work(&mut self, stop: &CancellationToken) -> anyhow::Result<Option<anyhow::Result<()>>> {
        let mut life = self.life.watch();
        let mut pauses = self.pauses.watch();
        self.heed_pauses();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut over = None;
        while !stop.is_cancelled() {
            over = self.is_over();
            if over.is_some() {
                break;
            }
            self.start_held();
            self.receive_more();
            self.claim_waiting();
            tokio::select! {
                () = stop.cancelled() => {}
                Some(pulled) = self.intake.next() => self.admit(pulled),
                Some(answer) = self.claims.join_next() => self.begin(unpanicked(answer)?),
                Some(started) = self.started.recv() => self.begin_started(started),
                Some(ended) = self.attempts.join_next() => self.forget_attempts(ended)?,
                Some(done) = self.chores.join_next() => unpanicked(done)?,
                Some(part) = self.parts.join_next() => bail!("the {} has ended", unpanicked(part)??),
                () = self.slots.freed() => {}
                () = self.parked.due() => self.let_go_parked(),
                () = self.held.due() => self.let_go_held(),
                Some(counted) = once::counted(&mut self.once) => self.heed_count(counted),
                Ok(()) = life.changed() => self.heed_life(),
                Ok(()) = pauses.changed() => self.heed_pauses(),
                _ = tick.tick() => self.report(),
            }
        }
        Ok(over)
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
        let completer = Completer::new(
            Arc::clone(&self.shared),
            finished,
            Arc::clone(&self.running),
            Arc::clone(&self.notes),
            Arc::clone(&self.life),
        );
        let obeys = self.hearing.obey(Arc::clone(&self.running));
        let beats = self.rest.clone();
        self.parts.spawn(async move {
            beat.run(beats).await;
            Ok("heartbeat")
        });
        self.parts.spawn(async move {
            completer.run().await?;
            Ok(COMPLETER)
        });
        self.parts.spawn(async move {
            obeys.await;
            Ok("obedience")
        });
        if self.shared.hearing.is_none() {
            self.start_listening();
        }
    }

    fn start_listening(&mut self) {
        let ttl = self.shared.options.intake.health_ttl + 3 * pauses::ASK_EVERY;
        let reporter = self.shared.health.component(pauses::COMPONENT, ttl);
        let (shared, hearing) = (Arc::clone(&self.shared), Arc::clone(&self.hearing));
        let listens = self.rest.clone();
        self.parts.spawn(async move {
            let listening = hearing.listen(&*shared.store, &*shared.broker, &reporter);
            listens.run_until_cancelled(listening).await;
            reporter.retire();
            Ok("listener")
        });
    }

    fn receive_more(&mut self) {
        self.backlogs.set_held(self.held.has_unsuspected());
        let Some(paused) = &self.paused else {
            return;
        };
        if !paused.is_empty() {
            for leaving in self.intake.leave(|lane| paused.contains(&lane.queue)) {
                self.chores.spawn(leaving.close());
            }
        }
        if self.life.id().is_some() && !self.parked.is_full() && self.is_asking() {
            self.intake
                .ask(|lane| self.held.is_full(lane) || paused.contains(&lane.queue));
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

    /// Some attempts have ended.
    fn forget_attempts(&mut self, ended: Result<(), JoinError>) -> anyhow::Result<()> {
        unpanicked(ended)?;
        while let Some(ended) = self.attempts.try_join_next() {
            unpanicked(ended)?;
        }
        Ok(())
    }

    /// What was not claimed goes back.
    fn give_up(&self, batch: Batch, back: &mut Receipts) {
        self.running
            .release(batch.requests.iter().map(|request| start_of(&request.ready)));
        for candidate in batch.candidates {
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

    /// Whether nothing of this queue may be started now.
    fn holds_back(&self, queue: &QueueName) -> bool {
        self.paused.as_ref().is_none_or(|paused| paused.contains(queue))
    }

    /// What is at hand of a queue that is paused goes back. What is being claimed is run.
    fn heed_pauses(&mut self) {
        let Some(paused) = self.pauses.now() else {
            return;
        };
        self.paused = Some(Arc::clone(&paused));
        self.backlogs.heed_pauses(&paused);
        let mut back = self.held.take_of(|lane| paused.contains(&lane.queue));
        let waiting = self.waiting.take_of(|ready| paused.contains(&ready.lane.queue));
        self.give_up(waiting, &mut back);
        self.answer(Receipts::default(), back);
    }

    fn hand_back_waiting(&mut self) {
        let mut back = Receipts::default();
        let waiting = std::mem::take(&mut self.waiting);
        self.give_up(waiting, &mut back);
        self.answer(Receipts::default(), back);
    }

    fn report(&mut self) {
        let free = self.slots.free();
        // The two are not read in one moment.
        let busy = self.slots.total().saturating_sub(free);
        self.gauges.set(busy, free);
        if self.shared.load.receiver_count() > 0 {
            self.shared.load.send_replace(self.running.load());
        }
        let paused = self.paused.as_deref();
        self.intake
            .report_resting(|lane| paused.is_some_and(|paused| paused.contains(&lane.queue)));
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
