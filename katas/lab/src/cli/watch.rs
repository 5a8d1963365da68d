//! `check --watch`: judge again whenever the code changes.
//!
//! Each run is a child: the code has to be built again, and a new program is the only way to run
//! it. The child has a process group of its own and ends with us, so nothing is left behind.

use std::{
    collections::BTreeMap,
    io::BufRead,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, SystemTime},
};

use shared::services::guard::{Guarded, OnOrphaned, Output, Program};
use tokio::sync::mpsc;

use super::{
    args::{CheckArgs, HintArgs},
    context::{Context, Ran, Refusal},
    hint,
    judging::subject,
    source,
};
use crate::report::{Subject, dim, text};

/// How often the files are looked at. Watching through the system would be a dependency for a few
/// dozen files, and does not work on shared folders of virtual machines.
const LOOK: Duration = Duration::from_millis(250);

/// Folders that programs write to while they are built or run, and that nobody edits.
const NOT_WATCHED: [&str; 8] = [
    "target",
    "node_modules",
    "dist",
    "build",
    "vendor",
    "venv",
    "__pycache__",
    "obj",
];

/// A folder with more files than this is not somebody's program.
const MOST_FILES: usize = 20_000;

/// What the files looked like.
type Snapshot = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

enum Why {
    Changed(PathBuf),
    Asked,
}

pub(super) async fn run(context: &Context, args: &CheckArgs, seed: Option<u64>) -> Ran {
    let subject = subject(context, args)?;
    let plan = Plan::new(context, args, &subject, seed)?;
    let mut keys = keys();
    let mut watcher = Watcher {
        seen: plan.look().await?,
        changed: None,
    };
    let mut last = 0;
    let mut runs = 0_u32;
    loop {
        runs += 1;
        let mut child = Some(plan.start()?);
        let why = loop {
            let ended = async {
                match &child {
                    Some(child) => child.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = ended => {
                    child = None;
                    last = code_of(status);
                    context.screen.line(dim(&plan.waiting(status)));
                    // A run writes no source; what changed meanwhile was somebody's edit.
                }
                changed = watcher.change(&plan) => break Why::Changed(changed?),
                key = keys.recv() => match key.as_deref().map(str::trim) {
                    Some("") => break Why::Asked,
                    Some("q" | "quit") => return Ok(last),
                    Some("h" | "hint") => {
                        let asked = HintArgs { step: args.step, again: false };
                        context.screen.line("");
                        hint::run(context, &asked)?;
                    }
                    Some(other) => context.screen.line(format!("{:?} means nothing here. {KEYS}", text::cut(&text::harmless(other), 20))),
                    // Standard input is closed: changes still count.
                    None => std::future::pending().await,
                },
            }
        };
        // Its group goes with it.
        drop(child);
        let what = match &why {
            Why::Changed(path) => format!("{} changed", path.display()),
            Why::Asked => "again".to_owned(),
        };
        let rule = format!("── run {} · {what} ", runs + 1);
        let fill = context.screen.columns().saturating_sub(text::width(&rule));
        context
            .screen
            .line(dim(&format!("\n{rule}{}", "─".repeat(fill))));
    }
}

const KEYS: &str = "Enter = again, h = a hint, q = quit";

/// The lines of standard input.
fn keys() -> mpsc::Receiver<String> {
    let (tell, keys) = mpsc::channel(8);
    // A thread, since reading blocks and cannot be cancelled: it ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
        // The sender stays, so that the end of the input is silence and not a stream of nothings.
        std::mem::forget(tell);
    });
    keys
}

/// What is watched, and what is run.
struct Plan {
    folder: PathBuf,
    program: Program,
    is_built: bool,
}

impl Plan {
    fn new(context: &Context, args: &CheckArgs, subject: &Subject, seed: Option<u64>) -> Ran<Self> {
        let kata = &context.kata;
        let current = std::env::current_dir()
            .map_err(|error| Refusal::new(format!("The current folder is gone: {error}")))?;
        let words = words(args, subject, seed);
        let (folder, cwd, start, is_built) = match subject {
            Subject::Id(_) => {
                let root = source::root(kata).ok_or_else(|| {
                    Refusal::new(format!(
                        "{} is not below the current folder or above it: call this from the repository.",
                        kata.exercise_file
                    ))
                })?;
                let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
                let start = [&cargo, "run", "-q", "-p", kata.name, "--"]
                    .map(str::to_owned)
                    .to_vec();
                let exercise = root.join(kata.exercise_file);
                let folder = exercise.parent().unwrap_or(&root).to_owned();
                (folder, root, start, true)
            }
            // The lab itself does not change; only the program in the current folder does.
            Subject::Command(_) | Subject::Url(_) => {
                let own = std::env::current_exe()?.to_string_lossy().into_owned();
                (current.clone(), current, vec![own], false)
            }
        };
        let program = Program::new(start.into_iter().chain(words))
            .cwd(cwd)
            .stdout(Output::Inherit)
            .stderr(Output::Inherit);
        Ok(Self {
            folder,
            program,
            is_built,
        })
    }

    fn start(&self) -> Ran<Guarded> {
        Guarded::spawn(self.program.clone(), OnOrphaned::KillGroup)
            .map_err(|error| Refusal::new(format!("The check cannot be started: {error}")))
    }

    fn waiting(&self, status: ExitStatus) -> String {
        let current = std::env::current_dir().unwrap_or_default();
        let folder = match self.folder.strip_prefix(&current) {
            Ok(below) if below.as_os_str().is_empty() => "this folder".to_owned(),
            Ok(below) => below.display().to_string(),
            Err(_) => self.folder.display().to_string(),
        };
        let head = match status.code() {
            // Cargo's own code: the compiler has said above what is wrong.
            Some(101) if self.is_built => "\nIt does not build yet.\n",
            _ => "\n",
        };
        format!("{head}Waiting for a change in {folder} · {KEYS}")
    }

    async fn look(&self) -> Ran<Snapshot> {
        let folder = self.folder.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let mut snapshot = Snapshot::new();
            look_into(&folder, &mut snapshot);
            snapshot
        });
        let snapshot = looked.await?;
        if snapshot.len() >= MOST_FILES {
            return Err(Refusal::new(format!(
                "{} holds more than {MOST_FILES} files, too many to watch: call this from your program's folder.",
                self.folder.display()
            )));
        }
        Ok(snapshot)
    }
}

/// What was seen so far. It is not kept in a future, since other things happen meanwhile and drop
/// that future.
struct Watcher {
    seen: Snapshot,
    changed: Option<PathBuf>,
}

impl Watcher {
    /// Returns when a file has changed and all of them have been quiet for one look.
    ///
    /// Cancel safe: a change that was seen is reported by the next call.
    async fn change(&mut self, plan: &Plan) -> Ran<PathBuf> {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = plan.look().await?;
            match difference(&self.seen, &now) {
                Some(path) => {
                    self.changed.get_or_insert(path);
                    self.seen = now;
                }
                None => {
                    if let Some(path) = self.changed.take() {
                        let shown = path.strip_prefix(&plan.folder).unwrap_or(&path);
                        return Ok(shown.to_owned());
                    }
                }
            }
        }
    }
}

/// The words after the program: this check without `--watch`.
fn words(args: &CheckArgs, subject: &Subject, seed: Option<u64>) -> Vec<String> {
    let mut words = vec!["check".to_owned()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    match subject {
        Subject::Id(id) => option("--variant", id.clone()),
        // One word, so that a command that begins with a dash is not taken for an option.
        Subject::Command(line) => words.push(format!("--cmd={line}")),
        Subject::Url(url) => words.push(format!("--url={url}")),
    }
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(step) = args.step {
        option("--step", step.to_string());
    }
    if let Some(seed) = seed {
        option("--seed", seed.to_string());
    }
    option("--repeat", args.repeat.to_string());
    option("--start-timeout", args.start_timeout.to_string());
    words
}

/// All files below a folder with their time and size.
fn look_into(folder: &Path, snapshot: &mut Snapshot) {
    // Whatever cannot be read is not there: an editor may be replacing it at this moment.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if snapshot.len() >= MOST_FILES {
            return;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        // Hidden ones: version control, caches, swap files of editors.
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        if kind.is_dir() {
            if !NOT_WATCHED.contains(&&*name) {
                look_into(&entry.path(), snapshot);
            }
        } else if let Ok(about) = entry.metadata() {
            snapshot.insert(entry.path(), (about.modified().ok(), about.len()));
        }
    }
}

/// A file that is new, gone or different.
fn difference(before: &Snapshot, after: &Snapshot) -> Option<PathBuf> {
    let changed = after
        .iter()
        .find(|(path, state)| before.get(*path) != Some(state));
    let gone = || before.iter().find(|(path, _)| !after.contains_key(*path));
    changed.or_else(gone).map(|(path, _)| path.clone())
}

fn code_of(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sees_what_is_edited_and_not_what_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("src")).unwrap();
        fs::create_dir_all(at("node_modules/x")).unwrap();
        fs::write(at("src/a.js"), "1").unwrap();
        let look = || {
            let mut snapshot = Snapshot::new();
            look_into(folder.path(), &mut snapshot);
            snapshot
        };
        let before = look();
        fs::write(at("node_modules/x/b.js"), "1").unwrap();
        fs::write(at("src/.a.js.swp"), "1").unwrap();
        assert_eq!(difference(&before, &look()), None);
        fs::write(at("src/a.js"), "22").unwrap();
        assert_eq!(difference(&before, &look()), Some(at("src/a.js")));
        fs::remove_file(at("src/a.js")).unwrap();
        assert_eq!(difference(&before, &look()), Some(at("src/a.js")));
    }
}
