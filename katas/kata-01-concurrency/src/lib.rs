//! Kata 01, concurrency: the last unit in stock is sold once.
//!
//! This page is the map: the steps with their hints and checks. The contract is in the README, the
//! variants are listed in [`variants`], and `exercise.rs` is the file to edit.

pub mod checks;
pub mod contract;
pub mod exercise;
mod experiment;
pub mod outside;
pub mod sync;
pub mod variants;

use checks::{
    step_1_race, step_2_lock, step_3_worker, step_4_backpressure, step_5_permits,
    step_6_parallelism,
};
use kata_lab::{Given, Kata, Step, check};

/// The kata.
pub fn kata() -> Kata {
    Kata {
        name: env!("CARGO_PKG_NAME"),
        title: "concurrency",
        promise: "the last unit in stock is sold once",
        readme: include_str!("../README.md"),
        readme_es: include_str!("../README.es.md"),
        exercise_file: "katas/kata-01-concurrency/src/exercise.rs",
        given: Given {
            approvals: true,
            slow_service: true,
            variables: &[
                ("QUEUE_LIMIT", 20),
                ("QUEUE_WORKERS", 4),
                ("FETCH_LIMIT", 8),
            ],
            ..Given::default()
        },
        labs_per_core: 4,
        steps: steps(),
        variants: variants::all(),
        curl: &[
            "curl -i -X PUT $URL/lock/stock/lamp -H 'Content-Type: application/json' -d '{\"quantity\":1}'",
            "curl -i $URL/lock/stock/lamp/reserve -H 'Content-Type: application/json' -d '{\"quantity\":1}'",
            "curl -i $URL/jobs -H 'Content-Type: application/json' -d '{\"job_id\":\"job-1\"}'",
            "curl -i $URL/jobs/stats",
            "curl -i $URL/fetches -H 'Content-Type: application/json' -d '{\"id\":\"thing-1\"}'",
            "curl -i $URL/digests -H 'Content-Type: application/json' -d '{\"seed\":\"a\",\"rounds\":2}'",
        ],
        experiment: experiment::run,
        commands: &[],
    }
}

fn steps() -> Vec<Step> {
    vec![
        Step {
            title: "Make it break: the race is there to be seen",
            hints: [
                "Two customers want the last lamp. Where can the second one be while the first waits for its approval?",
                "Read the stock, await the approval, write back what you read minus the quantity. Between the read and the write anything may happen, and the lab sees to it that it does.",
                "`let read = shelf.look(&order.sku).ok_or(Refused::Unknown)?; let left = read.checked_sub(order.quantity).ok_or(Refused::SoldOut)?; approval.await?; shelf.put(&order.sku, left); Ok(left)`. Each look and each put takes the lock for itself, and the race is there all the same.",
            ],
            checks: vec![
                check!(
                    step_1_race::rejects_wrong_input,
                    "is the quantity checked before anybody is asked?"
                ),
                check!(
                    step_1_race::reads_back_the_stock,
                    "does a put replace what was there, and is 0 a quantity?"
                ),
                check!(
                    step_1_race::oversells_without_a_lock,
                    "what does each request remember from before its approval?"
                ),
            ],
        },
        Step {
            title: "A lock never oversells, and nobody holds it while they wait",
            hints: [
                "A lock around each read and each write did not help. What has to be inside of one lock together, and what must be outside?",
                "Deciding and taking belong under one lock: the look that counts is the one at which you take. The approval is slow and somebody else's; ask for it first, with no lock in your hand.",
                "`approval.await?; shelf.take(&order)`, where `take` is `let mut stock = self.stock.lock(); let left = stock.get_mut(&order.sku).ok_or(Refused::Unknown)?; *left = left.checked_sub(order.quantity).ok_or(Refused::SoldOut)?; Ok(*left)`. Before asking, `look` tells an unknown article.",
            ],
            checks: vec![
                check!(
                    step_2_lock::lock_never_oversells,
                    "what can happen between your look and your take?"
                ),
                check!(
                    step_2_lock::lock_is_free_while_asking,
                    "which guard is alive at the await?"
                ),
                check!(
                    step_2_lock::lock_sells_nothing_unapproved,
                    "what does your code make of an answer that is no 204, or of none?"
                ),
            ],
        },
        Step {
            title: "One owner keeps the stock, and others send messages",
            hints: [
                "If only one task ever touches the stock, what is left to lock?",
                "A task owns the map and takes one message after the other from a bounded channel. Each message carries a way back for its answer. What fails must not own what has to survive: keep stock and channel outside of it.",
                "`while let Some(message) = messages.recv().await { let _ = AssertUnwindSafe(answer(&mut stock, message)).catch_unwind().await; }`: a panic in `answer` drops the way back of its own message, so that this caller gets a 500, and neither the stock nor the messages behind it. For 666, `answer` sleeps 500 ms and panics before it takes.",
            ],
            checks: vec![
                check!(
                    step_3_worker::worker_never_oversells,
                    "is deciding and taking one message, or two?"
                ),
                check!(
                    step_3_worker::worker_is_free_while_asking,
                    "what does the owner do while an approval is under way?"
                ),
                check!(
                    step_3_worker::worker_sells_nothing_unapproved,
                    "which message is sent when the approval fails?"
                ),
                check!(
                    step_3_worker::worker_comes_back_with_its_stock,
                    "who starts the owner again, and with which stock?"
                ),
                check!(
                    step_3_worker::worker_drops_no_request,
                    "what becomes of the messages that wait in the channel when the owner fails?"
                ),
            ],
        },
        Step {
            title: "A queue has a bound, and says no at once",
            hints: [
                "Jobs come faster than they are done. Where do they pile up, and who notices first?",
                "A queue without a bound turns a flood into an outage, later. Give it QUEUE_LIMIT places and QUEUE_WORKERS workers, and answer 503 with `Retry-After` without waiting for a place. Count under the same lock under which you queue.",
                "`if waiting.len() >= limit { refused += 1; return false }; waiting.push_back(job); notify.notify_one()`. A worker is a loop: take a job (queued → running), call the slow service once, whatever comes is the end of it (running → done). Or `mpsc::channel(limit)` with `try_send`, and one receiver behind a mutex for all workers.",
            ],
            checks: vec![
                check!(
                    step_4_backpressure::bounds_the_queue,
                    "where can a job be that is neither in your queue nor at a worker?"
                ),
                check!(
                    step_4_backpressure::refuses_at_once_when_full,
                    "which call waits for a place, and which one says that there is none?"
                ),
                check!(
                    step_4_backpressure::limits_its_workers,
                    "what does a worker do between starting a job and its end?"
                ),
                check!(
                    step_4_backpressure::does_what_it_accepted,
                    "what does a worker do after a job that failed?"
                ),
                check!(
                    step_4_backpressure::counts_its_jobs,
                    "which of your numbers change together, and what could somebody see in between?"
                ),
            ],
        },
        Step {
            title: "A limit for calls, and every permit comes back",
            hints: [
                "Eight permits, and eight callers that hang up. Who gives the permits back?",
                "A semaphore is a lock for N. Tie the permit to a value whose end gives it back (a guard, `defer`, `finally`), so that neither an error nor a cancelled handler can take it along.",
                "`let _permit = desk.permits.acquire().await; desk.outside.fetch(id).await.is_ok()`. In axum a handler is dropped when its caller hangs up, and the permit with it. Never `forget` a permit and count by hand.",
            ],
            checks: vec![
                check!(
                    step_5_permits::limits_its_calls,
                    "what stops the ninth call?"
                ),
                check!(
                    step_5_permits::gets_every_permit_back,
                    "which line gives the permit back, and on which paths is it never reached?"
                ),
                check!(
                    step_5_permits::passes_a_failure_on,
                    "what does your code make of a 500, and of a broken connection?"
                ),
            ],
        },
        Step {
            title: "Computing stops nobody, and uses two cores",
            hints: [
                "A digest never awaits. What do the other tasks of that thread do meanwhile?",
                "Threads that serve many must not be kept by one. Move the computing to threads that are for it: a pool for blocking work, worker threads, processes.",
                "`let (tell, told) = oneshot::channel(); tokio::task::spawn_blocking(move || { let _ = tell.send(compute(order)); }); told.await.ok()`. Hash the 32 raw bytes and not their text. If you like, stop when `tell.is_closed()`: nobody waits any more.",
            ],
            checks: vec![
                check!(
                    step_6_parallelism::computes_the_right_digest,
                    "what exactly is hashed in the second round?"
                ),
                check!(
                    step_6_parallelism::answers_while_it_computes,
                    "on which thread is the digest computed, and who else needs that thread?"
                )
                .alone(),
                check!(
                    step_6_parallelism::computes_in_parallel,
                    "what do two digests share that only one can have?"
                )
                .alone(),
            ],
        },
    ]
}
