//! The command line that every kata gets.

mod args;
mod check;
mod context;
mod contract;
mod desk;
mod env;
mod hint;
mod judging;
mod matrix;
mod memory;
mod own;
mod serve;
mod source;
mod story;
mod watch;

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use check::again;
pub(crate) use context::command;
pub(crate) use own::Lent;

use crate::{
    kata::Kata,
    report::{bad, text},
};
use args::{Cli, Verb};
use context::{Context, Ran, Refusal};

/// Could not do what was asked.
const REFUSED: u8 = 2;

/// Runs the command line of a kata and returns its exit code.
///
/// Ends itself, and everything that it started, on SIGINT, SIGTERM and SIGHUP.
pub fn main(kata: Kata) -> ExitCode {
    ExitCode::from(run(kata))
}

/// Whether these words can be typed after `cargo run -p <kata> --`.
pub(crate) fn accepts(kata: &Kata, words: &[String]) -> bool {
    let line = std::iter::once(kata.name).chain(words.iter().map(String::as_str));
    Cli::read(kata, line.map(Into::into)).is_ok()
}

fn run(kata: Kata) -> u8 {
    keep_panics_for_one_line();
    let line: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(&kata, line.iter().cloned()) {
        Ok(cli) => cli,
        Err(error) => {
            let wants_json = line.iter().any(|word| word == "--json");
            if wants_json && error.use_stderr() {
                let message = error.render().to_string();
                let message = message.trim_start_matches("error: ");
                return refuse(kata.name, true, &Refusal::new(message.trim_end()));
            }
            // Whoever reads the help with `| head` has seen enough.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(REFUSED);
        }
    };
    let (name, json) = (kata.name.to_owned(), cli.is_json());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return refuse(
                &name,
                json,
                &Refusal::new(format!("No threads to work with: {error}")),
            );
        }
    };
    let context = Context::new(kata, cli.seed);
    let ran = runtime.block_on(async {
        let ran = guarded(&context, &cli).await;
        context.close().await;
        ran
    });
    // A blocking thread of an implementation may never end; we do.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match ran {
        Ok(code) => code,
        Err(refusal) => refuse(&name, json, &refusal),
    }
}

/// Runs the verb until it is done, a signal comes, or nobody reads any more.
async fn guarded(context: &Context, cli: &Cli) -> Ran {
    let mut signals = Signals::new()?;
    let verb = AssertUnwindSafe(run_verb(context, cli)).catch_unwind();
    tokio::select! {
        ran = verb => ran.unwrap_or_else(|_| Err(Refusal::new(format!(
            "A mistake in the gym itself, not in your code: {}.\nPlease report it.",
            last_panic(),
        )))),
        code = signals.next() => {
            // The second one does not wait for anything to be tidied up.
            tokio::spawn(async move {
                let code = signals.next().await;
                std::process::exit(i32::from(code));
            });
            Ok(match cli.verb {
                // They wait until somebody ends them: that is how they succeed.
                Some(Verb::Serve(_) | Verb::Env(_)) => 0,
                _ => code,
            })
        }
        kind = context.screen.lost() => match kind {
            std::io::ErrorKind::BrokenPipe => Ok(REFUSED),
            kind => Err(Refusal::new(format!("Standard output cannot be written to: {kind}."))),
        }
    }
}

async fn run_verb(context: &Context, cli: &Cli) -> Ran {
    if let Some(typed) = &cli.own {
        return own::run(context, typed).await;
    }
    match &cli.verb {
        None => story::run(context).await,
        Some(Verb::Check(args)) if args.watch => watch::run(context, args, cli.seed).await,
        Some(Verb::Check(args)) => check::run(context, args).await,
        Some(Verb::Hint(args)) => hint::run(context, args),
        Some(Verb::Matrix(args)) => matrix::run(context, args).await,
        Some(Verb::Serve(args)) => serve::run(context, args).await,
        Some(Verb::Env(args)) => env::run(context, args).await,
        Some(Verb::Contract(args)) => contract::run(context, args),
    }
}

/// Says why it cannot be done: on standard error, or as the one JSON object.
fn refuse(kata: &str, json: bool, refusal: &Refusal) -> u8 {
    use std::io::Write;
    if json {
        let mut said = serde_json::json!({ "kata": kata, "error": refusal.message });
        if !refusal.output.is_empty() {
            said["output"] = refusal.output.clone().into();
        }
        // If nobody reads it, the exit code still says so.
        let _ = writeln!(std::io::stdout(), "{said}");
        return REFUSED;
    }
    let columns = text::columns();
    let mut said = format!("{} ", bad("✗"));
    // Commands in a message are lines of their own and stay whole.
    for (index, line) in refusal.message.lines().enumerate() {
        let indent = if index == 0 { "" } else { "  " };
        match line.starts_with("  ") {
            true => said.push_str(&format!("{indent}{}\n", text::harmless(line))),
            false => {
                let lines = text::wrap(line, columns - 2);
                said.push_str(&format!("{indent}{}\n", lines.join("\n  ")));
            }
        }
    }
    if !refusal.output.is_empty() {
        said.push_str(&crate::report::written(&refusal.output, columns));
    }
    let _ = anstream::stderr().lock().write_all(said.as_bytes());
    REFUSED
}

/// The signals that end us politely.
struct Signals([(Signal, u8); 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        // The exit codes are those that a shell gives a program that dies of the signal.
        let listen = |kind, code| Ok::<_, std::io::Error>((signal(kind)?, code));
        Ok(Self([
            listen(SignalKind::interrupt(), 130)?,
            listen(SignalKind::terminate(), 143)?,
            listen(SignalKind::hangup(), 129)?,
        ]))
    }

    async fn next(&mut self) -> u8 {
        let [(interrupt, a), (terminate, b), (hangup, c)] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => *a,
            _ = terminate.recv() => *b,
            _ = hangup.recv() => *c,
        }
    }
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Panics are kept instead of shown: a check's own mistake becomes a verdict, and ours becomes one
/// line at the end. Neither helps a learner as a backtrace.
fn keep_panics_for_one_line() {
    std::panic::set_hook(Box::new(|panic| {
        let said = panic
            .payload_as_str()
            .unwrap_or("a panic without a message")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let place = panic
            .location()
            .map(|place| format!(" ({place})"))
            .unwrap_or_default();
        let mut last = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(format!("{said}{place}"));
    }));
}

fn last_panic() -> String {
    let last = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
    last.clone().unwrap_or_else(|| "a panic".to_owned())
}
