use forebay_core::{Timestamp, WorkerId};
use proptest::prelude::*;

use super::*;

fn id(n: u8) -> WorkerId {
    WorkerId::new(Timestamp::UNIX_EPOCH, &[n; 10])
}

fn worker(n: u8, slots: u32, finished: u64) -> Worker {
    Worker {
        id: id(n),
        slots,
        finished,
        takes: true,
    }
}

fn load(ready: u64, running: u64, workers: Vec<Worker>) -> Load {
    Load {
        ready,
        running,
        workers,
    }
}

/// What is desired after these, seen a second apart.
fn after(loads: impl IntoIterator<Item = Load>) -> u64 {
    let mut window = Window::default();
    let begin = Instant::now();
    for (second, load) in loads.into_iter().enumerate() {
        window.push(begin + Duration::from_secs(second as u64), &load);
    }
    window.desired()
}

#[test]
fn nothing_to_do_takes_nobody_and_the_first_task_takes_one() {
    assert_eq!(Window::default().desired(), 0);
    assert_eq!(after([load(0, 0, vec![worker(1, 8, 5)])]), 0);
    assert_eq!(after([load(1, 0, vec![])]), 1);
    assert_eq!(
        after((0..40).map(|_| load(100_000, 0, vec![]))),
        1,
        "nothing is measured"
    );
    assert_eq!(after((0..40).map(|_| load(100, 0, vec![worker(1, 8, 0)]))), 1);
}

#[test]
fn what_runs_keeps_its_slots() {
    let two = || vec![worker(1, 8, 0), worker(2, 8, 0)];
    assert_eq!(after([load(0, 16, two())]), 2);
    assert_eq!(after([load(0, 9, two())]), 2);
    assert_eq!(after([load(0, 8, two())]), 1);
}

/// 20 tasks a second come, each takes 2 s: 40 run at once, on 8 slots each.
#[test]
fn a_steady_stream_takes_what_littles_law_says() {
    let second = |n: u64| load(0, 40, (1..=5).map(|w| worker(w, 8, 4 * n)).collect());
    assert_eq!(after((0..40).map(second)), 5);
    // The same on ten workers: half of them are too many.
    let second = |n: u64| load(0, 40, (1..=10).map(|w| worker(w, 8, 2 * n)).collect());
    assert_eq!(after((0..40).map(second)), 5);
}

/// One worker ends 100 tasks a second at the most, however many slots it has, and 240 a second come.
#[test]
fn cheap_tasks_are_bound_by_what_was_measured() {
    let second = |n: u64| load(140 * n + 1, 2, vec![worker(1, 64, 100 * n)]);
    let desired = after((0..31).map(second));
    // What comes takes 2.4, and what is ready (4201) takes 4.2 in ten seconds.
    assert_eq!(desired, 7);
    // Where nothing is ready, slots are all that is known to be the bound: here they are plenty.
    let second = |n: u64| load(0, 2, vec![worker(1, 64, 100 * n)]);
    assert_eq!(after((0..31).map(second)), 1);
}

/// A dozen tasks that take ten minutes: three workers run them all at once, and more would have nothing to do.
#[test]
fn long_tasks_take_no_more_than_can_run_at_once() {
    let second = |_| load(12, 8, vec![worker(1, 8, 0)]);
    assert_eq!(after((0..31).map(second)), 3);
    let short_of_evidence = |_| load(12, 8, vec![worker(1, 8, 0)]);
    assert!(after((0..4).map(short_of_evidence)) <= 3);
}

#[test]
fn a_dead_worker_and_a_new_one_do_not_spoil_the_rate() {
    let second = |n: u64| {
        let mut workers = vec![worker(1, 8, 40 * n)];
        if n < 20 {
            workers.push(worker(2, 8, 1_000_000 + 40 * n));
        } else {
            workers.push(worker(3, 8, 40 * (n - 20)));
        }
        load(0, 16, workers)
    };
    // 80 a second, 0.2 s each.
    assert_eq!(after((0..40).map(second)), 2);
}

#[test]
fn one_that_drains_works_and_gives_no_slots() {
    let second = |n: u64| {
        let leaving = Worker {
            takes: false,
            slots: 100,
            ..worker(2, 8, 4 * n)
        };
        load(0, 16, vec![worker(1, 8, 4 * n), leaving])
    };
    assert_eq!(after((0..31).map(second)), 2);
}

#[test]
fn what_was_seen_is_forgotten() {
    let busy = |n: u64| load(1_000, 8, vec![worker(1, 8, 10 * n)]);
    let mut window = Window::default();
    let begin = Instant::now();
    for n in 0..30 {
        window.push(begin + Duration::from_secs(n), &busy(n));
    }
    assert!(window.desired() > 1);
    window.push(begin + Duration::from_secs(100), &busy(31));
    assert_eq!(window.desired(), 1, "a gap as long as the window");
    assert!(window.steps.len() == 1);
}

fn worlds() -> impl Strategy<Value = Vec<Load>> {
    let one =
        (1_u8..6, 1_u32..200, 0_u64..5_000, any::<bool>()).prop_map(|(n, slots, finished, takes)| Worker {
            takes,
            ..worker(n, slots, finished)
        });
    let workers = prop::collection::vec(one, 0..5).prop_map(|workers| {
        let by_id: BTreeMap<WorkerId, Worker> = workers.into_iter().map(|it| (it.id, it)).collect();
        by_id.into_values().collect()
    });
    let load = (0_u64..1_000_000, 0_u64..10_000, workers)
        .prop_map(|(ready, running, workers)| load(ready, running, workers));
    prop::collection::vec(load, 1..45)
}

proptest! {
    /// Whatever workers say, also counters that go backwards.
    #[test]
    fn the_answer_keeps_its_bounds(world in worlds()) {
        let last = world.last().cloned().expect("at least one");
        let desired = after(world);
        prop_assert_eq!(desired == 0, last.ready + last.running == 0);
        let takes: Vec<&Worker> = last.workers.iter().filter(|worker| worker.takes).collect();
        if !takes.is_empty() {
            let slots = takes.iter().map(|it| f64::from(it.slots)).sum::<f64>() / takes.len() as f64;
            prop_assert!(desired as f64 * slots >= last.running as f64 - 1e-6);
        }
    }

    #[test]
    fn more_that_is_ready_never_takes_fewer(world in worlds(), more in 1_u64..100_000) {
        let mut heavier = world.clone();
        let last = heavier.last_mut().expect("at least one");
        prop_assume!(last.ready > 0);
        last.ready += more;
        prop_assert!(after(heavier) >= after(world));
    }

    #[test]
    fn more_slots_never_take_more_where_slots_are_the_bound(
        slots in 1_u32..100, more in 1_u32..100, rate in 1_u64..50, running in 1_u64..100,
    ) {
        let world = |slots| (0..31).map(move |n: u64| load(0, running, vec![worker(1, slots, rate * n)]));
        prop_assert!(after(world(slots + more)) <= after(world(slots)));
    }
}
