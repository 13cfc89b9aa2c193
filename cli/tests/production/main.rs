//! The built binary against real servers, NATS JetStream and PostgreSQL, over its real ports: what a platform
//! engineer runs. Each test has servers of its own and may kill them.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod autoscale;
mod composition;
mod degraded;
mod doors;
mod external;
mod faults;
mod keda;
mod limits;
mod monitoring;
mod operations;
mod pausing;
mod poison;
mod promises;
mod reflection;
mod rejects;
mod remote;
mod scale_in;
mod scaler;
mod schedules;
mod sdk;
mod stack;
mod timeline;
mod webhooks;
mod zombies;
