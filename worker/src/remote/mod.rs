//! Remote workers: handlers that live in another process, in any language, at the other end of a gRPC stream.
//!
//! Each stream is an [`Executor`] of its own, with one [`Handler`](crate::Handler) for each kind that hands the task to
//! the stream and waits for its answer ([`starts`]). All else is as in any worker, with nothing new to decide: the store
//! knows it as a worker with a heartbeat of its own; slots, bulkheads, pauses, drains and fences are the executor's. So
//! the other end has no more tasks than it has slots, without a count of credit.
//!
//! A stream that breaks, breaks the rules or falls silent is a worker that has died, and since this process knows, it
//! says so to the store at once ([`Executor::run_until_gone`]).

mod answers;
mod hello;
mod session;
mod starts;
mod status;

use std::{sync::Arc, time::Duration};

use forebay_broker::Broker;
use forebay_core::Clock;
use forebay_proto::v1::{
    WorkRequest,
    worker_service_server::{SERVICE_NAME, WorkerService, WorkerServiceServer},
};
use forebay_runtime::{health::Health, metrics::Metrics};
use forebay_store::Store;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tracing::warn;

use self::{
    answers::{Answers, answers},
    hello::Accepted,
    session::Session,
};
use crate::{
    Handlers, Roles, WorkerOptions,
    bell::Bell,
    events::{EventSender, Events},
    executor::Hearing,
    neighbours::Neighbours,
    shared::Shared,
    worker::EVENTS_FLUSH_MAX,
};

/// The largest message of a worker, in bytes: a result of the size that is kept, and room to say that it is too large.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// How long the ends of all streams may take beyond the time to drain, once the process is to stop.
const ENDS_MAX: Duration = Duration::from_secs(5);

/// How remote workers are served.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteOptions {
    /// How many may be connected to this process at once; 0 for none.
    pub workers_max: usize,
    /// How many slots they may have in all.
    pub slots_max: usize,
    /// How each of them works. Its name, queues, roles and number of slots are what the worker says.
    pub executor: WorkerOptions,
    /// How often a worker has to say something.
    pub heartbeat: Duration,
    /// After how long a silence it counts as dead.
    pub silence_max: Duration,
    /// How long it may take until it has said who it is, and as long until the store knows it.
    pub hello_max: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            workers_max: 1_000,
            slots_max: 100_000,
            executor: WorkerOptions {
                // Less than the doors wait for their last requests.
                drain_timeout: Duration::from_secs(8),
                ..WorkerOptions::default()
            },
            heartbeat: Duration::from_secs(5),
            silence_max: Duration::from_secs(15),
            hello_max: Duration::from_secs(10),
        }
    }
}

/// What all streams share.
struct Common {
    options: RemoteOptions,
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    events: EventSender,
    /// Cancelled when the process is to stop: all drain, and none is taken any more.
    stop: CancellationToken,
    hearing: Arc<Hearing>,
    neighbours: Neighbours,
    due: Arc<Bell>,
    places: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    sessions: TaskTracker,
}

/// Serves remote workers.
pub struct RemoteWorkers {
    common: Arc<Common>,
    events: Events,
}

impl std::fmt::Debug for RemoteWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWorkers")
            .field("options", &self.common.options)
            .finish_non_exhaustive()
    }
}

impl RemoteWorkers {
    /// Takes no worker before [`Self::routes`] are served. When `stop` is cancelled, all that are connected are told to
    /// drain.
    #[must_use]
    pub fn new(
        options: RemoteOptions,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let due = Arc::default();
        let (sender, events) = Events::new(Arc::clone(&broker), Arc::clone(&due));
        let common = Common {
            places: Arc::new(Semaphore::new(options.workers_max)),
            slots: Arc::new(Semaphore::new(options.slots_max)),
            sessions: TaskTracker::new(),
            hearing: Arc::new(Hearing::new(Arc::clone(&due))),
            neighbours: Neighbours::default(),
            due,
            events: sender,
            options,
            store,
            broker,
            clock,
            metrics,
            stop,
        };
        Self {
            common: Arc::new(common),
            events,
        }
    }

    /// The gRPC service.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let service = Service(Arc::clone(&self.common));
        Routes::new(WorkerServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The names of the services, for health; none where no worker may connect.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        match self.common.options.workers_max {
            0 => Vec::new(),
            _ => vec![SERVICE_NAME],
        }
    }

    pub(crate) fn neighbours(&self) -> Neighbours {
        self.common.neighbours.clone()
    }

    pub(crate) fn due(&self) -> Arc<Bell> {
        Arc::clone(&self.common.due)
    }

    /// Must be driven beside the service. Returns when the process is to stop and the last worker has ended: in good
    /// order, each within its drain timeout, and what did not finish is handed back. Where the store is away then, that is
    /// left to the lease.
    pub async fn run(self) {
        let Self { common, events } = self;
        let (mut sending, mut listening) = (JoinSet::new(), JoinSet::new());
        sending.spawn(events.run());
        if common.options.workers_max > 0 {
            listening.spawn(listen(Arc::clone(&common)));
        }
        common.stop.cancelled().await;
        common.sessions.close();
        let executor = &common.options.executor;
        let limit = executor.drain_timeout + executor.handler_grace + ENDS_MAX;
        if timeout(limit, common.sessions.wait()).await.is_err() {
            let left = common.sessions.len();
            warn!(
                left,
                "some remote workers could not be ended in good order, their leases run out"
            );
        }
        drop((common, listening));
        // It ends with the last sender, which the service has until its server is gone.
        let _ = timeout(EVENTS_FLUSH_MAX, sending.join_next()).await;
    }
}

impl Common {
    /// What the executor of one stream is given. Its health is its own and shown to nobody: that of the process must not
    /// hang on what comes and goes with its clients, and says by itself whether store and broker are there.
    fn shared(&self, hello: &Accepted, handlers: Handlers) -> Shared {
        let options = WorkerOptions {
            name: hello.name.clone(),
            queues: hello.queues.clone(),
            concurrency: hello.slots,
            roles: Roles::EXECUTOR,
            once: false,
            tasks_max: None,
            ..self.options.executor.clone()
        };
        Shared {
            options,
            handlers,
            store: Arc::clone(&self.store),
            broker: Arc::clone(&self.broker),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            health: Health::default(),
            events: self.events.clone(),
            hearing: Some(Arc::clone(&self.hearing)),
            neighbours: self.neighbours.clone(),
            progress: Arc::default(),
            due: Arc::clone(&self.due),
            load: watch::Sender::default(),
            #[cfg(feature = "sabotage")]
            sabotage: crate::Sabotage::default(),
        }
    }
}

/// Listens on behalf of all executors. What becomes of it is shown to nobody, as their health.
async fn listen(common: Arc<Common>) {
    let reporter = Health::default().component("hearing", Duration::MAX);
    let listening = common.hearing.listen(&*common.store, &*common.broker, &reporter);
    listening.await;
}

struct Service(Arc<Common>);

#[tonic::async_trait]
impl WorkerService for Service {
    type WorkStream = Answers;

    /// Answers at once, and all else comes with the stream: a worker may wait for the head of the answer before it says
    /// who it is.
    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let common = &self.0;
        let most = common.options.workers_max;
        if most == 0 {
            return Err(Status::unimplemented("this server takes no remote workers"));
        }
        if common.stop.is_cancelled() {
            return Err(status::shutting_down());
        }
        let place = Arc::clone(&common.places).try_acquire_owned();
        let place = place.map_err(|_| {
            status::overloaded(format!("{most} workers are connected to this server already"))
        })?;
        let (outbound, fault, answers) = answers();
        let session = Session {
            common: Arc::clone(common),
            messages: request.into_inner(),
            outbound,
            fault,
        };
        common.sessions.spawn(async move {
            session.run().await;
            drop(place);
        });
        Ok(Response::new(answers))
    }
}
