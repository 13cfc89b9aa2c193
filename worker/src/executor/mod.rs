//! The executor: receives what is ready, claims it, runs its handlers and hands in the outcomes.
//!
//! [`Executor::run`] is the one loop that branches. Whatever takes long is on a task of its own, owned by this loop,
//! so that the loop itself never waits: rounds of the [`intake`], [`claim`]s, [`attempt`]s, acknowledgements. When the
//! executor is dropped, so are they all.

mod attempt;
mod beat;
mod claim;
mod completer;
mod drain;
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
use forebay_broker::{Acknowledge, Delivery, Message, Token, Undecodable};
use forebay_core::{Kind, State, TaskEvent};
use forebay_store::{ClaimRequest, Claimed, Delivered, Reject};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{
    attempt::Attempt,
    beat::{Beat, Watermarks},
    claim::{Answer, Batch, CLAIM_MAX, Candidate, start_of},
    completer::{Claims, Completer, Finished},
    intake::{Intake, Pulled},
    life::Life,
    parked::{Parked, Then},
    running::{Admitted, Running, Start},
    slots::Slots,
};
use crate::{
    handlers::{Registered, Stop, StopReason},
    shared::{STORE_CALL_MAX, Shared, chain, within},
    subscribe::Receipts,
};

/// How many claims are with the store at once.
const CLAIMS_MAX: usize = 4;
/// While a claim is under way, a further one must be worth it: it waits until it has this many tasks, or until that
/// one returns.
const CLAIM_WORTHWHILE: usize = 50;
/// How many kinds without a handler are told apart in the log.
const UNKNOWN_KINDS_MAX: usize = 1_000;
/// How many tasks of such kinds are remembered; then it begins anew.
const HANDED_BACK_MAX: usize = 10_000;
/// How many outcomes may wait to be written; attempts beyond wait to hand theirs in.
const FINISHED_MAX: usize = 10_000;
/// How often gauges and health are brought up to date.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Executor {
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    intake: Intake,
    parked: Parked,
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
                () = self.parked.due() => self.hand_back_parked(),
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
            self.intake.ask();
        }
    }

    /// What arrived: what this worker can run and does not hold yet waits to be claimed.
    fn admit(&mut self, pulled: Option<Pulled>) {
        let Some(Pulled { deliveries, acks }) = pulled else {
            return;
        };
        let mut back = Receipts::default();
        let mut done = Receipts::default();
        for (
            Delivery {
                message,
                published_at,
                token,
            },
            slot,
        ) in deliveries
        {
            let delivered = match message {
                Ok(Message::Submission(task)) => Delivered::Submission(task),
                Ok(Message::Ready(task)) => Delivered::Ready(task),
                Err(undecodable) => {
                    let set_aside =
                        set_aside(Arc::clone(&self.shared), undecodable, Arc::clone(&acks), token);
                    self.chores.spawn(set_aside);
                    continue;
                }
            };
            let Some(registered) = self.shared.handlers.get(delivered.kind()).map(Arc::clone) else {
                let then = self.note_unknown(&delivered);
                self.parked.add(&acks, token, then);
                continue;
            };
            let Some(slot) = slot else {
                back.add(&acks, token);
                continue;
            };
            match self.running.admit(start_of(&delivered), &delivered.lane().queue) {
                Admitted::Claimed => done.add(&acks, token),
                Admitted::Claiming => self.parked.add(&acks, token, Then::HandBack),
                Admitted::New(stop) => {
                    let acks = Arc::clone(&acks);
                    let candidate = Candidate {
                        registered,
                        stop,
                        slot,
                        acks,
                        token,
                        published_at,
                    };
                    self.waiting.add(delivered, candidate);
                }
            }
        }
        self.answer(done, back);
    }

    /// A kind that has no handler here may have one elsewhere, so its task is handed back once. When it comes again, it
    /// is left to the store: a broker delivers again before it delivers what is new, and keeps what comes after a
    /// message that nobody takes.
    fn note_unknown(&mut self, delivered: &Delivered) -> Then {
        let room = self.unknown_kinds.len() < UNKNOWN_KINDS_MAX;
        if room && self.unknown_kinds.insert(delivered.kind().clone()) {
            let kind = delivered.kind();
            warn!(%kind, "no handler here; such tasks are left to other workers of the queue");
        }
        if self.handed_back.len() >= HANDED_BACK_MAX {
            self.handed_back.clear();
        }
        if self.handed_back.insert(start_of(delivered)) {
            Then::HandBack
        } else {
            Then::LeaveToStore
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

    fn hand_back_parked(&mut self) {
        let (left, back) = self.parked.take_due();
        self.answer(left, back);
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

/// Sets a message aside that nobody can decode. Submissions reach the recorder as well, which does that for them.
async fn set_aside(shared: Arc<Shared>, message: Undecodable, acks: Arc<dyn Acknowledge>, token: Token) {
    let mut receipts = Receipts::default();
    receipts.add(&acks, token);
    if !message.subject.starts_with("submit.") {
        let Undecodable {
            subject,
            body,
            reason,
        } = message;
        warn!(subject, reason, "a message is set aside: nobody can decode it");
        let rejects = [Reject {
            subject,
            body,
            reason,
        }];
        if let Err(error) = within(
            STORE_CALL_MAX,
            "set aside messages",
            shared.store.set_aside(&rejects),
        )
        .await
        {
            // Not acknowledged, it comes again.
            debug!(error = chain(&error), "setting a message aside failed");
            return;
        }
        shared.metrics.undecodable_message();
    }
    receipts.ack().await;
}
