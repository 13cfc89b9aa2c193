//! Ways to spoil a run, each with the violation that it must be found as.

use std::time::Duration;

use uuid::Uuid;

use super::world::{AFTERMATH, Plan, Setback, task};
use crate::evidence::{Accepted, Evidence, Injected, Row, Start, Transition};

type Tamper = fn(&mut Evidence);

// Tasks that each of these runs has.
const PLAIN: usize = 0;
const TAKEN: usize = 1;
const RETRIED: usize = 2;
const UNTOLD: usize = 3;
const KEYED: usize = 4;
const SCHEDULED: usize = 5;

/// The tasks that are tampered with, and others beside them.
pub(super) fn with_subjects(mut others: Vec<Plan>) -> Vec<Plan> {
    let plain = Plan::plain;
    let mut plans = vec![
        plain(),
        Plan {
            setbacks: vec![Setback::TakeBack { started: true }],
            ..plain()
        },
        Plan {
            fail_first: true,
            ..plain()
        },
        Plan {
            told: false,
            ..plain()
        },
        Plan {
            keyed: true,
            ..plain()
        },
        Plan {
            scheduled: true,
            ..plain()
        },
    ];
    plans.append(&mut others);
    plans
}

/// What can be done to any run.
pub(super) const ANYWHERE: &[(&str, Tamper)] = &[
    ("lost", |e| e.rows.retain(|row| row.id != task(PLAIN))),
    ("lost", |e| e.rows.retain(|row| row.id != task(RETRIED))),
    ("lost", |e| leave_running(e, PLAIN)),
    ("lost", |e| forget(e, SCHEDULED)),
    ("lost", |e| {
        e.accepted.push(Accepted {
            id: Uuid::from_u128(u128::MAX),
            at: Duration::from_secs(1),
            key: None,
        });
    }),
    ("never_finished", |e| leave_running(e, UNTOLD)),
    ("row_twice", |e| {
        let again = row(e, PLAIN).clone();
        e.rows.push(again);
    }),
    ("row_gone", |e| e.rows.retain(|row| row.id != task(UNTOLD))),
    ("no_history", |e| e.transitions.retain(|it| it.id != task(PLAIN))),
    ("row_disagrees", |e| row(e, PLAIN).fence += 1),
    ("row_disagrees", |e| row(e, PLAIN).attempt += 1),
    ("row_disagrees", |e| row(e, PLAIN).lost += 1),
    ("row_disagrees", |e| {
        row(e, PLAIN).state = "failed".to_owned();
    }),
    ("key_twice", |e| {
        let key = e
            .accepted
            .iter()
            .find(|it| it.id == task(KEYED))
            .and_then(|it| it.key.clone());
        e.accepted.push(Accepted {
            id: task(PLAIN),
            at: Duration::from_secs(30),
            key,
        });
    }),
    ("hole", |e| remove(e, PLAIN, 0)),
    ("hole", |e| remove(e, PLAIN, 1)),
    ("hole", |e| remove(e, TAKEN, 3)),
    ("hole", |e| {
        // Inserted again, while it is there.
        let again = nth(e, PLAIN, 0).clone();
        insert_after(e, PLAIN, 0, again);
    }),
    ("hole", |e| nth(e, TAKEN, 3).lost.0 += 1),
    ("illegal_way", |e| {
        remove(e, PLAIN, 1);
        let end = nth(e, PLAIN, 1);
        (end.from, end.fence, end.attempt) = (Some("queued".to_owned()), (0, 0), (0, 0));
    }),
    ("illegal_way", |e| {
        let again = Transition {
            from: Some("running".to_owned()),
            ..self_way(nth(e, PLAIN, 1))
        };
        insert_after(e, PLAIN, 1, again);
    }),
    ("miscounted", |e| nth(e, PLAIN, 2).attempt.1 += 1),
    ("miscounted", |e| nth(e, PLAIN, 2).lost.1 += 1),
    ("miscounted", |e| {
        // Claimed, and not charged.
        nth(e, PLAIN, 1).attempt.1 = 0;
        nth(e, PLAIN, 2).attempt = (0, 0);
    }),
    ("stale_write", |e| {
        let end = last(e, TAKEN);
        end.fence.1 = end.fence.0 - 1;
    }),
    ("fence_step", |e| {
        nth(e, PLAIN, 1).fence.1 = 2;
        nth(e, PLAIN, 2).fence = (2, 2);
    }),
    ("fence_step", |e| last(e, PLAIN).fence.1 += 1),
    ("fence_step", |e| {
        // Claimed without a new fence.
        nth(e, PLAIN, 1).fence.1 = 0;
        nth(e, PLAIN, 2).fence = (0, 0);
    }),
    ("outcome_twice", |e| {
        let again = last(e, PLAIN).clone();
        e.transitions.push(Transition {
            seq: i64::MAX,
            ..again
        });
    }),
    ("outcome_twice", |e| {
        let again = self_way(last(e, PLAIN));
        e.transitions.push(Transition {
            seq: i64::MAX,
            to: "failed".to_owned(),
            ..again
        });
    }),
    ("outcome_twice", |e| {
        // Its result is written anew.
        let again = self_way(last(e, PLAIN));
        e.transitions.push(Transition {
            seq: i64::MAX,
            result_changed: true,
            ..again
        });
    }),
    ("reopened", reopen),
    ("result_written", |e| {
        let retried = nth(e, RETRIED, 2);
        assert_eq!(retried.to, "retrying");
        retried.result_changed = true;
    }),
    ("wrong_result", |e| row(e, PLAIN).result = None),
    ("wrong_result", |e| row(e, PLAIN).result = Some("null".to_owned())),
    ("wrong_result", |e| {
        let row = row(e, PLAIN);
        row.result = Some(row.payload.replace("number\":1", "number\":2"));
    }),
    ("fence_shared", |e| {
        let again = start(e, PLAIN).clone();
        e.starts.push(again);
    }),
    ("start_unclaimed", |e| {
        let other = Start {
            fence: 9,
            ..start(e, PLAIN).clone()
        };
        e.starts.push(other);
    }),
    ("start_too_early", |e| start(e, PLAIN).at = Duration::from_secs(2)),
    ("wrong_attempt", |e| start(e, PLAIN).attempt += 1),
    ("claim_unstarted", |e| e.starts.retain(|it| it.id != task(PLAIN))),
    ("long_stall", |e| {
        e.faults.push(Injected {
            fault: "stop".to_owned(),
            target: "nats".to_owned(),
            from: Duration::from_secs(1),
            until: Duration::from_secs(2),
            recovered: Duration::from_millis(2_001) + AFTERMATH,
        });
    }),
];

/// What shows only where no other fault explains it.
pub(super) fn alone() -> Vec<(&'static str, Plan, Tamper)> {
    let set_back = |setback| Plan {
        setbacks: vec![setback],
        ..Plan::plain()
    };
    let no_faults: Tamper = |e| e.faults.clear();
    let late: Tamper = |e| {
        for fault in &mut e.faults {
            fault.from += Duration::from_secs(1);
        }
    };
    vec![
        ("nothing_to_judge", Plan::plain(), |e| *e = Evidence::default()),
        (
            "unexplained_repetition",
            set_back(Setback::TakeBack { started: true }),
            no_faults,
        ),
        (
            "unexplained_repetition",
            set_back(Setback::HandBack { started: true }),
            no_faults,
        ),
        (
            "unexplained_repetition",
            set_back(Setback::HandBack { started: true }),
            late,
        ),
        (
            "unexplained_repetition",
            set_back(Setback::TakeBack { started: true }),
            |e| {
                // It was over long ago.
                for fault in &mut e.faults {
                    fault.from = Duration::ZERO;
                    fault.until = Duration::from_millis(1);
                    fault.recovered = fault.until;
                }
                e.aftermath = Duration::from_secs(2);
            },
        ),
        (
            "claim_unstarted",
            set_back(Setback::TakeBack { started: false }),
            no_faults,
        ),
        (
            "claim_unstarted",
            set_back(Setback::HandBack { started: false }),
            no_faults,
        ),
        (
            "claim_unstarted",
            set_back(Setback::Fail { started: false }),
            no_faults,
        ),
        (
            "unexplained_failure",
            set_back(Setback::Fail { started: true }),
            no_faults,
        ),
        (
            "unexplained_failure",
            Plan {
                fail_first: true,
                ..Plan::plain()
            },
            |e| {
                let row = row(e, 0);
                row.payload = r#"{"fail_first":false}"#.to_owned();
                row.result = Some(row.payload.clone());
            },
        ),
        ("long_stall", set_back(Setback::TakeBack { started: true }), |e| {
            // The driver says that all went on at once, and nothing did.
            let over = e.faults[0].until;
            e.faults[0].recovered = over;
            let later: Vec<Uuid> = e
                .accepted
                .iter()
                .filter(|it| it.at >= over)
                .map(|it| it.id)
                .collect();
            for transition in e.transitions.iter_mut().filter(|it| later.contains(&it.id)) {
                transition.at += AFTERMATH * 2;
            }
            for start in e.starts.iter_mut().filter(|it| later.contains(&it.id)) {
                start.at += AFTERMATH * 2;
            }
        }),
    ]
}

fn of(e: &Evidence, index: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..e.transitions.len())
        .filter(|&it| e.transitions[it].id == task(index))
        .collect();
    places.sort_by_key(|&it| e.transitions[it].seq);
    places
}

fn nth(e: &mut Evidence, index: usize, number: usize) -> &mut Transition {
    let place = of(e, index)[number];
    &mut e.transitions[place]
}

fn last(e: &mut Evidence, index: usize) -> &mut Transition {
    let number = of(e, index).len() - 1;
    nth(e, index, number)
}

fn remove(e: &mut Evidence, index: usize, number: usize) {
    let place = of(e, index)[number];
    e.transitions.remove(place);
}

/// Sequences skip, so there is room after each.
fn insert_after(e: &mut Evidence, index: usize, number: usize, it: Transition) {
    let before = nth(e, index, number);
    let (seq, at) = (before.seq + 1, before.at);
    e.transitions.push(Transition { seq, at, ..it });
}

/// A transition from where this one ends to just there.
fn self_way(it: &Transition) -> Transition {
    Transition {
        from: Some(it.to.clone()),
        fence: (it.fence.1, it.fence.1),
        attempt: (it.attempt.1, it.attempt.1),
        lost: (it.lost.1, it.lost.1),
        result_changed: false,
        ..it.clone()
    }
}

fn row(e: &mut Evidence, index: usize) -> &mut Row {
    e.rows
        .iter_mut()
        .find(|it| it.id == task(index))
        .expect("each task has a row")
}

fn start(e: &mut Evidence, index: usize) -> &mut Start {
    e.starts
        .iter_mut()
        .find(|it| it.id == task(index))
        .expect("each of these was started")
}

/// Its outcome was never written.
fn leave_running(e: &mut Evidence, index: usize) {
    let number = of(e, index).len() - 1;
    remove(e, index, number);
    let row = row(e, index);
    row.state = "running".to_owned();
    row.result = None;
}

/// It was never recorded.
fn forget(e: &mut Evidence, index: usize) {
    e.rows.retain(|it| it.id != task(index));
    e.transitions.retain(|it| it.id != task(index));
    e.starts.retain(|it| it.id != task(index));
}

/// It is brought back after its end, and runs once more, all by the book.
fn reopen(e: &mut Evidence) {
    let end = last(e, PLAIN).clone();
    let queued = Transition {
        to: "retrying".to_owned(),
        seq: i64::MAX - 2,
        ..self_way(&end)
    };
    let claimed = Transition {
        to: "running".to_owned(),
        fence: (1, 2),
        attempt: (1, 2),
        seq: i64::MAX - 1,
        ..self_way(&queued)
    };
    let done = Transition {
        to: "succeeded".to_owned(),
        seq: i64::MAX,
        ..self_way(&claimed)
    };
    let started = Start {
        id: task(PLAIN),
        fence: 2,
        attempt: 2,
        at: end.at,
    };
    e.transitions.extend([queued, claimed, done]);
    e.starts.push(started);
    let row = row(e, PLAIN);
    (row.fence, row.attempt) = (2, 2);
}
