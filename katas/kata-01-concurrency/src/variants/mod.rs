//! The implementations that come with the kata, and what each of them must fail.
//!
//! Read `reference` with `protocol` when you have finished the exercise; the flawed ones then show
//! what each decision is worth. Any file with an `app` can be copied over `exercise.rs`.

pub mod digest;
pub mod jobs;
pub mod protocol;
pub mod serving;
pub mod stock;

pub mod reference;

pub mod alternative_block_in_place;
pub mod alternative_compare_and_swap;
pub mod alternative_finishes_what_it_began;
pub mod alternative_looks_early;
pub mod alternative_mutex_worker;

pub mod approval_ignored;
pub mod blocks_the_runtime;
pub mod check_then_act;
pub mod failure_not_counted;
pub mod failure_swallowed;
pub mod hashes_the_hex;
pub mod job_tried_again;
pub mod lock_across_await;
pub mod naive_decrements;
pub mod naive_locked;
pub mod no_semaphore;
pub mod one_digest_at_a_time;
pub mod owner_asks;
pub mod permit_leaked;
pub mod permit_lost_on_failure;
pub mod put_adds;
pub mod quantity_clamped;
pub mod running_not_counted;
pub mod stock_lost;
pub mod takes_turns;
pub mod unbounded_queue;
pub mod waits_when_full;
pub mod worker_dies;
pub mod worker_drops_requests;
pub mod worker_ends_on_failure;
pub mod worker_sets_what_was_read;
pub mod workers_without_limit;

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
        Variant::new("alternative-compare-and-swap", "compare and swap", Alternative, alternative_compare_and_swap::app).in_steps(&[1, 2, 3]),
        Variant::new("alternative-looks-early", "looks early", Alternative, alternative_looks_early::app).in_steps(&[1, 2, 3]),
        Variant::new("alternative-mutex-worker", "mutex worker", Alternative, alternative_mutex_worker::app).in_steps(&[1, 2, 3]),
        Variant::new("alternative-finishes-what-it-began", "finishes what it began", Alternative, alternative_finishes_what_it_began::app).in_steps(&[5]),
        Variant::new("alternative-block-in-place", "block in place", Alternative, alternative_block_in_place::app).in_steps(&[6]),
    ]
}

#[rustfmt::skip] // The same.
fn flawed() -> Vec<Variant> {
    vec![
        Variant::new("quantity-clamped", "quantity clamped", Flawed(&["rejects_wrong_input"]), quantity_clamped::app),
        Variant::new("put-adds", "put adds", Flawed(&["reads_back_the_stock"]), put_adds::app),
        Variant::new("naive-locked", "naive locked", Flawed(&["oversells_without_a_lock"]), naive_locked::app),
        Variant::new("naive-decrements", "naive decrements", Flawed(&["oversells_without_a_lock"]), naive_decrements::app),
        Variant::new("check-then-act", "check then act", Flawed(&["lock_never_oversells"]), check_then_act::app),
        Variant::new("lock-across-await", "lock across await", Flawed(&["lock_is_free_while_asking"]), lock_across_await::app),
        Variant::new("approval-ignored", "approval ignored", Flawed(&["lock_sells_nothing_unapproved", "worker_sells_nothing_unapproved"]), approval_ignored::app),
        Variant::new("worker-sets-what-was-read", "worker sets what was read", Flawed(&["worker_never_oversells"]), worker_sets_what_was_read::app),
        Variant::new("owner-asks", "owner asks", Flawed(&["worker_is_free_while_asking"]), owner_asks::app),
        // What waits for an owner that never comes back is dropped, too.
        Variant::new("worker-dies", "worker dies", Flawed(&["worker_comes_back_with_its_stock", "worker_drops_no_request"]), worker_dies::app),
        Variant::new("stock-lost", "stock lost", Flawed(&["worker_comes_back_with_its_stock"]), stock_lost::app),
        Variant::new("worker-drops-requests", "worker drops requests", Flawed(&["worker_drops_no_request"]), worker_drops_requests::app),
        // A queue without a bound is never full, and so never refuses.
        Variant::new("unbounded-queue", "unbounded queue", Flawed(&["bounds_the_queue", "refuses_at_once_when_full"]), unbounded_queue::app),
        Variant::new("waits-when-full", "waits when full", Flawed(&["refuses_at_once_when_full"]), waits_when_full::app),
        Variant::new("workers-without-limit", "workers without limit", Flawed(&["limits_its_workers"]), workers_without_limit::app),
        Variant::new("worker-ends-on-failure", "worker ends on failure", Flawed(&["does_what_it_accepted"]), worker_ends_on_failure::app),
        Variant::new("job-tried-again", "job tried again", Flawed(&["does_what_it_accepted"]), job_tried_again::app),
        Variant::new("running-not-counted", "running not counted", Flawed(&["counts_its_jobs"]), running_not_counted::app),
        Variant::new("failure-not-counted", "failure not counted", Flawed(&["counts_its_jobs"]), failure_not_counted::app),
        // Where there are no permits, none can come back.
        Variant::new("no-semaphore", "no semaphore", Flawed(&["limits_its_calls", "gets_every_permit_back"]), no_semaphore::app),
        Variant::new("permit-leaked", "permit leaked", Flawed(&["gets_every_permit_back"]), permit_leaked::app),
        Variant::new("permit-lost-on-failure", "permit lost on failure", Flawed(&["gets_every_permit_back"]), permit_lost_on_failure::app),
        Variant::new("failure-swallowed", "failure swallowed", Flawed(&["passes_a_failure_on"]), failure_swallowed::app),
        Variant::new("hashes-the-hex", "hashes the hex", Flawed(&["computes_the_right_digest"]), hashes_the_hex::app),
        // With the runtime's threads waiting for each other, nothing is parallel either.
        Variant::new("blocks-the-runtime", "blocks the runtime", Flawed(&["answers_while_it_computes", "computes_in_parallel"]), blocks_the_runtime::app),
        Variant::new("one-digest-at-a-time", "one digest at a time", Flawed(&["computes_in_parallel"]), one_digest_at_a_time::app),
        Variant::new("takes-turns", "takes turns", Flawed(&["computes_in_parallel"]), takes_turns::app),
    ]
}
