//! Runs that went as promised, made up with Forebay's own model of a task: whatever happens to their tasks, the
//! checker has nothing to say.

use std::{ops::Range, time::Duration};

use forebay_core::{Decision, Lifecycle, Timestamp, WorkerId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::evidence::{Accepted, Evidence, Injected, Row, Start, Transition};

/// For how long a fault may show.
pub(super) const AFTERMATH: Duration = Duration::from_secs(15);
/// When the first task of a plan is submitted.
const FIRST: u64 = 10_000;
/// How long the short tasks take that show that work goes on, one a second.
const BRIEF: u64 = 300;

/// What happens to a task.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// When it is submitted, in milliseconds after the first.
    pub(super) submitted: u64,
    /// How long each thing takes, in milliseconds.
    pub(super) pace: u64,
    pub(super) scheduled: bool,
    /// Whether the recorder comes before the claim.
    pub(super) recorded_first: bool,
    /// Whether the submitter got an answer.
    pub(super) told: bool,
    pub(super) keyed: bool,
    pub(super) fail_first: bool,
    pub(super) setbacks: Vec<Setback>,
    pub(super) end: End,
}

/// What comes between.
#[derive(Debug, Clone, Copy)]
pub(super) enum Setback {
    HandBack {
        started: bool,
    },
    TakeBack {
        started: bool,
    },
    /// A fault makes the call of the handler fail.
    Fail {
        started: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Succeed,
    /// A fault makes the last attempt fail.
    Fail,
    CancelWaiting,
    CancelRunning {
        started: bool,
    },
    /// It has killed too many workers.
    WorkerLost,
}

impl Plan {
    /// Recorded, claimed, succeeded.
    pub(super) fn plain() -> Self {
        Self {
            submitted: 0,
            pace: 50,
            scheduled: false,
            recorded_first: true,
            told: true,
            keyed: false,
            fail_first: false,
            setbacks: vec![],
            end: End::Succeed,
        }
    }
}

pub(super) fn plans(number: Range<usize>) -> impl Strategy<Value = Vec<Plan>> {
    prop::collection::vec(plan(), number)
}

fn plan() -> impl Strategy<Value = Plan> {
    let setback = (0..3_u8, any::<bool>()).prop_map(|(which, started)| match which {
        0 => Setback::HandBack { started },
        1 => Setback::TakeBack { started },
        _ => Setback::Fail { started },
    });
    let end = prop_oneof![
        6 => Just(End::Succeed),
        1 => Just(End::Fail),
        1 => Just(End::CancelWaiting),
        1 => any::<bool>().prop_map(|started| End::CancelRunning { started }),
        1 => Just(End::WorkerLost),
    ];
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (
        0..20_000_u64,
        1..900_u64,
        flags,
        prop::collection::vec(setback, 0..4),
        end,
    )
        .prop_map(
            |(submitted, pace, (scheduled, recorded_first, told, keyed, fail_first), setbacks, end)| Plan {
                submitted,
                pace,
                scheduled,
                recorded_first,
                told,
                keyed,
                fail_first,
                setbacks,
                end,
            },
        )
}

/// The id of the so manieth plan's task.
pub(super) fn task(index: usize) -> Uuid {
    Uuid::from_u128(1 + index as u128)
}

/// The run in which all that happens, beside a steady load.
pub(super) fn world(plans: &[Plan]) -> Evidence {
    let mut evidence = Evidence {
        aftermath: AFTERMATH,
        ..Evidence::default()
    };
    let mut end = FIRST;
    for (index, plan) in plans.iter().enumerate() {
        end = end.max(Life::new(task(index), plan).live(plan, &mut evidence));
    }
    for second in 0..end / 1_000 + 3 {
        let brief = Plan {
            submitted: 0,
            pace: BRIEF / 3,
            ..Plan::plain()
        };
        let mut life = Life::new(Uuid::from_u128(1 << 64 | u128::from(second)), &brief);
        life.now = second * 1_000;
        life.live(&brief, &mut evidence);
    }
    evidence.accepted.sort_by_key(|it| it.at);
    evidence.starts.sort_by_key(|it| it.at);
    evidence.faults.sort_by_key(|it| it.from);
    evidence.transitions.sort_by_key(|it| it.at);
    for (seq, it) in (1..).zip(&mut evidence.transitions) {
        // A crash of the database skips some.
        it.seq = seq * 3;
    }
    evidence
}

struct Life {
    id: Uuid,
    model: Option<Lifecycle>,
    now: u64,
    pace: u64,
    starts: Vec<Start>,
    transitions: Vec<Transition>,
    faults: Vec<Injected>,
}

impl Life {
    fn new(id: Uuid, plan: &Plan) -> Self {
        Self {
            id,
            model: None,
            now: FIRST + plan.submitted,
            pace: plan.pace,
            starts: vec![],
            transitions: vec![],
            faults: vec![],
        }
    }

    /// Lives it, and returns when it was over.
    fn live(mut self, plan: &Plan, evidence: &mut Evidence) -> u64 {
        self.accept(plan, evidence);
        let mut fail_first = plan.fail_first;
        for &setback in &plan.setbacks {
            self.claim(plan);
            let (Setback::HandBack { started } | Setback::TakeBack { started } | Setback::Fail { started }) =
                setback;
            if started {
                self.start();
            }
            if started && std::mem::take(&mut fail_first) {
                self.complete(Decision::Retry {
                    delay: Duration::ZERO,
                });
                continue;
            }
            self.fault(setback);
        }
        if fail_first {
            self.claim(plan);
            self.start();
            self.complete(Decision::Retry {
                delay: Duration::ZERO,
            });
        }
        self.end(plan);
        self.leave(plan, evidence);
        self.now
    }

    fn accept(&mut self, plan: &Plan, evidence: &mut Evidence) {
        let told = Accepted {
            id: self.id,
            at: self.moment(),
            key: plan.keyed.then(|| format!("key of {}", self.id)),
        };
        if plan.told && plan.keyed {
            evidence.accepted.push(told.clone());
        }
        if plan.told {
            evidence.accepted.push(told);
        }
        let cancelled_early = matches!(plan.end, End::CancelWaiting) && plan.setbacks.is_empty();
        if plan.recorded_first || plan.scheduled || cancelled_early {
            self.change(|_| Lifecycle::accepted(plan.scheduled.then_some(Timestamp::UNIX_EPOCH)));
        }
    }

    fn claim(&mut self, plan: &Plan) {
        let ready = self
            .model
            .clone()
            .map(|mut it| (it.dispatch(Timestamp::UNIX_EPOCH), it));
        // Every other waits for the dispatcher; the others are claimed before it has noted that it published them.
        if let Some((Ok(()), ready)) = ready
            && plan.pace.is_multiple_of(2)
        {
            self.change(|_| ready);
        }
        self.change(|it| {
            let mut it = it.unwrap_or_else(|| Lifecycle::accepted(None));
            it.claim(it.fence, worker(), Timestamp::UNIX_EPOCH)
                .expect("it is ready");
            it
        });
    }

    fn start(&mut self) {
        let model = self.model.as_ref().expect("it was claimed");
        self.starts.push(Start {
            id: self.id,
            fence: model.fence,
            attempt: model.attempt,
            at: self.moment(),
        });
    }

    fn complete(&mut self, decision: Decision) {
        self.change(|it| {
            let mut it = it.expect("it was claimed");
            it.complete(it.fence, worker(), decision, Timestamp::UNIX_EPOCH)
                .expect("it runs");
            it
        });
    }

    fn take_back(&mut self, lost_max: u32) {
        self.change(|it| {
            let mut it = it.expect("it was claimed");
            it.take_back(worker(), lost_max, Timestamp::UNIX_EPOCH)
                .expect("it runs");
            it
        });
    }

    fn fault(&mut self, setback: Setback) {
        let delay = Duration::ZERO;
        let name = match setback {
            Setback::HandBack { .. } => "restart",
            Setback::TakeBack { .. } => "kill -9",
            Setback::Fail { .. } => "cut",
        };
        self.inject(name);
        match setback {
            Setback::HandBack { .. } => self.complete(Decision::HandBack { delay }),
            Setback::TakeBack { .. } => self.take_back(u32::MAX),
            Setback::Fail { .. } => self.complete(Decision::Retry { delay }),
        }
    }

    /// A fault that is over, and shows only later.
    fn inject(&mut self, fault: &str) {
        self.faults.push(Injected {
            fault: fault.to_owned(),
            target: "worker".to_owned(),
            from: self.moment(),
            until: Duration::from_millis(self.now + 10),
            recovered: Duration::from_millis(self.now + 500),
        });
    }

    fn end(&mut self, plan: &Plan) {
        if matches!(plan.end, End::CancelWaiting) && self.model.is_some() {
            return self.change(|it| {
                let mut it = it.expect("it was recorded");
                it.cancel().expect("it waits");
                it
            });
        }
        self.claim(plan);
        if !matches!(plan.end, End::CancelRunning { started: false }) {
            self.start();
        }
        match plan.end {
            End::Succeed => self.complete(Decision::Succeed),
            End::Fail => {
                self.inject("cut");
                self.complete(Decision::Fail);
            }
            End::CancelRunning { .. } | End::CancelWaiting => self.complete(Decision::Cancel),
            End::WorkerLost => {
                self.inject("kill -9");
                self.take_back(1);
            }
        }
    }

    fn change(&mut self, step: impl FnOnce(Option<Lifecycle>) -> Lifecycle) {
        self.now += self.pace;
        let before = self.model.take();
        let after = step(before.clone());
        let from = before.as_ref().map(|it| it.state.as_str().to_owned());
        let (fence, attempt, lost) = before.map_or((0, 0, 0), |it| (it.fence, it.attempt, it.lost));
        self.transitions.push(Transition {
            seq: 0,
            id: self.id,
            from,
            to: after.state.as_str().to_owned(),
            fence: (fence, after.fence),
            attempt: (attempt, after.attempt),
            lost: (lost, after.lost),
            result_changed: after.state.as_str() == "succeeded",
            at: self.moment(),
        });
        self.model = Some(after);
    }

    fn leave(&mut self, plan: &Plan, evidence: &mut Evidence) {
        let model = self.model.as_ref().expect("it has ended");
        let payload = format!(r#"{{"number":1,"work_ms":5,"fail_first":{}}}"#, plan.fail_first);
        evidence.rows.push(Row {
            id: self.id,
            state: model.state.as_str().to_owned(),
            fence: model.fence,
            attempt: model.attempt,
            lost: model.lost,
            result: (model.state.as_str() == "succeeded").then(|| payload.clone()),
            payload,
        });
        evidence.starts.append(&mut self.starts);
        evidence.transitions.append(&mut self.transitions);
        evidence.faults.append(&mut self.faults);
    }

    fn moment(&self) -> Duration {
        Duration::from_millis(self.now)
    }
}

fn worker() -> WorkerId {
    WorkerId::from(Uuid::from_u128(7))
}
