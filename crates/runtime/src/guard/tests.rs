use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

/// A dependency that is up, down or hangs on demand, and counts how often it is asked.
#[derive(Clone, Default)]
struct Dependency {
    mood: Arc<Mutex<Mood>>,
    calls: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Up,
    Down,
    Hangs,
    /// Probes are answered, calls are not.
    HalfDead,
    /// Calls are answered, probes wait for something.
    Busy,
    /// Probes are answered after two seconds, calls are not.
    FarAway,
    Panics,
}

impl Dependency {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn answer(&self, probe: bool) -> Verdict {
        let count = if probe { &self.probes } else { &self.calls };
        count.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Up => Verdict::Answered,
            Mood::Busy if !probe => Verdict::Answered,
            Mood::FarAway if probe => {
                sleep(Duration::from_secs(2)).await;
                Verdict::Answered
            }
            Mood::HalfDead if probe => Verdict::Answered,
            Mood::Down | Mood::HalfDead | Mood::FarAway => Verdict::Failed,
            Mood::Hangs | Mood::Busy => std::future::pending().await,
            Mood::Panics if probe => panic!("a probe that panics"),
            Mood::Panics => Verdict::Failed,
        }
    }

    fn guarded(&self) -> (Guard, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let probed = self.clone();
        let probe = move || {
            let probed = probed.clone();
            async move {
                match probed.answer(true).await {
                    Verdict::Failed => Err("the password is wrong".to_owned()),
                    Verdict::Answered | Verdict::Unknown => Ok(()),
                }
            }
            .boxed()
        };
        let guard = Guard::new("store", "the database", Arc::clone(&metrics), Box::new(probe));
        (guard, metrics)
    }

    async fn call(&self, guard: &Guard) -> Result<Verdict, Away> {
        guard
            .call(Duration::ZERO, self.answer(false), |verdict| *verdict)
            .await
    }
}

fn shown(metrics: &Metrics) -> String {
    let text = metrics.encode();
    let line = text
        .lines()
        .find(|line| line.starts_with("forebay_circuit_state{"));
    line.unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn what_is_down_is_not_asked_again_until_a_probe_is_answered() {
    let dependency = Dependency::default();
    let (guard, metrics) = dependency.guarded();
    let closed = r#"forebay_circuit_state{dependency="store"} 0"#;
    assert_eq!(shown(&metrics), closed);
    dependency.set(Mood::Down);
    while dependency.call(&guard).await.is_ok() {
        assert!(dependency.calls.load(Ordering::Relaxed) < 10);
        tokio::task::yield_now().await;
    }
    assert_ne!(shown(&metrics), closed);
    let asked = dependency.calls.load(Ordering::Relaxed);
    for _ in 0..100 {
        let away = dependency.call(&guard).await.unwrap_err();
        assert!(away.retry_in <= Duration::from_secs(1));
        let text = away.to_string();
        assert!(text.starts_with("the database has not answered for "), "{text}");
        sleep(Duration::from_millis(100)).await;
    }
    let text = dependency.call(&guard).await.unwrap_err().to_string();
    assert!(text.contains("(the password is wrong); "), "{text}");
    assert_eq!(dependency.calls.load(Ordering::Relaxed), asked);
    let probes = dependency.probes.load(Ordering::Relaxed);
    assert!((8..=25).contains(&probes), "{probes} probes in ten seconds");
    // Nobody calls, and it is found all the same.
    dependency.set(Mood::Up);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(guard.state(), State::Closed);
    assert_eq!(dependency.call(&guard).await, Ok(Verdict::Answered));
    assert_eq!(shown(&metrics), closed);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_given_up_within_two_seconds_by_all_who_wait() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::Hangs);
    let began = Instant::now();
    let waiting = (0..20).map(|_| dependency.call(&guard));
    for answer in futures::future::join_all(waiting).await {
        assert!(answer.is_err());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // From now on at once.
    let began = Instant::now();
    assert!(dependency.call(&guard).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
    dependency.set(Mood::Up);
    // The longest pause, and the time until one who is silent is asked anew.
    sleep(Duration::from_millis(2_800)).await;
    assert_eq!(dependency.call(&guard).await, Ok(Verdict::Answered));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_long_is_left_alone_while_the_dependency_answers_probes() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    let slow = async {
        sleep(Duration::from_secs(30)).await;
        Verdict::Answered
    };
    assert_eq!(
        guard.call(Duration::ZERO, slow, |verdict| *verdict).await,
        Ok(Verdict::Answered)
    );
    let probes = dependency.probes.load(Ordering::Relaxed);
    assert!((10..=40).contains(&probes), "{probes} probes in half a minute");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_waits_for_something_gives_up_nobody_while_calls_are_answered() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::Busy);
    let slow = async {
        sleep(Duration::from_secs(30)).await;
        Verdict::Failed
    };
    let slow = guard.call(Duration::ZERO, slow, |verdict| *verdict);
    let others = async {
        // A moment of silence, so that it is doubted, again and again.
        for _ in 0..80 {
            sleep(Duration::from_millis(400)).await;
            assert_eq!(dependency.call(&guard).await, Ok(Verdict::Answered));
        }
    };
    assert_eq!(tokio::join!(slow, others).0, Ok(Verdict::Failed));
    assert!(
        dependency.probes.load(Ordering::Relaxed) > 1,
        "it was not doubted"
    );
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_to_connect_to_is_found_all_the_same() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::Down);
    while dependency.call(&guard).await.is_ok() {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_ne!(guard.state(), State::Closed);
    dependency.set(Mood::FarAway);
    // The longest pause, and the probe.
    sleep(Duration::from_millis(3_100)).await;
    assert_eq!(guard.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_has_less_time_once_calls_go_through_again() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    let straggler = async {
        sleep(Duration::from_secs(5)).await;
        Verdict::Answered
    };
    let straggler = guard.call(Duration::from_secs(60), straggler, |verdict| *verdict);
    let others = async {
        dependency.set(Mood::Down);
        while dependency.call(&guard).await.is_ok() {
            tokio::task::yield_now().await;
        }
        dependency.set(Mood::Hangs);
    };
    assert_eq!(tokio::join!(straggler, others).0, Ok(Verdict::Answered));
    assert_eq!(guard.state(), State::Closed);
    let began = Instant::now();
    assert!(dependency.call(&guard).await.is_err());
    // The rest of the former probe, a look, and one that is given up as soon as any that calls wait for.
    assert!(
        began.elapsed() <= Duration::from_millis(2_400),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn an_opening_is_told_before_anybody_can_close_it() {
    let (guard, _) = Dependency::default().guarded();
    let mut before = guard.shared.admit().unwrap();
    let opened = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        // Nobody is told for as long as somebody looks at what was told last.
        let held = before.borrow();
        threads.spawn(|| {
            guard.shared.apply(|circuit| {
                circuit.probe_begins();
                let change = circuit.probe_failed(now(), 0.5);
                opened.store(true, Ordering::SeqCst);
                change
            });
        });
        let began = std::time::Instant::now();
        while !opened.load(Ordering::SeqCst) || began.elapsed() < Duration::from_millis(100) {
            assert!(began.elapsed() < Duration::from_secs(30), "it never opened");
            if let Ok(inner) = guard.shared.inner.try_lock() {
                assert_eq!(inner.circuit.state(), State::Closed, "open, and nobody was told");
            }
            std::thread::yield_now();
        }
        drop(held);
    });
    assert!(before.has_changed().unwrap());
    before.mark_unchanged();
    guard.shared.apply(|circuit| circuit.answered(now()));
    // Who comes afterwards hears nothing of it.
    assert!(!guard.shared.admit().unwrap().has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn single_failures_of_a_dependency_that_answers_probes_change_nothing() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::HalfDead);
    for _ in 0..100 {
        assert_eq!(dependency.call(&guard).await, Ok(Verdict::Failed));
        sleep(Duration::from_millis(1_100)).await;
    }
    assert_eq!(guard.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn many_failures_shut_it_for_no_longer_than_a_second() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::HalfDead);
    let admitted_at = AtomicU64::new(0);
    let (began, mut refused) = (Instant::now(), 0);
    for _ in 0..2_000 {
        let now = u64::try_from(began.elapsed().as_millis()).unwrap();
        match dependency.call(&guard).await {
            Ok(_) => admitted_at.store(now, Ordering::Relaxed),
            Err(_) => {
                refused += 1;
                assert!(now - admitted_at.load(Ordering::Relaxed) <= 1_100);
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(refused > 0, "the circuit never opened");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_counts_as_unanswered_and_is_made_again() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::Panics);
    while dependency.call(&guard).await.is_ok() {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(3)).await;
    assert_ne!(guard.state(), State::Closed);
    dependency.set(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(guard.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_probed_for_a_guard_that_is_gone() {
    let dependency = Dependency::default();
    let (guard, _) = dependency.guarded();
    dependency.set(Mood::Down);
    while dependency.call(&guard).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(guard);
    sleep(Duration::from_secs(2)).await;
    let probes = dependency.probes.load(Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(dependency.probes.load(Ordering::Relaxed), probes);
}
