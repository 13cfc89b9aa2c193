//! The suite that every store passes: one function for each behaviour that [`crate::Store`] promises.
//!
//! A store's crate calls [`store_conformance!`](crate::store_conformance) in a test file of its own, with a
//! [`Fixture`] that makes fresh stores. Cases never sleep to wait for something: they ask until it is so, or until a
//! deadline.

pub mod abandon;
pub mod claim;
pub mod complete;
pub mod concurrency;
pub mod dispatch;
pub mod empty;
pub mod liveness;
pub mod model;
pub mod operate;
pub mod payload;
pub mod progress;
pub mod read;
pub mod record;
pub mod republish;
pub mod schedules;
pub mod start;
pub mod support;

use std::{future::Future, sync::Arc, time::Duration};

use crate::Store;

/// How long one case may take on the slowest machine; past it, the store hangs.
const CASE_TIME_MAX: Duration = Duration::from_secs(180);

/// Makes stores to test. It lives as long as the case, so it may own what the store needs.
pub trait Fixture: Sync {
    /// A fresh, migrated and empty store.
    fn store(&self) -> impl Future<Output = Arc<dyn Store>> + Send;
}

/// Runs one case against a store of `fixture`.
pub async fn run<F, C, R>(fixture: &F, case: C)
where
    F: Fixture,
    C: FnOnce(Arc<dyn Store>) -> R,
    R: Future<Output = ()>,
{
    let store = fixture.store().await;
    tokio::time::timeout(CASE_TIME_MAX, case(store))
        .await
        .expect("a case takes seconds: the store hangs");
}

/// Makes a test of each case. The argument is an expression that makes a [`Fixture`](crate::conformance::Fixture);
/// it is evaluated for each test.
#[macro_export]
macro_rules! store_conformance {
    ($fixture:expr) => {
        $crate::store_conformance! { @cases $fixture;
            record: [
                a_new_submission_is_inserted,
                a_repeated_submission_is_a_duplicate,
                a_key_with_another_body_is_a_conflict,
                a_key_is_known_from_the_window_before,
                a_key_is_known_from_the_window_after,
                a_batch_may_hold_an_id_twice,
                a_parked_submission_is_scheduled,
                a_parked_submission_that_came_late_is_scheduled_too,
                a_large_batch_is_answered_in_order,
                queues_become_known,
                rejects_are_kept_whatever_they_are,
                rejects_are_listed_newest_first,
            ]
            claim: [
                a_queued_task_is_granted,
                a_due_task_is_granted_before_it_is_dispatched,
                a_task_that_is_not_due_is_turned_away,
                a_task_that_runs_elsewhere_is_turned_away,
                a_final_task_is_turned_away,
                another_fence_is_turned_away,
                an_unknown_task_is_turned_away,
                a_batch_may_hold_an_id_twice,
                a_repeated_claim_is_granted_again,
                what_the_handler_says_fills_the_gaps,
                what_the_submitter_says_is_kept,
                the_recorded_payload_of_a_key_counts,
                a_task_of_the_window_before_turns_a_key_away,
                a_batch_with_a_key_on_both_sides_of_midnight_grants_one,
                answers_come_in_order,
                a_claim_leads_to_the_next_attempt,
            ]
            start: [
                a_new_submission_runs_at_once,
                a_repeated_start_is_granted_again,
                what_is_known_is_judged_as_by_a_claim,
                a_batch_may_hold_an_id_twice,
                a_dead_worker_starts_nothing,
                what_was_started_is_taken_back,
                what_was_asked_again_in_parts_is_taken_back,
                what_was_started_is_handed_back,
            ]
            complete: [
                success_keeps_result_and_log,
                failure_keeps_its_error,
                cancellation_ends_it,
                retry_waits_and_is_charged,
                hand_back_costs_no_attempt,
                the_last_ten_errors_are_kept,
                a_stale_attempt_cannot_overwrite,
                another_worker_cannot_overwrite,
                a_repeated_completion_says_applied,
                a_requested_cancellation_turns_retry_into_cancelled,
                text_with_nul_is_made_fit,
                an_unknown_task_is_fenced,
                answers_come_in_order,
            ]
            dispatch: [
                only_what_is_due_in_order_of_time,
                what_is_not_confirmed_stays,
                no_more_than_the_limit,
                a_dispatched_task_is_not_dispatched_again,
                a_retrying_task_carries_its_fence,
                a_claim_before_the_commit_wins_once,
                a_retry_before_the_commit_is_dispatched_anew,
                several_dispatchers_miss_nothing,
            ]
            liveness: [
                a_silent_worker_is_taken_back_and_a_lively_one_is_not,
                being_lost_costs_no_attempt_but_has_a_cap,
                a_lost_task_with_a_cancellation_is_cancelled,
                a_dead_worker_is_told_so,
                a_dead_workers_completion_is_fenced,
                deregistering_hands_back_at_no_cost,
                registering_again_is_allowed,
                a_heartbeat_delivers_cancellations,
                workers_are_listed_as_they_say,
                watermarks_are_the_newest_of_each_lane,
                the_oldest_ready_task_is_found,
                what_became_due_is_ready_since_then,
                a_late_record_is_found_behind_the_walk,
            ]
            abandon: [
                its_tasks_are_taken_back_at_once_and_no_others,
                it_is_told_so_and_has_no_say,
                what_it_has_ended_stays,
                it_counts_as_lost,
            ]
            progress: [
                is_kept_with_the_task_as_it_was_said,
                the_latest_word_counts,
                the_next_start_begins_without,
                it_stays_when_the_attempt_has_ended,
                a_word_about_another_start_is_passed_over,
                a_word_about_what_does_not_run_is_passed_over,
                another_workers_word_is_passed_over,
                a_worker_that_was_declared_dead_says_nothing,
                many_tasks_of_several_days_in_one_heartbeat,
                whatever_may_be_said_comes_back,
            ]
            republish: [
                what_waits_since_before_the_horizon_is_published_once,
                lanes_without_a_horizon_are_left_alone,
                what_was_recorded_late_is_found_below_the_floor,
                what_is_not_confirmed_stays_lost,
                the_limit_cuts_and_the_floor_goes_on,
                only_what_is_queued,
                what_was_dispatched_may_be_lost_too,
            ]
            schedules: [
                a_schedule_comes_back_as_it_was_put,
                putting_it_again_replaces_it,
                they_are_listed_by_name,
                a_deleted_schedule_is_gone_and_its_tasks_stay,
                a_tick_becomes_a_task,
                a_tick_that_has_come_is_run,
                a_paused_schedule_rests,
                skip_leaves_a_tick_out,
                queue_keeps_the_latest_tick,
                allow_fires_all_the_same,
                what_is_in_time_is_made_up_for,
                a_tick_whose_task_is_known_is_passed,
                many_are_due_at_once,
                three_dispatchers_fire_exactly_the_right_ticks,
                dispatchers_agree_on_what_overlaps,
                nothing_is_fired_once_it_is_deleted,
                putting_it_while_it_fires_costs_no_tick,
                one_of_several_makes_it,
            ]
            read: [
                an_unknown_task_is_none,
                newest_first,
                pages_of_equal_times_show_each_task_once,
                a_full_last_page_is_the_last,
                deep_paging_meets_each_task_once,
                every_filter_alone,
                filters_together,
                a_filter_goes_on_over_pages,
                queues_count_what_waits_and_what_runs,
                the_clock_goes_forward,
            ]
            operate: [
                what_waits_is_cancelled_at_once,
                what_runs_is_marked_for_cancellation,
                what_is_final_refuses_cancellation,
                what_failed_or_was_cancelled_is_retried,
                anything_else_refuses_retry,
                an_unknown_task_is_not_found,
                the_window_before_is_found,
                a_cancelled_task_is_not_dispatched,
                a_queue_is_paused_and_resumed,
                a_queue_may_be_paused_before_its_first_task,
                a_pause_holds_nothing_back_in_the_store,
            ]
            payload: [
                text_comes_back_byte_for_byte,
                the_largest_payload_fits,
                results_come_back_byte_for_byte,
                tags_come_back_as_they_were,
            ]
            empty: [
                an_empty_batch_is_fine_everywhere,
                maintenance_keeps_what_is_unfinished,
                migrating_again_changes_nothing,
            ]
            concurrency: [
                eight_workers_grant_each_task_once,
                several_recorders_insert_each_task_once,
                completion_and_take_back_agree_on_one_outcome,
            ]
            model: [
                the_store_does_as_the_model_seed_1,
                the_store_does_as_the_model_seed_2,
                the_store_does_as_the_model_seed_3,
                the_store_does_as_the_model_seed_4,
            ]
        }
    };
    (@cases $fixture:expr; $($module:ident: [$($case:ident),+ $(,)?])+) => {
        $(
            mod $module {
                use super::*;
                $(
                    #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        let fixture = $fixture;
                        $crate::conformance::run(&fixture, $crate::conformance::$module::$case).await;
                    }
                )+
            }
        )+
    };
}
