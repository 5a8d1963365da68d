//! Models of what no test can provoke often enough: every order in which claims, handlers, lost
//! leases, verdicts and deaths can follow each other.
//!
//! | file | what it is |
//! | --- | --- |
//! | `broker.rs` | a queue in memory: leases, tokens, the claim by key; right, and with each mistake |
//! | `real.rs` | the queue in PostgreSQL in its place |
//! | `world.rs` | workers around it, with the real [`Lanes`]; what may happen, and what must hold |
//!
//! Each mistake must be found, else the model would show nothing.
//!
//! [`Lanes`]: shared::queue::worker::Lanes

mod broker;
mod real;
mod world;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::broker::{Broker, Memory, Rules};
use self::real::Server;
use self::world::{Hands, Step, World};
use crate::support::{End, Outcome, tests};

tests![
    no_order_of_events_breaks_a_key_or_loses_a_message,
    claiming_without_the_key_is_found,
    settling_without_the_token_is_found,
    a_prefetch_without_lanes_is_found,
    going_on_behind_a_failed_message_is_found,
    going_on_behind_a_lost_message_is_found,
    no_order_of_events_breaks_a_key_in_postgresql,
    a_claim_in_postgresql_that_does_not_know_the_key_is_found,
];

/// Enough for each mistake to be found with any seed: the rarest takes a few hundred.
const CASES: u32 = 4_000;

/// A case in PostgreSQL takes a hundred round trips and more. The search for a mistake ends with the
/// first case that shows it, mostly one of the first ten.
const CASES_IN_POSTGRESQL: u32 = 40;
const CASES_TO_FIND_IT_IN_POSTGRESQL: u32 = 1_000;

/// The shortest course of events that breaks something, if there is one.
fn search<B: Broker>(
    cases: u32,
    hands: Hands,
    fresh: impl Fn() -> B,
) -> Option<(Vec<Step>, String)> {
    let seed = std::env::var("KATA_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("KATA_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        max_shrink_iters: (cases / 4).min(500),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&world::steps(), |steps| {
        let mut world = World::new(fresh(), hands);
        steps
            .iter()
            .try_for_each(|step| world.take(*step))
            .and_then(|()| world.come_to_an_end())
            .map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(reason, steps)) => Some((steps, reason.message().to_owned())),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// A message, or a later one of its key, went to a second worker while the first had it.
const TWO_HOLDERS: &str = "is handed out while";
const OUT_OF_ORDER: &str = "out of order";

/// Which promise is broken first is up to the seed where a mistake breaks several: `what` names all
/// of them, and nothing else may be found.
#[track_caller]
fn assert_found(found: Option<(Vec<Step>, String)>, what: &[&str]) {
    let (steps, found) = found.expect("a mistake must be found");
    let is_expected = what.iter().any(|what| found.contains(what));
    assert!(is_expected, "{found}: {steps:?}");
}

fn must_find(rules: Rules, hands: Hands, what: &[&str]) {
    assert_found(search(CASES, hands, || Memory::new(rules)), what);
}

async fn no_order_of_events_breaks_a_key_or_loses_a_message() -> Outcome {
    for rules in [Rules::right(), Rules::right().several_of_a_key()] {
        if let Some((steps, found)) = search(CASES, Hands::Lanes, || Memory::new(rules)) {
            panic!("{found}: {steps:#?}");
        }
    }
    Ok(())
}

async fn claiming_without_the_key_is_found() -> Outcome {
    let rules = Rules::right().claim_without_key();
    must_find(rules, Hands::Lanes, &[TWO_HOLDERS, OUT_OF_ORDER]);
    Ok(())
}

async fn settling_without_the_token_is_found() -> Outcome {
    let rules = Rules::right().settle_without_token();
    must_find(rules, Hands::Lanes, &[TWO_HOLDERS, OUT_OF_ORDER]);
    Ok(())
}

async fn a_prefetch_without_lanes_is_found() -> Outcome {
    let rules = Rules::right().several_of_a_key();
    must_find(rules, Hands::Fifo, &[OUT_OF_ORDER]);
    Ok(())
}

async fn going_on_behind_a_failed_message_is_found() -> Outcome {
    let rules = Rules::right().several_of_a_key();
    must_find(rules, Hands::GoOnBehindFailed, &[OUT_OF_ORDER]);
    Ok(())
}

async fn going_on_behind_a_lost_message_is_found() -> Outcome {
    let rules = Rules::right().several_of_a_key();
    must_find(rules, Hands::GoOnBehindLost, &[OUT_OF_ORDER]);
    Ok(())
}

/// The real statements, with a clock that the model turns.
async fn in_postgresql(with_keys: bool, cases: u32) -> Result<Option<(Vec<Step>, String)>, End> {
    let server = Server::start().await?;
    // Where waiting is allowed: the model is no async code.
    let search = move || search(cases, Hands::Lanes, || server.fresh(with_keys));
    Ok(tokio::task::spawn_blocking(search).await.unwrap())
}

async fn no_order_of_events_breaks_a_key_in_postgresql() -> Outcome {
    if let Some((steps, found)) = in_postgresql(true, CASES_IN_POSTGRESQL).await? {
        panic!("{found}: {steps:#?}");
    }
    Ok(())
}

async fn a_claim_in_postgresql_that_does_not_know_the_key_is_found() -> Outcome {
    let found = in_postgresql(false, CASES_TO_FIND_IT_IN_POSTGRESQL).await?;
    assert_found(found, &[TWO_HOLDERS, OUT_OF_ORDER]);
    Ok(())
}
