//! The doors from the outside: requests in, answers out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can not go on says so by panicking"
)]

mod batch;
mod degraded;
mod degraded_doc;
mod docs;
mod door;
mod doors;
mod errors;
mod events;
mod fake;
mod grpc;
mod grpc_edge;
mod grpc_stranger;
mod hostile;
mod list;
mod openapi;
mod overload;
mod queues;
mod real;
mod rejects;
mod schedules;
mod serve;
mod submit;
mod tasks;
