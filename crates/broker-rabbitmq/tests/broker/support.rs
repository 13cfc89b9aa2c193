//! A broker in a virtual host or on a server of its own, tasks to publish, and a look past the broker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use forebay_broker::{Broker, Delivery, Message, PublishError, Source, Subscription, conformance::Fixture};
use forebay_broker_rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use forebay_core::{Clock, Lane, Ready, Submission, SubmitRequest, SystemClock, TaskId};
use forebay_testkit::{rabbitmq::RabbitMq, wait};

/// How long something that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker, and the server where it is not the shared one.
pub(crate) struct Served {
    pub(crate) own: Option<RabbitMq>,
    pub(crate) options: RabbitMqOptions,
    pub(crate) broker: Arc<RabbitMqBroker>,
}

/// Settings for tests: patient when publishing, for busy machines.
pub(crate) fn options(url: String) -> RabbitMqOptions {
    RabbitMqOptions {
        queue_bytes_max: 256 * 1024 * 1024,
        publish_timeout: Duration::from_secs(10),
        ..RabbitMqOptions::new(url)
    }
}

/// A broker in a fresh virtual host of the shared server.
pub(crate) async fn fresh() -> Served {
    fresh_with(|_| {}).await
}

/// The same, set up differently.
pub(crate) async fn fresh_with(change: impl FnOnce(&mut RabbitMqOptions)) -> Served {
    let server = RabbitMq::shared().await;
    let url = wait::until("a virtual host", PATIENCE, async || {
        server.fresh_vhost().await.map(Some)
    })
    .await;
    serve(None, url, change).await
}

/// A broker on a server of its own.
pub(crate) async fn alone() -> Served {
    alone_with(|_| {}).await
}

/// The same, set up differently.
pub(crate) async fn alone_with(change: impl FnOnce(&mut RabbitMqOptions)) -> Served {
    let server = RabbitMq::start().await.expect("a RabbitMQ server");
    let url = server.url();
    serve(Some(server), url, change).await
}

async fn serve(own: Option<RabbitMq>, url: String, change: impl FnOnce(&mut RabbitMqOptions)) -> Served {
    let mut options = options(url);
    change(&mut options);
    let broker = Arc::new(RabbitMqBroker::connect(&options).await.expect("a connection"));
    Served { own, options, broker }
}

#[async_trait]
impl Fixture for Served {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker) as Arc<dyn Broker>
    }

    async fn another(&self) -> Arc<dyn Broker> {
        Arc::new(
            RabbitMqBroker::connect(&self.options)
                .await
                .expect("a connection"),
        )
    }

    async fn restart(&mut self) -> bool {
        let Some(server) = &mut self.own else {
            return false;
        };
        server.stop().await.expect("a server that stops");
        server.restart().await.expect("a server that starts");
        self.broker = Arc::new(
            RabbitMqBroker::connect(&self.options)
                .await
                .expect("a connection"),
        );
        true
    }
}

impl Served {
    /// The server, where it is not the shared one.
    pub(crate) fn server(&mut self) -> &mut RabbitMq {
        self.own.as_mut().expect("a server of its own")
    }

    /// A client past the broker.
    pub(crate) async fn client(&self) -> lapin::Channel {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&self.options.url, properties).await;
        let connection = connection.expect("a connection");
        connection.create_channel().await.expect("a channel")
    }

    /// Deletes a queue, as somebody might.
    pub(crate) async fn delete(&self, queue: &str) {
        let deleted = self
            .client()
            .await
            .queue_delete(queue.into(), Default::default())
            .await;
        deleted.expect("a queue to delete");
    }

    /// Submits, as one batch; the first error, if there is any.
    pub(crate) async fn try_submit(&self, tasks: &[Submission]) -> Result<(), PublishError> {
        self.try_publish(submissions(tasks)).await
    }

    /// Publishes that these are ready, as one batch; the first error, if there is any.
    pub(crate) async fn try_ready(&self, tasks: &[Submission]) -> Result<(), PublishError> {
        self.try_publish(tasks.iter().map(ready).collect()).await
    }

    async fn try_publish(&self, batch: Vec<Message>) -> Result<(), PublishError> {
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

    /// Publishes that these are ready, again and again until it is confirmed.
    pub(crate) async fn ready_at_last(&self, tasks: &[Submission]) {
        wait::until("a confirmation", PATIENCE, || async {
            self.try_ready(tasks).await.map(|()| true)
        })
        .await;
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

pub(crate) fn submissions(tasks: &[Submission]) -> Vec<Message> {
    tasks.iter().cloned().map(Message::Submission).collect()
}

/// The same task, recorded and ready.
pub(crate) fn ready(task: &Submission) -> Message {
    Message::Ready(Ready {
        id: task.id,
        kind: task.kind.clone(),
        lane: task.lane.clone(),
        fence: 0,
        lost: 0,
    })
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
            .map_err(|e| format!("{e}: {}", e.source))?;
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

/// Takes `count` deliveries, and holds them.
pub(crate) async fn hold(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut held = Vec::new();
    wait::until("deliveries", PATIENCE, async || {
        let wait = Duration::from_secs(1);
        let more = subscription.consumer.next(count - held.len(), wait).await;
        held.extend(more.map_err(|e| format!("{e}: {}", e.source))?);
        if held.len() == count {
            Ok(true)
        } else {
            Err(format!("{} of {count} came", held.len()))
        }
    })
    .await;
    held
}

pub(crate) fn ids(tasks: &[Submission]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}
