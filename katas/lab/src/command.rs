//! Verbs that a kata has besides those that all katas share: `isolation`, `anomaly`.
//!
//! A kata lists them in its map, with their arguments and their help; the command line reads them
//! as it reads its own, and wrong input ends in the same way: one message, exit code 2.

use std::{collections::BTreeMap, fmt};

use shared::services::Postgres;

use crate::{
    app::BoxError,
    cli::Lent,
    kata::BoxFuture,
    report::{Progress, Screen, text},
};

/// A verb of a kata's own.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What it does, in one line of the help.
    pub about: &'static str,
    /// What can be typed after it.
    pub arguments: &'static [Argument],
    /// Does it. An error is shown as the reason why it could not be done, with exit code 2.
    pub run: fn(Call) -> BoxFuture<Result<(), BoxError>>,
}

/// An argument of a [`Command`].
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// How it is asked for: `level` is typed as `--level`.
    pub name: &'static str,
    /// What the help says.
    pub help: &'static str,
    /// What the help calls the value: `LEVEL`.
    pub value: &'static str,
    /// It has to be there, and is typed without its name.
    pub positional: bool,
    /// The values that there are; everything is taken if there are none.
    pub known: &'static [&'static str],
}

/// One call of a command: what was typed, where to print, and services when they are needed.
#[derive(Clone)]
pub struct Call {
    pub(crate) lent: Lent,
    pub(crate) screen: Screen,
    pub(crate) seed: u64,
    pub(crate) values: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// The value of an argument, if it was typed.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The seed of every random choice.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The PostgreSQL of this run, found or started now.
    ///
    /// # Errors
    /// Why there is none, and how to get one.
    pub async fn postgres(&self) -> Result<Postgres, BoxError> {
        self.lent.postgres().await
    }

    /// How many columns there are to write in.
    pub fn columns(&self) -> usize {
        self.screen.columns()
    }

    /// The first line: which kata this is, what about, and something at the other end.
    pub fn headline(&self, about: &str, right: &str) {
        self.screen.line(self.lent.headline(about, right));
    }

    /// A paragraph, wrapped to the width, with an empty line after it.
    pub fn say(&self, paragraph: impl AsRef<str>) {
        let lines = text::wrap(paragraph.as_ref(), self.columns());
        self.screen.print(&format!("{}\n\n", lines.join("\n")));
    }

    /// Text that brings its own line breaks.
    pub fn print(&self, printed: &str) {
        self.screen.print(printed);
    }

    /// Progress on standard error while something runs; it disappears when it is dropped.
    pub fn progress(&self, total: usize, what: &str) -> Progress {
        self.screen.progress(total, what)
    }
}
