use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LOST_MAX: u32 = 3;

fn worker(number: u8) -> WorkerId {
    WorkerId::from(uuid::Uuid::from_u128(u128::from(number)))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// What can happen to a task, in any order and as often as the network and the operators please.
#[derive(Debug, Clone)]
enum Step {
    /// Some delivery, new or long outdated, reaches a worker.
    Deliver {
        fence: u32,
        worker: u8,
    },
    /// A worker reports on some start, current or not.
    Complete {
        fence: u32,
        worker: u8,
        decision: Decision,
    },
    TakeBack {
        worker: u8,
    },
    Dispatch,
    /// A limit holds it back, for a time or until there is room.
    Throttle {
        fence: u32,
        seconds: Option<i64>,
    },
    Release,
    Expire,
    Cancel,
    Tick {
        seconds: i64,
    },
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![
        Just(Decision::Succeed),
        Just(Decision::Fail),
        Just(Decision::Cancel),
        (0..100_u64).prop_map(|s| Decision::Retry {
            delay: Duration::from_secs(s)
        }),
        (0..100_u64).prop_map(|s| Decision::HandBack {
            delay: Duration::from_secs(s)
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u32, 0..3_u8).prop_map(|(fence, worker)| Step::Deliver { fence, worker }),
        4 => (0..6_u32, 0..3_u8, decision())
            .prop_map(|(fence, worker, decision)| Step::Complete { fence, worker, decision }),
        2 => (0..3_u8).prop_map(|worker| Step::TakeBack { worker }),
        2 => Just(Step::Dispatch),
        2 => (0..6_u32, prop::option::of(0..200_i64))
            .prop_map(|(fence, seconds)| Step::Throttle { fence, seconds }),
        1 => Just(Step::Release),
        1 => Just(Step::Expire),
        1 => Just(Step::Cancel),
        2 => (0..200_i64).prop_map(|seconds| Step::Tick { seconds }),
    ]
}

/// Applies a step and says whether the task took it.
fn apply(task: &mut Lifecycle, step: &Step, now: &mut i64) -> bool {
    match *step {
        Step::Deliver { fence, worker: w } => task.claim(fence, worker(w), at(*now)).is_ok(),
        Step::Complete {
            fence,
            worker: w,
            decision,
        } => task.complete(fence, worker(w), decision, at(*now)).is_ok(),
        Step::TakeBack { worker: w } => task.take_back(worker(w), LOST_MAX, at(*now)).is_ok(),
        Step::Dispatch => task.dispatch(at(*now)).is_ok(),
        Step::Throttle { fence, seconds } => {
            let until = seconds.map(|seconds| at(*now + seconds));
            task.throttle(fence, until, at(*now)).is_ok()
        }
        Step::Release => task.release(at(*now)).is_ok(),
        Step::Expire => task.expire().is_ok(),
        Step::Cancel => task.cancel().is_ok(),
        Step::Tick { seconds } => {
            *now += seconds;
            true
        }
    }
}

/// What the system does by itself once faults stop: dead workers are taken back, due tasks dispatched, delivered, run.
fn settle(task: &mut Lifecycle, now: &mut i64) {
    for _ in 0..20 {
        *now += 1_000;
        if let (State::Running, Some(holder)) = (task.state, task.worker) {
            let _ = task.take_back(holder, LOST_MAX, at(*now));
        }
        let _ = task.release(at(*now));
        let _ = task.dispatch(at(*now));
        if task.claim(task.fence, worker(9), at(*now)).is_ok() {
            task.complete(task.fence, worker(9), Decision::Succeed, at(*now))
                .unwrap();
        }
    }
}

proptest! {
    #[test]
    fn any_interleaving_ends_in_exactly_one_outcome(
        scheduled in any::<bool>(),
        blocked in any::<bool>(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut now = 0;
        let mut task = Lifecycle::accepted(scheduled.then(|| at(50)));
        if blocked {
            task.state = State::Blocked;
        }
        let mut outcomes = 0;
        let mut fence = 0;
        for step in &steps {
            let before = task.clone();
            let taken = apply(&mut task, step, &mut now);
            if !taken {
                prop_assert_eq!(&before, &task, "a refused step changed the task");
            }
            prop_assert!(!before.state.is_final() || before == task, "a final task changed");
            if task.state.is_final() && !before.state.is_final() {
                outcomes += 1;
            }
            prop_assert!(task.fence >= fence, "the fence went back");
            prop_assert!(task.attempt <= task.fence);
            prop_assert!(task.state != State::Expired || task.fence == 0, "what was started has expired");
            prop_assert!(task.lost <= LOST_MAX);
            fence = task.fence;
        }
        let ended = task.state.is_final();
        settle(&mut task, &mut now);
        prop_assert!(task.state.is_final(), "the task is stuck: {:?}", task);
        prop_assert_eq!(outcomes + i32::from(!ended), 1);
    }

    #[test]
    fn a_stale_attempt_changes_nothing(stale in 0..3_u32, decision in decision()) {
        let mut task = Lifecycle::accepted(None);
        for fence in 0..3 {
            task.claim(fence, worker(1), at(0)).unwrap();
            task.complete(fence + 1, worker(1), Decision::Retry { delay: Duration::ZERO }, at(0)).unwrap();
        }
        task.claim(3, worker(2), at(0)).unwrap();
        let before = task.clone();
        prop_assert_eq!(task.complete(stale + 1, worker(1), decision, at(0)), Err(Refused::Fenced));
        prop_assert_eq!(task, before);
    }
}

#[test]
fn being_interrupted_costs_no_attempt_and_still_fences() {
    let mut task = Lifecycle::accepted(None);
    task.claim(0, worker(1), at(0)).unwrap();
    assert_eq!(task.attempt, 1);
    task.complete(
        1,
        worker(1),
        Decision::HandBack {
            delay: Duration::ZERO,
        },
        at(0),
    )
    .unwrap();
    assert_eq!((task.attempt, task.fence), (0, 1));
    task.claim(1, worker(1), at(0)).unwrap();
    assert_eq!((task.attempt, task.fence), (1, 2));
    assert_eq!(
        task.complete(1, worker(1), Decision::Succeed, at(0)),
        Err(Refused::Fenced)
    );
}

#[test]
fn a_claim_whose_answer_was_lost_is_granted_again() {
    let mut task = Lifecycle::accepted(None);
    task.claim(0, worker(1), at(0)).unwrap();
    assert_eq!(task.claim(0, worker(1), at(0)), Ok(()));
    assert_eq!(task.fence, 1);
    assert_eq!(
        task.claim(0, worker(2), at(0)),
        Err(Refused::State(State::Running))
    );
}

#[test]
fn a_task_that_kills_its_workers_fails_in_the_end() {
    let mut task = Lifecycle::accepted(None);
    for fence in 0..LOST_MAX {
        task.claim(fence, worker(1), at(0)).unwrap();
        task.take_back(worker(1), LOST_MAX, at(0)).unwrap();
    }
    assert_eq!(task.state, State::Failed);
}

#[test]
fn a_cancellation_outlives_the_worker_that_should_have_obeyed_it() {
    let mut task = Lifecycle::accepted(None);
    task.claim(0, worker(1), at(0)).unwrap();
    task.cancel().unwrap();
    assert_eq!(task.state, State::Running);
    task.take_back(worker(1), LOST_MAX, at(0)).unwrap();
    assert_eq!(task.state, State::Cancelled);
}

#[test]
fn what_a_limit_holds_back_is_not_started_and_costs_nothing() {
    let mut task = Lifecycle::accepted(None);
    task.throttle(0, None, at(0)).unwrap();
    assert_eq!((task.state, task.fence, task.attempt), (State::Throttled, 0, 0));
    assert_eq!(task.claim(0, worker(1), at(10)), Err(Refused::NotDue));
    assert_eq!(task.dispatch(at(10)), Err(Refused::NotDue));
    task.release(at(10)).unwrap();
    task.dispatch(at(10)).unwrap();
    task.claim(0, worker(1), at(10)).unwrap();
    assert_eq!((task.fence, task.attempt), (1, 1));
    assert_eq!(
        task.throttle(0, None, at(10)),
        Err(Refused::State(State::Running))
    );
}

#[test]
fn what_is_held_back_for_a_time_comes_by_itself() {
    let mut task = Lifecycle::accepted(None);
    task.throttle(0, Some(at(30)), at(0)).unwrap();
    assert_eq!(task.claim(0, worker(1), at(29)), Err(Refused::NotDue));
    task.claim(0, worker(1), at(30)).unwrap();
}

#[test]
fn what_waited_for_others_still_waits_for_its_time() {
    let mut task = Lifecycle::accepted(Some(at(50)));
    task.state = State::Blocked;
    assert_eq!(
        task.claim(0, worker(1), at(60)),
        Err(Refused::State(State::Blocked))
    );
    task.release(at(10)).unwrap();
    assert_eq!((task.state, task.run_at), (State::Scheduled, Some(at(50))));
}

#[test]
fn only_what_was_never_started_expires() {
    let mut task = Lifecycle::accepted(None);
    task.claim(0, worker(1), at(0)).unwrap();
    assert_eq!(task.expire(), Err(Refused::State(State::Running)));
    let retry = Decision::Retry {
        delay: Duration::ZERO,
    };
    task.complete(1, worker(1), retry, at(0)).unwrap();
    assert_eq!(task.expire(), Err(Refused::State(State::Retrying)));
    let mut task = Lifecycle::accepted(None);
    task.expire().unwrap();
    assert_eq!(task.state, State::Expired);
    task.retry(at(5)).unwrap();
    assert_eq!(task.state, State::Retrying);
}

#[test]
fn retry_brings_back_what_failed_with_all_its_attempts() {
    let mut task = Lifecycle::accepted(None);
    assert_eq!(task.retry(at(0)), Err(Refused::State(State::Queued)));
    task.claim(0, worker(1), at(0)).unwrap();
    task.complete(1, worker(1), Decision::Fail, at(0)).unwrap();
    task.retry(at(5)).unwrap();
    assert_eq!((task.state, task.attempt, task.fence), (State::Retrying, 0, 1));
}

#[test]
fn states_have_the_names_of_the_contract() {
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
}
