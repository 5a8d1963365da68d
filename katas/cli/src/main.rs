//! `cargo kata`: where somebody stands in all katas, and a short way to each of them.
//!
//! The katas are started as programs and none is linked: one that does not build costs its own row
//! and not the table, and this stays as quick to build as it is small.

mod judged;
mod katas;
mod overview;
mod report;

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use clap::{Parser, Subcommand};
use judged::Judged;
use kata_lab::report::Screen;
use katas::{Error, Katas};

const HELP: &str = "\
cargo kata 4              the same as cargo run -p kata-04-… (a number, or the name)
cargo kata 4 check        every verb of a kata; cargo kata 4 --help lists them

Exit codes of the table and the report, as of a kata's check:
  0  all passed
  1  something failed
  2  could not judge
  3  nothing failed, and something is not started";

/// All katas: without a verb, where your exercises stand and what comes next.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo kata", after_help = HELP, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Every check of every exercise, for instructors
    Report {
        /// Print one JSON object and nothing else
        #[arg(long)]
        json: bool,
    },
    /// A kata by its number or name, and what is for it
    #[command(external_subcommand)]
    Kata(Vec<OsString>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if matches!(cli.verb, Some(Verb::Report { json: true })) {
                println!("{}", serde_json::json!({ "error": error.to_string() }));
            } else {
                Screen::stderr().line(format!("✗ {error}"));
            }
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<u8, Error> {
    let katas = Katas::find()?;
    let screen = Screen::stdout();
    match &cli.verb {
        None => {
            let judged = judge(&katas, &screen);
            screen.print(&overview::overview(&judged, screen.columns()));
            Ok(judged::exit_code(&judged))
        }
        Some(Verb::Report { json }) => {
            let judged = judge(&katas, &screen);
            match json {
                true => screen.line(report::as_json(&judged)),
                false => screen.print(&report::as_text(&judged, screen.columns())),
            }
            Ok(judged::exit_code(&judged))
        }
        Some(Verb::Kata(words)) => {
            let (kata, words) = words.split_first().ok_or(Error::NoKata)?;
            let kata = katas.named(&kata.to_string_lossy())?;
            // Its signals, its terminal and its exit code are then the kata's own.
            Err(Error::CargoDoesNotRun(katas.run(kata).args(words).exec()))
        }
    }
}

/// One after the other: each of them keeps all cores busy by itself.
fn judge(katas: &Katas, screen: &Screen) -> Vec<Judged> {
    let waiting = screen.waiting("the katas");
    katas
        .names()
        .map(|name| {
            waiting.say(name);
            Judged::from_run(name, katas.run(name).args(["check", "--json"]))
        })
        .collect()
}
