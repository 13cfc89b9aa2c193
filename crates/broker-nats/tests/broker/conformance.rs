//! The suite that all brokers pass.

forebay_broker::broker_conformance!(crate::support::fresh);
