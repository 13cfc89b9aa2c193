use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Answered,
    Failed,
    Doubt,
    ProbeBegins,
    ProbeAnswered,
    ProbeFailed,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Answered),
        4 => Just(Event::Failed),
        1 => Just(Event::Doubt),
        2 => Just(Event::ProbeBegins),
        1 => Just(Event::ProbeAnswered),
        2 => Just(Event::ProbeFailed),
        2 => (0_u64..3_000).prop_map(Event::Wait),
    ]
}

fn apply(circuit: &mut Circuit, event: Event, now: &mut Instant, luck: f64) -> Option<Change> {
    match event {
        Event::Answered => circuit.answered(*now),
        Event::Failed => circuit.failed(*now, luck),
        Event::Doubt => {
            circuit.doubt(*now);
            None
        }
        Event::ProbeBegins => {
            circuit.probe_begins();
            None
        }
        Event::ProbeAnswered => circuit.probe_answered(*now),
        Event::ProbeFailed => circuit.probe_failed(*now, luck),
        Event::Wait(ms) => {
            *now += Duration::from_millis(ms);
            None
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_is_never_shut_for_longer_than_its_longest_pause(
        events in prop::collection::vec((event(), 0.0..1.0), 0..200)
    ) {
        let mut now = Instant::now();
        let mut circuit = Circuit::new(now);
        let (mut failures, mut answered_since) = (0, false);
        for (event, luck) in events {
            let before = circuit.state();
            let change = apply(&mut circuit, event, &mut now, luck);
            failures = match event {
                Event::Failed => failures + 1,
                Event::Answered | Event::ProbeAnswered => 0,
                _ => failures,
            };
            // It tells exactly of what shuts calls out or lets them in.
            let (was, is) = (before == State::Closed, circuit.state() == State::Closed);
            prop_assert_eq!(matches!(change, Some(Change::Opened { .. })), was && !is);
            prop_assert_eq!(matches!(change, Some(Change::Closed { .. })), !was && is);
            // Nothing but failures in a row opens it, or a probe that fails while no call is answered: that always.
            let by_probe = matches!(event, Event::ProbeFailed) && !answered_since;
            let by_calls = matches!(event, Event::Failed) && failures >= FAILURES_MAX;
            prop_assert_eq!(was && !is, was && (by_probe || by_calls));
            answered_since = match event {
                Event::Answered => true,
                Event::ProbeBegins => false,
                _ => answered_since,
            };
            // An answer always closes it.
            if matches!(event, Event::Answered | Event::ProbeAnswered) {
                prop_assert!(is);
            }
            prop_assert_eq!(circuit.admit(now).is_ok(), is);
            if let Err(refusal) = circuit.admit(now) {
                prop_assert!(refusal.retry_in <= PAUSE_MAX);
            }
        }
    }
}

fn failed(circuit: &mut Circuit, now: Instant, times: u32) -> Option<Change> {
    (0..times).filter_map(|_| circuit.failed(now, 0.5)).last()
}

#[test]
fn single_failures_between_answers_never_open_it() {
    let now = Instant::now();
    let mut circuit = Circuit::new(now);
    for _ in 0..100 {
        assert_eq!(failed(&mut circuit, now, FAILURES_MAX - 1), None);
        assert_eq!(circuit.answered(now), None);
    }
    assert_eq!(circuit.admit(now), Ok(()));
}

#[test]
fn a_probe_that_fails_while_calls_are_answered_does_not_open_it() {
    let now = Instant::now();
    let mut circuit = Circuit::new(now);
    circuit.probe_begins();
    assert_eq!(circuit.answered(now), None);
    assert_eq!(circuit.probe_failed(now, 0.5), None);
    assert_eq!(circuit.admit(now), Ok(()));
    // What was answered before a probe began proves nothing.
    circuit.probe_begins();
    assert_eq!(
        circuit.probe_failed(now, 0.5),
        Some(Change::Opened { again: false })
    );
}

#[test]
fn the_pause_grows_to_its_bound_and_an_answered_call_shortens_it_again() {
    let now = Instant::now();
    let mut circuit = Circuit::new(now);
    assert_eq!(
        failed(&mut circuit, now, FAILURES_MAX),
        Some(Change::Opened { again: false })
    );
    let mut pauses = Vec::new();
    for _ in 0..6 {
        pauses.push(circuit.until_probe(now).as_millis());
        circuit.probe_begins();
        assert_eq!(circuit.until_probe(now), Duration::ZERO);
        assert_eq!(circuit.probe_failed(now, 1.0), None);
    }
    assert_eq!(pauses, [187, 500, 1_000, 1_000, 1_000, 1_000]);
    circuit.probe_begins();
    let later = now + Duration::from_secs(9);
    assert_eq!(
        circuit.probe_answered(later),
        Some(Change::Closed {
            after: Duration::from_secs(9),
            again: false
        })
    );
    // A probe alone does not prove that calls are answered.
    assert_eq!(
        failed(&mut circuit, later, FAILURES_MAX),
        Some(Change::Opened { again: true })
    );
    assert!(circuit.until_probe(later) >= PAUSE_MAX / 2);
    circuit.answered(later);
    assert_eq!(
        failed(&mut circuit, later, FAILURES_MAX),
        Some(Change::Opened { again: false })
    );
    assert!(circuit.until_probe(later) <= PAUSE);
}

#[test]
fn doubt_is_cast_once_in_a_while_and_only_on_what_is_closed() {
    let now = Instant::now();
    let mut circuit = Circuit::new(now);
    assert!(circuit.doubt(now));
    assert!(!circuit.doubt(now));
    assert!(circuit.doubt(now + DOUBT_EVERY));
    assert_eq!(
        circuit.probe_failed(now, 0.0),
        Some(Change::Opened { again: false })
    );
    assert!(!circuit.doubt(now + 10 * DOUBT_EVERY));
    let refusal = circuit.admit(now + Duration::from_secs(3)).unwrap_err();
    assert_eq!(
        (refusal.silent, refusal.retry_in),
        (Duration::from_secs(3), Duration::ZERO)
    );
}
