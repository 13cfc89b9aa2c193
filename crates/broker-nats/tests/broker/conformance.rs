//! The suite, with atomic batches and without.

mod atomic {
    forebay_broker::broker_conformance!(crate::support::fresh);
}

/// As against a server that is too old for atomic batches.
mod single {
    forebay_broker::broker_conformance!(crate::support::fresh_with_single_publishes);
}
