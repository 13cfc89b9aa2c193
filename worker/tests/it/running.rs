//! What becomes of tasks by what their handlers do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay_broker::Broker;
use forebay_core::{Json, Signal, State, SubmitRequest};
use forebay_store::Operate;
use forebay_worker::{HandlerError, HandlerSettings, Handlers, StopReason};

use crate::support::{World, handle, handle_with, holds, options, request, settings, until};

#[tokio::test]
async fn a_task_runs_and_its_result_is_kept() {
    let world = World::default();
    let events = world.events().await;
    let handlers = Handlers::new()
        .function("test", settings(), |input: Vec<u32>, execution| async move {
            execution.log.line(format_args!("attempt {}", execution.attempt));
            Ok(input.iter().sum::<u32>())
        })
        .unwrap();
    let worker = world.worker(options(), handlers);
    let id = world
        .submit(SubmitRequest {
            payload: Some(Json::parse(b"[1,2,3]").unwrap()),
            ..request()
        })
        .await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(task.result.unwrap().as_str(), "6");
    assert_eq!(task.log.unwrap(), "attempt 1\n");
    assert_eq!((task.attempt, task.fence, task.max_attempts), (1, 1, Some(3)));
    worker.is_healthy().await;
    until("both events are told", || {
        let states: Vec<State> = events.lock().unwrap().iter().map(|event| event.state).collect();
        if states == [State::Running, State::Succeeded] {
            Ok(())
        } else {
            Err(states)
        }
    })
    .await;
    let (store, metrics) = (Arc::clone(&world.store), Arc::clone(&worker.metrics));
    assert!(
        worker
            .metric("forebay_tasks_finished_total{queue=\"default\",kind=\"test\",outcome=\"succeeded\"} 1")
    );
    worker.drain().await;
    assert_eq!(store.claims_held(), 0, "the claim's note is forgotten");
    assert!(
        metrics.encode().contains("operation=\"record\""),
        "it was recorded, too"
    );
}

#[tokio::test]
async fn a_failure_is_retried_until_it_succeeds() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|execution| async move {
            match execution.attempt {
                1 => Err(std::io::Error::other("not yet").into()),
                2 => Err(HandlerError::retry_after(Duration::from_millis(5), "still not")),
                attempt => Ok(Json::of(&attempt).unwrap()),
            }
        }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!((task.attempt, task.fence), (3, 3));
    let errors: Vec<_> = task
        .errors
        .iter()
        .map(|error| (error.attempt, &*error.message))
        .collect();
    assert_eq!(errors, [(1, "not yet"), (2, "still not")]);
}

#[tokio::test]
async fn attempts_are_used_up() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|_| async { Err(HandlerError::retryable("never")) }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Failed).await;
    assert_eq!((task.attempt, task.errors.len()), (3, 3));
}

#[tokio::test]
async fn a_permanent_failure_is_not_retried() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|_| async { Err(HandlerError::permanent("no use")) }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Failed).await;
    assert_eq!((task.attempt, task.errors.len()), (1, 1));
}

#[tokio::test]
async fn a_payload_that_does_not_fit_fails_for_good() {
    let world = World::default();
    let handlers = Handlers::new()
        .function("test", settings(), |count: u32, _| async move { Ok(count) })
        .unwrap();
    let _worker = world.worker(options(), handlers);
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Failed).await;
    assert!(
        task.errors[0].message.contains("invalid type: null"),
        "{:?}",
        task.errors
    );
}

#[tokio::test]
async fn a_result_that_is_too_large_fails_for_good() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|_| async { Ok(Json::of(&"x".repeat(256 * 1024)).unwrap()) }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Failed).await;
    assert!(
        task.errors[0].message.contains("262146 bytes"),
        "{:?}",
        task.errors
    );
    assert_eq!((task.attempt, task.result), (1, None));
}

#[tokio::test]
async fn a_snooze_costs_no_attempt() {
    let world = World::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let _worker = world.worker(
        options(),
        handle(move |_| {
            let call = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                match call {
                    0..5 => Err(HandlerError::snooze(Duration::from_millis(5))),
                    _ => Ok(Json::null()),
                }
            }
        }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!((task.attempt, task.fence), (1, 6));
    assert!(task.errors.is_empty());
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt() {
    let world = World::default();
    let worker = world.worker(
        options(),
        handle(|execution| async move {
            assert!(execution.attempt > 1, "attempt {}", execution.attempt);
            Ok(Json::null())
        }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(task.errors[0].message, "the handler panicked: attempt 1");
    worker.drain().await;
}

/// Counts the handlers that were dropped before they ended.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_hung_handler_is_ended_by_its_timeout_and_retried() {
    let world = World::default();
    let dropped = Arc::new(AtomicUsize::new(0));
    let guards = Arc::clone(&dropped);
    let settings = HandlerSettings {
        timeout: Duration::from_millis(50),
        ..settings()
    };
    let worker = world.worker(
        options(),
        handle_with(settings, move |_| {
            let guard = Dropped(Arc::clone(&guards));
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok(Json::null())
            }
        }),
    );
    let id = world.submit(request()).await;
    let task = world.wait_for(id, State::Failed).await;
    let outcomes: Vec<_> = task.errors.iter().map(|error| &*error.outcome).collect();
    assert_eq!(outcomes, ["timed_out"; 3]);
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    assert!(
        worker
            .metric("forebay_tasks_finished_total{queue=\"default\",kind=\"test\",outcome=\"timed_out\"} 3")
    );
    assert!(worker.metric("forebay_dead_letters_total{queue=\"default\",kind=\"test\"} 1"));
}

#[tokio::test]
async fn a_submission_may_set_its_own_timeout_and_attempts() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|execution| async move {
            let reason = execution.stop.cancelled().await;
            assert_eq!(reason, StopReason::TimedOut);
            Err(HandlerError::permanent(
                "what is said after the timeout does not count",
            ))
        }),
    );
    let id = world
        .submit(SubmitRequest {
            timeout_seconds: Some(0.05),
            max_attempts: Some(2),
            ..request()
        })
        .await;
    let task = world.wait_for(id, State::Failed).await;
    let outcomes: Vec<_> = task.errors.iter().map(|error| &*error.outcome).collect();
    assert_eq!(outcomes, ["timed_out", "timed_out"]);
}

#[tokio::test]
async fn a_running_task_is_cancelled_by_a_signal_and_without_one() {
    for signalled in [true, false] {
        let world = World::default();
        let _worker = world.worker(
            options(),
            handle(|execution| async move {
                execution.stop.cancelled().await;
                Err(HandlerError::retryable("stopped"))
            }),
        );
        let id = world.submit(request()).await;
        world.wait_for(id, State::Running).await;
        world.store.cancel(id).await.unwrap();
        if signalled {
            world.broker.signal(Signal::Cancel(vec![id])).await.unwrap();
        }
        let task = world.wait_for(id, State::Cancelled).await;
        assert_eq!(task.errors[0].outcome, "cancelled");
    }
}

#[tokio::test]
async fn what_succeeds_in_spite_of_a_cancellation_has_succeeded() {
    let world = World::default();
    let _worker = world.worker(
        options(),
        handle(|execution| async move {
            execution.stop.cancelled().await;
            Ok(Json::null())
        }),
    );
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    world.store.cancel(id).await.unwrap();
    world.wait_for(id, State::Succeeded).await;
}

#[tokio::test]
async fn neither_slots_nor_a_handlers_own_bound_are_exceeded() {
    for (slots, bound, most) in [(4, None, 4), (8, Some(2), 2)] {
        let world = World::default();
        let now = Arc::new(AtomicUsize::new(0));
        let peak = Arc::new(AtomicUsize::new(0));
        let (running, highest) = (Arc::clone(&now), Arc::clone(&peak));
        let settings = HandlerSettings {
            concurrency: bound,
            ..settings()
        };
        let handlers = handle_with(settings, move |_| {
            let (running, highest) = (Arc::clone(&running), Arc::clone(&highest));
            async move {
                let count = running.fetch_add(1, Ordering::SeqCst) + 1;
                highest.fetch_max(count, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Json::null())
            }
        });
        let options = forebay_worker::WorkerOptions {
            concurrency: slots,
            ..options()
        };
        let _worker = world.worker(options, handlers);
        let ids = world.submit_many(40).await;
        world.wait_for_all(&ids, State::Succeeded).await;
        assert_eq!(peak.load(Ordering::SeqCst), most, "all of its slots, and no more");
    }
}

#[tokio::test]
async fn the_trace_reaches_the_handler() {
    let world = World::default();
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let _worker = world.worker(
        options(),
        handle(|execution| async move {
            let trace = execution
                .traceparent
                .as_ref()
                .map(|trace| trace.as_str().to_owned());
            Ok(Json::of(&trace).unwrap())
        }),
    );
    let id = world
        .submit(SubmitRequest {
            traceparent: forebay_core::TraceParent::parse(header),
            ..request()
        })
        .await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(task.result.unwrap().as_str(), format!("\"{header}\""));
}

#[tokio::test]
async fn busy_slots_are_shown() {
    let world = World::default();
    let worker = world.worker(
        options(),
        handle(|execution| async move {
            execution.stop.cancelled().await;
            Ok(Json::null())
        }),
    );
    let id = world.submit(request()).await;
    world.wait_for(id, State::Running).await;
    holds("the gauge says so", || {
        worker.metric("forebay_worker_slots{state=\"busy\"} 1")
    })
    .await;
    assert!(worker.metric("forebay_worker_slots{state=\"free\"} 9"));
    use forebay_store::Read;
    for _ in 0..1_000 {
        let known = world.store.workers().await.unwrap();
        if known[0].busy == [(forebay_core::QueueName::default(), 1)] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the heartbeat never said so");
}

/// Attempts of a kind that always ended at once are begun one after the other.
#[tokio::test]
async fn quick_attempts_share_a_task_and_none_suffers_for_another() {
    let world = World::default();
    let handlers = handle_with(
        HandlerSettings {
            timeout: Duration::from_millis(300),
            ..settings()
        },
        |execution| async move {
            match execution.payload.as_str() {
                "\"panic\"" if execution.attempt == 1 => panic!("a quick one"),
                "\"wait\"" => tokio::time::sleep(Duration::from_millis(5)).await,
                "\"hang\"" if execution.attempt == 1 => std::future::pending().await,
                "\"fail\"" => return Err(HandlerError::permanent("as asked")),
                _ => {}
            }
            Ok(execution.payload)
        },
    );
    let options = forebay_worker::WorkerOptions {
        concurrency: 200,
        ..options()
    };
    let worker = world.worker(options, handlers);
    let mut orders = vec!["quick"; 400];
    for (index, order) in ["panic", "wait", "hang", "fail"]
        .into_iter()
        .cycle()
        .take(40)
        .enumerate()
    {
        orders[200 + index * 5] = order;
    }
    let mut ids = Vec::new();
    for order in orders {
        let payload = Some(Json::of(order).unwrap());
        ids.push((world.submit(SubmitRequest { payload, ..request() }).await, order));
    }
    for (id, order) in ids {
        let expected = match order {
            "panic" => (State::Succeeded, 2, Some("failed")),
            "hang" => (State::Succeeded, 2, Some("timed_out")),
            "fail" => (State::Failed, 1, Some("failed")),
            _ => (State::Succeeded, 1, None),
        };
        let task = world.wait_for(id, expected.0).await;
        let error = task.errors.first().map(|error| &*error.outcome);
        assert_eq!((task.state, task.attempt, error), expected, "{order}");
    }
    let store = Arc::clone(&world.store);
    worker.drain().await;
    assert_eq!(store.claims_held(), 0);
}
