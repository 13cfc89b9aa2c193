//! What every broker must do, as tests. A backend's own test crate says how a fresh broker is made and runs them all:
//!
//! ```text
//! async fn fresh() -> impl Fixture { … }
//! forebay_broker::broker_conformance!(fresh);
//! ```

mod count;
mod deliver;
mod durable;
mod kit;
mod order;
mod publish;
mod signal;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use forebay_core::TaskId;

use crate::Broker;

pub use count::*;
pub use deliver::*;
pub use durable::*;
pub use order::*;
pub use publish::*;
pub use signal::*;

/// A fresh broker, and what the suite must be able to do with it.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The broker.
    fn broker(&self) -> Arc<dyn Broker>;

    /// The same broker as another process would use it; the same object where there is only ever one process.
    async fn another(&self) -> Arc<dyn Broker> {
        self.broker()
    }

    /// Makes these tasks no longer queued in whatever backs the broker, as the claim of a delivery does before it
    /// is acknowledged.
    async fn settle(&self, _tasks: &[TaskId]) {}

    /// Whether publishing a submission records it by itself, so that there is nothing for a recorder to read, and a
    /// delivery names a recorded task.
    fn records_by_itself(&self) -> bool {
        false
    }

    /// Ends the broker and starts it again on its data. Says no where there is nothing to restart.
    async fn restart(&mut self) -> bool;

    /// How long it takes at most until what a dead subscription held is delivered again.
    fn redelivery(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// Makes one test of each case of the suite. The factory is an `async fn` that returns a [`Fixture`].
#[macro_export]
macro_rules! broker_conformance {
    ($factory:path) => {
        $crate::broker_conformance!(@cases $factory:
            a_confirmed_message_is_delivered_to_its_lane
            a_submission_is_for_the_recorder_only
            what_is_ready_is_for_its_lane_only
            a_mixed_batch_is_delivered_to_each_reader
            the_recorder_reads_every_submission_once
            every_field_of_a_submission_arrives
            nothing_to_publish_is_nothing_wrong
            three_thousand_messages_arrive_once
            three_thousand_submissions_arrive_once_and_in_order
            large_payloads_are_published_together
            concurrent_publishers_lose_nothing
            a_lane_is_first_in_first_out
            lanes_are_separate
            consuming_may_begin_before_the_first_publish
            two_subscriptions_share_without_overlap
            what_a_dead_subscription_held_is_delivered_again
            what_is_handed_back_is_delivered_again_at_once
            what_is_left_to_the_store_is_not_delivered_again_at_once
            submissions_handed_back_are_delivered_again_at_once
            a_dead_recorder_leaves_nothing_unrecorded
            no_more_than_max_is_delivered
            an_idle_lane_answers_in_time
            a_publish_wakes_a_waiting_consumer
            an_abandoned_call_loses_nothing
            a_lane_never_used_is_empty
            depth_counts_what_waits_and_what_is_delivered
            what_is_not_recorded_is_counted
            trim_keeps_what_is_needed
            trim_keeps_what_one_reader_holds_beside_what_another_forgets
            a_healthy_broker_says_so
            signals_reach_all_who_listen
            confirmed_messages_survive_a_restart
            deliveries_under_way_survive_a_restart
        );
    };
    (@cases $factory:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$case($factory().await).await;
            }
        )*
    };
}
