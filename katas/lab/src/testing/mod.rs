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
mod sources;

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    future::Future,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::StreamExt;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use shared::services::ServiceError;
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

/// Judges every variant by every check, as CI wants it, and not only those of the steps that it is about.
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
    let threads = match bench.kata.has_to_be_alone() {
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

/// What a trial ends with for want of a service: left out if it is not on this machine and need not be.
pub fn without(error: &ServiceError) -> Result<Completion, Failed> {
    let why = error.to_string();
    match error.is_missing() && !is_set(REQUIRE_SERVICES) {
        true => Ok(Completion::ignored_with(
            why.lines().next().unwrap_or_default(),
        )),
        false => Err(Failed::from(why)),
    }
}

/// What all trials share. Nothing is started before the first trial that needs it, so that a
/// filter or `--list` costs nothing.
struct Bench {
    kata: Arc<Kata>,
    seed: u64,
    runtime: OnceLock<Runtime>,
    session: OnceCell<Result<Arc<Session>, ServiceError>>,
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
        let open = async || {
            let grounds = Grounds::open(&self.kata.given).await?;
            let kata = self.kata.clone();
            Ok(Arc::new(Session::new(
                kata,
                grounds,
                self.seed,
                START_TIMEOUT,
            )))
        };
        match self.session.get_or_init(open).await {
            Ok(session) => Ok(session.clone()),
            Err(error) => Err(without(error)),
        }
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
    // What waits longest begins first: who is slow, then the flaws that late steps find, which show in
    // what never comes. Who is judged by everything computes meanwhile.
    let mut order: Vec<_> = kata.variants.iter().enumerate().rev().collect();
    order.sort_by_key(|(_, variant)| {
        let last = steps_of(&kata, variant).last().copied();
        Reverse((variant.is_slowed(), last))
    });
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

/// The steps that a variant is about: those that find its flaw, or in which an alternative goes its own
/// way; none for who answers all of them.
fn steps_of(kata: &Kata, variant: &Variant) -> BTreeSet<usize> {
    let found_in = kata
        .checks()
        .filter(|(_, check)| variant.must_fail(check.name) == Some(true))
        .map(|(step, _)| step);
    found_in.chain(variant.steps.iter().copied()).collect()
}

/// Judges a variant by every check of the steps that it is about; anything that its map does not
/// declare fails the trial.
///
/// That it passes the rest is left to the whole matrix, since a test run has to be short: a check that
/// asks too much is found by the reference and the alternatives. So is who is slow where a check has to
/// be alone: it would be alone for seconds.
async fn proves(bench: &Bench, variant: usize) -> Result<Completion, Failed> {
    let mut session = match bench.session().await {
        Ok(session) => session,
        Err(completion) => return completion,
    };
    let variant = &bench.kata.variants[variant];
    // Not where a check has to be alone: it would not hear of who runs under other limits.
    if variant.is_slowed() && !bench.kata.has_to_be_alone() {
        session = Arc::new(session.apart());
    }
    let steps = steps_of(&bench.kata, variant);
    let is_whole = is_set(WHOLE_MATRIX);
    let checks = checks_where(&bench.kata, |step, check| {
        let is_about_it = steps.is_empty() || steps.contains(&step);
        is_whole || is_about_it && !(variant.is_slowed() && check.alone)
    });
    let outcomes = judge(&session, variant, checks).await;
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
    match findings::strange(variant, &records) {
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

fn checks_where(kata: &Kata, is_asked: impl Fn(usize, &Check) -> bool) -> Vec<(usize, Check)> {
    kata.checks()
        .filter(|(step, check)| is_asked(*step, check))
        .map(|(step, check)| (step, check.clone()))
        .collect()
}

async fn judge(session: &Session, variant: &Variant, checks: Vec<(usize, Check)>) -> Vec<Outcome> {
    let implementation = Implementation::in_process(variant);
    session.judge(&implementation, checks).collect().await
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
