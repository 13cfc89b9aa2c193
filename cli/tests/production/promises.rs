//! What a user is promised about one task, with everything else in good or bad health.

use std::time::{Duration, Instant};

use forebay_testkit::{broker::BrokerKind, wait};
use futures::future::join_all;
use serde_json::json;

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    a_read_after_the_202_never_says_404_on_any_replica
    without_postgres_submissions_are_accepted_and_finish_when_it_is_back
    without_the_broker_submissions_are_refused_within_two_seconds_and_reads_go_on
    a_wiped_broker_loses_nothing_that_was_recorded
    a_drained_worker_hands_its_task_back_at_no_cost
}

async fn a_read_after_the_202_never_says_404_on_any_replica(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let (one, other) = (stack.api().await, stack.api().await);
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let (user, client) = (User::default(), reqwest::Client::new());
    let readers = (0..16).map(|reader| {
        let (user, client, one, other) = (&user, &client, &one.http, &other.http);
        async move {
            for number in 0..100 {
                let key = (reader % 2 == 0).then(|| format!("{reader}-{number}"));
                let body = json!({"kind": "echo", "payload": number});
                let id = user.accepted(one, &body, key.as_deref()).await;
                // A machine that is slow to record may have it read again.
                wait::until("the task to be readable", PATIENCE, || async {
                    let read = client.get(format!("{other}/v1/tasks/{id}")).send().await.unwrap();
                    let (status, text) = (read.status(), read.text().await.unwrap());
                    assert!(status == 200 || status == 503, "{status}: {text}");
                    if status == 200 { Ok(true) } else { Err(text) }
                })
                .await;
            }
        }
    });
    join_all(readers).await;
    let unknown = client.get(format!(
        "{}/v1/tasks/01900000-0000-7000-8000-000000000000",
        one.http
    ));
    assert_eq!(unknown.send().await.unwrap().status(), 404);
}

async fn without_postgres_submissions_are_accepted_and_finish_when_it_is_back(kind: BrokerKind) {
    let mut stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let before = user.accepted(&api.http, &json!({"kind": "echo"}), None).await;
    user.finished(&api.http, &before).await;
    stack.postgres.kill().unwrap();
    let mut ids = Vec::new();
    for number in 0..50 {
        let body = json!({"kind": "echo", "payload": number});
        let key = (number % 2 == 0).then(|| format!("key-{number}"));
        ids.push(user.accepted(&api.http, &body, key.as_deref()).await);
    }
    let began = Instant::now();
    let read = reqwest::get(format!("{}/v1/tasks/{before}", api.http))
        .await
        .unwrap();
    assert_eq!(read.status(), 503);
    assert!(read.headers().contains_key("retry-after"));
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "a read took {:?} to fail",
        began.elapsed()
    );
    stack.postgres.restart().await.unwrap();
    for (number, id) in ids.iter().enumerate() {
        let task = user.finished(&api.http, id).await;
        assert_eq!(
            (&task["state"], &task["result"]),
            (&json!("succeeded"), &json!(number))
        );
    }
}

async fn without_the_broker_submissions_are_refused_within_two_seconds_and_reads_go_on(kind: BrokerKind) {
    let mut stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let known = user.accepted(&api.http, &json!({"kind": "echo"}), None).await;
    user.finished(&api.http, &known).await;
    stack.broker.settle().await.unwrap();
    stack.broker.kill().unwrap();
    let client = reqwest::Client::new();
    for _ in 0..3 {
        let began = Instant::now();
        let refused = client
            .post(format!("{}/v1/tasks", api.http))
            .json(&json!({"kind": "echo"}))
            .send()
            .await
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(2_500),
            "it took {:?}",
            began.elapsed()
        );
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        assert!(refused.headers().contains_key("retry-after"));
    }
    assert!(
        user.get(&api.http, &known).await.is_some(),
        "reads must go on without the broker"
    );
    stack.broker.restart().await.unwrap();
    let id = wait::until("a submission to be accepted again", PATIENCE, || async {
        user.submit(&api.http, &json!({"kind": "echo"}), None).await
    })
    .await;
    assert_eq!(user.finished(&api.http, &id).await["state"], "succeeded");
}

async fn a_wiped_broker_loses_nothing_that_was_recorded(kind: BrokerKind) {
    let mut stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    let recorder = stack.worker(&["--roles", "recorder"]).await;
    let mut ids = Vec::new();
    for number in 0..200 {
        let body = json!({"kind": "echo", "payload": number});
        ids.push(user.accepted(&api.http, &body, None).await);
    }
    let last = ids.last().unwrap();
    assert!(user.get(&api.http, last).await.is_some());
    drop(recorder);
    stack.broker.settle().await.unwrap();
    stack.broker.kill().unwrap();
    stack.broker.wipe().unwrap();
    stack.broker.restart().await.unwrap();
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    for id in &ids {
        assert_eq!(user.finished(&api.http, id).await["state"], "succeeded");
    }
}

async fn a_drained_worker_hands_its_task_back_at_no_cost(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let user = User::default();
    let api = stack.api().await;
    let mut worker = stack
        .worker(&["--builtin-handlers", "--drain-timeout", "100ms"])
        .await;
    let body = json!({"kind": "sleep", "payload": {"seconds": 2}, "timeout_seconds": 60});
    let id = user.accepted(&api.http, &body, None).await;
    wait::until("the task to run", PATIENCE, || async {
        let task = user.get(&api.http, &id).await.ok_or("unreadable")?;
        Ok::<_, &str>(task["state"] == "running")
    })
    .await;
    worker.terminate().await;
    let _next = stack.worker(&["--builtin-handlers"]).await;
    let task = user.finished(&api.http, &id).await;
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("succeeded"), &json!(1)),
        "{task}"
    );
    assert_eq!(task["errors"][0]["outcome"], "interrupted", "{task}");
}
