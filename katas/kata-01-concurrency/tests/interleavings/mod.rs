//! Step 7: every interleaving, as far as shuttle gets in a few thousand.
//!
//! Shuttle runs tasks on one thread and decides itself, at each lock and each await, who goes on.
//! A decision is a number, so a run that went wrong can be played again. It replaces the whole
//! process's panic hook, which is why each exploration runs in a process of its own: this program,
//! started again with [`EXPLORE`].

mod scenes;

use std::process::{Command, ExitCode};

use libtest_mimic::{Completion, Failed, Trial};
use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{RandomScheduler, ReplayScheduler},
};

/// The scene to explore; set for the process that does it.
pub(crate) const EXPLORE: &str = "KATA_EXPLORE";

/// A schedule to play again instead of looking for one.
const SCHEDULE: &str = "KATA_SCHEDULE";

/// How many interleavings are tried. The race of `naive` is in every third.
const INTERLEAVINGS: usize = 2_000;

/// The same every time: what was found yesterday is found today.
const SEED: u64 = 1;

/// Explores one scene, in a process that does nothing else. What goes wrong is a panic, and the
/// schedule that led there stands on standard error.
pub(crate) fn explore(name: &str) -> ExitCode {
    let Some(scene) = scenes::named(name) else {
        eprintln!("there is no scene {name:?}");
        return ExitCode::from(2);
    };
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::Print;
    let tried = match std::env::var(SCHEDULE) {
        Ok(schedule) => {
            Runner::new(ReplayScheduler::new_from_encoded(&schedule), config).run(scene)
        }
        Err(_) => {
            let scheduler = RandomScheduler::new_from_seed(SEED, INTERLEAVINGS);
            Runner::new(scheduler, config).run(scene)
        }
    };
    println!("{tried} interleavings");
    ExitCode::SUCCESS
}

/// What became of an exploration.
enum Explored {
    Held,
    NotStarted(String),
    Broken { why: String, schedule: String },
}

fn explored(name: &str, schedule: Option<&str>) -> Result<Explored, Failed> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.env(EXPLORE, name).env_remove(SCHEDULE);
    if let Some(schedule) = schedule {
        command.env(SCHEDULE, schedule);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Explored::Held);
    }
    if let Some(what) = after(&said, "not yet implemented: ") {
        return Ok(Explored::NotStarted(what.to_owned()));
    }
    let schedule = said.split('"').nth(1).unwrap_or_default().trim();
    match after(&said, scenes::BROKEN) {
        Some(why) => Ok(Explored::Broken {
            why: why.to_owned(),
            schedule: schedule.to_owned(),
        }),
        None => Err(Failed::from(format!("{name}: {}\n{said}", output.status))),
    }
}

/// The rest of the line after a word.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_once(word)?.1.lines().next()
}

/// The trials, for `tests/kata.rs`.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test(
            "shuttle finds the race of naive, and plays it again",
            || found_and_played_again("naive"),
        ),
        Trial::test("shuttle finds a lock that is two locks", || {
            found_and_played_again("two-locks")
        }),
        Trial::test("shuttle finds an owner who is told what was read", || {
            found_and_played_again("two-messages")
        }),
    ];
    for scene in ["lock", "worker"] {
        trials.push(Trial::test(
            format!("shuttle finds nothing wrong with the reference's {scene}"),
            move || match explored(scene, None)? {
                Explored::Held => Ok(()),
                Explored::NotStarted(what) => Err(Failed::from(what)),
                Explored::Broken { why, schedule } => {
                    Err(Failed::from(broken(scene, &why, &schedule)))
                }
            },
        ));
    }
    trials.push(Trial::ignorable_test(
        "exercise: step 7, No interleaving loses a unit",
        exercise_stands,
    ));
    trials
}

/// The exercise's property holds for its lock and its worker, and tells them from its `naive`.
fn exercise_stands() -> Result<Completion, Failed> {
    for scene in ["exercise-lock", "exercise-worker"] {
        match explored(scene, None)? {
            Explored::Held => {}
            Explored::NotStarted(what) => return Ok(not_started(&what)),
            Explored::Broken { why, schedule } => {
                return Err(Failed::from(broken(scene, &why, &schedule)));
            }
        }
    }
    match explored("exercise-naive", None)? {
        Explored::Broken { why, schedule } => {
            // A race that was looked for: the schedule is the find, so it is shown.
            println!("{}", broken("exercise-naive", &why, &schedule));
            Ok(Completion::Completed)
        }
        Explored::NotStarted(what) => Ok(not_started(&what)),
        Explored::Held => Err(Failed::from(
            "`nothing_is_lost` holds in every interleaving of your `reserve_naive`, too: does it compare all three numbers, and is there a race to be found?",
        )),
    }
}

fn not_started(what: &str) -> Completion {
    Completion::ignored_with(format!("not started: {what}"))
}

fn found_and_played_again(scene: &str) -> Result<(), Failed> {
    let Explored::Broken { why, schedule } = explored(scene, None)? else {
        return Err(Failed::from(format!("nothing was found in {scene}")));
    };
    match explored(scene, Some(&schedule))? {
        Explored::Broken { why: again, .. } if again == why => Ok(()),
        _ => Err(Failed::from(format!(
            "{scene}: {why}, but not when it is played again: {schedule}"
        ))),
    }
}

fn broken(scene: &str, why: &str, schedule: &str) -> String {
    format!(
        "{scene}: {why}\nTo see it again:\n  {EXPLORE}={scene} {SCHEDULE}={schedule} cargo test -p kata-01-concurrency"
    )
}
