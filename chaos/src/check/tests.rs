//! The checker finds nothing in runs that went as promised, and in a run that was tampered with exactly that.

mod tamper;
mod world;

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use self::world::{End, Plan, Setback, plans, task, world};
use super::*;

fn names(verdict: &Verdict) -> BTreeSet<&'static str> {
    verdict.violations.iter().map(|it| it.breach.name()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_found_in_a_run_that_went_as_promised(plans in plans(1..20)) {
        let evidence = world(&plans);
        let verdict = check(&evidence);
        prop_assert_eq!(&verdict.violations, &vec![]);
        let told: BTreeSet<Uuid> = evidence.accepted.iter().map(|it| it.id).collect();
        prop_assert_eq!(verdict.totals.accepted, told.len());
        prop_assert_eq!(verdict.totals.untold, plans.iter().filter(|it| !it.told).count());
        prop_assert_eq!(verdict.totals.finished.values().sum::<usize>(), evidence.rows.len());
        let by_line: usize = verdict.faults.iter().map(|it| it.repeated).sum();
        prop_assert_eq!(by_line, verdict.totals.repeated, "each is put down to a fault");
        prop_assert_eq!(verdict.faults.iter().map(|it| it.times).sum::<usize>(), evidence.faults.len());
    }

    #[test]
    fn a_run_that_was_tampered_with_is_found_out(plans in plans(0..12), which in 0..tamper::ANYWHERE.len()) {
        let (name, tamper) = tamper::ANYWHERE[which];
        let mut evidence = world(&tamper::with_subjects(plans));
        prop_assert!(check(&evidence).holds());
        tamper(&mut evidence);
        let verdict = check(&evidence);
        prop_assert_eq!(names(&verdict), BTreeSet::from([name]), "{:#?}", verdict.violations);
    }
}

#[test]
fn each_tampering_is_found_as_just_that_violation() {
    for (name, tamper) in tamper::ANYWHERE {
        let mut evidence = world(&tamper::with_subjects(vec![]));
        tamper(&mut evidence);
        let verdict = check(&evidence);
        assert_eq!(
            names(&verdict),
            BTreeSet::from([*name]),
            "{:#?}",
            verdict.violations
        );
        assert!(!verdict.holds());
    }
    for (name, plan, tamper) in tamper::alone() {
        let mut evidence = world(&[plan]);
        assert_eq!(check(&evidence).violations, vec![]);
        tamper(&mut evidence);
        let verdict = check(&evidence);
        assert_eq!(
            names(&verdict),
            BTreeSet::from([name]),
            "{:#?}",
            verdict.violations
        );
    }
}

#[test]
fn there_is_no_violation_that_no_tampering_shows() {
    let shown: BTreeSet<&str> = tamper::ANYWHERE
        .iter()
        .map(|(name, _)| *name)
        .chain(tamper::alone().into_iter().map(|(name, ..)| name))
        .collect();
    assert_eq!(shown, BTreeSet::from(Breach::NAMES));
}

#[test]
fn each_violation_names_its_task_and_its_moment() {
    for (_, tamper) in tamper::ANYWHERE {
        let mut evidence = world(&tamper::with_subjects(vec![]));
        tamper(&mut evidence);
        for violation in check(&evidence).violations {
            let sentence = violation.to_string();
            assert!(sentence.contains(" (at "), "{sentence}");
            if let Some(task) = violation.task {
                assert!(sentence.contains(&task.to_string()), "{sentence}");
            }
            assert!(sentence.len() < 400, "{sentence}");
        }
    }
}

#[test]
fn an_execution_is_repeated_only_if_the_handler_was_called_before() {
    let plan = |setbacks| Plan {
        setbacks,
        ..Plan::plain()
    };
    let repeated = |setbacks| check(&world(&[plan(setbacks)])).totals.repeated;
    let back = |started| Setback::TakeBack { started };
    assert_eq!(repeated(vec![]), 0);
    assert_eq!(repeated(vec![back(false)]), 0);
    assert_eq!(repeated(vec![back(true)]), 1);
    assert_eq!(repeated(vec![back(true), back(false)]), 1);
    assert_eq!(repeated(vec![back(true), back(true)]), 2);
}

#[test]
fn a_scripted_failure_is_no_repetition() {
    let plan = Plan {
        fail_first: true,
        ..Plan::plain()
    };
    let totals = check(&world(&[plan])).totals;
    assert_eq!((totals.scripted, totals.repeated, totals.faults), (1, 0, 0));
}

#[test]
fn what_was_lost_is_put_down_to_the_fault_during_which_it_was_accepted() {
    let plan = Plan {
        setbacks: vec![Setback::TakeBack { started: true }],
        ..Plan::plain()
    };
    let mut evidence = world(&[plan]);
    let fault = evidence.faults[0].clone();
    for (number, at) in [
        (90, fault.from),
        (91, fault.until),
        (92, Duration::from_millis(1)),
    ] {
        evidence.accepted.push(Accepted {
            id: Uuid::from_u128(number),
            at,
            key: None,
        });
    }
    let verdict = check(&evidence);
    assert_eq!(verdict.totals.lost, 3);
    let line = &verdict.faults[0];
    assert_eq!((line.lost, line.repeated, line.times), (2, 1, 1));
    assert_eq!(line.accepted, 2);
}

#[test]
fn a_task_that_has_killed_too_many_workers_has_ended() {
    let plan = Plan {
        end: End::WorkerLost,
        ..Plan::plain()
    };
    let verdict = check(&world(&[plan]));
    assert_eq!(verdict.violations, vec![]);
    assert_eq!(verdict.totals.finished["failed"], 1);
}

#[test]
fn a_result_is_held_against_the_payload_by_what_it_says() {
    let mut evidence = world(&[Plan::plain()]);
    let row = evidence
        .rows
        .iter_mut()
        .find(|row| row.id == task(0))
        .expect("it has a row");
    row.result = Some(r#"{ "fail_first": false, "number": 1, "work_ms": 5 }"#.to_owned());
    assert!(check(&evidence).holds());
}
