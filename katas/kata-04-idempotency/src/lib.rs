//! Kata 04, idempotency: charge once, whatever happens.
//!
//! This page is the map: the steps with their hints and checks. The contract is in the README, the
//! variants are listed in [`variants`], and `exercise.rs` is the file to edit.

pub mod checks;
pub mod contract;
pub mod exercise;
mod experiment;
pub mod provider;
pub mod variants;

use checks::{
    step_1_replay, step_2_concurrency, step_3_reuse, step_4_patience, step_5_lost_answers,
    step_6_crashes, step_7_memory, step_8_expiry, step_9_messages,
};
use kata_lab::{Given, Kata, Step, check};

/// The kata.
pub fn kata() -> Kata {
    Kata {
        name: env!("CARGO_PKG_NAME"),
        title: "idempotency",
        promise: "charge once, whatever happens",
        readme: include_str!("../README.md"),
        readme_es: include_str!("../README.es.md"),
        exercise_file: "katas/kata-04-idempotency/src/exercise.rs",
        given: Given {
            database: true,
            payment_provider: true,
            variables: &[
                ("PROVIDER_TIMEOUT_MS", 30_000),
                ("KEY_LEASE_MS", 2_000),
                ("KEY_TTL_MS", 15_000),
            ],
            ..Given::default()
        },
        labs_per_core: 8,
        steps: steps(),
        variants: variants::all(),
        curl: &[
            "curl -i $URL/pay -H 'Authorization: Bearer acme' -H 'Idempotency-Key: \"order-7\"' -H 'Content-Type: application/json' -d '{\"payment_id\":\"pay-7\",\"amount_cents\":1250,\"currency\":\"EUR\",\"card\":\"4242-4242\"}'",
            "curl -i $URL/payments/pay-7 -H 'Authorization: Bearer acme'",
            "curl -i $URL/messages -H 'Content-Type: application/json' -d '{\"message_id\":\"m-1\",\"type\":\"payment.requested\",\"account\":\"acme\",\"payment_id\":\"pay-8\",\"amount_cents\":990,\"currency\":\"EUR\",\"card\":\"4242-4242\"}'",
        ],
        experiment: experiment::run,
        commands: &[],
    }
}

fn steps() -> Vec<Step> {
    vec![
        Step {
            title: "A key is required, the first answer is replayed",
            hints: [
                "A client sends the same request twice. What has to be on disk after the first, so that the second needs nobody but the database?",
                "A table with the key as its primary key and the whole answer (status, media type, body) beside it. Look there before you call the provider, and write there after it.",
                "Parse the key: strip one pair of quotes, then 1 to 255 of [A-Za-z0-9._:-], else 400. `select status, content_type, body from idempotency_keys where account = $1 and key = $2`; if there is a row, send it with `Idempotency-Replayed: true`; else charge, then insert payment and answer in one transaction.",
            ],
            checks: vec![
                check!(
                    step_1_replay::requires_a_key,
                    "which of your code paths reaches the provider without a key?"
                ),
                check!(
                    step_1_replay::rejects_wrong_input,
                    "is every member checked before the first effect, and is a refusal kept out of the table?"
                ),
                check!(
                    step_1_replay::replays_the_first_answer,
                    "what exactly is stored, and is it stored where a restart and another instance find it?"
                ),
                check!(
                    step_1_replay::shows_the_payment,
                    "is the payment committed before the 201 leaves, and does the query ask whose it is?"
                ),
            ],
        },
        Step {
            title: "Fifty at once make one charge",
            hints: [
                "Two requests both look for the key, and both find nothing. Which single statement makes one of them lose?",
                "Write the key *before* the effect, as `in progress`, with an insert that only one of many can win: the primary key is the lock.",
                "`insert into idempotency_keys (account, key, fingerprint, locked_until) values (…) on conflict do nothing`; one row inserted: you own it, go on; none: somebody else does, answer 409 with `Retry-After`, or wait for their answer.",
            ],
            checks: vec![
                check!(
                    step_2_concurrency::charges_once_under_concurrency,
                    "what stops request 2 between looking for the key and writing it?"
                ),
                check!(
                    step_2_concurrency::charges_once_across_instances,
                    "where does your lock live, and who else can see it?"
                ),
            ],
        },
        Step {
            title: "Another body under the same key is refused",
            hints: [
                "A client has a bug and reuses a key for another payment. What would it believe if you replayed the first answer?",
                "Keep a fingerprint of the request beside the key, from the moment that the key is taken, and compare before anything else. A key belongs to its account, here and at the provider.",
                "Hash the four members (in a fixed order, with separators), store the hash with the claim; different hash: 422, whether or not the first is still running. Make (account, key) the primary key, and put the account into the provider's key.",
            ],
            checks: vec![
                check!(
                    step_3_reuse::rejects_a_reused_key,
                    "which members does your fingerprint cover?"
                ),
                check!(
                    step_3_reuse::rejects_a_reused_key_while_running,
                    "when is the fingerprint written, and what is compared first: the state or the fingerprint?"
                ),
                check!(
                    step_3_reuse::keeps_callers_apart,
                    "what do two accounts share that they should not: a row, or the provider's key?"
                ),
            ],
        },
        Step {
            title: "The client gives up and tries again",
            hints: [
                "The client hangs up. Does your handler know? Does your framework stop it half way?",
                "Work that has begun should end and be stored, whoever listens. If your framework cancels handlers, run the work in a task of its own; else let the lease and a stable provider key heal it.",
                "In axum a handler is dropped when its connection closes: `tokio::spawn` the work and await its handle. In other languages: do not tie the charge to the request's cancellation token.",
            ],
            checks: vec![check!(
                step_4_patience::answers_a_client_that_gave_up,
                "who holds the key after the client has hung up, and until when?"
            )],
        },
        Step {
            title: "The answer of the provider is lost",
            hints: [
                "You called the provider and heard nothing. Was the card charged?",
                "Nobody can know, so the next attempt must be harmless: the provider remembers keys too. What must be the same in both attempts, even after a crash?",
                "Derive the provider's key from account, key and fingerprint (a hash of them), or store a random one with the claim before the call. Never make one for each attempt.",
            ],
            checks: vec![check!(
                step_5_lost_answers::retries_with_the_same_provider_key,
                "what is the provider's key made of, and is it the same in the next attempt?"
            )],
        },
        Step {
            title: "Crashes, leases and fencing",
            hints: [
                "Your process dies while it holds a key. Who may take the key over, and when? And what if it was not dead, only slow?",
                "Give each claim a lease and a token. After the lease another request may take the claim with a new token; whatever the old handler still writes must name its own token, and change nothing if it is no longer the current one.",
                "`on conflict (account, key) do update set token = nextval('tokens'), locked_until = now() + lease where idempotency_keys.status is null and locked_until < now() and fingerprint = excluded.fingerprint returning token`; finish and release with `where account = … and key = … and token = $mine`. Take tokens from a sequence: a counter in the row starts again when the row does.",
            ],
            checks: vec![
                check!(
                    step_6_crashes::survives_a_crash_at_every_point,
                    "which two writes belong together, and what does a retry find between them?"
                ),
                check!(
                    step_6_crashes::frees_the_key_when_the_lease_is_over,
                    "what tells a dead handler's claim from a living one's?"
                ),
                check!(
                    step_6_crashes::fences_a_late_failure,
                    "when the first handler ends, how does it know that the key is no longer its own?"
                ),
                check!(
                    step_6_crashes::fences_across_expiry,
                    "can two claims on one key ever have the same token?"
                ),
                check!(
                    step_6_crashes::fences_a_silenced_instance,
                    "which of the late instance's statements lack the token?"
                ),
            ],
        },
        Step {
            title: "A decline is remembered, an outage is not",
            hints: [
                "Which answers of the provider are final, and which only say that it could not answer?",
                "A decline is an answer about this payment: store it. A timeout, a refused or broken connection, 429 and 5xx say nothing about the payment: store nothing, and let the same key try again.",
                "402: finish with the problem document. Outage: delete your own claim (`where token = $mine`), or leave it to its lease, and answer 503.",
            ],
            checks: vec![
                check!(
                    step_7_memory::remembers_a_decline,
                    "is a decline stored like a capture?"
                ),
                check!(
                    step_7_memory::forgets_an_outage,
                    "what is left in the table after the provider was away?"
                ),
            ],
        },
        Step {
            title: "Keys expire, and the table does not grow",
            hints: [
                "How long does a client retry? What is the key worth afterwards?",
                "An expired row must not refuse anybody, and somebody has to remove it. The provider remembers longer than you do: what if an expired key comes back with another payment?",
                "Treat a row with `expires_at <= now()` as free in the claiming statement; delete expired rows in batches, in a background task or on each request. The provider's key must depend on the payment, not on account and key alone.",
            ],
            checks: vec![
                check!(
                    step_8_expiry::frees_expired_keys,
                    "does the provider know this key from an earlier payment?"
                ),
                check!(
                    step_8_expiry::keeps_the_table_small,
                    "who deletes expired rows, and how many at a time?"
                ),
            ],
        },
        Step {
            title: "The same for messages",
            hints: [
                "The broker delivers at least once. Which of your tables already knows how to do something once?",
                "A message id is a key in a scope of its own. Ack only when the effect is committed, or when the message itself is (an inbox), with somebody who works it off, also after a restart.",
                "Use the same claim, charge, finish with the scope `message` and the message's id; 2xx after finish; 409 or 503 while it runs or the provider is away, and the broker comes again; a decline is an ack. A duplicate of a running message must not be acked.",
            ],
            checks: vec![
                check!(
                    step_9_messages::does_a_message_once,
                    "what do two pushes of one message share?"
                ),
                check!(
                    step_9_messages::finishes_what_it_acked,
                    "what is on disk at the moment of the ack, and who goes on with it?"
                ),
                check!(
                    step_9_messages::survives_a_crash_in_a_message,
                    "which write says that the message is done, and is the effect committed by then?"
                ),
                check!(
                    step_9_messages::settles_declines_and_unknown_messages,
                    "what would the broker do with your answer, for ever?"
                ),
            ],
        },
    ]
}
