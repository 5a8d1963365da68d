//! The implementations that come with the kata, and what each of them must fail.
//!
//! Read `reference` with `protocol` when you have finished the exercise; the flawed ones then show
//! what each decision is worth. Any file with an `app` can be copied over `exercise.rs`.

pub mod keys;
pub mod protocol;
pub mod serving;

pub mod reference;

pub mod alternative_advisory_lock;
pub mod alternative_cancelled_on_hang_up;
pub mod alternative_distant_provider;
pub mod alternative_inbox;
pub mod alternative_jsonb;
pub mod alternative_lets_lease_run_out;
pub mod alternative_raw_bytes;
pub mod alternative_reaps_on_demand;
pub mod alternative_renewed_lease;
pub mod alternative_row_lock;
pub mod alternative_waits;

pub mod check_then_act;
pub mod conflict_before_mismatch;
pub mod decline_forgotten;
pub mod decline_nacked;
pub mod fingerprint_without_one_member;
pub mod input_believed;
pub mod key_not_scoped;
pub mod lease_without_fencing;
pub mod lock_in_memory;
pub mod lock_never_expires;
pub mod message_acked_first;
pub mod message_seen_first;
pub mod message_without_memory;
pub mod new_provider_key;
pub mod no_fingerprint;
pub mod no_key;
pub mod no_lock;
pub mod outage_remembered;
pub mod payment_shown_to_all;
pub mod provider_key_unscoped;
pub mod provider_key_without_payment;
pub mod release_not_fenced;
pub mod renewed_not_fenced;
pub mod stored_after_effect;
pub mod table_grows;
pub mod token_restarts;

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
        Variant::new("alternative-waits", "waits", Alternative, alternative_waits::app),
        Variant::new("alternative-raw-bytes", "raw bytes", Alternative, alternative_raw_bytes::app),
        Variant::new("alternative-jsonb", "jsonb", Alternative, alternative_jsonb::app),
        Variant::new("alternative-row-lock", "row lock", Alternative, alternative_row_lock::app),
        Variant::new("alternative-advisory-lock", "advisory lock", Alternative, alternative_advisory_lock::app),
        Variant::new("alternative-renewed-lease", "renewed lease", Alternative, alternative_renewed_lease::app),
        Variant::new("alternative-lets-lease-run-out", "lets lease run out", Alternative, alternative_lets_lease_run_out::app),
        Variant::new("alternative-cancelled-on-hang-up", "cancelled on hang-up", Alternative, alternative_cancelled_on_hang_up::app),
        Variant::new("alternative-distant-provider", "distant provider", Alternative, alternative_distant_provider::app),
        Variant::new("alternative-reaps-on-demand", "reaps on demand", Alternative, alternative_reaps_on_demand::app),
        Variant::new("alternative-inbox", "inbox", Alternative, alternative_inbox::app).in_steps(&[9]),
    ]
}

fn flawed() -> Vec<Variant> {
    vec![
        Variant::new(
            "no-key",
            "no key",
            // Everything that needs an earlier request to be remembered. What expires, what an
            // outage leaves behind and what messages do has nothing to do with it.
            Flawed(&[
                "requires_a_key",
                "replays_the_first_answer",
                "charges_once_under_concurrency",
                "charges_once_across_instances",
                "rejects_a_reused_key",
                "rejects_a_reused_key_while_running",
                "keeps_callers_apart",
                "answers_a_client_that_gave_up",
                "retries_with_the_same_provider_key",
                "survives_a_crash_at_every_point",
                "fences_a_late_failure",
                "fences_a_silenced_instance",
                "remembers_a_decline",
            ]),
            no_key::app,
        ),
        Variant::new(
            "input-believed",
            "input believed",
            Flawed(&["rejects_wrong_input"]),
            input_believed::app,
        ),
        Variant::new(
            "payment-shown-to-all",
            "payment shown to all",
            Flawed(&["shows_the_payment"]),
            payment_shown_to_all::app,
        ),
        Variant::new(
            "check-then-act",
            "check then act",
            // Nothing is written before the effect: no lock, no fingerprint, no name for a second
            // attempt, which makes it a second charge after a crash too. And whoever ends last
            // writes over what is there, after the key's first life as well.
            Flawed(&[
                "charges_once_under_concurrency",
                "charges_once_across_instances",
                "rejects_a_reused_key_while_running",
                "answers_a_client_that_gave_up",
                "retries_with_the_same_provider_key",
                "survives_a_crash_at_every_point",
                "fences_across_expiry",
                "does_a_message_once",
                "finishes_what_it_acked",
                "survives_a_crash_in_a_message",
            ]),
            check_then_act::app,
        ),
        Variant::new(
            "no-lock",
            "no lock, stable provider key",
            // One charge always, thanks to the provider; the calls tell.
            Flawed(&[
                "charges_once_under_concurrency",
                "charges_once_across_instances",
            ]),
            no_lock::app,
        ),
        Variant::new(
            "lock-in-memory",
            "lock in memory",
            Flawed(&["charges_once_across_instances"]),
            lock_in_memory::app,
        ),
        Variant::new(
            "no-fingerprint",
            "no fingerprint",
            Flawed(&["rejects_a_reused_key", "rejects_a_reused_key_while_running"]),
            no_fingerprint::app,
        ),
        Variant::new(
            "fingerprint-without-one-member",
            "fingerprint without one member",
            Flawed(&["rejects_a_reused_key", "rejects_a_reused_key_while_running"]),
            fingerprint_without_one_member::app,
        ),
        Variant::new(
            "conflict-before-mismatch",
            "409 before 422",
            Flawed(&["rejects_a_reused_key_while_running"]),
            conflict_before_mismatch::app,
        ),
        Variant::new(
            "stored-after-effect",
            "stored after the effect",
            // With a lock and a stable provider key no money is lost; only the fingerprint is
            // missing while it would be needed.
            Flawed(&["rejects_a_reused_key_while_running"]),
            stored_after_effect::app,
        ),
        Variant::new(
            "key-not-scoped",
            "key not scoped to the caller",
            Flawed(&["keeps_callers_apart"]),
            key_not_scoped::app,
        ),
        Variant::new(
            "provider-key-unscoped",
            "provider key not scoped",
            // The bare key lacks the account *and* the payment; without the first it is this flaw,
            // and nothing but the payment could make two accounts differ there.
            Flawed(&[
                "keeps_callers_apart",
                "fences_across_expiry",
                "frees_expired_keys",
            ]),
            provider_key_unscoped::app,
        ),
        Variant::new(
            "new-provider-key",
            "new provider key each time",
            Flawed(&[
                "retries_with_the_same_provider_key",
                "survives_a_crash_at_every_point",
                "survives_a_crash_in_a_message",
            ]),
            new_provider_key::app,
        ),
        Variant::new(
            "lock-never-expires",
            "lock never expires",
            Flawed(&[
                "survives_a_crash_at_every_point",
                "frees_the_key_when_the_lease_is_over",
                "finishes_what_it_acked",
                "survives_a_crash_in_a_message",
            ]),
            lock_never_expires::app,
        ),
        Variant::new(
            "release-not-fenced",
            "release not fenced",
            // Two captures end the scene across expiry, and nothing is released there.
            Flawed(&["fences_a_late_failure", "fences_a_silenced_instance"]),
            release_not_fenced::app,
        ),
        Variant::new(
            "lease-without-fencing",
            "lease without fencing",
            Flawed(&[
                "fences_a_late_failure",
                "fences_across_expiry",
                "fences_a_silenced_instance",
            ]),
            lease_without_fencing::app,
        ),
        Variant::new(
            "token-restarts",
            "token restarts",
            Flawed(&["fences_across_expiry"]),
            token_restarts::app,
        ),
        Variant::new(
            "renewed-not-fenced",
            "renewed, not fenced",
            // As long as it reaches the database nobody takes over, so the other scenes never begin.
            Flawed(&["fences_a_silenced_instance"]),
            renewed_not_fenced::app,
        ),
        Variant::new(
            "decline-forgotten",
            "decline forgotten",
            Flawed(&["remembers_a_decline"]),
            decline_forgotten::app,
        ),
        Variant::new(
            "outage-remembered",
            "outage remembered",
            // A message whose outage is remembered is nacked for ever.
            Flawed(&[
                "retries_with_the_same_provider_key",
                "forgets_an_outage",
                "settles_declines_and_unknown_messages",
            ]),
            outage_remembered::app,
        ),
        Variant::new(
            "provider-key-without-payment",
            "provider key without payment",
            // The second payment under the expired key never gets through, late handler or not.
            Flawed(&["fences_across_expiry", "frees_expired_keys"]),
            provider_key_without_payment::app,
        ),
        Variant::new(
            "table-grows",
            "table grows",
            Flawed(&["keeps_the_table_small"]),
            table_grows::app,
        ),
        Variant::new(
            "message-without-memory",
            "message without memory",
            Flawed(&[
                "does_a_message_once",
                "finishes_what_it_acked",
                "survives_a_crash_in_a_message",
            ]),
            message_without_memory::app,
        ),
        Variant::new(
            "message-acked-first",
            "message acked first",
            // A crash is healed where the broker pushes once more; here it never does.
            Flawed(&["finishes_what_it_acked"]),
            message_acked_first::app,
        ),
        Variant::new(
            "message-seen-first",
            "message seen first",
            Flawed(&["finishes_what_it_acked", "survives_a_crash_in_a_message"]),
            message_seen_first::app,
        ),
        Variant::new(
            "decline-nacked",
            "decline nacked",
            Flawed(&["settles_declines_and_unknown_messages"]),
            decline_nacked::app,
        ),
    ]
}
