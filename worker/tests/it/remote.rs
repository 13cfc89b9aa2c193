//! Workers at the other end of a stream, against the service as the API mounts it.

mod client;
mod silence;

use std::{sync::Arc, time::Duration};

use forebay_broker::Broker;
use forebay_core::{Json, Signal, State, SubmitRequest, TaskId};
use forebay_proto::v1::{
    self, Failed, Finish, Heartbeat, Hello, KindSettings, LogLines, Progress, Snoozed, StartId, Succeeded,
    finish::Outcome, stop::Reason, work_request::Message as Say, work_response::Message as Heard,
};
use forebay_store::Operate;
use forebay_worker::{DispatcherOptions, Handlers, RemoteOptions, Roles, WorkerOptions};
use tonic::Code;
use tonic_types::StatusExt;

use self::client::{Client, Server, hello, id_of, kind, succeeded};
use crate::support::{Running, World, holds, options, request, succeed};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(600);

/// A lease that no test waits for: who starts a task again did not wait for it.
fn without_lease() -> RemoteOptions {
    remote_options(WorkerOptions {
        lease: NEVER,
        heartbeat: Some(Duration::from_millis(100)),
        lost_max: 10,
        ..options()
    })
}

fn remote_options(executor: WorkerOptions) -> RemoteOptions {
    RemoteOptions {
        executor,
        silence_max: NEVER,
        hello_max: Duration::from_secs(10),
        ..RemoteOptions::default()
    }
}

impl World {
    /// Records and dispatches, and runs nothing.
    fn clerk(&self, lease: Duration) -> Running {
        let options = WorkerOptions {
            roles: Roles {
                executor: false,
                ..Roles::ALL
            },
            lease,
            // What is left to the store, or lost on its way, does not come again.
            dispatcher: DispatcherOptions {
                empty_lane_lag: NEVER,
                watermark_lag: NEVER,
                ..options().dispatcher
            },
            ..options()
        };
        self.worker(options, Handlers::new())
    }

    async fn serve(&self, options: RemoteOptions) -> Server {
        Server::start(
            options,
            Arc::clone(&self.store) as _,
            Arc::clone(&self.broker) as _,
        )
        .await
    }
}

#[tokio::test]
async fn what_a_worker_answers_becomes_of_the_task() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(hello("test", 4)).await;
    let failed = |permanent, retry_after| {
        Outcome::Failed(Failed {
            message: "no luck".to_owned(),
            permanent,
            retry_after,
        })
    };
    let at_once = prost_types::Duration { seconds: 0, nanos: 1 };
    let good = succeeded("{\"answer\": 42}");
    for (first, state, attempt, fence) in [
        (good.clone(), State::Succeeded, 1, 1),
        (failed(false, Some(at_once)), State::Succeeded, 2, 2),
        (failed(true, None), State::Failed, 1, 1),
        (Outcome::Snoozed(Snoozed { delay: None }), State::Succeeded, 1, 2),
        (succeeded("no JSON"), State::Failed, 1, 1),
        (
            succeeded(&format!("\"{}\"", "x".repeat(256 * 1024))),
            State::Failed,
            1,
            1,
        ),
    ] {
        let id = world.submit(request()).await;
        let start = worker.start().await;
        assert_eq!(id_of(&start), (id.to_string(), 1));
        worker.finish(&start, first.clone()).await;
        if fence > 1 {
            let again = worker.start().await;
            assert_eq!((id_of(&again).1, again.attempt), (fence, attempt));
            worker.finish(&again, good.clone()).await;
        }
        let task = world.wait_for(id, state).await;
        assert_eq!((task.attempt, task.fence), (attempt, fence), "{first:?}");
        let result = task.result.map(|json| json.as_str().to_owned());
        assert_eq!(
            result.as_deref(),
            (state == State::Succeeded).then_some("{\"answer\": 42}")
        );
    }
    // A task that has no word of how it ended is tried again, and an empty result is null.
    let id = world.submit(request()).await;
    let start = worker.start().await;
    let unsaid = Finish {
        id: start.id.clone(),
        outcome: None,
    };
    worker.say(Say::Finish(unsaid)).await;
    world.wait_for(id, State::Retrying).await;
    let start = worker.start().await;
    worker.finish(&start, succeeded("")).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(task.result.unwrap().as_str(), "null");
}

#[tokio::test]
async fn a_start_says_all_and_what_is_said_meanwhile_is_kept() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let settings = KindSettings {
        timeout: Some(prost_types::Duration {
            seconds: 77,
            nanos: 0,
        }),
        max_attempts: Some(9),
        ..kind("test")
    };
    let mut worker = server
        .worker(Hello {
            kinds: vec![kind("other"), settings],
            ..hello("test", 2)
        })
        .await;
    let [info] = &*world.store.infos() else {
        panic!("one worker")
    };
    assert_eq!(
        (info.name.as_str(), info.slots, info.id.to_string()),
        ("host-1", 2, worker.id.clone())
    );
    let id = world
        .submit(SubmitRequest {
            payload: Some(Json::of(&[1, 2]).unwrap()),
            ..request()
        })
        .await;
    let start = worker.start().await;
    assert_eq!((start.kind.as_str(), start.queue.as_str()), ("test", "default"));
    assert_eq!(
        (start.project.as_str(), &start.payload[..]),
        ("default", &b"[1,2]"[..])
    );
    assert_eq!((start.attempt, start.max_attempts), (1, 9));
    assert_eq!(start.timeout.unwrap().seconds, 77);
    let deadline = start.deadline.unwrap().seconds - jiff_now();
    assert!((60..=78).contains(&deadline), "in {deadline} s");
    let lines = ["first", "second"].map(str::to_owned).to_vec();
    worker
        .say(Say::LogLines(LogLines {
            id: start.id.clone(),
            lines,
        }))
        .await;
    let half = Progress {
        id: start.id.clone(),
        fraction: 0.5,
        message: "half".to_owned(),
    };
    worker.say(Say::Progress(half)).await;
    holds("the progress is stored", || {
        let progress = world.store.task(id).and_then(|task| task.progress);
        progress.is_some_and(|it| (it.fraction, it.message.as_str()) == (0.5, "half"))
    })
    .await;
    worker.finish(&start, succeeded("1")).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(task.log.as_deref(), Some("first\nsecond\n"));
    assert!(server.metric("forebay_remote_workers{} 1"));
    holds("its slots are shown", || {
        server.metric("forebay_worker_slots{state=\"free\"} 2")
    })
    .await;
    drop(worker);
    holds("it is gone", || {
        server.metric("forebay_remote_workers{} 0") && server.metric("forebay_worker_slots{state=\"free\"} 0")
    })
    .await;
}

fn jiff_now() -> i64 {
    use forebay_core::Clock;
    forebay_core::SystemClock.now().as_second()
}

#[tokio::test]
async fn a_worker_never_has_more_than_its_slots() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let bounded = KindSettings {
        concurrency: Some(1),
        ..kind("bounded")
    };
    let mut worker = server
        .worker(Hello {
            kinds: vec![kind("test"), bounded],
            ..hello("test", 3)
        })
        .await;
    let mut ids = world.submit_many(20).await;
    for _ in 0..5 {
        ids.push(
            world
                .submit(SubmitRequest {
                    kind: "bounded".to_owned(),
                    ..request()
                })
                .await,
        );
    }
    let mut open = Vec::new();
    for _ in 0..ids.len() {
        if open.is_empty() {
            open.push(worker.start().await);
        }
        while let Some(Heard::Start(start)) = worker.hear_within(Duration::from_millis(40)).await {
            open.push(start);
        }
        assert!(open.len() <= 3, "{} at once", open.len());
        assert!(open.iter().filter(|start| start.kind == "bounded").count() <= 1);
        let start = open.remove(0);
        worker.finish(&start, succeeded("1")).await;
    }
    world.wait_for_all(&ids, State::Succeeded).await;
    for id in ids {
        assert_eq!(world.store.task(id).unwrap().fence, 1);
    }
}

#[tokio::test]
async fn a_cancelled_task_is_stopped_and_a_success_counts_all_the_same() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(hello("test", 2)).await;
    for (answer, state) in [
        (Some(succeeded("1")), State::Succeeded),
        (
            Some(Outcome::Failed(Failed {
                permanent: true,
                ..Failed::default()
            })),
            State::Cancelled,
        ),
        // It is not waited for without end.
        (None, State::Cancelled),
    ] {
        let id = world.submit(request()).await;
        let start = worker.start().await;
        world.wait_for(id, State::Running).await;
        world.store.cancel(id).await.unwrap();
        world.broker.signal(Signal::Cancel(vec![id])).await.unwrap();
        let stop = worker.stop().await;
        assert_eq!(
            (stop.reason(), stop.id),
            (Reason::Cancelled, start.id.clone()),
            "{state}"
        );
        if let Some(answer) = answer {
            worker.finish(&start, answer).await;
        }
        world.wait_for(id, state).await;
        worker.finish(&start, succeeded("\"too late\"")).await;
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_stopped_and_its_slot_is_free() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let quick = KindSettings {
        timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        max_attempts: Some(2),
        ..kind("test")
    };
    let mut worker = server
        .worker(Hello {
            kinds: vec![quick],
            ..hello("test", 1)
        })
        .await;
    let id = world.submit(request()).await;
    let start = worker.start().await;
    let stop = worker.stop().await;
    assert_eq!((stop.reason(), stop.id), (Reason::TimedOut, start.id.clone()));
    let task = world.wait_for(id, State::Retrying).await;
    assert_eq!(task.errors[0].outcome, "timed_out");
    // What it says of the attempt that was given up is nothing to the next one.
    worker.finish(&start, succeeded("\"too late\"")).await;
    let again = worker.start().await;
    assert_eq!(id_of(&again), (id.to_string(), 2));
    worker.finish(&again, succeeded("2")).await;
    let task = world.wait_for(id, State::Succeeded).await;
    assert_eq!(task.result.unwrap().as_str(), "2");
}

#[tokio::test]
async fn a_worker_that_drains_finishes_what_it_runs_and_gets_no_more() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    // It takes as long as it takes: this bound is for the server's own end.
    let mut options = without_lease();
    options.executor.drain_timeout = Duration::ZERO;
    let server = world.serve(options).await;
    let mut worker = server.worker(hello("test", 2)).await;
    let first = world.submit(request()).await;
    let start = worker.start().await;
    worker.say(Say::Drain(v1::Drain {})).await;
    holds("it is said to drain", || {
        world.store.infos().iter().all(|info| info.draining)
    })
    .await;
    let second = world.submit(request()).await;
    let mut other = server.worker(hello("test", 2)).await;
    let elsewhere = other.start().await;
    assert_eq!(id_of(&elsewhere), (second.to_string(), 1));
    worker.finish(&start, succeeded("1")).await;
    worker.ends().await.unwrap();
    assert_eq!(
        world.store.task(first).unwrap().state,
        State::Succeeded,
        "it is stored before the end"
    );
    holds("the store has forgotten it", || world.store.worker_count() == 1).await;
    other.finish(&elsewhere, succeeded("1")).await;
    // One that has nothing to do may close its side at once.
    other.say(Say::Drain(v1::Drain {})).await;
    world.wait_for(second, State::Succeeded).await;
    other.close();
    other.ends().await.unwrap();
}

#[tokio::test]
async fn a_drain_whose_last_outcomes_were_not_stored_does_not_end_well() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let mut options = without_lease();
    options.executor.flush_timeout = Duration::from_millis(200);
    let server = world.serve(options).await;
    let mut worker = server.worker(hello("test", 1)).await;
    world.submit(request()).await;
    let start = worker.start().await;
    worker.say(Say::Drain(v1::Drain {})).await;
    world.store.set_away(true);
    worker.finish(&start, succeeded("1")).await;
    let status = worker.ends().await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
}

#[tokio::test]
async fn a_server_that_ends_lets_workers_finish_and_hands_back_the_rest() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let mut options = without_lease();
    options.executor.drain_timeout = Duration::from_millis(300);
    let server = world.serve(options).await;
    let mut worker = server.worker(hello("test", 2)).await;
    let ids = world.submit_many(2).await;
    let (one, other) = (worker.start().await, worker.start().await);
    server.stop.cancel();
    assert!(matches!(worker.hear().await, Heard::Drain(_)));
    worker.finish(&one, succeeded("1")).await;
    let stop = worker.stop().await;
    assert_eq!((stop.reason(), stop.id), (Reason::Shutdown, other.id.clone()));
    worker.ends().await.unwrap();
    server.ends().await;
    let mut states: Vec<_> = ids
        .iter()
        .map(|id| world.store.task(*id).unwrap())
        .map(|task| (task.state, task.attempt))
        .collect();
    states.sort_by_key(|(_, attempt)| *attempt);
    assert_eq!(states[1], (State::Succeeded, 1));
    assert!(
        matches!(states[0], (State::Retrying | State::Queued, 0)),
        "{states:?}"
    );
    assert_eq!(world.store.worker_count(), 0);
}

#[tokio::test]
async fn what_ran_on_a_broken_stream_starts_elsewhere_at_once() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(hello("test", 3)).await;
    let ids = world.submit_many(3).await;
    let mut starts = Vec::new();
    for _ in &ids {
        starts.push(worker.start().await);
    }
    // What it has finished, it has finished.
    let finished: TaskId = id_of(&starts[0]).0.parse().unwrap();
    worker.finish(&starts[0], succeeded("1")).await;
    worker.close();
    let status = worker.ends().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    world.wait_for(finished, State::Succeeded).await;
    assert_eq!(world.store.lost(finished), 0);
    // The next one says nothing at all.
    let mut next = server.worker(hello("test", 3)).await;
    for lost in 1..=2 {
        let mut again = vec![next.start().await, next.start().await];
        again
            .iter()
            .for_each(|start| assert_eq!((id_of(start).1, start.attempt), (lost + 1, 1)));
        next = match lost {
            1 => {
                drop(next);
                server.worker(hello("test", 3)).await
            }
            _ => {
                for start in again.drain(..) {
                    next.finish(&start, succeeded("1")).await;
                }
                next
            }
        };
    }
    world.wait_for_all(&ids, State::Succeeded).await;
    let lost: Vec<u32> = ids.iter().map(|id| world.store.lost(*id)).collect();
    assert_eq!(lost.iter().sum::<u32>(), 4, "{lost:?}");
}

#[tokio::test]
async fn what_the_store_cannot_be_told_the_lease_finds_out() {
    let world = World::default();
    let lease = options().lease;
    let _clerk = world.clerk(lease);
    let own = world.store.connection();
    let options = remote_options(options());
    let server = Server::start(options, Arc::clone(&own) as _, Arc::clone(&world.broker) as _).await;
    let mut worker = server.worker(hello("test", 1)).await;
    let id = world.submit(request()).await;
    worker.start().await;
    own.set_away(true);
    drop(worker);
    let _other = world.worker(crate::support::options(), succeed());
    world.wait_for(id, State::Succeeded).await;
    assert_eq!(world.store.lost(id), 1);
    own.set_away(false);
    server.stop.cancel();
    server.ends().await;
}

#[tokio::test]
async fn a_silent_worker_is_dead_and_one_that_heartbeats_is_not() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let silence = Duration::from_millis(400);
    let server = world
        .serve(RemoteOptions {
            silence_max: silence,
            heartbeat: silence / 4,
            ..without_lease()
        })
        .await;
    let mut silent = server.worker(hello("test", 1)).await;
    assert_eq!(silent.welcome.silence_max.unwrap().nanos, 400_000_000);
    assert_eq!(silent.welcome.heartbeat_interval.unwrap().nanos, 100_000_000);
    let id = world.submit(request()).await;
    silent.start().await;
    let lively = server
        .worker(Hello {
            name: "lively".to_owned(),
            ..hello("test", 1)
        })
        .await;
    let mut lively = lively.heartbeating(silence / 8);
    let status = silent.ends().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let start = lively.start().await;
    assert_eq!(id_of(&start), (id.to_string(), 2));
    tokio::time::sleep(2 * silence).await;
    lively.finish(&start, succeeded("1")).await;
    world.wait_for(id, State::Succeeded).await;
}

#[tokio::test]
async fn a_hello_with_mistakes_and_messages_out_of_order_end_the_stream() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let wrong = Hello {
        slots: 0,
        queues: vec!["No!".to_owned()],
        ..hello("test", 1)
    };
    let status = server.refused(Say::Hello(wrong)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|it| &*it.field)
        .collect();
    assert_eq!(fields, ["queues[0]", "slots"]);
    let status = server.refused(Say::Heartbeat(Heartbeat::default())).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(world.store.worker_count(), 0);
    let mut worker = server.worker(hello("test", 1)).await;
    let id = world.submit(request()).await;
    worker.start().await;
    worker.say(Say::Hello(hello("test", 1))).await;
    let status = worker.ends().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let mut other = server.worker(hello("test", 1)).await;
    let start = other.start().await;
    assert_eq!(id_of(&start), (id.to_string(), 2), "what it ran is taken back");
}

#[tokio::test]
async fn nonsense_and_floods_are_borne() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(hello("test", 2)).await;
    let id = world.submit(request()).await;
    let start = worker.start().await;
    let strange = |task_id: &str, fence| {
        Some(StartId {
            task_id: task_id.to_owned(),
            fence,
        })
    };
    let known = id.to_string();
    for id in [None, strange("nonsense", 1), strange(&known, 2), strange("", 0)] {
        let outcome = Some(Outcome::Succeeded(Succeeded::default()));
        worker
            .say(Say::Finish(Finish {
                id: id.clone(),
                outcome,
            }))
            .await;
        worker
            .say(Say::LogLines(LogLines {
                id: id.clone(),
                lines: vec!["no".to_owned()],
            }))
            .await;
        worker
            .say(Say::Progress(Progress {
                id,
                fraction: f64::NAN,
                message: String::new(),
            }))
            .await;
    }
    worker.say_nothing().await;
    for n in 0..5_000 {
        let lines = vec![format!("line {n}"); 10];
        worker
            .say(Say::LogLines(LogLines {
                id: start.id.clone(),
                lines,
            }))
            .await;
        let fraction = f64::from(n) / 5_000.0;
        worker
            .say(Say::Progress(Progress {
                id: start.id.clone(),
                fraction,
                message: "x".repeat(1_000),
            }))
            .await;
    }
    worker.finish(&start, succeeded("1")).await;
    let task = world.wait_for(id, State::Succeeded).await;
    let log = task.log.unwrap();
    assert!(
        log.len() <= 8 * 1024 && log.ends_with("line 4999\n"),
        "{} bytes",
        log.len()
    );

    let id = world.submit(request()).await;
    let start = worker.start().await;
    worker
        .finish(&start, succeeded(&format!("\"{}\"", "x".repeat(2 * 1024 * 1024))))
        .await;
    let status = worker.ends().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let mut other = server.worker(hello("test", 2)).await;
    assert_eq!(id_of(&other.start().await), (id.to_string(), 2));
}

#[tokio::test]
async fn there_is_an_end_to_how_many_are_taken() {
    let world = World::default();
    let two = RemoteOptions {
        workers_max: 2,
        slots_max: 10,
        ..without_lease()
    };
    let server = world.serve(two).await;
    let first = server.worker(hello("test", 8)).await;
    let status = server.refused(Say::Hello(hello("test", 3))).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let second = server.worker(hello("test", 2)).await;
    let status = server.refused(Say::Hello(hello("test", 1))).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let retry = status
        .get_error_details()
        .retry_info()
        .and_then(|info| info.retry_delay);
    assert!(retry.is_some(), "{status:?}");
    drop((first, second));
    holds("they are gone", || server.metric("forebay_remote_workers{} 0")).await;
    holds("their rows are, too", || world.store.worker_count() == 0).await;
    let mut third = server.worker(hello("test", 10)).await;
    server.stop.cancel();
    assert!(matches!(third.hear().await, Heard::Drain(_)));
    third.ends().await.unwrap();
    let status = server.refused(Say::Hello(hello("test", 1))).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");

    let none = world
        .serve(RemoteOptions {
            workers_max: 0,
            ..without_lease()
        })
        .await;
    let status = none.refused(Say::Hello(hello("test", 1))).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

#[tokio::test]
async fn while_the_store_is_away_no_worker_is_taken() {
    let world = World::default();
    let hello_max = Duration::from_millis(300);
    let server = world
        .serve(RemoteOptions {
            hello_max,
            ..without_lease()
        })
        .await;
    world.store.set_away(true);
    let status = server.refused(Say::Hello(hello("test", 1))).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    world.store.set_away(false);
    server.worker(hello("test", 1)).await;
}

#[tokio::test]
async fn a_worker_that_was_given_up_before_it_was_known_is_not_listed() {
    let world = World::default();
    let hello_max = Duration::from_millis(200);
    let server = world
        .serve(RemoteOptions {
            hello_max,
            ..without_lease()
        })
        .await;
    world.store.set_slow_to_register(true);
    let status = server.refused(Say::Hello(hello("test", 1))).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    holds("the store knows it", || world.store.worker_count() == 1).await;
    world.store.set_slow_to_register(false);
    holds("its row is gone", || world.store.worker_count() == 0).await;
}

/// More slots than there is room for messages to a worker that does not read them.
const MANY: u32 = 100;

impl World {
    /// So much to run that a worker of so many slots has to read some before it can be told all.
    async fn flood(&self) -> Vec<TaskId> {
        let payload = Json::of(&"x".repeat(16 * 1024)).unwrap();
        let mut ids = Vec::new();
        for _ in 0..MANY {
            let task = SubmitRequest {
                payload: Some(payload.clone()),
                ..request()
            };
            ids.push(self.submit(task).await);
        }
        ids
    }
}

#[tokio::test]
async fn a_worker_that_does_not_read_does_not_take_a_fault_for_a_good_end() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(hello("test", MANY)).await;
    for id in world.flood().await {
        world.wait_for(id, State::Running).await;
    }
    worker.say(Say::Hello(hello("test", 1))).await;
    holds("it is given up", || server.metric("forebay_remote_workers{} 0")).await;
    let (heard, end) = worker.ends_after().await;
    assert_eq!(end.unwrap_err().code(), Code::FailedPrecondition);
    assert!(heard.len() < MANY as usize, "{} are stale", heard.len());
}

#[tokio::test]
async fn a_worker_that_is_slow_to_read_hears_of_every_stop() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let quick = KindSettings {
        timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 500_000_000,
        }),
        max_attempts: Some(1),
        ..kind("test")
    };
    let mut worker = server
        .worker(Hello {
            kinds: vec![quick, kind("last")],
            ..hello("test", MANY)
        })
        .await;
    world.wait_for_all(&world.flood().await, State::Failed).await;
    let last = SubmitRequest {
        kind: "last".to_owned(),
        ..request()
    };
    world.submit(last).await;
    let mut open = Vec::new();
    loop {
        match worker.hear().await {
            Heard::Start(start) if start.kind == "last" => break,
            Heard::Start(start) => open.push(start.id),
            Heard::Stop(stop) => {
                let before = open.len();
                open.retain(|id| *id != stop.id);
                assert_eq!(open.len() + 1, before, "a stop of what was started");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(open.len(), 0, "attempts that have ended go on");
}

/// Each has a handler for one of two kinds of one queue. What comes to the wrong one is not left to the store.
#[tokio::test]
async fn neighbours_in_one_process_give_each_other_what_is_theirs() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let (mut one, mut other) = (
        server.worker(hello("one", 5)).await,
        server.worker(hello("other", 5)).await,
    );
    let mut ids = Vec::new();
    for kind in ["one", "other"].repeat(10) {
        let task = SubmitRequest {
            kind: kind.to_owned(),
            ..request()
        };
        ids.push(world.submit(task).await);
    }
    let run = async |worker: &mut Client, kind: &str| {
        for _ in 0..10 {
            let start = worker.start().await;
            assert_eq!(start.kind, kind);
            worker.finish(&start, succeeded("1")).await;
        }
    };
    tokio::join!(run(&mut one, "one"), run(&mut other, "other"));
    world.wait_for_all(&ids, State::Succeeded).await;
}
