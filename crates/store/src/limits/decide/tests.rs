use super::*;

const NOW: i64 = 1_700_000_000_000_000;

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_microsecond(NOW + (seconds * 1e6) as i64).expect("near the present")
}

fn now() -> Timestamp {
    at(0.0)
}

fn with_places(id: i64, concurrency: u32) -> UseState {
    UseState {
        id,
        concurrency: Some(concurrency),
        rate: None,
        running: 0,
        reserved: 0,
        has_line: false,
        turns: Pace::default(),
        starts: Pace::default(),
    }
}

/// One start a second.
fn with_rate(id: i64) -> UseState {
    let rate = Rate {
        count: 1,
        per: Duration::from_secs(1),
        burst: 1,
    };
    UseState {
        concurrency: None,
        rate: Some(rate),
        ..with_places(id, 1)
    }
}

fn fresh(number: u8, uses: &[usize]) -> Candidate {
    Candidate {
        id: TaskId::from_bytes([number; 16]),
        priority: Priority::Default,
        uses: uses.to_vec(),
        held: None,
    }
}

fn released(number: u8, uses: &[usize], of: i64) -> Candidate {
    let held = Held::Line {
        of,
        is_reserved: true,
    };
    Candidate {
        held: Some((held, at(f64::from(number) - 100.0))),
        ..fresh(number, uses)
    }
}

fn with_turn(number: u8, uses: &[usize], places: &[i64]) -> Candidate {
    let held = Held::Turn {
        places: places.to_vec(),
    };
    Candidate {
        held: Some((held, at(f64::from(number) - 100.0))),
        ..fresh(number, uses)
    }
}

fn granted(places: &[i64]) -> Verdict {
    Verdict::Granted {
        places: places.to_vec(),
    }
}

#[test]
fn as_many_run_as_may_and_the_rest_stands_in_line() {
    let mut uses = [with_places(1, 2)];
    let verdicts = decide(
        &mut uses,
        &[fresh(1, &[0]), fresh(2, &[0]), fresh(3, &[0])],
        now(),
    );
    assert_eq!(verdicts, [granted(&[1]), granted(&[1]), Verdict::Line { of: 1 }]);
    assert_eq!((uses[0].running, uses[0].has_line), (2, true));
}

#[test]
fn priority_decides_within_a_batch() {
    let urgent = Candidate {
        priority: Priority::High,
        ..fresh(2, &[0])
    };
    let verdicts = decide(&mut [with_places(1, 1)], &[fresh(1, &[0]), urgent], now());
    assert_eq!(verdicts, [Verdict::Line { of: 1 }, granted(&[1])]);
}

#[test]
fn nobody_passes_a_line_or_takes_a_place_that_is_kept() {
    let lined = UseState {
        has_line: true,
        ..with_places(1, 5)
    };
    assert_eq!(
        decide(&mut [lined], &[fresh(1, &[0])], now()),
        [Verdict::Line { of: 1 }]
    );
    let mut kept = [UseState {
        reserved: 1,
        ..with_places(1, 1)
    }];
    let verdicts = decide(&mut kept, &[fresh(1, &[0]), released(2, &[0], 1)], now());
    assert_eq!(verdicts, [Verdict::Line { of: 1 }, granted(&[1])]);
    assert_eq!((kept[0].running, kept[0].reserved), (1, 0));
}

#[test]
fn who_has_stood_in_a_line_passes_another() {
    let lined = UseState {
        has_line: true,
        ..with_places(2, 2)
    };
    let mut uses = [with_places(1, 1), lined];
    let verdicts = decide(&mut uses, &[released(1, &[0, 1], 1), fresh(2, &[1])], now());
    assert_eq!(verdicts, [granted(&[1, 2]), Verdict::Line { of: 2 }]);
}

#[test]
fn who_comes_too_late_for_a_place_waits_again() {
    let full = UseState {
        running: 1,
        ..with_places(1, 1)
    };
    let late = Held::Line {
        of: 1,
        is_reserved: false,
    };
    let late = Candidate {
        held: Some((late, now())),
        ..fresh(1, &[0])
    };
    assert_eq!(decide(&mut [full], &[late], now()), [Verdict::Line { of: 1 }]);
}

#[test]
fn a_lowered_limit_lets_nobody_more_run_than_it_says() {
    let mut uses = [UseState {
        reserved: 2,
        ..with_places(1, 1)
    }];
    let verdicts = decide(&mut uses, &[released(1, &[0], 1), released(2, &[0], 1)], now());
    let running = verdicts.iter().filter(|it| **it == granted(&[1])).count();
    assert_eq!(
        (running, uses[0].running, uses[0].reserved),
        (1, 1, 0),
        "{verdicts:?}"
    );
}

#[test]
fn a_task_takes_all_its_places_or_none() {
    let full = UseState {
        running: 1,
        ..with_places(2, 1)
    };
    let mut uses = [with_places(1, 1), full];
    let verdicts = decide(&mut uses, &[fresh(1, &[0, 1]), fresh(2, &[0])], now());
    assert_eq!(verdicts, [Verdict::Line { of: 2 }, granted(&[1])]);
}

#[test]
fn a_reservation_is_given_up_by_who_has_to_wait_elsewhere() {
    let full = UseState {
        running: 1,
        ..with_places(2, 1)
    };
    let mut uses = [
        UseState {
            reserved: 1,
            ..with_places(1, 1)
        },
        full,
    ];
    let verdicts = decide(&mut uses, &[released(1, &[0, 1], 1)], now());
    assert_eq!(verdicts, [Verdict::Line { of: 2 }]);
    assert_eq!((uses[0].room(), uses[1].has_line), (1, true));
}

#[test]
fn a_rate_gives_turns_one_after_the_other() {
    let mut uses = [with_rate(1)];
    let verdicts = decide(
        &mut uses,
        &[fresh(1, &[0]), fresh(2, &[0]), fresh(3, &[0])],
        now(),
    );
    let turn = |seconds| Verdict::Turn {
        of: 1,
        at: at(seconds),
        places: Vec::new(),
    };
    assert_eq!(verdicts, [granted(&[]), turn(1.0), turn(2.0)]);
    // The next batch goes on behind them, and those that come in time start.
    let verdicts = decide(&mut uses, &[fresh(4, &[0]), with_turn(2, &[0], &[])], at(1.05));
    assert_eq!(verdicts, [turn(3.0), granted(&[])]);
}

#[test]
fn a_slow_rate_does_not_use_up_a_quick_one() {
    let quick = UseState {
        rate: Some(Rate {
            count: 100,
            per: Duration::from_secs(1),
            burst: 100,
        }),
        ..with_rate(2)
    };
    let mut uses = [with_rate(1), quick];
    let batch: Vec<Candidate> = (1..=50).map(|number| fresh(number, &[0, 1])).collect();
    let verdicts = decide(&mut uses, &batch, now());
    assert!(matches!(verdicts[49], Verdict::Turn { of: 1, at: turn, .. } if turn == at(49.0)));
    assert_eq!(decide(&mut uses, &[fresh(60, &[1])], now()), [granted(&[])]);
}

#[test]
fn what_comes_late_all_at_once_starts_one_after_the_other() {
    let mut uses = [with_rate(1)];
    let late: Vec<Candidate> = (1..=5).map(|number| with_turn(number, &[0], &[])).collect();
    let turn = |seconds| Verdict::Turn {
        of: 1,
        at: at(seconds),
        places: Vec::new(),
    };
    // One second's worth may be made up for.
    let verdicts = decide(&mut uses, &late, at(100.0));
    assert_eq!(
        verdicts,
        [granted(&[]), granted(&[]), turn(101.0), turn(102.0), turn(103.0)]
    );
}

#[test]
fn who_waits_for_a_turn_keeps_its_place() {
    let mut uses = [with_places(1, 1), with_rate(2)];
    uses[1] = UseState {
        turns: Pace(NOW * 1_000 + 5_000_000_000),
        ..with_rate(2)
    };
    let verdicts = decide(&mut uses, &[fresh(1, &[0, 1]), fresh(2, &[0, 1])], now());
    let turn = Verdict::Turn {
        of: 2,
        at: at(5.0),
        places: vec![1],
    };
    assert_eq!(verdicts, [turn, Verdict::Line { of: 1 }]);
    let verdicts = decide(&mut uses, &[with_turn(1, &[0, 1], &[1])], at(5.0));
    assert_eq!(verdicts, [granted(&[1])]);
    assert_eq!(uses[0].running, 1, "counted once");
}
