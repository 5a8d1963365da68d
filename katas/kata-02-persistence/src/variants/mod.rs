//! The implementations that come with the kata, and what each of them must fail.
//!
//! Read `reference` with `protocol` when you have finished the exercise; the flawed ones then show
//! what each decision is worth. Any file with an `app` can be copied over `exercise.rs`.

pub mod attempts;
pub mod ledger;
pub mod profiles;
pub mod protocol;
pub mod reads;
pub mod serving;
pub mod unsafe_transfer;

pub mod reference;

pub mod alternative_asks_to_wait;
pub mod alternative_one_statement;
pub mod alternative_pessimistic;
pub mod alternative_primary_stands_in;
pub mod alternative_serializable;
pub mod alternative_unknown_without_primary;

pub mod account_overwritten;
pub mod check_then_insert;
pub mod checked_before_the_lock;
pub mod content_not_compared;
pub mod credit_into_the_void;
pub mod debit_apart;
pub mod duplicate_refused;
pub mod eventual_asks_primary_for_missing;
pub mod eventual_needs_primary;
pub mod if_match_in_the_application;
pub mod increment_gives_up;
pub mod increment_keeps_the_tag;
pub mod increment_without_a_lock;
pub mod index_not_used;
pub mod input_believed;
pub mod lock_in_memory;
pub mod locks_in_arrival_order;
pub mod read_compute_write;
pub mod refusal_remembered;
pub mod refused_payment_remembered;
pub mod replica_never_reconnected;
pub mod retry_resends;
pub mod rota_ignores_case;
pub mod serialization_failure_shown;
pub mod shifts_read_committed;
pub mod shifts_repeatable_read;
pub mod snapshot_in_a_statement;
pub mod staleness_always_zero;
pub mod staleness_by_clock;
pub mod staleness_by_receipt;
pub mod staleness_left_out;
pub mod strong_breaks_without_primary;
pub mod strong_from_replica;
pub mod strong_needs_replica;
pub mod transfer_looked_up_first;
pub mod transfer_without_memory;
pub mod two_connections;
pub mod two_transactions;
pub mod unsafe_made_safe;
pub mod unsafe_relative;
pub mod unsafe_writes_together;
pub mod weak_tag_accepted;

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
        Variant::new("alternative-serializable", "serializable everywhere", Alternative, alternative_serializable::app).in_steps(&[2, 3, 4, 5]),
        Variant::new("alternative-pessimistic", "pessimistic everywhere", Alternative, alternative_pessimistic::app).in_steps(&[5, 6]),
        Variant::new("alternative-one-statement", "one statement", Alternative, alternative_one_statement::app).in_steps(&[2, 3]),
        Variant::new("alternative-unknown-without-primary", "null without the primary", Alternative, alternative_unknown_without_primary::app).in_steps(&[7]),
        Variant::new("alternative-primary-stands-in", "the primary stands in", Alternative, alternative_primary_stands_in::app).in_steps(&[7]),
        Variant::new("alternative-asks-to-wait", "asks to wait", Alternative, alternative_asks_to_wait::app).in_steps(&[2, 3, 4]),
    ]
}

fn flawed() -> Vec<Variant> {
    vec![
        Variant::new(
            "account-overwritten",
            "account overwritten",
            Flawed(&["opens_accounts"]),
            account_overwritten::app,
        ),
        Variant::new(
            "input-believed",
            "input believed",
            Flawed(&["rejects_wrong_input"]),
            input_believed::app,
        ),
        Variant::new(
            "unsafe-made-safe",
            "unsafe made safe",
            Flawed(&["shows_the_loss_of_a_crash", "shows_a_lost_update"]),
            unsafe_made_safe::app,
        ),
        Variant::new(
            "unsafe-writes-together",
            "unsafe writes together",
            Flawed(&["shows_the_loss_of_a_crash"]),
            unsafe_writes_together::app,
        ),
        Variant::new(
            "unsafe-relative",
            "unsafe, but relative",
            Flawed(&["shows_a_lost_update"]),
            unsafe_relative::app,
        ),
        Variant::new(
            "credit-into-the-void",
            "credit into the void",
            Flawed(&["moves_money"]),
            credit_into_the_void::app,
        ),
        Variant::new(
            "transfer-without-memory",
            "transfer without memory",
            // A crash alone shows it too: whoever hears nothing asks again.
            Flawed(&[
                "moves_it_once",
                "keeps_the_total_in_every_crash",
                "moves_it_once_under_concurrency",
            ]),
            transfer_without_memory::app,
        ),
        Variant::new(
            "refusal-remembered",
            "refusal remembered",
            Flawed(&["forgets_a_refusal"]),
            refusal_remembered::app,
        ),
        Variant::new(
            "two-transactions",
            "two transactions",
            Flawed(&["keeps_the_total_in_every_crash"]),
            two_transactions::app,
        ),
        Variant::new(
            "read-compute-write",
            "read, compute, write",
            // Both who have read the old balance are told that there is enough.
            Flawed(&[
                "loses_no_update",
                "never_overdraws",
                "survives_two_hundred_transfers",
            ]),
            read_compute_write::app,
        ),
        Variant::new(
            "snapshot-in-a-statement",
            "snapshot in a statement",
            // It has one point to be held at, before it begins, where it has seen nothing yet.
            Flawed(&["loses_no_update", "survives_two_hundred_transfers"]),
            snapshot_in_a_statement::app,
        ),
        Variant::new(
            "lock-in-memory",
            "lock in memory",
            // Each instance has a mutex of its own.
            Flawed(&[
                "loses_no_update",
                "never_overdraws",
                "survives_two_hundred_transfers",
            ]),
            lock_in_memory::app,
        ),
        Variant::new(
            "checked-before-the-lock",
            "checked before the lock",
            Flawed(&["never_overdraws"]),
            checked_before_the_lock::app,
        ),
        Variant::new(
            "locks-in-arrival-order",
            "locks in arrival order",
            // Two hundred in both directions meet in the middle as well.
            Flawed(&["hides_deadlocks", "survives_two_hundred_transfers"]),
            locks_in_arrival_order::app,
        ),
        Variant::new(
            "transfer-looked-up-first",
            "transfer looked up first",
            Flawed(&["moves_it_once_under_concurrency"]),
            transfer_looked_up_first::app,
        ),
        Variant::new(
            "two-connections",
            "two connections",
            Flawed(&["survives_two_hundred_transfers"]),
            two_connections::app,
        ),
        Variant::new(
            "check-then-insert",
            "check, then insert",
            Flawed(&["pays_once_under_concurrency", "refuses_other_content"]),
            check_then_insert::app,
        ),
        Variant::new(
            "content-not-compared",
            "content not compared",
            Flawed(&["refuses_other_content"]),
            content_not_compared::app,
        ),
        Variant::new(
            "duplicate-refused",
            "duplicate refused",
            // Everything in which a client has to ask again.
            Flawed(&[
                "pays_and_shows_the_payment",
                "pays_once_under_concurrency",
                "keeps_debit_and_payment_together",
                "pays_once_when_connections_break",
            ]),
            duplicate_refused::app,
        ),
        Variant::new(
            "refused-payment-remembered",
            "refused payment remembered",
            Flawed(&["forgets_a_refused_payment"]),
            refused_payment_remembered::app,
        ),
        Variant::new(
            "debit-apart",
            "debit apart",
            // A broken connection cuts the two apart as a crash does.
            Flawed(&[
                "keeps_debit_and_payment_together",
                "pays_once_when_connections_break",
            ]),
            debit_apart::app,
        ),
        Variant::new(
            "retry-resends",
            "retry that sends again",
            Flawed(&["pays_once_when_connections_break"]),
            retry_resends::app,
        ),
        Variant::new(
            "weak-tag-accepted",
            "weak tag accepted",
            Flawed(&["guards_profiles_with_etags"]),
            weak_tag_accepted::app,
        ),
        Variant::new(
            "if-match-in-the-application",
            "If-Match in the application",
            Flawed(&["refuses_one_of_two_writers"]),
            if_match_in_the_application::app,
        ),
        Variant::new(
            "increment-keeps-the-tag",
            "increment keeps the tag",
            Flawed(&["increments_change_the_etag"]),
            increment_keeps_the_tag::app,
        ),
        Variant::new(
            "increment-without-a-lock",
            "increment without a lock",
            Flawed(&["increments_count_every_time"]),
            increment_without_a_lock::app,
        ),
        Variant::new(
            "increment-gives-up",
            "increment gives up",
            Flawed(&["increments_refuse_nobody"]),
            increment_gives_up::app,
        ),
        Variant::new(
            "rota-ignores-case",
            "rota ignores case",
            Flawed(&["keeps_the_rota"]),
            rota_ignores_case::app,
        ),
        Variant::new(
            "shifts-read-committed",
            "shifts read committed",
            Flawed(&["keeps_one_doctor_on_call"]),
            shifts_read_committed::app,
        ),
        Variant::new(
            "shifts-repeatable-read",
            "shifts repeatable read",
            Flawed(&["keeps_one_doctor_on_call"]),
            shifts_repeatable_read::app,
        ),
        Variant::new(
            "serialization-failure-shown",
            "serialization failure shown",
            Flawed(&["hides_serialization_failures"]),
            serialization_failure_shown::app,
        ),
        Variant::new(
            "strong-from-replica",
            "strong reads from the replica",
            Flawed(&[
                "strong_sees_what_was_written",
                "strong_is_refused_without_the_primary",
                "strong_survives_the_replica",
            ]),
            strong_from_replica::app,
        ),
        Variant::new(
            "staleness-always-zero",
            "staleness always 0",
            Flawed(&[
                "says_how_far_behind",
                "is_not_fooled_by_a_replica_that_is_cut_off",
                "eventual_survives_the_primary",
            ]),
            staleness_always_zero::app,
        ),
        Variant::new(
            "staleness-by-clock",
            "staleness by the replica's clock",
            Flawed(&["is_zero_again_when_nothing_is_written"]),
            staleness_by_clock::app,
        ),
        Variant::new(
            "staleness-by-receipt",
            "staleness by what was received",
            Flawed(&["is_not_fooled_by_a_replica_that_is_cut_off"]),
            staleness_by_receipt::app,
        ),
        Variant::new(
            "eventual-needs-primary",
            "eventual reads need the primary",
            Flawed(&["eventual_survives_the_primary"]),
            eventual_needs_primary::app,
        ),
        Variant::new(
            "eventual-asks-primary-for-missing",
            "what is missing comes from the primary",
            Flawed(&["does_not_find_what_the_replica_lacks"]),
            eventual_asks_primary_for_missing::app,
        ),
        Variant::new(
            "strong-breaks-without-primary",
            "500 without the primary",
            Flawed(&["strong_is_refused_without_the_primary"]),
            strong_breaks_without_primary::app,
        ),
        Variant::new(
            "strong-needs-replica",
            "strong reads need the replica",
            Flawed(&["strong_survives_the_replica"]),
            strong_needs_replica::app,
        ),
        Variant::new(
            "replica-never-reconnected",
            "the replica is never connected to again",
            Flawed(&["works_again_when_healed"]),
            replica_never_reconnected::app,
        ),
        Variant::new(
            "staleness-left-out",
            "staleness left out",
            Flawed(&[
                "reads_the_primary_without_a_replica",
                "says_how_far_behind",
                "is_not_fooled_by_a_replica_that_is_cut_off",
                "is_zero_again_when_nothing_is_written",
            ]),
            staleness_left_out::app,
        ),
        Variant::new(
            "index-not-used",
            "index not used",
            Flawed(&["finds_payments_by_an_index"]),
            index_not_used::app,
        ),
    ]
}
