//! The broker on a real RabbitMQ server: the suite that all brokers pass, and what only RabbitMQ can do to us.

mod conformance;
mod faults;
mod pull;
mod queues;
mod support;
