//! Forebay's two doors, HTTP and gRPC, and the operations behind both. Stateless: a replica holds nothing that
//! another one needs. Knows the ports [`forebay_broker`] and [`forebay_store`], and no backend.
//!
//! To find the code of a path, look it up in `router.rs`: `POST /v1/tasks` is `http/tasks.rs::submit`, which
//! calls `ops/submit.rs`. The gRPC door calls the same operations from `grpc/tasks.rs`.

mod background;
mod bounds;
mod connections;
pub mod error;
mod events;
mod grpc;
mod http;
mod kinds;
mod layers;
mod ops;
mod router;
mod serve;
mod task;

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use forebay_autoscale::Observer;
use forebay_broker::{Broker, Submitter};
use forebay_core::Clock;
use forebay_runtime::{
    health::Health,
    metrics::{Metrics, RequestDurations},
};
use forebay_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::retry::budget::TpsBudget;

pub use background::background;
pub use bounds::Bounds;
pub use router::{OPENAPI, router, routes};
pub use serve::{Further, serve_grpc, serve_grpc_with, serve_http};

use crate::{
    events::{Announcer, Hub},
    ops::{counts::RecentCounts, queues::observer, recent::RecentKeys, unique::RecentMarks},
};

/// How many reads may be put to the store a second time: a tenth of all, and a few a second in any case, counted over
/// ten seconds.
const RETRIES_SHARE: f32 = 0.1;
const RETRIES_PER_SECOND: u32 = 2;
const RETRIES_TTL: Duration = Duration::from_secs(10);

/// What both doors need. Cheap to clone; the clones share everything.
#[derive(Clone)]
pub struct App(Arc<State>);

impl Deref for App {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// What the clones of an [`App`] share.
#[expect(missing_debug_implementations, reason = "ports are not Debug")]
pub struct State {
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
    pub bounds: Bounds,
    pub(crate) places: Places,
    pub(crate) hub: Arc<Hub>,
    pub(crate) announcer: Announcer,
    pub(crate) observer: Observer,
    pub(crate) recent: RecentKeys,
    pub(crate) marks: RecentMarks,
    pub(crate) counts: RecentCounts,
    pub(crate) schemas: kinds::Schemas,
    /// How long accepted submissions took: the most frequent of all observations.
    pub(crate) accepted: OnceLock<RequestDurations>,
    pub(crate) retries: TpsBudget,
}

/// What an [`App`] is made of.
#[expect(missing_debug_implementations, reason = "ports are not Debug")]
pub struct Parts {
    /// See [`State::store`].
    pub store: Arc<dyn Store>,
    /// See [`State::broker`].
    pub broker: Arc<dyn Broker>,
    /// See [`State::submitter`].
    pub submitter: Submitter,
    /// See [`State::clock`].
    pub clock: Arc<dyn Clock>,
    /// See [`State::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`State::health`].
    pub health: Health,
    /// See [`State::stop`].
    pub stop: CancellationToken,
}

/// Places for what may be under way at once.
#[derive(Debug)]
pub(crate) struct Places {
    /// Submissions, until the head of their answer is written.
    pub(crate) submissions: Arc<Semaphore>,
    /// Reads, until the head of their answer is written.
    pub(crate) reads: Arc<Semaphore>,
    /// Cancellations and retries.
    pub(crate) changes: Arc<Semaphore>,
    /// Requests that wait for a task to end.
    pub(crate) waits: Arc<Semaphore>,
    /// Streams of events, which stay open.
    pub(crate) streams: Arc<Semaphore>,
    /// Streams of submissions, which stay open.
    pub(crate) uploads: Arc<Semaphore>,
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
        let observer = observer(&parts, &bounds);
        Self(Arc::new(State {
            store: parts.store,
            broker: parts.broker,
            submitter: parts.submitter,
            clock: parts.clock,
            metrics: parts.metrics,
            health: parts.health,
            stop: parts.stop,
            places: Places {
                submissions: places(bounds.submissions),
                reads: places(bounds.reads),
                changes: places(bounds.changes),
                waits: places(bounds.waits),
                streams: places(bounds.streams),
                uploads: places(bounds.uploads),
                batches: places(bounds.batches),
                lookups: places(bounds.lookups),
            },
            bounds,
            hub: Arc::default(),
            announcer: Announcer::new(),
            observer,
            recent: RecentKeys::default(),
            marks: RecentMarks::default(),
            counts: RecentCounts::default(),
            schemas: kinds::Schemas::default(),
            accepted: OnceLock::new(),
            retries: TpsBudget::new(RETRIES_TTL, RETRIES_PER_SECOND, RETRIES_SHARE),
        }))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
