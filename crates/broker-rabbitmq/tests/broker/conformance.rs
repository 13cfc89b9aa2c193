//! The suite, in virtual hosts of one server.

use forebay_broker::conformance;

mod shared {
    forebay_broker::broker_conformance!(crate::support::fresh);
}

/// The cases with a restart need a server of their own; on the shared one they end where it would be restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_a_real_restart() {
    conformance::confirmed_messages_survive_a_restart(crate::support::alone().await).await;
    conformance::deliveries_under_way_survive_a_restart(crate::support::alone().await).await;
}
