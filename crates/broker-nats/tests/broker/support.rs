//! A broker on a server of its own, tasks to publish, and a look past the broker at the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use forebay_broker::{Broker, Delivery, Message, PublishError, Source, Subscription, conformance::Fixture};
use forebay_broker_nats::{NatsBroker, NatsOptions};
use forebay_core::{Clock, Lane, Ready, Submission, SubmitRequest, SystemClock, TaskId};
use forebay_testkit::{
    nats::{Nats, Setup},
    wait,
};
use serde_json::Value;

/// The streams as they are called by default.
pub(crate) const INTAKE: &str = "FOREBAY";
pub(crate) const READY: &str = "FOREBAY_READY";

/// How long something that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server and a broker on it.
pub(crate) struct Served {
    pub(crate) server: Nats,
    pub(crate) options: NatsOptions,
    pub(crate) broker: Arc<NatsBroker>,
}

/// Settings for tests: patient when publishing, for busy machines, and impatient with acknowledgements.
pub(crate) fn options(server: &Nats) -> NatsOptions {
    NatsOptions {
        stream_bytes_max: 256 * 1024 * 1024,
        publish_timeout: Duration::from_secs(10),
        ack_wait: Duration::from_secs(4),
        ..NatsOptions::new(server.url())
    }
}

/// A fresh server with a broker.
pub(crate) async fn fresh() -> Served {
    served(Setup::default(), |_| {}).await
}

/// A fresh server with a broker, both set up differently.
pub(crate) async fn served(setup: Setup, change: impl FnOnce(&mut NatsOptions)) -> Served {
    let server = Nats::start_with(setup).await.expect("a NATS server");
    let mut options = options(&server);
    change(&mut options);
    let broker = Arc::new(NatsBroker::connect(&options).await.expect("a connection"));
    Served {
        server,
        options,
        broker,
    }
}

#[async_trait]
impl Fixture for Served {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker) as Arc<dyn Broker>
    }

    async fn another(&self) -> Arc<dyn Broker> {
        Arc::new(NatsBroker::connect(&self.options).await.expect("a connection"))
    }

    async fn restart(&mut self) -> bool {
        self.server.stop().await.expect("a server that stops");
        self.server.restart().await.expect("a server that starts");
        self.broker = Arc::new(NatsBroker::connect(&self.options).await.expect("a connection"));
        true
    }
}

impl Served {
    /// Calls JetStream's API, past the broker.
    pub(crate) async fn api(&self, method: &str, body: &Value) -> Value {
        let client = async_nats::connect(self.server.url())
            .await
            .expect("a connection");
        // Some methods refuse a body that they do not need.
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = client.request(format!("$JS.API.{method}"), body.into()).await;
        serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
    }

    /// How many messages a stream holds.
    pub(crate) async fn stored(&self, stream: &str) -> u64 {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &Value::Null).await;
        info["state"]["messages"].as_u64().expect("a count")
    }

    /// How many pull requests wait at a lane's consumer.
    pub(crate) async fn waiting_pulls(&self, consumer: &str) -> u64 {
        let info = self
            .api(&format!("CONSUMER.INFO.{READY}.{consumer}"), &Value::Null)
            .await;
        info["num_waiting"].as_u64().expect("a count")
    }

    /// Submits as one batch; the first error, if there is any.
    pub(crate) async fn try_submit(&self, tasks: &[Submission]) -> Result<(), PublishError> {
        self.try_publish(tasks.iter().cloned().map(Message::Submission).collect())
            .await
    }

    /// Makes ready as one batch; the first error, if there is any.
    pub(crate) async fn try_ready(&self, tasks: &[Submission]) -> Result<(), PublishError> {
        self.try_publish(tasks.iter().map(ready).collect()).await
    }

    pub(crate) async fn try_publish(&self, batch: Vec<Message>) -> Result<(), PublishError> {
        let count = batch.len();
        let outcomes = self.broker.publish(batch).await;
        assert_eq!(outcomes.len(), count);
        outcomes.into_iter().collect()
    }

    /// Submits, again and again until it is confirmed.
    pub(crate) async fn submit_at_last(&self, tasks: &[Submission]) {
        wait::until("a confirmation", PATIENCE, || async {
            self.try_submit(tasks).await.map(|()| true)
        })
        .await;
    }

    /// Makes ready, again and again until it is confirmed.
    pub(crate) async fn ready_at_last(&self, tasks: &[Submission]) {
        wait::until("a confirmation", PATIENCE, || async {
            self.try_ready(tasks).await.map(|()| true)
        })
        .await;
    }

    pub(crate) async fn record(&self) -> Subscription {
        self.broker
            .consume(Source::Submissions)
            .await
            .expect("a subscription")
    }

    pub(crate) async fn consume(&self, lane: &Lane) -> Subscription {
        self.broker
            .consume(Source::Lane(lane.clone()))
            .await
            .expect("a subscription")
    }

    /// Consumes, again and again until that succeeds.
    pub(crate) async fn consume_at_last(&self, source: &Source) -> Subscription {
        wait::until("a subscription", PATIENCE, || async {
            self.broker.consume(source.clone()).await.map(Some)
        })
        .await
    }
}

/// A recorded task as it is published when it is ready.
pub(crate) fn ready(task: &Submission) -> Message {
    Message::Ready(Ready {
        id: task.id,
        kind: task.kind.clone(),
        lane: task.lane.clone(),
        fence: 0,
        lost: 0,
    })
}

pub(crate) fn lane(queue: &str) -> Lane {
    Lane::all_of(&queue.parse().expect("a name"))[1].clone()
}

pub(crate) fn tasks(lane: &Lane, count: u32) -> Vec<Submission> {
    (0..count).map(|_| task(lane, SubmitRequest::default())).collect()
}

pub(crate) fn task(lane: &Lane, request: SubmitRequest) -> Submission {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut random = [0; 10];
    random[6..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let request = SubmitRequest {
        kind: "echo".to_owned(),
        queue: Some(lane.queue.to_string()),
        priority: Some(lane.priority.to_string()),
        ..request
    };
    request
        .accept(SystemClock.now(), &random)
        .expect("a valid request")
}

pub(crate) fn id(delivery: &Delivery) -> TaskId {
    match &delivery.message {
        Ok(Message::Submission(task)) => task.id,
        Ok(Message::Ready(task)) => task.id,
        Err(undecodable) => panic!("cannot be decoded: {undecodable:?}"),
    }
}

/// Takes `count` deliveries and acknowledges them.
pub(crate) async fn take(subscription: &mut Subscription, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    wait::until("deliveries", PATIENCE, async || {
        let wait = Duration::from_secs(1);
        let more = subscription
            .consumer
            .next(count - ids.len(), wait)
            .await
            .map_err(|e| e.to_string())?;
        ids.extend(more.iter().map(id));
        let tokens = more.into_iter().map(|delivery| delivery.token).collect();
        subscription.acks.ack(tokens).await.map_err(|e| e.to_string())?;
        if ids.len() == count {
            Ok(true)
        } else {
            Err(format!("{} of {count} came", ids.len()))
        }
    })
    .await;
    ids
}

pub(crate) fn ids(tasks: &[Submission]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}
