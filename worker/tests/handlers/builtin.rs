use std::time::Duration;

use forebay_worker::handlers::{Execution, HandlerError, HandlerResult, Handlers, StopReason};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{WITHIN, execution};

async fn run(kind: &str, execution: Execution) -> HandlerResult {
    let (handler, _) = Handlers::builtin().handler(&kind.parse().unwrap()).unwrap();
    let execution = Execution {
        kind: kind.parse().unwrap(),
        ..execution
    };
    timeout(WITHIN, handler.run(execution)).await.unwrap()
}

fn permanent(result: HandlerResult) -> String {
    match result {
        Err(HandlerError::Permanent { message }) => message,
        other => panic!("not permanent: {other:?}"),
    }
}

#[tokio::test]
async fn echo_returns_its_payload_as_it_came() {
    let text = r#"{"b": 1.50, "a": "\u00e4"}"#;
    assert_eq!(run("echo", execution(text)).await.unwrap().as_str(), text);
}

#[tokio::test(start_paused = true)]
async fn sleep_sleeps_and_can_be_woken() {
    let began = Instant::now();
    run("sleep", execution(r#"{"seconds": 2.5}"#)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(2_500));
    let attempt = execution(r#"{"seconds": 80000}"#);
    attempt.stop.ask(StopReason::Shutdown);
    assert!(matches!(
        run("sleep", attempt).await,
        Err(HandlerError::Retryable { .. })
    ));
}

#[tokio::test]
async fn fail_fails_as_asked() {
    let message = |result: HandlerResult| result.unwrap_err().to_string();
    assert_eq!(message(run("fail", execution("null")).await), "failed as asked");
    assert_eq!(message(run("fail", execution(r#"{"message":"no"}"#)).await), "no");
    assert_eq!(
        permanent(run("fail", execution(r#"{"permanent":true,"message":"never"}"#)).await),
        "never"
    );
    for attempt in 1..=3 {
        let execution = Execution {
            attempt,
            ..execution(r#"{"times":2}"#)
        };
        let log = execution.log.clone();
        assert_eq!(run("fail", execution).await.is_ok(), attempt == 3);
        assert_eq!(log.text().unwrap(), format!("attempt {attempt} of 5\n"));
    }
}

#[tokio::test]
async fn cpu_works_for_iterations_or_for_a_time() {
    let counted = run("cpu", execution(r#"{"iterations": 2500}"#)).await.unwrap();
    let counted: Value = serde_json::from_str(counted.as_str()).unwrap();
    assert_eq!(counted["iterations"], 2_500);
    assert_eq!(counted["digest"].as_str().unwrap().len(), 64);
    let began = Instant::now();
    let timed = run("cpu", execution(r#"{"milliseconds": 30}"#)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(30));
    let timed: Value = serde_json::from_str(timed.as_str()).unwrap();
    assert!(timed["iterations"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn cpu_ends_when_it_is_told_and_when_it_is_dropped() {
    let attempt = execution(r#"{"milliseconds": 86400000}"#);
    let stop = attempt.stop.clone();
    let (result, ()) = tokio::join!(run("cpu", attempt), async { stop.ask(StopReason::TimedOut) });
    assert!(matches!(result, Err(HandlerError::Retryable { .. })));
    let attempt = execution(r#"{"milliseconds": 86400000}"#);
    // The runtime's end waits for its blocking threads: were the work not ended here, the test would not end.
    assert!(
        timeout(Duration::from_millis(50), run("cpu", attempt))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_permanent_and_says_why() {
    for (kind, payload, says) in [
        ("sleep", "null", "sleep takes"),
        ("sleep", r#"{"second": 1}"#, "unknown field `second`"),
        ("sleep", r#"{"seconds": -1}"#, "/seconds must be from 0 to 86400"),
        ("sleep", r#"{"seconds": "1"}"#, "invalid type"),
        ("fail", r#"{"times": -1}"#, "invalid value"),
        ("fail", r#"{"permanent": 1}"#, "invalid type"),
        ("cpu", "{}", "either"),
        ("cpu", r#"{"iterations": 1, "milliseconds": 1}"#, "either"),
        ("cpu", r#"{"iterations": 100000000001}"#, "/iterations must be"),
        (
            "cpu",
            r#"{"milliseconds": 86400001}"#,
            "/milliseconds must be from 0 to 86400000",
        ),
    ] {
        let message = permanent(run(kind, execution(payload)).await);
        assert!(message.contains(says), "{kind} {payload}: {message}");
    }
}
