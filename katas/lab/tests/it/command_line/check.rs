//! `check`: verdicts, exit codes, and everything that keeps it from judging.

use rustix::process::Signal;

use super::{
    Running, at_once, kata, run,
    running::{Ended, program, until},
};

/// A learner's exercise in one of the states that the example plays.
fn exercise(state: &str, words: &[&str]) -> Ended {
    let mut command = kata("check", words);
    command.env("TURNSTILE_EXERCISE", state);
    at_once(command)
}

/// A program in another language, as `--cmd` names it.
fn command_line(state: &str) -> String {
    format!(
        "TURNSTILE_AS=program TURNSTILE_EXERCISE={state} exec {}",
        program().display()
    )
}

#[test]
fn a_fresh_exercise_is_not_started_and_says_where_to_begin() {
    let ended = exercise("", &["check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.contains("0 passed, 3 not started"), "{ended:?}");
    assert!(ended.out.contains("Nothing is broken"), "{ended:?}");
    assert!(
        ended.out.contains("katas/lab/examples/turnstile.rs:"),
        "{ended:?}"
    );
}

#[test]
fn exit_codes_tell_done_from_failed_from_not_started() {
    assert_eq!(exercise("2", &["check"]).code, Some(0));
    assert_eq!(exercise("broken", &["check"]).code, Some(1));
    assert_eq!(exercise("1", &["check"]).code, Some(3));
    assert_eq!(exercise("1", &["check", "--step", "1"]).code, Some(0));
}

#[test]
fn a_failure_shows_the_evidence_and_how_to_see_it_again() {
    let ended = exercise("broken", &["check", "--seed", "77"]);
    let again = "cargo run -p kata-99-check -- check --step 2 --seed 77";
    for said in [
        "✗ counts_once_under_concurrency",
        "expected  people: 1",
        "ms  request 1",
        "think     what stops",
        again,
    ] {
        assert!(ended.out.contains(said), "{said:?} is missing: {ended:?}");
    }
    assert!(!ended.out.contains('\u{1b}'), "colour in a pipe: {ended:?}");
}

#[test]
fn json_is_one_object_with_a_verdict_for_each_check() {
    let ended = exercise("broken", &["check", "--json", "--seed", "5"]);
    let said = ended.json();
    assert_eq!(ended.code, Some(1));
    assert_eq!(said["variant"]["id"], "exercise");
    assert_eq!(said["seed"], 5);
    let checks = said["checks"].as_array().unwrap();
    let verdicts: Vec<_> = checks
        .iter()
        .map(|check| check["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["passed", "passed", "failed"]);
    assert!(checks[2]["finding"]["history"].as_array().unwrap().len() > 20);
    assert_eq!(said["summary"]["failed"], 1);
}

#[test]
fn repeats_count_verdicts_over_seeds() {
    let ended = exercise("broken", &["check", "--repeat", "3", "--seed", "10"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .out
            .contains("3 runs, seeds 10 to 12: 6 passed, 3 failed"),
        "{ended:?}"
    );
    let said = exercise("2", &["check", "--repeat", "2", "--seed", "10", "--json"]).json();
    assert_eq!(said["runs"].as_array().unwrap().len(), 2);
    assert_eq!(said["runs"][1]["seed"], 11);
}

#[test]
fn what_does_not_exist_is_named_with_what_does() {
    for json in [false, true] {
        let cases: [(&[&str], &str); 4] = [
            (
                &["check", "--variant", "nope"],
                "reference, waits, check-then-act",
            ),
            (&["check", "--step", "9"], "The same ticket counts once"),
            (&["check", "--cmd", " "], "--cmd is empty"),
            (&["check", "--nonsense"], "unexpected argument"),
        ];
        for (words, expected) in cases {
            let json_word: &[&str] = if json { &["--json"] } else { &[] };
            let ended = run("check", &[words, json_word].concat());
            assert_eq!(ended.code, Some(2), "{ended:?}");
            let said = if json {
                ended.json()["error"].to_string()
            } else {
                ended.err.clone()
            };
            assert!(said.contains(expected), "{expected:?}: {ended:?}");
        }
    }
}

#[test]
fn a_missing_service_is_one_message() {
    for json in [false, true] {
        let mut command = kata(
            "check",
            if json {
                &["check", "--json"]
            } else {
                &["check"]
            },
        );
        command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
        let ended = at_once(command);
        assert_eq!(ended.code, Some(2));
        let said = if json {
            ended.json()["error"].to_string()
        } else {
            ended.err.clone()
        };
        assert!(said.contains("127.0.0.1:1"), "{ended:?}");
        assert!(!said.contains("panicked"), "{ended:?}");
    }
}

#[test]
fn an_exercise_that_does_not_start_is_said_once() {
    let ended = exercise("ends", &["check"]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended
            .err
            .contains("exercise does not start: the gate is locked"),
        "{ended:?}"
    );
}

#[test]
fn a_program_in_another_language_is_judged_like_any_other() {
    let passes = run("check", &["check", "--cmd", &command_line("2")]);
    assert_eq!(passes.code, Some(0), "{passes:?}");
    let fails = run("check", &["check", "--cmd", &command_line("broken")]);
    assert_eq!(fails.code, Some(1), "{fails:?}");
    assert!(
        fails.out.contains("a turnstile on port"),
        "its output is part of the evidence: {fails:?}"
    );
    assert!(fails.out.contains("check --cmd '"), "{fails:?}");
}

#[test]
fn programs_that_do_not_come_up_are_one_message_with_their_last_words() {
    let cases = [
        (
            "echo last words; exit 7",
            "ended before it was healthy",
            "last words",
        ),
        (
            "no-such-program-here",
            "ended before it was healthy",
            "not found",
        ),
        (
            "printf '\\377\\376garbage\\n'; exec sleep 1000",
            "did not answer GET /health",
            "garbage",
        ),
    ];
    for (line, what, output) in cases {
        let ended = run("check", &["check", "--cmd", line, "--start-timeout", "1"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(what), "{what:?}: {ended:?}");
        assert!(ended.err.contains(output), "{output:?}: {ended:?}");
        let said = run(
            "check",
            &["check", "--cmd", line, "--start-timeout", "1", "--json"],
        )
        .json();
        assert!(said["error"].as_str().unwrap().contains(what), "{said}");
    }
}

#[test]
fn a_signal_ends_it_and_the_program_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let line = format!("echo $$ > {}; exec sleep 1000", pid.display());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let _ = std::fs::remove_file(&pid);
        let mut running = Running::start(kata("check", &["check", "--cmd", &line]));
        let read = || {
            std::fs::read_to_string(&pid)
                .ok()?
                .trim()
                .parse::<u32>()
                .ok()
        };
        until(|| read().is_some(), || "the program starts".to_owned());
        let program = format!("/proc/{}", read().unwrap());
        running.signal(signal);
        assert_eq!(running.ends().code(), Some(code), "{}", running.said());
        if cfg!(target_os = "linux") {
            until(
                || !std::path::Path::new(&program).exists(),
                || "the program is gone".to_owned(),
            );
        }
    }
}

#[test]
fn a_reader_that_goes_away_or_a_full_disk_is_no_panic() {
    if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        let mut command = kata("check", &["check"]);
        let ended = command
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ended = ended.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(2));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(
            said.contains("Standard output cannot be written to"),
            "{said}"
        );
    }
    let mut child = kata("check", &["check"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
