//! The worker of Forebay: it records what was accepted, runs tasks, and dispatches what becomes due.
//!
//! It is the `forebay worker` command, and a library for workers whose handlers are Rust functions:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use forebay_broker::Broker;
//! use forebay_core::SystemClock;
//! use forebay_runtime::{health::Health, metrics::Metrics};
//! use forebay_store::Store;
//! use forebay_worker::{HandlerError, HandlerSettings, Handlers, Worker, WorkerOptions};
//! use tokio_util::sync::CancellationToken;
//!
//! #[derive(serde::Deserialize)]
//! struct Thumbnail {
//!     image: String,
//!     width: u32,
//! }
//!
//! # async fn example(store: Arc<dyn Store>, broker: Arc<dyn Broker>) -> anyhow::Result<()> {
//! let handlers = Handlers::new().function(
//!     "thumbnail",
//!     HandlerSettings::default(),
//!     |input: Thumbnail, execution| async move {
//!         if input.width == 0 {
//!             return Err(HandlerError::permanent("a thumbnail has a width"));
//!         }
//!         execution.log.line(format_args!("attempt {}", execution.attempt));
//!         let bytes = tokio::fs::read(&input.image).await?; // any error is retried
//!         Ok(bytes.len())
//!     },
//! )?;
//! let worker = Worker::new(
//!     WorkerOptions::default(),
//!     handlers,
//!     store,
//!     broker,
//!     Arc::new(SystemClock),
//!     Arc::new(Metrics::new()),
//!     Health::default(),
//! );
//! let stop = CancellationToken::new(); // cancel it to drain and stop
//! worker.run(stop).await
//! # }
//! ```
//!
//! # How it works
//!
//! A worker has up to three roles, which share nothing but the store and the broker: the *recorder*, the *executor* and
//! the *dispatcher*. [`Roles`] says which of them run.
//!
//! A message is acknowledged right after its claim was committed. From then on the store guards the task, by the
//! worker's heartbeat. An attempt's outcome names the fence that its claim gave, so that an attempt which was given up
//! elsewhere can't overwrite a newer one.

mod bell;
mod dispatcher;
mod events;
mod executor;
pub mod handlers;
mod neighbours;
mod options;
mod recorder;
mod remote;
#[cfg(feature = "sabotage")]
mod sabotage;
mod shared;
mod subscribe;
mod webhooks;
mod worker;

pub use handlers::{
    Execution, Handler, HandlerError, HandlerResult, HandlerSettings, Handlers, LogTail, Progress,
    RegisterError, Stop, StopReason,
};
pub use options::{DispatcherOptions, IntakeOptions, Roles, UnknownRole, WorkerOptions};
pub use remote::{RemoteOptions, RemoteWorkers};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
pub use webhooks::WebhookOptions;
pub use worker::{Load, Worker};
