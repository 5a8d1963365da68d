//! Colour, as a second signal: nothing is said by colour alone.

use anstyle::{AnsiColor, Style};

fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// What holds.
pub(crate) fn good(text: &str) -> String {
    painted(AnsiColor::Green.on_default(), text)
}

/// What is broken.
pub(crate) fn bad(text: &str) -> String {
    painted(AnsiColor::Red.on_default(), text)
}

/// What nothing can be said about.
pub(crate) fn warn(text: &str) -> String {
    painted(AnsiColor::Yellow.on_default(), text)
}

/// What is there to be found when one looks for it.
pub(crate) fn dim(text: &str) -> String {
    painted(Style::new().dimmed(), text)
}

/// What is read first.
pub(crate) fn strong(text: &str) -> String {
    painted(Style::new().bold(), text)
}
