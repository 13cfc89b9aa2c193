//! What every Forebay process needs: configuration, logs and traces, metrics, health, supervision, and the
//! wiring of the backends. The only place that knows which broker and which store there are.

pub mod admin;
pub mod circuit;
pub mod config;
pub mod guard;
pub mod guarded;
pub mod health;
pub mod listen;
pub mod metered;
pub mod metrics;
pub mod open;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
