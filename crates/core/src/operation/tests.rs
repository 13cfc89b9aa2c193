use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn retry(filter: FilterRequest) -> OperationRequest {
    OperationRequest {
        action: "retry".into(),
        filter,
        ..OperationRequest::default()
    }
}

fn failed() -> FilterRequest {
    FilterRequest {
        state: Some("failed".into()),
        ..FilterRequest::default()
    }
}

fn pointers(request: OperationRequest) -> Vec<String> {
    let wrong = request.accept().expect_err("it is wrong");
    wrong.into_iter().map(|violation| violation.pointer).collect()
}

#[test]
fn what_is_not_said_is_filled_in() {
    let queue = FilterRequest {
        queue: Some("images".into()),
        ..FilterRequest::default()
    };
    let plan = retry(queue.clone()).accept().unwrap();
    assert_eq!((plan.rate_per_second, plan.max), (RATE_PER_SECOND, None));
    assert_eq!(plan.states(), [State::Failed], "a retry is for what has failed");
    let states = |action: &str| {
        let asked = OperationRequest {
            action: action.into(),
            filter: queue.clone(),
            ..OperationRequest::default()
        };
        asked.accept().unwrap().states()
    };
    assert!(states("cancel").iter().all(|state| !state.is_final()));
    assert_eq!(states("cancel").len() + states("delete").len(), State::ALL.len());
    assert!(states("delete").iter().all(|state| state.is_final()));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let wrong = OperationRequest {
        action: "restart".into(),
        filter: FilterRequest {
            state: Some("sleeping".into()),
            project: Some("A".into()),
            queue: Some("two words".into()),
            kind: Some(String::new()),
            tag: Some(String::new()),
            batch: Some("one".into()),
            created_after: Some(at("2026-03-02T00:00:00Z")),
            created_before: Some(at("2026-03-01T00:00:00Z")),
            error_contains: Some("a\0b".into()),
        },
        rate_per_second: Some(0),
        max: Some(0),
    };
    let mut found = pointers(wrong);
    found.sort();
    assert_eq!(
        found,
        [
            "/action",
            "/filter/batch",
            "/filter/created_before",
            "/filter/error_contains",
            "/filter/kind",
            "/filter/project",
            "/filter/queue",
            "/filter/state",
            "/filter/tag",
            "/max",
            "/rate_per_second"
        ]
    );
    assert_eq!(pointers(retry(FilterRequest::default())), ["/filter"]);
    for rate in [-1, 1_001] {
        let fast = OperationRequest {
            rate_per_second: Some(rate),
            ..retry(failed())
        };
        assert_eq!(pointers(fast), ["/rate_per_second"]);
    }
}

#[test]
fn an_action_is_for_the_states_that_allow_it() {
    for (action, state, possible) in [
        ("retry", "failed", true),
        ("retry", "cancelled", true),
        ("retry", "succeeded", false),
        ("retry", "running", false),
        ("cancel", "running", true),
        ("cancel", "blocked", true),
        ("cancel", "failed", false),
        ("delete", "succeeded", true),
        ("delete", "queued", false),
    ] {
        let asked = OperationRequest {
            action: action.into(),
            filter: FilterRequest {
                state: Some(state.into()),
                ..FilterRequest::default()
            },
            ..OperationRequest::default()
        };
        match possible {
            true => assert_eq!(asked.accept().unwrap().states(), [state.parse().unwrap()]),
            false => assert_eq!(pointers(asked), ["/filter/state"], "{action} {state}"),
        }
    }
}

#[test]
fn every_task_that_is_meant_has_an_id_between_the_bounds() {
    let began = at("2026-03-05T12:00:00Z");
    let key = crate::IdempotencyKey::parse("k").unwrap();
    let filter = FilterRequest {
        created_after: Some(at("2026-03-02T18:00:00Z")),
        created_before: Some(at("2026-03-03T18:00:00Z")),
        ..failed()
    };
    let (first, last) = retry(filter).accept().unwrap().ids(began);
    for created in ["2026-03-02T18:00:01Z", "2026-03-03T17:59:59Z"] {
        let created = at(created);
        for id in [
            TaskId::new(created, &[0; 10]),
            TaskId::new(created, &[255; 10]),
            TaskId::keyed(created, &Project::default(), &key),
        ] {
            assert!(first < id.as_uuid() && id.as_uuid() < last, "{id}");
        }
    }
    let long_ago = TaskId::new(at("2026-02-27T00:00:00Z"), &[7; 10]);
    assert!(long_ago.as_uuid() < first, "days before are not looked at");
    let (all, until) = retry(failed()).accept().unwrap().ids(began);
    assert!(all < long_ago.as_uuid() && TaskId::new(began, &[255; 10]).as_uuid() < until);
}

#[test]
fn a_filter_comes_back_as_it_was_kept() {
    let filter = FilterRequest {
        state: Some("failed".into()),
        project: Some("default".into()),
        queue: Some("images".into()),
        kind: Some("resize".into()),
        tag: Some("x\"y".into()),
        batch: Some("01938e2f-7c1a-7b3e-9f00-5d1f3a2b4c6d".into()),
        created_after: Some(at("2026-03-02T18:00:00.123456Z")),
        created_before: Some(at("2026-03-03T18:00:00Z")),
        error_contains: Some("no luck".into()),
    };
    for filter in [filter, failed()] {
        let filter = retry(filter).accept().unwrap().filter;
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(
            serde_json::from_str::<OperationFilter>(&text).unwrap(),
            filter,
            "{text}"
        );
    }
}
