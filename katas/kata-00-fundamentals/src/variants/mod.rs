//! The implementations that come with the kata, and what each of them must fail.
//!
//! Read `reference` with `shop` and `pricing` when you have finished the exercise; the flawed ones
//! then show what each decision is worth. Any file with an `app` can be copied over `exercise.rs`.

pub mod orders;
pub mod pricing;
pub mod serving;
pub mod shop;

pub mod reference;

pub mod alternative_effects_after_answer;
pub mod alternative_event_log;
pub mod alternative_lines_in_own_table;
pub mod alternative_lock_first;

pub mod bulk_on_the_sum;
pub mod cache_in_memory;
pub mod check_then_act;
pub mod dry_run_by_hand;
pub mod dry_run_looks_at_nothing;
pub mod dry_run_sends_mail;
pub mod dry_run_stores;
pub mod effects_repeated;
pub mod gives_up_after_refusal;
pub mod id_of_its_own;
pub mod input_believed;
pub mod last_cancel_wins;
pub mod last_order_wins;
pub mod lines_sorted;
pub mod list_by_words;
pub mod local_day;
pub mod mail_before_commit;
pub mod mail_before_reservation;
pub mod one_connection;
pub mod order_in_two_transactions;
pub mod price_asks_the_clock;
pub mod quote_reserves;
pub mod repeats_refused_call;
pub mod stamped_quote;
pub mod state_in_memory;
pub mod storing_error_ignored;
pub mod time_of_its_own;
pub mod total_without_discounts;

use kata_lab::{
    Kind::{Alternative, Flawed},
    Variant,
};

/// All of them, in the order of the matrix: by the step at which a flaw shows first.
pub fn all() -> Vec<Variant> {
    let reference = Variant::reference(reference::app);
    let mut all = vec![reference.clone(), reference.slowed()];
    all.extend(alternatives());
    all.extend(flawed());
    all.push(Variant::exercise(crate::exercise::app));
    all
}

#[rustfmt::skip] // One line each reads as the table that it is.
fn alternatives() -> Vec<Variant> {
    vec![
        Variant::new("alternative-effects-after-answer", "effects after the answer", Alternative, alternative_effects_after_answer::app),
        Variant::new("alternative-lines-in-own-table", "lines in their own table", Alternative, alternative_lines_in_own_table::app),
        Variant::new("alternative-lock-first", "lock first", Alternative, alternative_lock_first::app),
        Variant::new("alternative-event-log", "event log", Alternative, alternative_event_log::app),
    ]
}

#[rustfmt::skip] // The same; the few that fail more than one check say why.
fn flawed() -> Vec<Variant> {
    vec![
        Variant::new("lines-sorted", "lines sorted", Flawed(&["shows_an_order"]), lines_sorted::app),
        Variant::new("list-by-words", "list by words", Flawed(&["lists_orders_by_time_and_id"]), list_by_words::app),
        Variant::new("last-cancel-wins", "last cancel wins", Flawed(&["cancels_an_order"]), last_cancel_wins::app),
        Variant::new("input-believed", "input believed", Flawed(&["refuses_wrong_input", "refuses_in_a_dry_run_as_in_earnest"]), input_believed::app),
        // Of two that come at once, both win.
        Variant::new("last-order-wins", "last order wins", Flawed(&["keeps_an_id_for_one_order", "places_once_across_instances"]), last_order_wins::app),
        // Whatever day it is, one of two orders of different days costs something else than its quote.
        Variant::new("price-asks-the-clock", "price asks the clock", Flawed(&["prices_by_the_rules", "charges_what_was_quoted"]), price_asks_the_clock::app),
        Variant::new("local-day", "local day", Flawed(&["prices_by_the_rules"]), local_day::app),
        Variant::new("bulk-on-the-sum", "bulk on the sum", Flawed(&["prices_by_the_rules"]), bulk_on_the_sum::app),
        Variant::new("stamped-quote", "stamped quote", Flawed(&["prices_without_effect_or_memory"]), stamped_quote::app),
        Variant::new("quote-reserves", "quote reserves", Flawed(&["prices_without_effect_or_memory"]), quote_reserves::app),
        Variant::new("total-without-discounts", "total without discounts", Flawed(&["charges_what_was_quoted"]), total_without_discounts::app),
        // Also where the two come at once.
        Variant::new("effects-repeated", "effects repeated", Flawed(&["causes_each_effect_once", "places_once_across_instances"]), effects_repeated::app),
        Variant::new("mail-before-reservation", "mail before reservation", Flawed(&["causes_effects_in_order"]), mail_before_reservation::app),
        Variant::new("dry-run-by-hand", "dry run by hand", Flawed(&["lists_the_effects_in_a_dry_run"]), dry_run_by_hand::app),
        // The real call then makes one more call than was listed.
        Variant::new("dry-run-sends-mail", "dry run sends mail", Flawed(&["lists_the_effects_in_a_dry_run", "causes_nothing_in_a_dry_run"]), dry_run_sends_mail::app),
        // The real call then finds the order there, and makes none of the calls that were listed.
        Variant::new("dry-run-stores", "dry run stores", Flawed(&["lists_the_effects_in_a_dry_run", "causes_nothing_in_a_dry_run"]), dry_run_stores::app),
        Variant::new("dry-run-looks-at-nothing", "dry run looks at nothing", Flawed(&["refuses_in_a_dry_run_as_in_earnest"]), dry_run_looks_at_nothing::app),
        // Whatever needs a second process or a second life; what is stored nowhere is told before it
        // is stored.
        Variant::new("state-in-memory", "state in memory", Flawed(&["shares_its_state_between_instances", "survives_a_crash_at_every_point", "places_once_across_instances", "stores_before_it_sends", "sends_nothing_for_what_was_not_stored"]), state_in_memory::app),
        Variant::new("cache-in-memory", "cache in memory", Flawed(&["shares_its_state_between_instances"]), cache_in_memory::app),
        // Another instance can come in between, too.
        Variant::new("order-in-two-transactions", "order in two transactions", Flawed(&["survives_a_crash_at_every_point", "places_once_across_instances"]), order_in_two_transactions::app),
        Variant::new("check-then-act", "check then act", Flawed(&["places_once_across_instances"]), check_then_act::app),
        Variant::new("one-connection", "one connection", Flawed(&["comes_back_after_a_cut"]), one_connection::app),
        Variant::new("id-of-its-own", "id of its own", Flawed(&["replays_to_the_same_state"]), id_of_its_own::app),
        // It does not show the time that was sent, either.
        Variant::new("time-of-its-own", "time of its own", Flawed(&["cancels_an_order", "replays_to_the_same_state"]), time_of_its_own::app),
        Variant::new("mail-before-commit", "mail before commit", Flawed(&["stores_before_it_sends", "sends_nothing_for_what_was_not_stored"]), mail_before_commit::app),
        Variant::new("storing-error-ignored", "storing error ignored", Flawed(&["sends_nothing_for_what_was_not_stored"]), storing_error_ignored::app),
        Variant::new("gives-up-after-refusal", "gives up after a refusal", Flawed(&["goes_on_after_a_refused_call"]), gives_up_after_refusal::app),
        Variant::new("repeats-refused-call", "repeats a refused call", Flawed(&["goes_on_after_a_refused_call"]), repeats_refused_call::app),
    ]
}
