//! `externalscaler.ExternalScaler`, as KEDA calls it: how many workers the tasks of a queue want, and a wake-up when
//! tasks come to a pool that has none.
//!
//! A thin door: the figures come from [`Figures`] and are the same through every other door. Two rules shape it. What
//! is not known is an error and never 0, since 0 ends every worker. And what KEDA needs to fall back, `GetMetricSpec`
//! and an open port, depends on nothing that can fail.

mod activity;
mod bounds;
mod figures;
mod incoming;
mod metadata;
mod serve;
mod service;
mod tls;

pub use bounds::Bounds;
pub use figures::{Demand, Figures, Unknown, Wakes};
pub use metadata::{METRIC_DESIRED_WORKERS, METRIC_TASKS};
pub use serve::{Parts, serve};
pub use tls::Tls;
