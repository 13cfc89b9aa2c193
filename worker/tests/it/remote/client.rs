//! A server of remote workers, and a worker as small as can be.

#![allow(dead_code, reason = "not every test crate needs all of it")]

use std::{sync::Arc, time::Duration};

use forebay_broker::Broker;
use forebay_core::SystemClock;
use forebay_proto::v1::{
    Finish, Heartbeat, Hello, KindSettings, Start, Stop, Succeeded, Welcome, WorkRequest, WorkResponse,
    finish::Outcome, work_request::Message as Say, work_response::Message as Heard,
    worker_service_client::WorkerServiceClient,
};
use forebay_runtime::metrics::Metrics;
use forebay_store::Store;
use forebay_worker::{RemoteOptions, RemoteWorkers};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    Status, Streaming,
    transport::{Endpoint, server::TcpIncoming},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much is on its way to a worker that has not read it, in bytes: the least that HTTP/2 begins with.
const WINDOW: u32 = 65_535;

pub(super) struct Server {
    url: String,
    pub(super) stop: CancellationToken,
    metrics: Arc<Metrics>,
    run: JoinHandle<()>,
    _serving: AbortOnDropHandle<()>,
}

impl Server {
    pub(super) async fn start(
        options: RemoteOptions,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
    ) -> Self {
        Self::start_beside(options, store, broker, |_| ()).await
    }

    /// As [`Self::start`], after something else was done with it.
    pub(super) async fn start_beside(
        options: RemoteOptions,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        prepare: impl FnOnce(&RemoteWorkers),
    ) -> Self {
        let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::new()));
        let remote = RemoteWorkers::new(
            options,
            store,
            broker,
            Arc::new(SystemClock),
            Arc::clone(&metrics),
            stop.clone(),
        );
        prepare(&remote);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = remote.routes();
        let serving = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            let server = tonic::transport::Server::builder().add_routes(routes);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            url,
            stop,
            metrics,
            run: tokio::spawn(remote.run()),
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// A worker that is connected.
    pub(super) async fn worker(&self, hello: Hello) -> Client {
        self.attempt(Say::Hello(hello)).await.unwrap()
    }

    /// What a worker is told that begins with this, and is not taken.
    pub(super) async fn refused(&self, first: Say) -> Status {
        match self.attempt(first).await {
            Ok(client) => panic!("{} was taken", client.id),
            Err(status) => status,
        }
    }

    async fn attempt(&self, first: Say) -> Result<Client, Status> {
        let (say, said) = mpsc::channel(16);
        let first = WorkRequest { message: Some(first) };
        say.send(first).await.unwrap();
        // Who does not read is soon behind.
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        let endpoint = endpoint.initial_stream_window_size(WINDOW);
        let mut client = WorkerServiceClient::new(endpoint.connect().await.unwrap());
        let answer = timeout(PATIENCE, client.work(ReceiverStream::new(said))).await;
        let mut hear = answer.expect("it answers")?.into_inner();
        let first = timeout(PATIENCE, hear.message()).await.expect("it answers")?;
        let Some(Heard::Welcome(welcome)) = first.and_then(|it| it.message) else {
            panic!("it is not welcomed");
        };
        Ok(Client {
            id: welcome.worker_id.clone(),
            welcome,
            say: Some(say),
            hear,
        })
    }

    /// Waits until it has ended, which it was told to.
    pub(super) async fn ends(self) {
        timeout(PATIENCE, self.run)
            .await
            .expect("it ends in time")
            .unwrap();
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|known| known == line)
    }
}

pub(super) struct Client {
    pub(super) id: String,
    pub(super) welcome: Welcome,
    say: Option<mpsc::Sender<WorkRequest>>,
    hear: Streaming<WorkResponse>,
}

impl Client {
    pub(super) async fn say(&self, message: Say) {
        let message = Some(message);
        self.sender().send(WorkRequest { message }).await.unwrap();
    }

    /// As a newer worker looks to this server that says something which this server does not know.
    pub(super) async fn say_nothing(&self) {
        self.sender().send(WorkRequest { message: None }).await.unwrap();
    }

    pub(super) async fn finish(&self, start: &Start, outcome: Outcome) {
        let id = start.id.clone();
        let outcome = Some(outcome);
        self.say(Say::Finish(Finish { id, outcome })).await;
    }

    /// Says nothing more, and goes on listening.
    pub(super) fn close(&mut self) {
        self.say = None;
    }

    /// Lets it heartbeat by itself, until it is dropped.
    pub(super) fn heartbeating(self, every: Duration) -> Self {
        let say = self.sender().downgrade();
        tokio::spawn(async move {
            while let Some(say) = say.upgrade() {
                let message = Some(Say::Heartbeat(Heartbeat::default()));
                let _ = say.send(WorkRequest { message }).await;
                drop(say);
                tokio::time::sleep(every).await;
            }
        });
        self
    }

    pub(super) async fn hear(&mut self) -> Heard {
        let heard = self.hear_within(PATIENCE).await;
        heard.expect("something is heard in time")
    }

    /// The next message, where one comes in this time.
    pub(super) async fn hear_within(&mut self, limit: Duration) -> Option<Heard> {
        let heard = timeout(limit, self.hear.message()).await.ok()?;
        heard.unwrap().expect("the stream goes on").message
    }

    pub(super) async fn start(&mut self) -> Start {
        match self.hear().await {
            Heard::Start(start) => start,
            other => panic!("no start: {other:?}"),
        }
    }

    pub(super) async fn stop(&mut self) -> Stop {
        match self.hear().await {
            Heard::Stop(stop) => stop,
            other => panic!("no stop: {other:?}"),
        }
    }

    /// How the stream ends. Nothing else may come before.
    pub(super) async fn ends(&mut self) -> Result<(), Status> {
        let heard = timeout(PATIENCE, self.hear.message()).await;
        match heard.expect("the stream ends in time")? {
            None => Ok(()),
            Some(other) => panic!("no end: {other:?}"),
        }
    }

    /// How the stream ends, and what is heard before.
    pub(super) async fn ends_after(&mut self) -> (Vec<Heard>, Result<(), Status>) {
        let mut all = Vec::new();
        loop {
            let heard = timeout(PATIENCE, self.hear.message()).await;
            match heard.expect("the stream ends in time") {
                Ok(Some(heard)) => all.extend(heard.message),
                Ok(None) => return (all, Ok(())),
                Err(status) => return (all, Err(status)),
            }
        }
    }

    fn sender(&self) -> &mpsc::Sender<WorkRequest> {
        self.say.as_ref().expect("it has not closed its side")
    }
}

pub(super) fn kind(name: &str) -> KindSettings {
    KindSettings {
        kind: name.to_owned(),
        ..KindSettings::default()
    }
}

pub(super) fn hello(name: &str, slots: u32) -> Hello {
    Hello {
        name: "host-1".to_owned(),
        kinds: vec![kind(name)],
        slots,
        sdk: "test/1".to_owned(),
        ..Hello::default()
    }
}

pub(super) fn succeeded(result: &str) -> Outcome {
    Outcome::Succeeded(Succeeded {
        result: result.as_bytes().to_vec().into(),
    })
}

pub(super) fn id_of(start: &Start) -> (String, u32) {
    let id = start.id.as_ref().expect("a start has an id");
    (id.task_id.clone(), id.fence)
}
