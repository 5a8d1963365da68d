//! The runner for `cargo test`: what it proves, what it lets be, and what it never starts.

use std::process::Command;

use super::{at_once, kata};

fn tests(words: &[&str]) -> Command {
    let mut command = kata("tests", words);
    command.env("TURNSTILE_AS", "tests");
    command
}

#[test]
fn every_variant_is_proven_and_the_exercise_is_left_to_do() {
    let mut command = tests(&[]);
    command.env("TURNSTILE_EXERCISE", "1");
    let ended = at_once(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for said in [
        "flawed: counts calls — fails exactly counts_a_ticket_once, counts_once_under_concurrency",
        "reference — passes all",
        "ignored (not started: step 2: the same ticket counts once)",
        "7 passed; 0 failed; 1 ignored",
    ] {
        assert!(ended.out.contains(said), "{said:?} is missing: {ended:?}");
    }
}

#[test]
fn what_is_not_as_declared_fails_with_a_report() {
    let mut command = tests(&["always one"]);
    command.env("TURNSTILE_LIES", "1").env("KATA_SEED", "12");
    let ended = at_once(command);
    assert_eq!(ended.code, Some(101), "{ended:?}");
    assert!(
        ended
            .out
            .contains("counts_a_ticket_once must fail, and passed"),
        "{ended:?}"
    );
    assert!(
        ended
            .out
            .contains("check --variant always-one --step 2 --seed 12"),
        "{ended:?}"
    );

    let mut command = tests(&["exercise"]);
    command.env("TURNSTILE_EXERCISE", "broken");
    let ended = at_once(command);
    assert_eq!(ended.code, Some(101), "{ended:?}");
    assert!(ended.out.contains("1 passed; 1 failed"), "{ended:?}");
    assert!(
        ended.out.contains("think     what stops request 2"),
        "{ended:?}"
    );
}

#[test]
fn listing_and_filters_start_no_services() {
    // A server that refuses would be seen at once.
    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    for (words, said) in [
        (["--list"], "reference — passes all: test"),
        (["map is sound"], "1 passed"),
    ] {
        let mut command = tests(&words);
        command.env("DATABASE_URL", nowhere);
        let ended = at_once(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.out.contains(said), "{ended:?}");
    }
    let mut command = tests(&["reference"]);
    command.env("DATABASE_URL", nowhere);
    let ended = at_once(command);
    assert_eq!(
        ended.code,
        Some(101),
        "a named server that refuses is no missing one: {ended:?}"
    );
}
