//! Every command that a README shows is run, as it is shown.
//!
//! A command that no longer works is the first thing that a newcomer meets. So each `sh` block of
//! each page is read, and each line of it has to be in the table [`how`] below: a line that nobody
//! has thought about fails. Running them takes minutes, so without `KATA_REQUIRE_SERVICES=1` (CI)
//! only the pages are checked, and the trials say that they were not run.

mod pages;
mod running;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use pages::{Page, words};
use running::Running;

/// The exercise belongs to the learner and may stand anywhere.
const EXERCISE: &[i32] = &[0, 1, 3];

/// In the examples of the lesson, the learner's own program in the current folder.
const OWN_PROGRAM: &str = "node server.js";

/// A program that has only just been begun: it is there, and everything else is not. It reads a
/// request to its end before it answers: Node would reset the connection of one that it did not.
const JUST_BEGUN: &str = "require('node:http').createServer((request, response) => {
  request.resume().on('end', () => {
    response.writeHead(request.url === '/health' ? 200 : 501).end();
  });
}).listen(process.env.PORT, '127.0.0.1', () => console.log('listening'));
";

/// The port that the lesson chooses, and that somebody else may have here.
const PORT_SHOWN: &str = "20080";

/// How a command is tried.
enum How {
    /// It ends by itself with one of these codes, and its output contains this.
    Ends(&'static [i32], &'static str),
    /// The same, with these words added, since all of it is measured elsewhere and takes minutes.
    Shorter(&'static str, &'static [i32], &'static str),
    /// It says this, goes on, and ends on Ctrl-C with this code.
    Waits(&'static str, i32),
    /// `env`, with a program that is started with what it prints, judged by `check --url`.
    Environment,
    /// Tried with the command before it.
    WithTheOneBefore,
    /// A stage of `.ci/run` runs the same line.
    Stage(&'static str),
    /// It cannot be tried here, for this reason.
    NotHere(&'static str),
}

/// What each command is and has to do; `None` for one that is not known yet.
fn how(words: &[&str]) -> Option<How> {
    use How::*;
    Some(match words {
        ["cargo", "run", "-p", _] => Ends(&[0], "Your exercise"),
        ["cargo", "run", "-p", _, "--", verb @ ..] => match verb {
            ["check"] => Ends(EXERCISE, " passed"),
            ["check", "--watch"] => Waits("Waiting for a change", 130),
            ["check", "--cmd", OWN_PROGRAM] => Ends(&[3], " not started"),
            ["check", "--cmd", OWN_PROGRAM, "--step", _] => Ends(&[3], " not started"),
            ["check", "--cmd", OWN_PROGRAM, "--watch"] => Waits("Waiting for a change", 130),
            ["check", "--cmd", program] if program.contains("/examples/") => Stage("examples"),
            ["check", "--url", _] => WithTheOneBefore,
            ["check", "--variant", id, ..] if is_right(id) => Ends(&[0], " passed"),
            ["check", "--variant", ..] => Ends(&[1], "saw"),
            ["contract"] => Ends(&[0], "DATABASE_URL"),
            ["env", "--port", PORT_SHOWN] => Environment,
            ["hint"] | ["hint", _] => Ends(&[0], "hint "),
            ["isolation"] => Ends(&[0], "write-skew"),
            ["anomaly", ..] => Ends(&[0], "in the end"),
            ["histories"] => Ends(&[0], "serializable"),
            ["matrix"] => Shorter("--variant reference", &[0], "surprises"),
            ["serve"] => Waits("curl", 0),
            _ => return None,
        },
        ["cargo", "kata"] => Ends(EXERCISE, "cargo kata "),
        ["cargo", "kata", _, "hint"] => Ends(&[0], "hint "),
        ["cargo", "kata", "report"] => Ends(EXERCISE, "requires_a_key"),
        ["cargo", "kata", "report", "--json"] => Ends(EXERCISE, "\"katas\":["),
        ["cargo", "test", "--workspace"] => Stage("test"),
        ["cargo", "fmt", "--all"] => Stage("format"),
        ["cargo", "clippy", ..] => Stage("clippy"),
        ["cargo", "test", "-p", _] | ["cargo", "test", "-p", _, _] => {
            NotHere("it is a part of the stage test")
        }
        [".ci/run"] => NotHere("it runs this very test"),
        ["scripts/services"] => Ends(&[0, 1], "PostgreSQL"),
        ["scripts/matrix", ..] => NotHere("it is for an hour at night"),
        ["npm", "install", ..] | ["pip", "install", "-r", _] => Stage("examples"),
        ["cd", _, "&&", "go", "build", ..] => Stage("examples"),
        ["docker", "compose", "up", ..] => {
            NotHere("not everybody has Docker; see the stage compose")
        }
        ["export", _] => NotHere("it changes the reader's own shell; see the stage compose"),
        _ => return None,
    })
}

fn is_right(variant: &str) -> bool {
    variant == "reference" || variant.starts_with("alternative-")
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They wait more than they compute.
    arguments.test_threads.get_or_insert(3);
    let root = root();
    let pages = Page::all(&root);
    let mut trials = page_trials(&root, &pages);
    trials.extend(command_trials(&root, &pages));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// The file of each kata in which its steps and checks are listed.
fn maps(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("katas")).expect("there is a folder katas");
    let folders = entries.flatten().map(|entry| entry.path());
    let katas = folders.filter(|folder| {
        let name = folder.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("kata-")
    });
    katas.map(|kata| kata.join("src/lib.rs")).collect()
}

/// What can be said of the pages without running anything.
fn page_trials(root: &Path, pages: &[Page]) -> Vec<Trial> {
    let page = |name: &str| {
        let found = pages.iter().find(|page| page.path == root.join(name));
        found
            .cloned()
            .unwrap_or_else(|| panic!("there is no {name}"))
    };
    let (english, spanish) = (page("README.md"), page("README.es.md"));
    let (links, test_command, front) = (pages.to_vec(), english.clone(), english.clone());
    let pair = (english.clone(), spanish.clone());
    let maps = maps(root);
    let lesson = page("katas/kata-04-idempotency/README.md");
    let ci = root.join(".ci/run");
    vec![
        Trial::test("pages: both languages have the same shape", move || {
            same(
                "headings",
                &english.heading_levels(),
                &spanish.heading_levels(),
            )?;
            same("code blocks", &english.blocks(), &spanish.blocks())?;
            same(
                "rows of tables",
                &english.table_rows(),
                &spanish.table_rows(),
            )
        }),
        Trial::test(
            "pages: what the front page shows is the lesson's output",
            move || {
                let shown = front.output();
                let measured = lesson.output();
                let strange = shown.iter().filter(|line| !measured.contains(line));
                same("lines of output", &strange.collect::<Vec<_>>(), &Vec::new())?;
                same("is there any", &shown.is_empty(), &false)
            },
        ),
        Trial::test(
            "pages: the front pages count what the maps have",
            move || {
                let says = |page: &Page, text: String| match page.contains(&text) {
                    true => Ok(()),
                    false => Err(Failed::from(format!(
                        "{}: no {text:?}",
                        page.path.display()
                    ))),
                };
                for map in &maps {
                    let map = std::fs::read_to_string(map)?;
                    let of = |what: &str| map.matches(what).count();
                    let (steps, checks) = (of("        Step {\n"), of("check!("));
                    says(&pair.0, format!("{steps} steps, {checks} checks"))?;
                    says(&pair.1, format!("{steps} pasos, {checks} comprobaciones"))?;
                }
                Ok(())
            },
        ),
        Trial::test("pages: every link to a file leads to one", move || {
            let broken: Vec<_> = links.iter().flat_map(Page::broken_links).collect();
            match broken.is_empty() {
                true => Ok(()),
                false => Err(Failed::from(broken.join("\n"))),
            }
        }),
        Trial::test(
            "pages: the test command is the one that CI takes",
            move || {
                let shown: Vec<_> = test_command.commands();
                let tests: Vec<_> = shown
                    .iter()
                    .filter(|line| line.starts_with("cargo test"))
                    .collect();
                same(
                    "test commands in README.md",
                    &tests,
                    &vec![&"cargo test --workspace".to_owned()],
                )?;
                let ci = std::fs::read_to_string(&ci)?;
                match ci.contains("grep -m 1 '^cargo test' README.md") {
                    true => Ok(()),
                    false => Err(Failed::from(
                        ".ci/run does not read it from README.md any more",
                    )),
                }
            },
        ),
    ]
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), Failed> {
    if one == other {
        return Ok(());
    }
    Err(Failed::from(format!(
        "{what} differ:\n  {one:#?}\n  {other:#?}"
    )))
}

/// One trial for each distinct command, named after it.
fn command_trials(root: &Path, pages: &[Page]) -> Vec<Trial> {
    let mut shown: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    for page in pages {
        let mut last = String::new();
        for command in page.commands() {
            before.entry(command.clone()).or_insert(last);
            shown.entry(command.clone()).or_insert(page.path.clone());
            last = command;
        }
    }
    let trial = |(command, page): (&String, &PathBuf)| {
        let (root, command, page) = (root.to_owned(), command.clone(), page.clone());
        let before = before[&command].clone();
        Trial::ignorable_test(command.clone(), move || {
            attempt(&root, &command, &before).map_err(|failed| {
                let why = failed.message().unwrap_or_default().to_owned();
                Failed::from(format!("{command}\nin {}: {why}", page.display()))
            })
        })
    };
    shown.iter().map(trial).collect()
}

fn attempt(root: &Path, command: &str, before: &str) -> Result<Completion, Failed> {
    let split = words(command);
    let split: Vec<_> = split.iter().map(String::as_str).collect();
    let Some(how) = how(&split) else {
        return Err(Failed::from(
            "a command that the table in this test does not know",
        ));
    };
    match how {
        How::NotHere(why) => return Ok(Completion::ignored_with(why)),
        How::WithTheOneBefore => {
            return match before.contains(" -- env ") {
                true => Ok(Completion::ignored_with("with the command before it")),
                false => Err(Failed::from("no env is shown before it")),
            };
        }
        How::Stage(stage) => {
            let ci = std::fs::read_to_string(root.join(".ci/run"))?;
            return match ci.contains(&format!("\nstage_{stage}() {{")) {
                true => Ok(Completion::ignored_with(format!(
                    "the stage {stage} of .ci/run"
                ))),
                false => Err(Failed::from(format!(".ci/run has no stage {stage}"))),
            };
        }
        How::Ends(..) | How::Shorter(..) | How::Waits(..) | How::Environment => {}
    }
    if !services_are_required() {
        return Ok(Completion::ignored_with(
            "tried with KATA_REQUIRE_SERVICES=1",
        ));
    }
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("server.js");
    std::fs::write(&program, JUST_BEGUN)?;
    let own = format!("node {}", program.display());
    let line = command.replace(OWN_PROGRAM, &own);
    // The shell becomes the command, so that Ctrl-C and the exit code are the command's own.
    let running = |line: &str| Running::start(root, &format!("exec {line}"));
    match how {
        How::Ends(codes, says) => running(&line)?.ends(codes, says)?,
        How::Shorter(more, codes, says) => running(&format!("{line} {more}"))?.ends(codes, says)?,
        How::Waits(ready, code) => running(&line)?.waits(ready, code)?,
        How::Environment => environment(root, &line, &own)?,
        How::WithTheOneBefore | How::Stage(_) | How::NotHere(_) => {}
    }
    Ok(Completion::Completed)
}

/// What the lesson tells: leave `env` running, start the program with its variables, judge that.
fn environment(root: &Path, line: &str, own: &str) -> Result<(), Failed> {
    // A fixed one might be somebody else's server's.
    let port = kata_lab::free_port()?.to_string();
    let mut env = Running::start(root, &format!("exec {}", line.replace(PORT_SHOWN, &port)))?;
    // The two come by different pipes, in any order.
    env.until("check --url")?;
    let said = env.until("export PORT=")?;
    let exports = said.lines().filter(|line| line.starts_with("export "));
    let exports: Vec<_> = exports.collect();
    let mut program = Running::start(root, &format!("{}\nexec {own}", exports.join("\n")))?;
    program.until("listening")?;
    let kata = line.split_whitespace().nth(3).unwrap_or_default();
    let check = format!("exec cargo run -p {kata} -- check --url http://127.0.0.1:{port}");
    // Where checks need more than a program that runs already, not all of it can be judged.
    Running::start(root, &check)?.ends(&[2, 3], "not started")?;
    program.kill()?;
    env.interrupted(0)
}

fn services_are_required() -> bool {
    std::env::var("KATA_REQUIRE_SERVICES").is_ok_and(|value| value == "1")
}
