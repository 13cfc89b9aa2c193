//! KEDA, played against the real binary: a pool of worker processes follows its queue from none to many and back.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use forebay_testkit::broker::BrokerKind;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    keda::{Keda, Pool, Rules},
    stack::{PATIENCE, Stack, User, on_every_broker},
    timeline::{Moment, Timeline},
};

on_every_broker! {
    a_burst_wakes_the_pool_which_grows_shrinks_and_goes_with_no_task_lost_or_interrupted
}

/// Tasks of the burst, which all wait at once.
const BURST: usize = 20_000;
/// Tasks behind them that run for longer than it takes the HPA to scale down.
const LONG: usize = 40;

const RULES: Rules = Rules {
    polling: Duration::from_secs(1),
    sync: Duration::from_secs(2),
    cooldown: Duration::from_secs(5),
    stabilization: Duration::from_secs(4),
    max: 6,
};

async fn a_burst_wakes_the_pool_which_grows_shrinks_and_goes_with_no_task_lost_or_interrupted(
    kind: BrokerKind,
) {
    let stack = Stack::on(kind).await;
    let api = stack.api().await;
    let _recorder = stack.worker(&["--roles", "recorder,dispatcher"]).await;
    let scalers = [stack.forebay(&["scaler"]).await, stack.forebay(&["scaler"]).await];
    let pool = Pool::of(
        &stack,
        &[
            "--roles",
            "executor",
            "--builtin-handlers",
            "--concurrency",
            "100",
        ],
    );
    let metadata = [("queue", "default"), ("target_per_worker", "2500")];
    let mut keda = Keda::of(RULES, &metadata, [&scalers[0], &scalers[1]], pool);

    let began = Instant::now();
    let submitted = Cell::new(false);
    let timeline = RefCell::new(Timeline::default());
    let worked_off = Cell::new(false);
    let look = async |workers: usize| {
        let all_submitted = submitted.get();
        let Some(depth) = depth(&api.http).await else {
            worked_off.set(false);
            return;
        };
        worked_off.set(all_submitted && depth == 0);
        timeline.borrow_mut().moments.push(Moment {
            at: began.elapsed().as_secs_f64(),
            depth: depth as f64,
            workers: workers as f64,
        });
    };
    let whole = async { tokio::join!(keda.run(look, || worked_off.get()), submit(&api.http, &submitted)).1 };
    let burst_at = tokio::time::timeout(3 * PATIENCE, whole)
        .await
        .expect("the burst is worked off and the pool is gone");

    let counted = "SELECT count(*), count(*) FILTER (WHERE state = 'succeeded'), max(fence), \
                   count(*) FILTER (WHERE errors <> '[]') FROM tasks";
    let counted = stack.postgres.psql("postgres", counted).unwrap();
    let all = BURST + LONG + 1;
    assert_eq!(
        counted,
        format!("{all}|{all}|1|0"),
        "tasks, succeeded, most starts of one, with errors"
    );
    assert!(keda.pool.most > 3, "the pool grew to {} only", keda.pool.most);
    assert!(keda.pool.ended >= keda.pool.most, "every worker was told to end");

    let woken = keda.woken.expect("the stream said so") - began;
    let mut timeline = timeline.into_inner();
    timeline.notes = vec![
        (woken.as_secs_f64(), "one task: the pool is woken".to_owned()),
        (
            (burst_at - began).as_secs_f64(),
            format!("a burst of {BURST} tasks"),
        ),
    ];
    let name = format!("scaling-{}.svg", label(kind).to_lowercase());
    let title = format!("A pool of workers follows its queue ({})", label(kind));
    println!("drawn in {}", timeline.write(&name, &title).display());
}

fn label(kind: BrokerKind) -> &'static str {
    match kind {
        BrokerKind::Nats => "NATS",
        BrokerKind::RabbitMq => "RabbitMQ",
    }
}

/// One task, and when it is done the burst. Returns when that began.
async fn submit(api: &str, all: &Cell<bool>) -> Instant {
    let user = User::default();
    let task = json!({"kind": "echo"});
    let first = user.accepted(api, &task, None).await;
    user.finished(api, &first).await;
    let burst_at = Instant::now();
    let lines = |count, seconds: f64| {
        let line = json!({"kind": "sleep", "payload": {"seconds": seconds}});
        format!("{line}\n").repeat(count)
    };
    let accepted = reqwest::Client::new()
        .post(format!("{api}/v1/tasks/batch"))
        .header("content-type", "application/x-ndjson")
        .body(lines(BURST, 0.2) + &lines(LONG, 8.0))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let accepted = accepted.lines().filter(|line| line.contains("\"id\"")).count();
    assert_eq!(accepted, BURST + LONG);
    all.set(true);
    burst_at
}

/// What waits and what runs; `None` where that is not known at the moment.
async fn depth(api: &str) -> Option<u64> {
    let answer = reqwest::get(format!("{api}/v1/queues/default/autoscale")).await;
    let figures: Value = answer.unwrap().json().await.unwrap();
    Some(figures["ready"].as_u64()? + figures["running"].as_u64()?)
}
