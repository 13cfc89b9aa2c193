//! What every Forebay process needs: configuration, logs and traces, metrics, health, supervision, and the
//! wiring of the backends. The only place that knows which broker and which store there are.

pub mod health;
pub mod metrics;
pub mod supervise;
