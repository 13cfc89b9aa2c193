//! The doors from the outside: requests in, answers out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can not go on says so by panicking"
)]

mod batch;
mod batches;
mod degraded;
mod degraded_doc;
mod docs;
mod documented;
mod door;
mod doors;
mod errors;
mod events;
mod explain;
mod fake;
mod grpc;
mod grpc_edge;
mod grpc_stranger;
mod hostile;
mod kinds;
mod limits;
mod list;
mod openapi;
mod operations;
mod overload;
mod queues;
mod real;
mod rejects;
mod repeats;
mod schedules;
mod serve;
mod submit;
mod tasks;
mod terms;
mod unique;
mod webhooks;
