//! What can be typed: the verbs and their options, with their help.

use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::own::{Typed, described};
use crate::kata::Kata;

/// Every reader of JSON keeps a whole number up to here, and so does every repeat after it.
const GREATEST_SEED: u64 = (1 << 53) - 20_000;

const ALL_HELP: &str = "\
Without a verb: watch the failure happen, then see where your own exercise stands.
The lesson and the contract are in the README beside the source.";

const CHECK_HELP: &str = "\
Exit codes:
  0  all passed
  1  something failed
  2  could not judge: usage, a missing service, a program that does not start, checks that were
     inconclusive or not run
  3  nothing failed, and something is not started";

#[derive(Debug, Clone, Parser)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(super) struct Cli {
    /// The seed of every random choice; a failure shows it, and the same one repeats it
    /// [default: a new one each time]
    #[arg(long, value_name = "S", global = true, value_parser = clap::value_parser!(u64).range(..=GREATEST_SEED))]
    pub(super) seed: Option<u64>,

    #[command(subcommand)]
    pub(super) verb: Option<Verb>,

    /// One of the kata's own verbs, instead of those above.
    #[arg(skip)]
    pub(super) own: Option<Typed>,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Verb {
    /// Judge the exercise, another variant, or a program in any language
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Show one more hint: a question, a pointer, nearly the answer
    Hint(HintArgs),
    /// Judge every variant by every check: the proof that the checks can tell right from wrong
    Matrix(MatrixArgs),
    /// Start a variant with its services and fakes, to be tried with curl
    Serve(ServeArgs),
    /// Open the environment that a program is given, print its variables, and wait; meanwhile
    /// `check --url` judges the program that you start with them
    Env(EnvArgs),
    /// Print what an implementation must offer, in any language
    Contract(ContractArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    /// Only the checks of this step [default: all steps]
    #[arg(long, value_name = "N")]
    pub(super) step: Option<usize>,

    /// A variant that comes with the kata
    #[arg(long, value_name = "NAME", default_value = "exercise")]
    pub(super) variant: String,

    /// A program in any language: run by `sh -c` in the current folder, told its port and addresses
    /// by environment variables
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["variant", "url"])]
    pub(super) cmd: Option<String>,

    /// A program that runs already, started with the variables that `env` printed
    #[arg(long, value_name = "URL", conflicts_with = "variant")]
    pub(super) url: Option<String>,

    /// Judge again whenever a source file changes
    #[arg(long, conflicts_with = "json")]
    pub(super) watch: bool,

    /// Judge N times, with the seeds S, S+1, …, and count the verdicts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) repeat: u32,

    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(super) json: bool,

    /// How long a program may take until `GET /health` answers 200, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(super) start_timeout: u64,
}

impl CheckArgs {
    pub(super) fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout)
    }
}

#[derive(Debug, Clone, Args)]
pub(super) struct HintArgs {
    /// The step [default: the first one that the last `check` did not find done]
    pub(super) step: Option<usize>,

    /// Begin with the first hint again
    #[arg(long)]
    pub(super) again: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct MatrixArgs {
    /// Only the checks of this step [default: all steps]
    #[arg(long, value_name = "N")]
    pub(super) step: Option<usize>,

    /// Measure N times, with the seeds S, S+1, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) repeat: u32,

    /// Only this variant; may be given several times [default: all but the exercise]
    #[arg(long, value_name = "NAME")]
    pub(super) variant: Vec<String>,

    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    /// A variant that comes with the kata
    #[arg(long, value_name = "NAME", default_value = "reference")]
    pub(super) variant: String,

    /// The port on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct EnvArgs {
    /// The form in which the variables are printed
    #[arg(long, value_enum, default_value_t = Format::Export)]
    pub(super) format: Format,

    /// The PORT that your program is told to listen on [default: a free one]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// `export NAME=value`, for a shell
    Export,
    /// `NAME=value`, for a .env file
    Dotenv,
    /// One object
    Json,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ContractArgs {
    /// The language of the text
    #[arg(long, value_enum, default_value_t = Lang::En)]
    pub(super) lang: Lang,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Lang {
    /// English
    En,
    /// Spanish
    Es,
}

impl Cli {
    /// Reads a command line of this kata.
    pub(super) fn read(
        kata: &Kata,
        line: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command()
            .name(kata.name)
            .bin_name(format!("cargo run -p {} --", kata.name))
            .about(format!(
                "Kata {}, {}: {}",
                kata.number(),
                kata.title,
                kata.promise
            ))
            .after_help(ALL_HELP);
        for own in kata.commands {
            command = command.subcommand(described(own));
        }
        let matches = command.try_get_matches_from_mut(line)?;
        if let Some(typed) = Typed::read(kata.commands, &matches) {
            return Ok(Self {
                seed: matches.get_one("seed").copied(),
                verb: None,
                own: Some(typed),
            });
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Whether the answer must be JSON, whatever it is.
    pub(super) fn is_json(&self) -> bool {
        match &self.verb {
            Some(Verb::Check(check)) => check.json,
            Some(Verb::Matrix(matrix)) => matrix.json,
            _ => false,
        }
    }
}
