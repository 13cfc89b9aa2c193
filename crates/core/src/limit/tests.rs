use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(1_700_000_000_000_000 + micros).expect("near the present")
}

fn name() -> LimitName {
    "a".parse().expect("a name")
}

/// Starts each of these arrivals as early as the rate allows, and says when.
fn starts(rate: Rate, arrivals: &[i64]) -> Vec<Timestamp> {
    let mut pace = Pace::default();
    let mut starts = Vec::with_capacity(arrivals.len());
    for &arrival in arrivals {
        let start = pace.next(rate, at(arrival));
        pace = pace.after(rate, start);
        starts.push(start);
    }
    starts
}

#[test]
fn a_burst_is_followed_by_even_spacing() {
    let rate = Rate {
        count: 10,
        per: SECOND,
        burst: 3,
    };
    let expected = [0, 0, 0, 100_000, 200_000].map(at);
    assert_eq!(starts(rate, &[0; 5]), expected);
    let spaced = Rate { burst: 1, ..rate };
    assert_eq!(
        starts(spaced, &[0, 50_000, 400_000]),
        [0, 100_000, 400_000].map(at)
    );
}

proptest! {
    #[test]
    fn no_window_has_more_starts_than_the_rate_and_its_burst(
        count in 1_u32..50, per_us in 1_000_u64..5_000_000, burst in 1_u32..20,
        gaps in prop::collection::vec(0_i64..200_000, 1..80),
    ) {
        let rate = Rate { count, per: Duration::from_micros(per_us), burst };
        let arrivals: Vec<i64> = gaps.iter().scan(0, |sum, gap| { *sum += gap; Some(*sum) }).collect();
        let starts = starts(rate, &arrivals);
        for (first, from) in starts.iter().enumerate() {
            for (last, to) in starts.iter().enumerate().skip(first) {
                let window = (to.as_microsecond() - from.as_microsecond()) as f64;
                let allowed = f64::from(burst) + window * f64::from(count) / (per_us as f64);
                prop_assert!(((last - first + 1) as f64) <= allowed + 1e-6);
            }
        }
    }

    #[test]
    fn nothing_waits_longer_than_it_must(
        count in 1_u32..50, per_us in 1_000_u64..5_000_000, burst in 1_u32..20, tasks in 1_usize..100,
    ) {
        let rate = Rate { count, per: Duration::from_micros(per_us), burst };
        let starts = starts(rate, &vec![0; tasks]);
        let beyond = tasks.saturating_sub(burst as usize) as f64;
        let expected = beyond * (per_us as f64) / f64::from(count);
        let last = (starts[tasks - 1].as_microsecond() - at(0).as_microsecond()) as f64;
        // Each start is rounded up to a microsecond.
        prop_assert!((last - expected).abs() <= 1.0 + beyond, "{last} for {expected}");
        prop_assert!(starts.windows(2).all(|two| two[0] <= two[1]));
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let request = LimitRequest {
        queue: Some("No".into()),
        kind: Some("no no".into()),
        by_key: false,
        concurrency: Some(0),
        rate: Some(RateRequest {
            count: -1,
            per_seconds: f64::NAN,
            burst: Some(0),
        }),
    };
    let wrong = request.accept(name()).expect_err("all of it is wrong");
    let pointers: Vec<&str> = wrong.iter().map(|it| it.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/queue",
            "/kind",
            "/concurrency",
            "/rate/count",
            "/rate/burst",
            "/rate/per_seconds"
        ]
    );
    let nothing = LimitRequest::default()
        .accept(name())
        .expect_err("it limits nothing");
    assert_eq!(nothing.len(), 1);
    let fast = LimitRequest {
        rate: Some(RateRequest {
            count: 1_000,
            per_seconds: 0.001,
            burst: None,
        }),
        ..LimitRequest::default()
    };
    assert_eq!(
        fast.accept(name()).expect_err("too fast")[0].pointer,
        "/rate/count"
    );
}

#[test]
fn a_burst_is_as_large_as_the_rate_unless_said() {
    let request = LimitRequest {
        rate: Some(RateRequest {
            count: 10,
            per_seconds: 1.0,
            burst: None,
        }),
        ..LimitRequest::default()
    };
    let rule = request.accept(name()).expect("a limit");
    assert_eq!(rule.rate.map(|rate| (rate.count, rate.burst)), Some((10, 10)));
}

#[test]
fn a_limit_is_for_its_queue_its_kind_and_its_keys() {
    let request = LimitRequest {
        queue: Some("mail".into()),
        kind: Some("mail.send".into()),
        by_key: true,
        concurrency: Some(1),
        rate: None,
    };
    let rule = request.accept(name()).expect("a limit");
    let (mail, other): (QueueName, QueueName) = ("mail".parse().expect("a name"), QueueName::default());
    let kind: Kind = "mail.send".parse().expect("a name");
    let key: LimitKey = "customer 7".parse().expect("a key");
    assert_eq!(rule.counts(&mail, &kind, Some(&key)), Some("customer 7"));
    assert_eq!(rule.counts(&mail, &kind, None), None);
    assert_eq!(rule.counts(&other, &kind, Some(&key)), None);
    let together = LimitRule {
        by_key: false,
        ..rule
    };
    assert_eq!(together.counts(&mail, &kind, None), Some(""));
}
