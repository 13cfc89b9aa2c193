//! Limits: what may run runs, what may not waits, and nobody is forgotten.

mod allotted;
mod compete;
mod ends;
mod hand_off;
mod kit;
mod lines;
mod places;
mod rates;

pub use self::{
    allotted::{
        a_lowered_limit_holds_for_places_in_advance, a_repeated_claim_keeps_its_place_in_advance,
        places_in_advance_are_there_for_who_needs_them, two_limits_give_places_in_advance_together,
        what_has_a_place_in_advance_counts_on, what_is_had_in_advance_for_long_is_taken_back,
        who_dies_takes_no_places_in_advance_along, who_stops_gives_places_in_advance_back,
    },
    compete::{
        workers_that_compete_and_die_keep_to_it, workers_that_compete_keep_to_what_they_have_in_advance,
    },
    ends::{
        a_completion_says_whether_it_let_anybody_go_on, every_end_gives_the_place_back,
        the_next_goes_on_when_one_ends, who_is_cancelled_leaves_the_line,
        who_is_cancelled_while_it_runs_gives_back_once,
    },
    hand_off::{a_mixed_hand_off_starts_what_may_run, the_hand_off_is_held_back_too},
    lines::{
        a_bad_line_is_in_nobodys_way, nobody_passes_the_line, several_dispatchers_let_a_line_go,
        the_urgent_go_first_but_for_each_eighth, two_limits_count_one_task,
        who_waits_for_another_limit_pulls_no_line_along,
    },
    places::{
        a_limit_is_raised_lowered_and_deleted, a_repeated_claim_counts_once,
        a_rule_is_for_its_queue_and_kind, a_rule_is_kept_as_it_was_put, a_wrong_counter_is_mended,
        as_many_run_as_may, each_key_counts_by_itself, what_nobody_uses_is_forgotten,
    },
    rates::{
        a_changed_rate_is_looked_at_anew, a_rate_and_places_together, a_rate_spaces_starts,
        all_that_were_changed_are_followed, turns_of_the_cancelled_are_given_out_anew,
    },
};
