//! The runner for `cargo test`: a kata is proven when every variant does what its map declares.
//!
//! ```no_run
//! // tests/kata.rs, with `harness = false`
//! # fn kata() -> kata_lab::Kata { unimplemented!() }
//! fn main() -> std::process::ExitCode {
//!     kata_lab::testing::main(kata())
//! }
//! ```

mod findings;
mod lesson;
mod routes;
mod sources;

use std::{
    cmp::Reverse,
    future::Future,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{StreamExt, stream};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::{runtime::Runtime, sync::OnceCell};

use crate::{
    cli::again,
    grounds::Grounds,
    implementation::Implementation,
    kata::{Check, Kata, Kind, Variant},
    matrix::{explain, is_surprise},
    report::{Evidence, Record, Standing, StepState, Subject, finding, text},
    runner::{Outcome, Session},
    verdict::VerdictKind,
};

/// Trials wait most of their time, so there are more of them at once than there are cores.
const THREADS: usize = 16;

/// Starting in process is quick; this is for a machine that is very busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A trial's name lists the checks that a variant must fail, up to so many characters.
const LONGEST_LIST: usize = 64;

/// Makes a missing service a failure, as CI wants it.
const REQUIRE_SERVICES: &str = "KATA_REQUIRE_SERVICES";

/// Judges every variant by every check, as CI wants it, also where only the reference's code answers.
const WHOLE_MATRIX: &str = "KATA_WHOLE_MATRIX";

/// Rewrites the golden files.
const UPDATE: &str = "UPDATE_GOLDEN";

/// Replays a run: the seed that a failure printed.
const SEED: &str = "KATA_SEED";

/// Runs the trials of a kata; for `tests/kata.rs`.
pub fn main(kata: Kata) -> ExitCode {
    main_with(kata, Vec::new())
}

/// The same, with trials of the kata's own. They come first: none of them computes while a check has
/// the machine for itself.
pub fn main_with(kata: Kata, extra: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let bench = Arc::new(Bench::new(kata));
    let mut all = extra;
    all.extend(trials(&bench));
    // What has to be alone waits for all that is under way: once, if all of it is.
    let threads = match bench.kata.checks().any(|(_, check)| check.alone) {
        true => all.len(),
        false => THREADS,
    };
    arguments.test_threads.get_or_insert(threads);
    let conclusion = libtest_mimic::run(&arguments, all);
    bench.close();
    if conclusion.has_failed() {
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}

/// Trials of what a kata has written: its lesson and its variants' files. They run in the kata's own
/// folder, as `cargo test` starts them.
pub fn texts(kata: Kata) -> Vec<Trial> {
    let kata = Arc::new(kata);
    let mut trials = lesson::trials(&kata);
    trials.extend(sources::trials(&kata));
    trials
}

/// What all trials share. Nothing is started before the first trial that needs it, so that a
/// filter or `--list` costs nothing.
struct Bench {
    kata: Arc<Kata>,
    seed: u64,
    runtime: OnceLock<Runtime>,
    session: OnceCell<Result<Arc<Session>, Missing>>,
}

/// Why there are no services.
#[derive(Debug, Clone)]
struct Missing {
    why: String,
    is_missing: bool,
}

impl Bench {
    fn new(kata: Kata) -> Self {
        let seed = std::env::var(SEED)
            .ok()
            .and_then(|seed| seed.trim().parse().ok());
        Self {
            kata: Arc::new(kata),
            seed: seed.unwrap_or_else(|| u64::from(rand::random::<u32>() % 9_000) + 1_000),
            runtime: OnceLock::new(),
            session: OnceCell::new(),
        }
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        let runtime = self
            .runtime
            .get_or_init(|| Runtime::new().expect("a machine that runs tests has threads"));
        runtime.block_on(future)
    }

    /// The session, or what a trial ends with without one.
    async fn session(&self) -> Result<Arc<Session>, Result<Completion, Failed>> {
        let open = async || match Grounds::open(&self.kata.given).await {
            Ok(grounds) => Ok(Arc::new(Session::new(
                self.kata.clone(),
                grounds,
                self.seed,
                START_TIMEOUT,
            ))),
            Err(error) => Err(Missing {
                is_missing: error.is_missing(),
                why: error.to_string(),
            }),
        };
        let session = self.session.get_or_init(open).await;
        session.clone().map_err(
            |missing| match missing.is_missing && !is_set(REQUIRE_SERVICES) {
                true => {
                    let first = missing.why.lines().next().unwrap_or_default();
                    Ok(Completion::ignored_with(first))
                }
                false => Err(Failed::from(missing.why)),
            },
        )
    }

    fn close(&self) {
        if let (Some(runtime), Some(Ok(session))) = (self.runtime.get(), self.session.get()) {
            // What cannot be taken back now goes with the server, or is swept by the next run.
            let _ = runtime.block_on(session.grounds().close());
        }
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !matches!(value.trim(), "" | "0" | "false"))
}

fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let kata = bench.kata.clone();
    let map = bench.kata.clone();
    let mut trials = vec![Trial::test("map is sound", move || {
        let mistakes = map.mistakes();
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Failed::from(mistakes.join("\n")))
        }
    })];
    // What takes longest begins first. Who passes everything is judged to the end by every check;
    // and the flaws that late steps find show in what never comes.
    let found_in = |variant: &Variant| {
        let found = kata
            .checks()
            .filter(|(_, check)| variant.must_fail(check.name) == Some(true));
        found.map(|(step, _)| step).max().unwrap_or(usize::MAX)
    };
    let mut order: Vec<_> = kata.variants.iter().enumerate().rev().collect();
    order.sort_by_key(|(_, variant)| Reverse(found_in(variant)));
    for (index, variant) in order {
        if variant.kind == Kind::Exercise {
            continue;
        }
        let bench = bench.clone();
        trials.push(Trial::ignorable_test(name_of(variant), move || {
            bench.block_on(proves(&bench, index))
        }));
    }
    for (index, step) in kata.steps.iter().enumerate() {
        let bench = bench.clone();
        let name = format!("exercise: step {}, {}", index + 1, step.title);
        trials.push(Trial::ignorable_test(name, move || {
            bench.block_on(stands(&bench, index + 1))
        }));
    }
    trials
}

fn name_of(variant: &Variant) -> String {
    match variant.kind {
        Kind::Flawed(checks) => {
            let names = checks.join(", ");
            // All names are padded to the longest, so one long list would make every line wrap.
            let fails = match names.len() <= LONGEST_LIST {
                true => names,
                false => format!("{} checks", checks.len()),
            };
            format!("{} — fails exactly {fails}", variant.label())
        }
        Kind::Reference | Kind::Alternative | Kind::Exercise => {
            format!("{} — passes all", variant.label())
        }
    }
}

/// Judges a variant by all checks that reach what is its own; anything that its map does not declare
/// fails the trial.
async fn proves(bench: &Bench, variant: usize) -> Result<Completion, Failed> {
    let session = match bench.session().await {
        Ok(session) => session,
        Err(completion) => return completion,
    };
    let variant = &bench.kata.variants[variant];
    let kept = routes::Kept::read();
    let is_whole = is_set(WHOLE_MATRIX);
    let checks = checks_where(&bench.kata, |_, check| {
        is_whole || variant.must_fail(check) == Some(true) || kept.reaches(variant, check)
    });
    let outcomes = judge(&session, variant, checks).await;
    let strange_routes = routes::strange(&bench.kata, variant, &outcomes);
    let records: Vec<_> = outcomes.into_iter().map(Record::from).collect();
    let said: Vec<_> = records
        .iter()
        .filter(|record| is_surprise(variant.must_fail(&record.name), record.verdict))
        .map(|record| {
            let line = explain(variant.must_fail(&record.name), record);
            format!("{line}\n{}", rendered(bench, variant, record))
        })
        .collect();
    if !said.is_empty() {
        let said = said.join("\n");
        return Err(Failed::from(format!("{}\n\n{said}", variant.label())));
    }
    match strange_routes.or_else(|| findings::strange(variant, &records)) {
        None => Ok(Completion::Completed),
        Some(strange) => Err(Failed::from(strange)),
    }
}

/// Judges one step of the exercise.
async fn stands(bench: &Bench, step: usize) -> Result<Completion, Failed> {
    let session = match bench.session().await {
        Ok(session) => session,
        Err(completion) => return completion,
    };
    let exercise = bench.kata.exercise();
    // One step's checks only: with a filter the others need not run.
    let checks = checks_where(&bench.kata, |of, _| of == step);
    let outcomes = judge(&session, exercise, checks).await;
    let records: Vec<_> = outcomes.into_iter().map(Record::from).collect();
    let of = |kind: VerdictKind| records.iter().filter(move |record| record.verdict == kind);
    match Standing::of(&records, bench.kata.steps.len()).steps[step - 1] {
        StepState::Done => Ok(Completion::Completed),
        StepState::NotStarted => {
            let reason = of(VerdictKind::NotStarted).find_map(|record| record.reason.clone());
            let reason = reason.map(|reason| format!("not started: {}", text::harmless(&reason)));
            Ok(Completion::ignored_with(
                reason.unwrap_or_else(|| "not started".to_owned()),
            ))
        }
        StepState::Failed => {
            let failed = of(VerdictKind::Failed).map(|record| rendered(bench, exercise, record));
            Err(Failed::from(failed.collect::<Vec<_>>().join("\n")))
        }
        StepState::Unclear => {
            let unclear = records
                .iter()
                .filter(|record| record.verdict != VerdictKind::Passed);
            let said = unclear.map(|record| rendered(bench, exercise, record));
            Err(Failed::from(said.collect::<Vec<_>>().join("\n")))
        }
    }
}

fn checks_where(kata: &Kata, is_asked: impl Fn(usize, &str) -> bool) -> Vec<(usize, Check)> {
    kata.checks()
        .filter(|(step, check)| is_asked(*step, check.name))
        .map(|(step, check)| (step, check.clone()))
        .collect()
}

async fn judge(session: &Session, variant: &Variant, checks: Vec<(usize, Check)>) -> Vec<Outcome> {
    let implementation = Implementation::in_process(variant);
    let at_once = checks.len().max(1);
    stream::iter(checks)
        .map(|(step, check)| session.check(&implementation, step, check))
        .buffered(at_once)
        .collect()
        .await
}

/// An outcome as a person reads it, without colour.
fn rendered(bench: &Bench, variant: &Variant, record: &Record) -> String {
    let again = again(
        bench.kata.name,
        &Subject::Id(variant.id.to_owned()),
        record.step,
        bench.seed,
    );
    let said = match &record.finding {
        Some(found) => {
            let check = bench
                .kata
                .checks()
                .find(|(_, check)| check.name == record.name);
            let think = check.map(|(_, check)| check.think).unwrap_or_default();
            finding(
                Evidence {
                    name: &record.name,
                    finding: found,
                    think,
                    again: &again,
                },
                text::WIDEST,
            )
        }
        None => {
            let why = record.reason.as_ref().or(record.note.as_ref());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            format!(
                "{} {}{why}\n  again     {again}\n",
                record.verdict.mark(),
                record.name
            )
        }
    };
    anstream::adapter::strip_str(&said).to_string()
}
