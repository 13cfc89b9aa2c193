use super::*;
use crate::{Problem, Submission, SubmitRequest};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn later(seconds: u64) -> Timestamp {
    now() + Duration::from_secs(seconds)
}

fn asked(terms: TermsRequest) -> SubmitRequest {
    SubmitRequest {
        kind: "echo".into(),
        terms,
        ..SubmitRequest::default()
    }
}

fn accepted(terms: TermsRequest) -> Submission {
    asked(terms).accept(now(), &[0; 10]).expect("it is valid")
}

fn refused(terms: TermsRequest) -> Vec<String> {
    let wrong = asked(terms).accept(now(), &[0; 10]).unwrap_err();
    assert!(
        wrong
            .iter()
            .all(|violation| violation.problem == Problem::Invalid)
    );
    wrong.into_iter().map(|violation| violation.pointer).collect()
}

#[test]
fn who_asks_for_nothing_has_none() {
    assert_eq!(accepted(TermsRequest::default()).terms, None);
    let empty = TermsRequest {
        retry: Some(RetryRequest::default()),
        ..TermsRequest::default()
    };
    assert_eq!(accepted(empty).terms, None);
}

#[test]
fn every_part_goes_through_json_and_back() {
    let terms = accepted(TermsRequest {
        expires_at: Some(later(60)),
        heartbeat_timeout_seconds: Some(1.5),
        retry: Some(RetryRequest {
            delays_seconds: vec![0.0, 2.5],
            ..RetryRequest::default()
        }),
        limit_key: Some("customer 7".into()),
        unique: Some(UniqueRequest {
            window_seconds: Some(10.0),
            on_conflict: Some("replace".into()),
            ..UniqueRequest::default()
        }),
        after: vec![TaskId::from_bytes([7; 16]).to_string()],
        on_dependency_failure: Some("run".into()),
        notify: vec!["billing".into()],
        batch: Some(BatchId::new(now(), &[3; 10])),
        ..TermsRequest::default()
    })
    .terms
    .expect("there are some");
    assert_eq!(Terms::from_json(&terms.to_json()).unwrap(), terms);
    assert_eq!(terms.heartbeat_timeout, Some(Duration::from_millis(1_500)));
    assert_eq!(terms.unique.as_ref().unwrap().until, Some(later(10)));
    assert!(terms.is_watched());
}

#[test]
fn the_earlier_of_the_two_times_counts() {
    let both = |seconds| TermsRequest {
        expires_at: Some(later(60)),
        schedule_to_start_timeout_seconds: Some(seconds),
        ..TermsRequest::default()
    };
    let expiry = |terms| accepted(terms).terms.unwrap().expires_at;
    assert_eq!(expiry(both(30.0)), Some(later(30)));
    assert_eq!(expiry(both(90.0)), Some(later(60)));
    let delayed = SubmitRequest {
        delay_seconds: Some(100.0),
        ..asked(TermsRequest {
            schedule_to_start_timeout_seconds: Some(5.0),
            ..TermsRequest::default()
        })
    };
    let terms = delayed.accept(now(), &[0; 10]).unwrap().terms.unwrap();
    assert_eq!(
        terms.expires_at,
        Some(later(105)),
        "counted from when it may start"
    );
}

#[test]
fn all_mistakes_are_named_at_once() {
    let pointers = refused(TermsRequest {
        expires_at: Some(now()),
        schedule_to_start_timeout_seconds: Some(0.0),
        heartbeat_timeout_seconds: Some(f64::NAN),
        retry: Some(RetryRequest {
            base_seconds: Some(-1.0),
            factor: Some(0.5),
            cap_seconds: Some(f64::INFINITY),
            delays_seconds: vec![1.0, -1.0],
        }),
        limit_key: Some(String::new()),
        unique: Some(UniqueRequest {
            key: Some("\n".into()),
            window_seconds: Some(0.0),
            on_conflict: Some("ignore".into()),
        }),
        after: vec!["nobody".into()],
        on_dependency_failure: Some("explode".into()),
        notify: vec!["Billing".into()],
        batch: None,
    });
    let expected = [
        "/schedule_to_start_timeout_seconds",
        "/expires_at",
        "/heartbeat_timeout_seconds",
        "/retry/delays_seconds",
        "/retry/factor",
        "/retry/delays_seconds/1",
        "/retry/base_seconds",
        "/retry/cap_seconds",
        "/limit_key",
        "/unique/key",
        "/unique/window_seconds",
        "/unique/on_conflict",
        "/on_dependency_failure",
        "/after/0",
        "/notify/0",
    ];
    assert_eq!(pointers, expected);
}

#[test]
fn what_is_unique_goes_by_kind_and_key_or_payload() {
    let mark = |kind: &str, key: Option<&str>, payload: &str| {
        let request = SubmitRequest {
            kind: kind.into(),
            payload: Json::parse(payload.as_bytes()).ok(),
            ..asked(TermsRequest {
                unique: Some(UniqueRequest {
                    key: key.map(str::to_owned),
                    ..UniqueRequest::default()
                }),
                ..TermsRequest::default()
            })
        };
        request
            .accept(now(), &[0; 10])
            .unwrap()
            .terms
            .unwrap()
            .unique
            .unwrap()
            .mark
    };
    assert_eq!(mark("a", None, "1"), mark("a", None, "1"));
    assert_ne!(mark("a", None, "1"), mark("a", None, "2"));
    assert_eq!(mark("a", Some("k"), "1"), mark("a", Some("k"), "2"));
    assert_ne!(mark("a", Some("k"), "1"), mark("b", Some("k"), "1"));
    assert_ne!(mark("a", Some("1"), "1"), mark("a", None, "1"));
}

#[test]
fn a_list_of_waits_has_its_last_for_the_rest() {
    let retry = TaskRetry {
        delays: vec![Duration::ZERO, Duration::from_secs(5)],
        ..TaskRetry::default()
    };
    let waits = [1, 2, 3, u32::MAX].map(|attempt| retry.delay(RetryPolicy::default(), attempt, 0.5));
    assert_eq!(waits.map(|wait| wait.as_secs()), [0, 5, 5, 5]);
}

#[test]
fn what_is_said_overrides_the_handlers_policy_part_by_part() {
    let retry = TaskRetry {
        base: Some(Duration::from_secs(10)),
        ..TaskRetry::default()
    };
    let policy = RetryPolicy {
        factor: 3.0,
        cap: Duration::from_secs(20),
        ..RetryPolicy::default()
    };
    let waits = [1, 2].map(|attempt| retry.delay(policy, attempt, 1.0).as_secs());
    assert_eq!(waits, [10, 20]);
}

#[test]
fn no_more_than_allowed_may_be_waited_for() {
    let ids = |count: u8| {
        (0..count)
            .map(|n| TaskId::from_bytes([n; 16]).to_string())
            .collect()
    };
    let after = |count| TermsRequest {
        after: ids(count),
        ..TermsRequest::default()
    };
    assert_eq!(accepted(after(100)).state(), crate::State::Blocked);
    assert_eq!(refused(after(101)), ["/after"]);
}
