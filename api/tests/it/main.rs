//! The doors from the outside: requests in, answers out.

mod batch;
mod docs;
mod door;
mod errors;
mod events;
mod fake;
mod grpc;
mod hostile;
mod list;
mod openapi;
mod overload;
mod queues;
mod serve;
mod submit;
mod tasks;
