//! How workers go when there are too many of them: jobs that end by themselves, and pods that are told to.

use std::time::{Duration, Instant};

use forebay_testkit::{broker::BrokerKind, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::stack::{Forebay, PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    jobs_share_what_is_ready_and_end_by_themselves
    a_task_that_outlasts_the_drain_is_started_elsewhere_at_once
    short_tasks_are_not_interrupted_by_scale_in
}

/// How long a job may take to see that nothing is ready.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// How long a worker that is told to stop lets its tasks run.
const DRAIN: Duration = Duration::from_secs(10);
/// How much later its task may be started elsewhere, however busy the machine is: far less than any lease.
const HAND_OVER_MAX: Duration = Duration::from_secs(20);

fn sleep(seconds: f64) -> Value {
    json!({"kind": "sleep", "payload": {"seconds": seconds}})
}

/// Waits until a task is in a state, and returns it.
async fn in_state(user: &User, api: &Forebay, id: &str, state: &str) -> Value {
    wait::until(&format!("the task to be {state}"), PATIENCE, || async {
        let task = user
            .get(&api.http, id)
            .await
            .ok_or_else(|| "unreadable".to_owned())?;
        match task["state"] == state {
            true => Ok(Some(task)),
            false => Err(task.to_string()),
        }
    })
    .await
}

async fn submit(user: &User, api: &Forebay, count: usize, body: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(user.accepted(&api.http, body, None).await);
    }
    ids
}

async fn jobs_share_what_is_ready_and_end_by_themselves(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    let _recorder = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    let job = |args: &[&str]| {
        let args: Vec<&str> = ["--once", "--builtin-handlers"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        stack.worker_without_waiting(&args)
    };

    let began = Instant::now();
    assert!(job(&["--queues", "empty"]).ends().await.success());
    assert!(
        began.elapsed() < LOOK_MAX,
        "it took {:?} to find nothing",
        began.elapsed()
    );

    let ids = submit(&user, &api, 30, &sleep(0.2)).await;
    for id in &ids {
        in_state(&user, &api, id, "queued").await;
    }
    let mut jobs = [(); 3].map(|()| job(&["--concurrency", "2"]));
    for job in &mut jobs {
        assert!(job.ends().await.success());
    }
    for id in &ids {
        let task = user.get(&api.http, id).await.unwrap();
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{task}"
        );
        assert_eq!(task["errors"][0], Value::Null, "{task}");
    }

    let ids = submit(&user, &api, 3, &sleep(0.1)).await;
    for id in &ids {
        in_state(&user, &api, id, "queued").await;
    }
    assert!(
        job(&["--concurrency", "1", "--max-tasks", "1"])
            .ends()
            .await
            .success()
    );
    let mut done = 0;
    for id in &ids {
        let task = user.get(&api.http, id).await.unwrap();
        done += usize::from(task["state"] == "succeeded");
    }
    assert_eq!(done, 1, "one job for one task");
}

async fn a_task_that_outlasts_the_drain_is_started_elsewhere_at_once(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    // A lease that none waits for here: only that the task is handed back explains that it is started again.
    let lease = ["--lease", "600s"];
    let recorder: Vec<&str> = ["--roles", "recorder,dispatcher"]
        .into_iter()
        .chain(lease)
        .collect();
    let _recorder = stack.worker(&recorder).await;
    let drain = format!("{}s", DRAIN.as_secs());
    let executor = [
        "--roles",
        "executor",
        "--builtin-handlers",
        "--drain-timeout",
        &drain,
    ];
    let args: Vec<&str> = executor.into_iter().chain(lease).collect();
    let mut first = stack.worker(&args).await;
    // Longer than everything that comes before the end of the drain.
    let id = submit(&user, &api, 1, &sleep(200.0)).await.remove(0);
    in_state(&user, &api, &id, "running").await;
    let _second = stack.worker(&args).await;

    first.signal(Signal::SIGTERM);
    let told = Instant::now();
    wait::until("it to look unready", PATIENCE, || async {
        first.health("ready").await == 503
    })
    .await;
    assert_eq!(
        first.health("live").await,
        200,
        "a draining pod is not to be killed"
    );
    assert!(told.elapsed() < DRAIN, "that must be seen while it drains");
    let task = wait::until("the task to be started again", PATIENCE, || async {
        let task = user
            .get(&api.http, &id)
            .await
            .ok_or_else(|| "unreadable".to_owned())?;
        let is_again = task["state"] == "running" && task["errors"][0] != Value::Null;
        if is_again {
            Ok(Some(task))
        } else {
            Err(task.to_string())
        }
    })
    .await;
    let after = told.elapsed();
    assert!(first.ends().await.success());
    assert!(after >= DRAIN, "it was interrupted after {after:?} already");
    assert!(after < DRAIN + HAND_OVER_MAX, "it waited for {after:?}");
    assert_eq!(
        (&task["attempt"], &task["errors"][0]["outcome"]),
        (&json!(1), &json!("interrupted")),
        "{task}"
    );
    println!("started elsewhere {after:?} after SIGTERM, of which {DRAIN:?} are the time to drain");
}

async fn short_tasks_are_not_interrupted_by_scale_in(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    let _recorder = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    let args = ["--roles", "executor", "--builtin-handlers", "--concurrency", "8"];
    let mut first = stack.worker(&args).await;
    let _second = stack.worker(&args).await;
    let ids = submit(&user, &api, 240, &sleep(0.3)).await;
    wait::until("the first to be busy", PATIENCE, || async {
        first.metric("forebay_worker_slots{state=\"busy\"}").await > 0.0
    })
    .await;
    first.terminate().await;
    for id in &ids {
        let task = user.finished(&api.http, id).await;
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{task}"
        );
        assert_eq!(task["errors"][0], Value::Null, "{task}");
    }
}
