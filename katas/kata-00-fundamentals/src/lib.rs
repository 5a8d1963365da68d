//! Kata 00, fundamentals: an order is input, state and effects, and each has its place.
//!
//! This page is the map: the steps with their hints and checks. The contract is in the README, the
//! variants are listed in [`variants`], and `exercise.rs` is the file to edit.

pub mod checks;
pub mod contract;
pub mod effects;
pub mod exercise;
mod experiment;
pub mod moment;
pub mod variants;

use checks::{
    step_1_orders, step_2_prices, step_3_effects, step_4_instances, step_5_replay, step_6_order,
};
use kata_lab::{Given, Kata, Step, check};

/// The kata.
pub fn kata() -> Kata {
    Kata {
        name: env!("CARGO_PKG_NAME"),
        title: "fundamentals",
        promise: "an order is never announced, and then not there",
        readme: include_str!("../README.md"),
        readme_es: include_str!("../README.es.md"),
        exercise_file: "katas/kata-00-fundamentals/src/exercise.rs",
        given: Given {
            database: true,
            mail: true,
            warehouse: true,
            // A price that asks for the local day is wrong there for half of the day.
            texts: &[("TZ", "Pacific/Auckland")],
            ..Given::default()
        },
        labs_per_core: 4,
        steps: steps(),
        variants: variants::all(),
        curl: &[
            "curl -i $URL/quotes -H 'Content-Type: application/json' -d '{\"lines\":[{\"sku\":\"tea\",\"quantity\":12,\"unit_price_cents\":350}],\"at\":\"2026-03-07T10:00:00Z\"}'",
            "curl -i $URL/orders?dry_run=true -H 'Content-Type: application/json' -d '{\"order_id\":\"o-7\",\"customer\":\"ada\",\"lines\":[{\"sku\":\"tea\",\"quantity\":12,\"unit_price_cents\":350}],\"placed_at\":\"2026-03-07T10:00:00Z\"}'",
            "curl -i $URL/orders -H 'Content-Type: application/json' -d '{\"order_id\":\"o-7\",\"customer\":\"ada\",\"lines\":[{\"sku\":\"tea\",\"quantity\":12,\"unit_price_cents\":350}],\"placed_at\":\"2026-03-07T10:00:00Z\"}'",
            "curl -i $URL/orders/o-7",
            "curl -i $URL/orders/o-7/cancel -H 'Content-Type: application/json' -d '{\"cancelled_at\":\"2026-03-08T09:00:00Z\"}'",
        ],
        experiment: experiment::run,
        commands: &[],
    }
}

fn steps() -> Vec<Step> {
    vec![
        Step {
            title: "Place, read and cancel an order",
            hints: [
                "A customer sends the same order twice, and then another one under the same id. Which of the three may change anything?",
                "One row for each order, with `order_id` as its primary key and the lines beside it. Insert it only if it is not there; if it is, compare what is there with what was sent.",
                "`insert into orders (order_id, customer, lines, total_cents, placed_at) values (…) on conflict do nothing`: one row, it is new (201); none, read it: same customer, lines and `placed_at`: 200, else 409. Cancel with `update … set cancelled_at = $2 where order_id = $1 and cancelled_at is null`. List with `order by placed_at collate \"C\", order_id collate \"C\"`.",
            ],
            checks: vec![
                check!(
                    step_1_orders::shows_an_order,
                    "is everything kept that was sent, in the order in which it was sent?"
                ),
                check!(
                    step_1_orders::lists_orders_by_time_and_id,
                    "who decides what comes first, `a` or `B`: you, or the language of the database?"
                ),
                check!(
                    step_1_orders::cancels_an_order,
                    "what does the second cancellation find, and what does it write?"
                ),
                check!(
                    step_1_orders::refuses_wrong_input,
                    "is all of the input checked before anything happens, and does no wrong text reach the database?"
                ),
                check!(
                    step_1_orders::keeps_an_id_for_one_order,
                    "what is compared when the id is taken?"
                ),
            ],
        },
        Step {
            title: "The price is a pure function",
            hints: [
                "You price a cart today and again tomorrow. What may make the two prices differ, and who told your function about it?",
                "A pure function has everything it needs as a parameter and gives everything it does as its result: no clock, no database, no time zone of the machine. Cents are integers, and each rule says where it rounds.",
                "`bulk` = sum over lines of 10 or more pieces of ⌊quantity × price × 10 / 100⌋; `weekend` = ⌊(subtotal − bulk) × 5 / 100⌋ if the UTC day *of the input* is Saturday or Sunday. Count days from a known Thursday (1970-01-01) and take the rest by seven. Use the same function for `total_cents`, with `placed_at`.",
            ],
            checks: vec![
                check!(
                    step_2_prices::prices_by_the_rules,
                    "where does the day come from, and where is each discount rounded?"
                ),
                check!(
                    step_2_prices::prices_without_effect_or_memory,
                    "what in the answer, or outside of it, does not follow from the cart?"
                ),
                check!(
                    step_2_prices::charges_what_was_quoted,
                    "how many pieces of code know the price?"
                ),
            ],
        },
        Step {
            title: "Effects have names, and stay at the edge",
            hints: [
                "How would you show somebody what your program is about to do, without doing it?",
                "Let the function that decides return a list of effects, as values. One other function carries such a list out. A dry run calls the first and not the second.",
                "`on_placing(&order) -> vec![Effect::reservation(&order), Effect::mail(&order, OrderPlaced)]`; the real request stores, then carries out, each once, the next when the one before was answered; the dry run looks for the id as the real one does, and shows the list.",
            ],
            checks: vec![
                check!(
                    step_3_effects::causes_each_effect_once,
                    "how does the second request know that it changed nothing?"
                ),
                check!(
                    step_3_effects::causes_effects_in_order,
                    "what is awaited before the mail is sent?"
                ),
                check!(
                    step_3_effects::lists_the_effects_in_a_dry_run,
                    "is the list that is shown the list that is carried out?"
                ),
                check!(
                    step_3_effects::causes_nothing_in_a_dry_run,
                    "how deep in your code is the call that sends?"
                ),
                check!(
                    step_3_effects::refuses_in_a_dry_run_as_in_earnest,
                    "what does the dry run know of the orders that are there?"
                ),
            ],
        },
        Step {
            title: "The process is stateless",
            hints: [
                "Your process ends in the middle of a request, and another one takes over. What does it know?",
                "Whatever must be remembered is in the database, written in one transaction; between two requests the process remembers nothing. Of two that come at once, one statement of the database lets one win.",
                "No map of orders, no cache, no lock of the process. One insert for the whole order (the lines as `jsonb`), or one transaction around both tables; the loser of `on conflict do nothing` reads and compares. Take connections from a pool that replaces dead ones (in sqlx: leave `test_before_acquire` on).",
            ],
            checks: vec![
                check!(
                    step_4_instances::shares_its_state_between_instances,
                    "what does your process still know when the next request comes?"
                ),
                check!(
                    step_4_instances::survives_a_crash_at_every_point,
                    "which two writes belong together?"
                ),
                check!(
                    step_4_instances::places_once_across_instances,
                    "what can happen between looking for the id and writing it?"
                ),
                check!(
                    step_4_instances::comes_back_after_a_cut,
                    "who opens the next connection when one has died?"
                ),
            ],
        },
        Step {
            title: "The same commands make the same state",
            hints: [
                "You have yesterday's requests in a file and send them to a new server. Will it show what the old one showed?",
                "Everything that is shown has to come from the requests. Look for whatever does not: ids that you draw, times that you take from a clock, an order that nobody asked for.",
                "Show `placed_at` and `cancelled_at` as they were sent, `order_id` as the only id; no `created_at default now()`, no generated id in the answer; a list whose order is decided to the last byte.",
            ],
            checks: vec![check!(
                step_5_replay::replays_to_the_same_state,
                "what do you show that nobody sent?"
            )],
        },
        Step {
            title: "First the state, then the effects",
            hints: [
                "The mail is out, and then the commit fails. What will the customer do with their letter?",
                "An effect outside cannot be rolled back. So it comes after the commit, and tells only of what is stored. What is lost if you die between the two is another phase's work.",
                "Commit, give the connection back, then carry out the effects. An error while storing ends the request (503) before any effect; an effect that fails is logged, not repeated, and the next one is tried.",
            ],
            checks: vec![
                check!(
                    step_6_order::stores_before_it_sends,
                    "is the transaction committed when the first call leaves?"
                ),
                check!(
                    step_6_order::sends_nothing_for_what_was_not_stored,
                    "what does your code do after the database has failed?"
                ),
                check!(
                    step_6_order::goes_on_after_a_refused_call,
                    "what does one service's failure have to do with the other one?"
                ),
            ],
        },
    ]
}
