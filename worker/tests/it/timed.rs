//! What becomes of tasks by the clock: they expire, attempts take too long or are silent for too long, and how long it is
//! waited in between.

use std::time::Duration;

use forebay_core::{Json, RetryPolicy, RetryRequest, State, SubmitRequest};
use forebay_worker::{HandlerError, HandlerSettings, Handlers, StopReason};

use crate::support::{World, handle, handle_with, holds, options, request, settings, succeed};

/// How long an attempt may be silent here.
const SILENCE: Duration = Duration::from_millis(200);

fn impatient() -> HandlerSettings {
    HandlerSettings {
        heartbeat_timeout: Some(SILENCE),
        ..settings()
    }
}

fn with_terms(change: impl FnOnce(&mut forebay_core::TermsRequest)) -> SubmitRequest {
    let mut request = request();
    change(&mut request.terms);
    request
}

#[tokio::test]
async fn a_silent_attempt_is_ended_and_the_error_says_why() {
    let world = World::default();
    let worker = world.worker(
        options(),
        handle_with(impatient(), |execution| async move {
            assert_eq!(execution.heartbeat_timeout, Some(SILENCE));
            let reason = execution.stop.cancelled().await;
            assert_eq!(reason, StopReason::Silent);
            Err(HandlerError::permanent("what is said after that does not count"))
        }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Failed).await;
    for error in &task.errors {
        assert_eq!(error.outcome, "timed_out");
        assert_eq!(
            error.message,
            "heartbeat timeout: the attempt said nothing for 0.2 s"
        );
    }
    assert_eq!(task.errors.len(), 3);
    assert!(
        worker
            .metric("forebay_tasks_finished_total{queue=\"default\",kind=\"test\",outcome=\"timed_out\"} 3")
    );
}

#[tokio::test]
async fn whatever_an_attempt_says_keeps_it_alive() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle_with(impatient(), |execution| async move {
            for turn in 0..15 {
                tokio::time::sleep(SILENCE / 5).await;
                match turn % 3 {
                    0 => execution.heartbeat(),
                    1 => execution.progress.set(0.5, ""),
                    _ => execution.log.line("still there"),
                }
            }
            Ok(Json::null())
        }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!((task.attempt, task.errors.len()), (1, 0));
}

#[tokio::test]
async fn a_task_may_say_how_long_it_may_be_silent() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|execution| async move {
            tokio::time::sleep(SILENCE * 2).await;
            Ok(Json::of(&execution.heartbeat_timeout.is_some()).unwrap())
        }),
    );
    let patient = world.submit(request()).await;
    let impatient = world
        .submit(SubmitRequest {
            max_attempts: Some(1),
            ..with_terms(|terms| terms.heartbeat_timeout_seconds = Some(0.05))
        })
        .await;
    let task = world.wait_for(impatient, State::Failed).await;
    assert!(task.errors[0].message.starts_with("heartbeat timeout: "));
    let task = world.wait_for(patient, State::Succeeded).await;
    assert_eq!(task.result.unwrap().as_str(), "false");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_says_which_timeout_that_was() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle_with(impatient(), |execution| async move {
            loop {
                execution.heartbeat();
                tokio::time::sleep(SILENCE / 10).await;
            }
        }),
    );
    let id = world
        .submit(SubmitRequest {
            timeout_seconds: Some(0.5),
            max_attempts: Some(1),
            ..request()
        })
        .await;
    let task = world.wait_for(id, State::Failed).await;
    assert_eq!(
        task.errors[0].message,
        "start-to-close timeout: the attempt took longer than 0.5 s"
    );
}

/// Against a handler whose own policy would keep the test waiting for an hour or so.
#[tokio::test]
async fn a_tasks_own_retry_policy_counts() {
    let world = World::default();
    let slow = HandlerSettings {
        retry: RetryPolicy {
            base: Duration::from_secs(360_000),
            cap: Duration::from_secs(360_000),
            attempts_max: 4,
            ..RetryPolicy::default()
        },
        ..settings()
    };
    let _worker = world.worker(
        options(),
        handle_with(slow, |_| async { Err(HandlerError::retryable("no")) }),
    );
    let listed = RetryRequest {
        delays_seconds: vec![0.0, 0.1],
        ..RetryRequest::default()
    };
    let formula = RetryRequest {
        base_seconds: Some(0.02),
        factor: Some(1.0),
        ..RetryRequest::default()
    };
    for retry in [listed, formula] {
        let id = world.submit(with_terms(|terms| terms.retry = Some(retry))).await;
        let task = world.wait_for(id, State::Failed).await;
        assert_eq!(task.errors.len(), 4);
    }
    let by_handler = world.submit(request()).await;
    world.wait_for(by_handler, State::Retrying).await;
}

/// What a handler says of the wait counts more than what the task says.
#[tokio::test]
async fn a_handlers_own_wait_counts_more() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|_| async { Err(HandlerError::retry_after(Duration::ZERO, "now")) }),
    );
    let patient = RetryRequest {
        delays_seconds: vec![36_000.0],
        ..RetryRequest::default()
    };
    let id = world
        .submit(with_terms(|terms| terms.retry = Some(patient)))
        .await;
    world.wait_for(id, State::Failed).await;
}

#[tokio::test]
async fn what_nobody_starts_in_time_expires_and_is_told() {
    let world = World::default();
    let events = world.events().await;
    let _worker = world.worker(options(), Handlers::new());
    let late = world
        .submit(with_terms(|terms| {
            terms.schedule_to_start_timeout_seconds = Some(0.05);
        }))
        .await;
    let patient = world.submit(request()).await;
    let task = world.wait_for(late, State::Expired).await;
    assert_eq!((task.attempt, task.fence), (0, 0));
    holds("it is told", || {
        let heard = events.lock().unwrap();
        heard
            .iter()
            .any(|event| (event.id, event.state) == (late, State::Expired))
    })
    .await;
    let _knows_it = world.worker(options(), succeed());
    world.wait_for(patient, State::Succeeded).await;
    world.wait_for(late, State::Expired).await;
}
