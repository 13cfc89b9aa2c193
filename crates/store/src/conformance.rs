//! The suite that every store passes: one function for each behaviour that [`crate::Store`] promises.
//!
//! A store's crate calls [`store_conformance!`](crate::store_conformance) in a test file of its own, with a
//! [`Fixture`] that makes fresh stores. Cases never sleep to wait for something: they ask until it is so, or until a
//! deadline.

pub mod abandon;
pub mod batches;
pub mod claim;
pub mod complete;
pub mod compose;
pub mod concurrency;
pub mod dispatch;
pub mod empty;
pub mod expiry;
pub mod explain;
pub mod kinds;
pub mod limits;
pub mod liveness;
pub mod model;
pub mod operate;
pub mod operations;
pub mod payload;
pub mod progress;
pub mod read;
pub mod record;
pub mod republish;
pub mod schedules;
pub mod start;
pub mod support;
pub mod unique;
pub mod webhooks;

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
            limits: [
                a_rule_is_kept_as_it_was_put,
                as_many_run_as_may,
                the_next_goes_on_when_one_ends,
                each_key_counts_by_itself,
                a_rule_is_for_its_queue_and_kind,
                a_repeated_claim_counts_once,
                every_end_gives_the_place_back,
                who_is_cancelled_leaves_the_line,
                a_limit_is_raised_lowered_and_deleted,
                a_rate_spaces_starts,
                a_changed_rate_is_looked_at_anew,
                two_limits_count_one_task,
                a_rate_and_places_together,
                the_urgent_go_first_but_for_each_eighth,
                nobody_passes_the_line,
                all_that_were_changed_are_followed,
                several_dispatchers_let_a_line_go,
                turns_of_the_cancelled_are_given_out_anew,
                who_is_cancelled_while_it_runs_gives_back_once,
                who_waits_for_another_limit_pulls_no_line_along,
                a_completion_says_whether_it_let_anybody_go_on,
                a_mixed_hand_off_starts_what_may_run,
                the_hand_off_is_held_back_too,
                workers_that_compete_and_die_keep_to_it,
                places_in_advance_are_there_for_who_needs_them,
                who_dies_takes_no_places_in_advance_along,
                who_stops_gives_places_in_advance_back,
                a_lowered_limit_holds_for_places_in_advance,
                a_repeated_claim_keeps_its_place_in_advance,
                two_limits_give_places_in_advance_together,
                what_has_a_place_in_advance_counts_on,
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
                an_id_of_long_ago_is_found_too,
                what_is_not_confirmed_stays_lost,
                the_limit_cuts_and_the_floor_goes_on,
                only_what_is_queued,
                what_was_dispatched_may_be_lost_too,
            ]
            schedules: [
                a_schedule_comes_back_as_it_was_put,
                putting_it_again_replaces_it,
                they_are_listed_by_name,
                a_page_of_large_ones_is_short,
                a_deleted_schedule_is_gone_and_its_tasks_stay,
                a_tick_becomes_a_task,
                a_tick_that_has_come_is_run,
                a_paused_schedule_rests,
                it_is_paused_and_resumed_and_stays_as_it_was,
                one_of_an_unknown_zone_is_not_resumed,
                what_is_put_while_it_is_paused_stays,
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
            compose: [
                a_task_runs_after_another,
                a_task_waits_for_the_last_of_several,
                what_has_ended_is_not_waited_for,
                a_failure_cancels_those_who_wait_unless_they_run_all_the_same,
                a_chain_breaks_to_its_end,
                what_is_not_recorded_yet_is_waited_for,
                a_released_task_waits_for_its_time,
                an_operator_may_end_the_wait,
                recording_again_changes_nothing,
                an_end_and_a_wait_at_once_miss_each_other_never,
                several_dispatchers_release_once,
                a_crowd_waits_for_one,
                what_ends_as_it_is_recorded_is_told,
                what_is_over_before_it_began_replaces_nothing,
                what_was_recorded_later_tells_of_its_end_once,
            ]
            webhooks: [
                a_webhook_comes_back_as_it_was_put,
                a_secret_that_is_replaced_goes_on_signing,
                they_are_listed_by_name_and_deleted,
                an_end_is_delivered_once,
                each_hears_what_it_asked_for,
                a_cancelled_task_is_told_of,
                a_task_that_ends_twice_is_told_of_twice,
                what_came_while_it_was_disabled_is_replayed,
                what_was_given_up_is_replayed_as_it_was,
                one_task_is_replayed_and_a_trial_is_sent,
                one_that_is_gone_is_disabled,
                one_that_fails_for_long_is_disabled,
                a_new_one_of_the_same_name_begins_anew,
                several_dispatchers_tell_once,
            ]
            batches: [
                counts_follow_its_tasks,
                its_completion_runs_once,
                a_key_opens_it_once,
                it_grows_until_it_is_closed,
                an_empty_one_is_complete_at_once,
                cancelling_ends_all_of_it,
                what_is_complete_is_not_cancelled,
                they_are_listed_newest_first,
                many_hands_complete_it_once,
                it_waits_for_what_was_brought_back,
                old_ones_are_forgotten,
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
            expiry: [
                what_is_late_is_not_started_and_then_ended,
                what_was_started_in_time_goes_on,
                what_is_scheduled_expires_too,
                no_more_expire_than_the_limit,
                what_is_final_does_not_expire,
                what_an_operator_brings_back_does_not_expire,
                several_dispatchers_end_each_once,
                what_a_limit_holds_back_expires_too,
                what_cannot_expire_any_more_is_looked_at_once,
                maintenance_forgets_what_cannot_expire,
            ]
            unique: [
                one_at_most_is_unfinished,
                a_finished_one_is_not_in_the_way,
                a_window_outlasts_its_task,
                a_window_ends,
                what_waits_is_replaced,
                what_runs_is_not_replaced,
                what_was_submitted_first_replaces_nothing,
                a_repeated_delivery_changes_nothing,
                a_batch_is_decided_in_its_order,
                several_recorders_agree_on_one,
                a_claim_and_a_replacement_agree,
                maintenance_keeps_what_is_in_the_way,
                what_a_limit_holds_back_is_replaced,
            ]
            operations: [
                what_is_meant_is_counted_first,
                each_part_of_a_filter_counts,
                many_are_retried,
                many_are_cancelled,
                many_are_deleted,
                what_a_key_names_is_kept_for_its_time,
                each_task_is_come_to_once,
                the_rate_is_a_cap,
                max_is_a_bound,
                an_aborted_operation_does_nothing_more,
                what_is_cut_off_goes_on_where_it_was,
                several_dispatchers_come_to_each_task_once,
                operations_are_listed_and_bounded,
                the_latest_error_is_what_is_searched,
            ]
            explain: [
                the_place_in_a_lane_is_counted,
                what_becomes_due_lines_up_at_the_end,
            ]
            payload: [
                text_comes_back_byte_for_byte,
                the_largest_payload_fits,
                results_come_back_byte_for_byte,
                tags_come_back_as_they_were,
            ]
            kinds: [
                each_put_is_a_version_and_the_same_again_is_none,
                what_is_deleted_does_not_count_and_its_versions_stay,
                those_that_count_are_listed_by_kind,
                versions_and_kinds_are_bounded,
                several_put_at_once_and_no_version_is_given_twice,
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
