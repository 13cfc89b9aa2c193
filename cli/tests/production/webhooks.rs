//! Webhooks with several processes that deliver, one of which dies: every end is told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    every_end_is_told_although_one_who_delivers_dies
}

const TASKS: usize = 60;

/// The ids of the events that have come, in order.
type Heard = Arc<Mutex<Vec<String>>>;

async fn hear(State(heard): State<Heard>, headers: HeaderMap) -> StatusCode {
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    heard.lock().unwrap().push(id);
    // So that something is under way when a worker dies.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    StatusCode::NO_CONTENT
}

/// When a task has ended is not known here.
fn without_time(event: &str) -> String {
    event.rsplit_once('_').unwrap().0.to_owned()
}

async fn every_end_is_told_although_one_who_delivers_dies(kind: BrokerKind) {
    let heard = Heard::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hook = Router::new()
        .route("/hook", post(hear))
        .with_state(Arc::clone(&heard));
    let _server =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(axum::serve(listener, hook).into_future()));

    let stack = Stack::on(kind).await;
    let api = stack.api().await;
    let args = [
        "--builtin-handlers",
        "--lease",
        "5s",
        "--webhook-allow-private",
        "127.0.0.1",
    ];
    let mut workers = [stack.worker(&args).await, stack.worker(&args).await];
    let url = format!("{}/v1/webhooks/all", api.http);
    let put = reqwest::Client::new()
        .put(&url)
        .json(&json!({"url": format!("http://{address}/hook")}));
    assert_eq!(put.send().await.unwrap().status(), 201);

    let user = User::default();
    let mut expected = BTreeSet::new();
    for number in 0..TASKS {
        let (kind, state) = match number % 10 {
            0 => ("fail", "failed"),
            _ => ("echo", "succeeded"),
        };
        let task = json!({"kind": kind, "max_attempts": 1, "notify": ["all"]});
        let id = user
            .accepted(&api.http, &task, Some(&format!("task-{number}")))
            .await;
        expected.insert(format!("{id}_{state}"));
        if number == TASKS / 2 {
            wait::until("the first events", PATIENCE, || async {
                (!heard.lock().unwrap().is_empty()).then_some(())
            })
            .await;
            workers[0].kill();
        }
    }
    wait::until("all events", PATIENCE, async || {
        let heard: BTreeSet<String> = heard.lock().unwrap().iter().map(|id| without_time(id)).collect();
        let missing: Vec<String> = expected.difference(&heard).cloned().collect();
        match missing.is_empty() {
            true => Ok(true),
            false => Err(missing),
        }
    })
    .await;
    let listed: Value = reqwest::get(format!("{url}/deliveries?page_size=200"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let deliveries = listed["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), TASKS, "each end is noted once");
}
