//! Workers that are no part of Forebay: they connect to the API, and live and die by themselves.

use std::time::{Duration, Instant};

use forebay_proto::v1::{
    Drain, Finish, Heartbeat, Hello, KindSettings, Start, Succeeded, WorkRequest, WorkResponse,
    finish::Outcome, work_request::Message as Say, work_response::Message as Heard,
    worker_service_client::WorkerServiceClient,
};
use forebay_testkit::broker::BrokerKind;
use futures::{SinkExt, channel::mpsc};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use crate::stack::{PATIENCE, Stack, User, on_every_broker};

on_every_broker! {
    remote_workers_run_tasks_and_what_a_lost_one_ran_starts_elsewhere
}

/// How soon what a lost worker ran starts elsewhere, however busy the machine is: far less than the lease.
const TAKEN_BACK_MAX: Duration = Duration::from_secs(20);

/// A worker of one kind, which heartbeats by itself.
struct Worker {
    say: mpsc::Sender<WorkRequest>,
    hear: Streaming<WorkResponse>,
    _heartbeats: AbortOnDropHandle<()>,
}

fn request(message: Say) -> WorkRequest {
    WorkRequest {
        message: Some(message),
    }
}

impl Worker {
    async fn connect(grpc: &str, slots: u32) -> Self {
        let hello = Hello {
            name: "elsewhere".to_owned(),
            kinds: vec![KindSettings {
                kind: "resize".to_owned(),
                ..KindSettings::default()
            }],
            slots,
            ..Hello::default()
        };
        let (mut say, said) = mpsc::channel(16);
        say.try_send(request(Say::Hello(hello))).unwrap();
        let mut client = WorkerServiceClient::connect(grpc.to_owned()).await.unwrap();
        let hear = client.work(said).await.unwrap().into_inner();
        let mut heartbeat = say.clone();
        let heartbeats = tokio::spawn(async move {
            while heartbeat
                .send(request(Say::Heartbeat(Heartbeat::default())))
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        let mut worker = Self {
            say,
            hear,
            _heartbeats: AbortOnDropHandle::new(heartbeats),
        };
        assert!(matches!(worker.hear().await, Some(Heard::Welcome(_))));
        worker
    }

    /// The next message; `None` at the end of the stream.
    async fn hear(&mut self) -> Option<Heard> {
        let heard = timeout(PATIENCE, self.hear.message()).await;
        let message = heard.expect("something is heard in time").unwrap()?;
        Some(message.message.expect("a message that is known here"))
    }

    async fn start(&mut self) -> Start {
        match self.hear().await {
            Some(Heard::Start(start)) => start,
            other => panic!("no start: {other:?}"),
        }
    }

    async fn succeed(&mut self, start: &Start) {
        let finish = Finish {
            id: start.id.clone(),
            outcome: Some(Outcome::Succeeded(Succeeded {
                result: start.payload.clone(),
            })),
        };
        self.say.send(request(Say::Finish(finish))).await.unwrap();
    }
}

/// Each is there once, however often it had to be sent.
async fn submit(user: &User, api: &str, round: &str, count: u32) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let body = json!({"kind": "resize", "payload": n});
        let key = format!("{round}-{n}");
        ids.push(user.accepted(api, &body, Some(&key)).await);
    }
    ids
}

async fn remote_workers_run_tasks_and_what_a_lost_one_ran_starts_elsewhere(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let user = User::default();
    // A lease that none waits for here.
    let mut api = stack.forebay(&["api", "--lease", "600s"]).await;
    let _clerk = stack
        .worker(&["--roles", "recorder,dispatcher", "--lease", "600s"])
        .await;
    let mut first = Worker::connect(&api.grpc, 4).await;
    let ids = submit(&user, &api.http, "all", 20).await;
    for _ in &ids {
        let start = first.start().await;
        first.succeed(&start).await;
    }
    for (n, id) in ids.iter().enumerate() {
        let task = user.finished(&api.http, id).await;
        assert_eq!(
            (&task["state"], &task["result"]),
            (&json!("succeeded"), &json!(n)),
            "{task}"
        );
        assert_eq!(task["errors"][0], Value::Null, "{task}");
    }
    assert_eq!(api.metric("forebay_remote_workers{}").await, 1.0);

    // Its process ends without a word.
    let ids = submit(&user, &api.http, "lost", 3).await;
    for _ in &ids {
        first.start().await;
    }
    let lost = Instant::now();
    drop(first);
    let mut second = Worker::connect(&api.grpc, 4).await;
    for _ in &ids {
        let start = second.start().await;
        assert_eq!(start.id.as_ref().map(|id| id.fence), Some(2));
        second.succeed(&start).await;
    }
    let after = lost.elapsed();
    assert!(after < TAKEN_BACK_MAX, "it took {after:?}");
    println!("what it ran was started elsewhere {after:?} after a worker was lost");
    for id in &ids {
        let task = user.finished(&api.http, id).await;
        assert_eq!(
            (&task["state"], &task["attempt"], &task["errors"][0]["outcome"]),
            (&json!("succeeded"), &json!(1), &json!("lost")),
            "{task}"
        );
    }

    // The API ends: what runs may finish.
    let id = submit(&user, &api.http, "last", 1).await.remove(0);
    let start = second.start().await;
    api.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(matches!(second.hear().await, Some(Heard::Drain(Drain {}))));
    second.succeed(&start).await;
    assert_eq!(second.hear().await, None, "all is stored");
    assert!(api.ends().await.success());
    let api = stack.api().await;
    let task = user.finished(&api.http, &id).await;
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("succeeded"), &json!(1)),
        "{task}"
    );
}
