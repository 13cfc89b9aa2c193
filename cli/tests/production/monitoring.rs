//! Every metric that a rule or a panel of `monitoring/` names is on `/metrics` of a running Forebay, with the labels
//! and values by which it is picked. What is not there would be an alert that never fires, and a panel that is empty.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use forebay_proto::v1::{SubmitTaskRequest, task_service_client::TaskServiceClient};
use forebay_testkit::{broker::BrokerKind, wait};
use serde_json::{Value, json};

use crate::{
    external::Trigger,
    stack::{Forebay, PATIENCE, Stack, User},
};

/// A queue that no worker reads, so that something is ready and has an age.
const UNREAD: &str = "unread";
/// What the api and the scaler must both say of a queue, since rules take the highest of all replicas.
const OF_QUEUES: [&str; 6] = [
    "forebay_queue_ready",
    "forebay_queue_running",
    "forebay_queue_gated",
    "forebay_queue_scheduled",
    "forebay_queue_oldest_ready_age_seconds",
    "forebay_queue_desired_workers",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_and_panels_name_is_there() {
    let used = metrics_used();
    let stack = Stack::on(BrokerKind::Nats).await;
    let (api, scaler) = (stack.api().await, stack.scaler().await);
    let worker = stack.worker(&["--builtin-handlers"]).await;
    some_of_everything(&api, &scaler).await;

    wait::until("all metrics to be there", PATIENCE, || async {
        let pages = [&api, &worker, &scaler].map(Forebay::metrics);
        let pages = futures::future::join_all(pages).await;
        let there: BTreeSet<String> = pages.iter().flat_map(|page| said(page)).collect();
        let missing: Vec<&String> = used.difference(&there).collect();
        none_of(&missing)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_and_scaler_say_the_same_of_queues() {
    let stack = Stack::on(BrokerKind::Nats).await;
    let (api, scaler) = (stack.api().await, stack.scaler().await);
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    some_of_everything(&api, &scaler).await;
    for process in [&api, &scaler] {
        wait::until("the figures of the queue", PATIENCE, || async {
            let there = said(&process.metrics().await);
            let missing: Vec<&str> = OF_QUEUES
                .into_iter()
                .filter(|name| !there.contains(&format!("{name}{{queue=\"{UNREAD}\"}}")))
                .collect();
            none_of(&missing)
        })
        .await;
    }
}

/// Lets everything happen once that is counted.
async fn some_of_everything(api: &Forebay, scaler: &Forebay) {
    let user = User::default();
    let failing = json!({"kind": "fail", "max_attempts": 1});
    let failed = user.accepted(&api.http, &failing, None).await;
    assert_eq!(user.finished(&api.http, &failed).await["state"], "failed");
    let unread = json!({"kind": "echo", "queue": UNREAD});
    user.accepted(&api.http, &unread, None).await;
    submit_and_wait(api).await;

    let mut tasks = TaskServiceClient::connect(api.grpc.clone()).await.unwrap();
    let task = SubmitTaskRequest {
        kind: "echo".into(),
        ..SubmitTaskRequest::default()
    };
    tasks.submit_task(task).await.unwrap();

    let trigger = Trigger::new(&scaler.grpc, &[("queue", "default")]);
    wait::until("the scaler to know the queue", PATIENCE, || async {
        trigger.value().await.map(|_| true)
    })
    .await;
}

fn none_of(missing: &[impl std::fmt::Debug]) -> Result<bool, String> {
    if missing.is_empty() {
        Ok(true)
    } else {
        Err(format!("missing: {missing:?}"))
    }
}

async fn submit_and_wait(api: &Forebay) {
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/tasks", api.http))
        .header("prefer", "wait=30")
        .json(&json!({"kind": "echo"}))
        .timeout(Duration::from_secs(60))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let task: Value = answer.json().await.unwrap();
    assert_eq!(task["state"], "succeeded");
}

/// What `monitoring/tests/run` has found in the rules and panels.
fn metrics_used() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring/metrics-used.txt");
    let text = fs::read_to_string(path).unwrap();
    let used: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert!(used.len() > 40, "only {} metrics are used", used.len());
    used
}

/// What a page of metrics has, written as in `metrics-used.txt`: `name`, `name{label}` and `name{label="value"}`.
fn said(page: &str) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, _value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else {
            said.insert(series.to_owned());
            continue;
        };
        said.insert(name.to_owned());
        // No value of a label has a comma here.
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            said.insert(format!("{name}{{{label}}}"));
            if let Some((label, _)) = label.split_once('=') {
                said.insert(format!("{name}{{{label}}}"));
            }
        }
    }
    said
}

#[test]
fn a_page_is_read_as_prometheus_reads_it() {
    let page = "# TYPE a counter\na_total{x=\"1\",y=\"{id}\"} 2\nb{} 3\nc 4.5\n";
    let wanted = [
        "a_total",
        "a_total{x}",
        "a_total{x=\"1\"}",
        "a_total{y}",
        "a_total{y=\"{id}\"}",
        "b",
        "c",
    ];
    assert_eq!(said(page), wanted.map(str::to_owned).into());
}
