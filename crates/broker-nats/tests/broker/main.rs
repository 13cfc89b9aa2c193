//! The broker on a real NATS server: the suite that all brokers pass, and what only NATS can do to us.

mod conformance;
mod faults;
mod stream;
mod support;
