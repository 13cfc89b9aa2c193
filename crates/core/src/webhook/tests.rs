use super::*;
use crate::{AttemptError, Json, Outcome};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-03-01T12:00:00Z")
}

fn request() -> WebhookRequest {
    WebhookRequest {
        url: "https://example.com/hook?x=1".into(),
        ..WebhookRequest::default()
    }
}

fn accept(request: WebhookRequest, random: u8) -> NewWebhook {
    request.accept("billing".parse().unwrap(), &[random; 32]).unwrap()
}

fn secret(byte: u8) -> String {
    WebhookSecret::new(&[byte; 32]).expose().to_owned()
}

fn ended() -> EndedTask {
    EndedTask {
        id: "0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f".parse().unwrap(),
        project: "acme".parse().unwrap(),
        kind: "report".parse().unwrap(),
        queue: "slow".parse().unwrap(),
        tags: vec!["a".into()],
        attempt: 2,
        created_at: now(),
        started_at: Some(now()),
        errors: vec![AttemptError::new(1, Outcome::Failed, "no", now())],
        result: Json::parse(br#"{"pages": 7}"#).ok(),
        traceparent: None,
        notify: Vec::new(),
        batch: None,
    }
}

#[test]
fn only_a_url_is_needed() {
    let webhook = accept(request(), 1).replacing(None, now());
    assert_eq!(webhook.states, FINAL);
    assert!(!webhook.include_result && !webhook.disabled);
    assert_eq!(webhook.secret.expose(), secret(1));
    assert!(webhook.secret.expose().parse::<WebhookSecret>().is_ok());
    assert!(accept(request(), 1).has_made_secret_of(&webhook));
}

#[test]
fn all_mistakes_are_named_at_once() {
    let request = WebhookRequest {
        url: "ftp://example.com".into(),
        secret: Some("whsec_c2hvcnQ=".into()),
        states: Some(vec!["failed".into(), "queued".into(), "nonsense".into()]),
        ..WebhookRequest::default()
    };
    let wrong = request.accept("x".parse().unwrap(), &[0; 32]).unwrap_err();
    let pointers: Vec<&str> = wrong.iter().map(|v| v.pointer.as_str()).collect();
    assert_eq!(pointers, ["/url", "/secret", "/states/1", "/states/2"]);
}

#[test]
fn urls_that_hide_something_are_refused() {
    for bad in [
        "",
        "example.com",
        "//example.com",
        "https://",
        "https://user@example.com",
        "https://u:p@example.com",
        "https://example.com/#part",
        "file:///etc/passwd",
        "https://example.com/\0",
        "https://example.com/\u{1b}[2J",
        "https://exam\nple.com/",
        " https://example.com/",
        &format!("https://example.com/{}", "a".repeat(2_048)),
    ] {
        assert!(check_url(bad).is_err(), "{bad:?} was accepted");
    }
    assert!(check_url("http://10.0.0.1:8080/").is_ok());
}

#[test]
fn no_states_are_no_default() {
    let none = WebhookRequest {
        states: Some(Vec::new()),
        ..request()
    };
    let wrong = none.accept("x".parse().unwrap(), &[0; 32]).unwrap_err();
    assert_eq!(wrong[0].pointer, "/states");
    let some = WebhookRequest {
        states: Some(vec!["failed".into(), "succeeded".into(), "failed".into()]),
        ..request()
    };
    assert_eq!(accept(some, 0).states, [State::Succeeded, State::Failed]);
}

#[test]
fn to_put_the_same_again_changes_nothing() {
    let first = accept(request(), 1).replacing(None, now());
    let again = accept(request(), 2);
    let later = at("2026-03-02T12:00:00Z");
    assert_eq!(again.replacing(Some(&first), later), first);
    assert!(!again.has_made_secret_of(&first), "it was shown once");
}

#[test]
fn a_secret_that_was_replaced_signs_for_a_day() {
    let first = accept(request(), 1).replacing(None, now());
    let given = WebhookRequest {
        secret: Some(secret(2)),
        ..request()
    };
    let second = accept(given.clone(), 3).replacing(Some(&first), now());
    let signs = |at| {
        let secrets = second.secrets(at).map(|secret| secret.expose().to_owned());
        secrets.collect::<Vec<_>>()
    };
    assert_eq!(signs(at("2026-03-02T11:59:59Z")), [secret(2), secret(1)]);
    assert_eq!(signs(at("2026-03-02T12:00:00Z")), [secret(2)]);
    let soon = at("2026-03-01T13:00:00Z");
    let put_again = accept(given, 4).replacing(Some(&second), soon);
    assert_eq!(put_again, second, "the day is not prolonged");
    let later = at("2026-03-03T12:00:00Z");
    assert_eq!(
        accept(request(), 5)
            .replacing(Some(&second), later)
            .previous_secret,
        None
    );
}

#[test]
fn to_put_it_enables_it_and_forgets_why_it_was_not() {
    let gone = Webhook {
        disabled: true,
        disabled_reason: Some("gone".into()),
        ..accept(request(), 1).replacing(None, now())
    };
    let enabled = accept(request(), 2).replacing(Some(&gone), now());
    assert!(!enabled.disabled && enabled.disabled_reason.is_none());
    let resting = WebhookRequest {
        disabled: true,
        ..request()
    };
    let still = accept(resting, 2).replacing(Some(&gone), now());
    assert_eq!(still.disabled_reason.as_deref(), Some("gone"));
}

#[test]
fn a_change_gives_one_that_fails_another_chance() {
    let failing = Webhook {
        failing_since: Some(now()),
        ..accept(request(), 1).replacing(None, now())
    };
    let later = at("2026-03-02T12:00:00Z");
    assert_eq!(accept(request(), 2).replacing(Some(&failing), later), failing);
    let moved = WebhookRequest {
        url: "https://example.com/other".into(),
        ..request()
    };
    let moved = accept(moved, 2).replacing(Some(&failing), later);
    assert_eq!((moved.failing_since, moved.updated_at), (None, later));
    let given_up = Webhook {
        disabled: true,
        disabled_reason: Some("failing".into()),
        ..failing
    };
    let enabled = accept(request(), 2).replacing(Some(&given_up), later);
    assert_eq!((enabled.disabled, enabled.failing_since), (false, None));
}

#[test]
fn a_secret_does_not_show_itself() {
    let webhook = accept(request(), 1).replacing(None, now());
    assert!(!format!("{webhook:?}").contains("whsec_"));
}

#[test]
fn an_event_is_a_cloud_event_that_tells_of_the_task() {
    let webhook = accept(request(), 1).replacing(None, now());
    let end = (State::Failed, at("2026-03-01T12:00:05Z"));
    let event = WebhookEvent::of_task(&webhook, &ended(), end, None);
    assert_eq!(
        event.id,
        "0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f_failed_1772366405000000"
    );
    let task = event.delivery(&webhook.name, now());
    let payload: serde_json::Value = serde_json::from_str(task.payload.as_str()).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({
            "webhook": "billing",
            "event": {
                "specversion": "1.0",
                "id": "0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f_failed_1772366405000000",
                "source": "/forebay/projects/acme",
                "type": "dev.forebay.task.failed",
                "subject": "0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f",
                "time": "2026-03-01T12:00:05Z",
                "datacontenttype": "application/json",
                "data": {
                    "id": "0198c4d2-7c9e-7cc3-9d4e-0a1b2c3d4e5f",
                    "kind": "report",
                    "queue": "slow",
                    "project": "acme",
                    "state": "failed",
                    "attempt": 2,
                    "tags": ["a"],
                    "batch": null,
                    "error": {"attempt": 1, "outcome": "failed", "message": "no", "at": "2026-03-01T12:00:00Z"},
                    "created_at": "2026-03-01T12:00:00Z",
                    "started_at": "2026-03-01T12:00:00Z",
                    "finished_at": "2026-03-01T12:00:05Z",
                },
            },
        })
    );
}

#[test]
fn a_delivery_is_a_task_with_the_schedule_of_standard_webhooks() {
    let webhook = accept(request(), 1).replacing(None, now());
    let event = WebhookEvent::of_task(&webhook, &ended(), (State::Succeeded, now()), None);
    let task = event.delivery(&webhook.name, now());
    assert_eq!(
        (task.kind.as_str(), task.lane.queue.as_str()),
        (WEBHOOK_KIND, WEBHOOK_QUEUE)
    );
    assert_eq!((task.project.as_str(), task.run_at), ("acme", Some(now())));
    assert_eq!(task.max_attempts, Some(DELIVERY_ATTEMPTS_MAX));
    assert!(task.tags.is_empty(), "labels are the users' own");
    assert!(task.kind.is_reserved() && task.lane.queue.is_reserved());
    let terms = task.terms.expect("it has a schedule");
    assert!(!terms.is_watched(), "nobody hears of the end of a delivery");
    let retry = terms.retry.expect("it has a schedule");
    let policy = crate::RetryPolicy::default();
    let waits: Vec<u64> = (1..DELIVERY_ATTEMPTS_MAX)
        .map(|attempt| retry.delay(policy, attempt, 0.5).as_secs())
        .collect();
    assert_eq!(
        waits,
        [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
    );
}

#[test]
fn a_trial_is_tried_once() {
    let webhook = accept(request(), 1).replacing(None, now());
    let task = WebhookEvent::trial(&webhook, now()).delivery(&webhook.name, now());
    assert_eq!(task.max_attempts, Some(1));
}

#[test]
fn a_result_is_told_only_where_it_is_asked_for() {
    let asking = WebhookRequest {
        include_result: true,
        ..request()
    };
    let event = |request: WebhookRequest, task: &EndedTask| {
        let webhook = accept(request, 1).replacing(None, now());
        let event = WebhookEvent::of_task(&webhook, task, (State::Succeeded, now()), None);
        let payload = event.delivery(&webhook.name, now()).payload;
        let value: serde_json::Value = serde_json::from_str(payload.as_str()).unwrap();
        value["event"]["data"].clone()
    };
    let told = event(asking.clone(), &ended());
    assert_eq!(told["result"], serde_json::json!({"pages": 7}));
    assert_eq!(told["error"], serde_json::Value::Null, "it succeeded in the end");
    let nothing = EndedTask {
        result: None,
        ..ended()
    };
    assert!(event(asking, &nothing).as_object().unwrap()["result"].is_null());
    assert!(
        !event(request(), &ended())
            .as_object()
            .unwrap()
            .contains_key("result")
    );
}

#[test]
fn deliveries_of_one_event_differ_by_webhook_and_time() {
    let webhook = accept(request(), 1).replacing(None, now());
    let event = WebhookEvent::of_task(&webhook, &ended(), (State::Succeeded, now()), None);
    let id = |name: &str, at| event.delivery(&name.parse().unwrap(), at).id;
    let later = at("2026-03-01T12:00:00.000001Z");
    assert_eq!(id("a", now()), id("a", now()));
    assert_ne!(id("a", now()), id("b", now()));
    assert_ne!(id("a", now()), id("a", later));
}
