//! Forebay's two doors, HTTP and gRPC, and the operations behind both. Stateless: a replica holds nothing that
//! another one needs. Knows the ports [`forebay_broker`] and [`forebay_store`], and no backend.
//!
//! To find the code of a path, look it up in `router.rs`: `POST /v1/tasks` is `http/tasks.rs::submit`, which
//! calls `ops/submit.rs`. The gRPC door calls the same operations from `grpc/tasks.rs`.

mod background;
mod bounds;
pub mod error;
mod events;
mod grpc;
mod http;
mod layers;
mod ops;
mod router;
mod serve;
mod task;

use std::{fmt, sync::Arc};

use forebay_broker::{Broker, Submitter};
use forebay_core::Clock;
use forebay_runtime::{health::Health, metrics::Metrics};
use forebay_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use background::background;
pub use bounds::Bounds;
pub use router::{OPENAPI, router, routes};
pub use serve::{serve_grpc, serve_http};

use crate::{
    events::{Announcer, Hub},
    ops::{queues::Observed, recent::RecentKeys},
};

/// What both doors need. Cheap to clone; the clones share everything.
#[derive(Clone)]
pub struct App {
    /// Where tasks are read from.
    pub store: Arc<dyn Store>,
    /// Whom to ask for depths, and to signal through.
    pub broker: Arc<dyn Broker>,
    /// Where tasks are handed in.
    pub submitter: Submitter,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// What `/health/ready` tells.
    pub health: Health,
    /// Cancelled when the process is to stop: nothing new is begun, what waits is ended.
    pub stop: CancellationToken,
    /// How much, and how long.
    pub bounds: Arc<Bounds>,
    pub(crate) places: Arc<Places>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) announcer: Announcer,
    pub(crate) observed: Arc<Observed>,
    pub(crate) recent: Arc<RecentKeys>,
}

/// What an [`App`] is made of.
#[expect(missing_debug_implementations, reason = "ports are not Debug")]
pub struct Parts {
    /// See [`App::store`].
    pub store: Arc<dyn Store>,
    /// See [`App::broker`].
    pub broker: Arc<dyn Broker>,
    /// See [`App::submitter`].
    pub submitter: Submitter,
    /// See [`App::clock`].
    pub clock: Arc<dyn Clock>,
    /// See [`App::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`App::health`].
    pub health: Health,
    /// See [`App::stop`].
    pub stop: CancellationToken,
}

/// Places for what may be under way at once.
#[derive(Debug)]
pub(crate) struct Places {
    /// Requests of any kind, until the head of their answer is written.
    pub(crate) requests: Arc<Semaphore>,
    /// Requests that wait for a task to end.
    pub(crate) waits: Arc<Semaphore>,
    /// Answers that stay open: event streams and NDJSON.
    pub(crate) streams: Arc<Semaphore>,
    /// Batches that are held in memory.
    pub(crate) batches: Arc<Semaphore>,
    /// Looks at the store on behalf of idempotency keys.
    pub(crate) lookups: Arc<Semaphore>,
}

impl App {
    /// The doors' shared state, with the bounds of [`Bounds::default`]. [`background`] must be driven for events
    /// and fresh figures; without it requests are still answered.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self::bounded(parts, Bounds::default())
    }

    /// As [`Self::new`], with other bounds.
    #[must_use]
    pub fn bounded(parts: Parts, bounds: Bounds) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            store: parts.store,
            broker: parts.broker,
            submitter: parts.submitter,
            clock: parts.clock,
            metrics: parts.metrics,
            health: parts.health,
            stop: parts.stop,
            places: Arc::new(Places {
                requests: places(bounds.requests),
                waits: places(bounds.waits),
                streams: places(bounds.streams),
                batches: places(bounds.batches),
                lookups: places(bounds.lookups),
            }),
            bounds: Arc::new(bounds),
            hub: Arc::default(),
            announcer: Announcer::new(),
            observed: Arc::default(),
            recent: Arc::default(),
        }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
