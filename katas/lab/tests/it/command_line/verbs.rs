//! The other verbs: the story, hints, the contract, the matrix, `serve`, and `env` with `--url`.

use std::{collections::BTreeMap, process::Command};

use rustix::process::Signal;

use super::{Running, at_once, kata, run, running::program};

#[test]
fn without_a_verb_the_failure_happens_and_the_next_step_is_named() {
    let ended = run("story", &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for said in [
        "kata 99 · turnstile",
        "one ticket, one person",
        "PostgreSQL",
        "check, then act",
        "not started (step 1 of 2)",
        "Your exercise   ○○   0 of 2 steps done",
        "Next   step 1, “Every ticket counts”",
        "-- check --watch",
    ] {
        assert!(ended.out.contains(said), "{said:?} is missing: {ended:?}");
    }
}

#[test]
fn hints_come_one_stage_at_a_time() {
    let expected = [
        "hint 1 of 3, a question",
        "hint 2 of 3, a pointer",
        "hint 3 of 3, nearly the answer",
        "All three hints",
    ];
    // The last run may have left something.
    run("hints", &["hint", "2", "--again"]);
    for said in &expected[1..] {
        assert!(run("hints", &["hint", "2"]).out.contains(said), "{said}");
    }
    assert!(
        run("hints", &["hint", "2"])
            .out
            .contains("variants/reference")
    );
    assert!(
        run("hints", &["hint", "2", "--again"])
            .out
            .contains(expected[0])
    );
    let none = run("hints", &["hint", "7"]);
    assert_eq!(none.code, Some(2));
    assert!(none.err.contains("There is no step 7"));
}

#[test]
fn a_hint_without_a_number_is_for_the_first_step_that_is_not_done() {
    let mut check = kata("hint-next", &["check"]);
    check.env("TURNSTILE_EXERCISE", "1");
    at_once(check);
    let said = run("hint-next", &["hint", "--again"]).out;
    assert!(
        said.contains("step 2  The same ticket counts once"),
        "{said}"
    );
}

#[test]
fn the_contract_is_one_section_in_either_language() {
    let english = run("contract", &["contract"]).out;
    assert!(
        english.starts_with("## The contract") && !english.contains("## Next"),
        "{english}"
    );
    assert!(
        run("contract", &["contract", "--lang", "es"])
            .out
            .starts_with("## El contrato")
    );
}

#[test]
fn the_matrix_holds_and_explains_what_is_not_as_declared() {
    let holds = run("matrix", &["matrix"]);
    assert_eq!(holds.code, Some(0), "{holds:?}");
    assert!(
        holds.out.contains("5 variants × 3 checks, 0 surprises"),
        "{holds:?}"
    );
    assert!(
        !holds.out.contains("yours"),
        "the exercise is left out unless named: {holds:?}"
    );

    let mut command = kata(
        "matrix",
        &[
            "matrix",
            "--variant",
            "always-one",
            "--variant",
            "exercise",
            "--repeat",
            "2",
            "--seed",
            "3",
        ],
    );
    command.env("TURNSTILE_LIES", "1");
    let lies = at_once(command);
    assert_eq!(lies.code, Some(1), "{lies:?}");
    assert!(
        lies.out
            .contains("counts_a_ticket_once must fail, and passed (2 of 2 times)"),
        "{lies:?}"
    );
    assert!(lies.out.contains("2 of 12 verdicts were wrong"), "{lies:?}");
    assert!(
        lies.out
            .contains("check --variant always-one --step 2 --seed 3"),
        "{lies:?}"
    );

    let said = run(
        "matrix",
        &["matrix", "--json", "--variant", "check-then-act"],
    )
    .json();
    assert_eq!(said["surprises"], 0);
    assert_eq!(said["variants"][0]["cells"][2]["verdicts"][0], "failed");
    assert_eq!(
        run("matrix", &["matrix", "--variant", "nope"]).code,
        Some(2)
    );
}

#[test]
fn serve_prints_lines_that_work_and_ends_on_a_signal() {
    let mut running = Running::start(kata("serve", &["serve", "--variant", "check-then-act"]));
    let said = running.says("curl -s http://", 1);
    let url = said
        .split("curl -s ")
        .nth(1)
        .unwrap()
        .split('/')
        .take(3)
        .collect::<Vec<_>>()
        .join("/");
    let port = url.rsplit(':').next().unwrap();
    assert!(said.contains("PAYMENT_PROVIDER_URL"), "{said}");
    assert!(answers(&url));
    let taken = run("serve", &["serve", "--port", port]);
    assert_eq!(taken.code, Some(2), "{taken:?}");
    assert!(taken.err.contains(&format!("Port {port}")), "{taken:?}");
    running.signal(Signal::INT);
    assert_eq!(running.ends().code(), Some(0), "{}", running.said());
    // The port that was named is the one that is used.
    let mut running = Running::start(kata("serve", &["serve", "--port", port]));
    running.says(&format!("http://127.0.0.1:{port}/enter"), 1);
    assert!(answers(&url));
    running.signal(Signal::TERM);
    assert_eq!(running.ends().code(), Some(0));
}

fn answers(url: &str) -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = serde_json::json!({ "ticket": "a" });
        let answer = client.post(format!("{url}/enter")).json(&body).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
}

#[test]
fn env_gives_what_a_program_needs_and_url_judges_it_there() {
    let closed = run("env", &["check", "--url", "http://127.0.0.1:1"]);
    assert_eq!(closed.code, Some(2), "{closed:?}");
    assert!(closed.err.contains("No environment is open"), "{closed:?}");

    let mut env = Running::start(kata("env", &["env"]));
    let said = env.says("check --url http://127.0.0.1:", 1);
    let variables: BTreeMap<String, String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect();
    for name in [
        "PORT",
        "DATABASE_URL",
        "PGUSER",
        "PAYMENT_PROVIDER_URL",
        "TICKET_TTL_MS",
    ] {
        assert!(variables.contains_key(name), "{name} is missing: {said}");
    }
    let url = format!("http://127.0.0.1:{}", variables["PORT"]);

    let nobody = run("env", &["check", "--url", &url]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.err.contains("Nothing can be reached"), "{nobody:?}");
    let wrong = run("env", &["check", "--url", &format!("{url}/path"), "--json"]);
    assert!(
        wrong.json()["error"]
            .as_str()
            .unwrap()
            .contains("more than host and port")
    );
    let second = run("env", &["env"]);
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.err.contains("is open already"), "{second:?}");

    let mut learner = Command::new(program());
    learner
        .env("TURNSTILE_AS", "program")
        .env("TURNSTILE_EXERCISE", "broken")
        .envs(&variables);
    let mut learner = Running::start(learner);
    learner.says("a turnstile on port", 1);
    // As in the shell that started the program, where these variables are set.
    let mut check = kata(
        "env",
        &["check", "--url", &url, "--step", "2", "--seed", "9"],
    );
    check.envs(&variables);
    let judged = at_once(check);
    assert_eq!(judged.code, Some(1), "{judged:?}");
    assert!(
        judged.out.contains("✗ counts_once_under_concurrency"),
        "{judged:?}"
    );
    assert!(
        judged
            .out
            .contains(&format!("check --url {url} --step 2 --seed 9")),
        "{judged:?}"
    );
    let said = run("env", &["check", "--url", &url, "--step", "2", "--json"]).json();
    assert_eq!(said["variant"]["url"], url);
    assert_eq!(said["summary"]["failed"], 1);
    learner.signal(Signal::TERM);
    learner.ends();

    env.signal(Signal::INT);
    assert_eq!(env.ends().code(), Some(0), "{}", env.said());
    assert!(
        run("env", &["check", "--url", &url])
            .err
            .contains("No environment is open")
    );

    // One that was killed could not tidy up; it is recognised as gone.
    let env = Running::start(kata("env", &["env", "--format", "json"]));
    env.says("check --url", 1);
    drop(env);
    assert!(
        run("env", &["check", "--url", &url])
            .err
            .contains("No environment is open")
    );
}

#[test]
fn variables_taken_over_from_env_are_not_a_server_to_use() {
    let mut check = kata("check", &["check", "--variant", "reference"]);
    check
        .env(
            "DATABASE_URL",
            "postgres://kata_0123abcd_4:secret@127.0.0.1:1/postgres?sslmode=disable",
        )
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", "1")
        .env("PGUSER", "kata_0123abcd_4")
        .env("PGPASSWORD", "secret")
        .env("PGDATABASE", "elsewhere");
    let ended = at_once(check);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
