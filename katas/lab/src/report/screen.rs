//! Where text goes: standard output, with progress on standard error while something runs.

use std::{
    fmt,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text;

/// A place to print to. Cloning gives another handle to the same place.
#[derive(Clone)]
pub struct Screen(Arc<Inner>);

struct Inner {
    to: To,
    columns: usize,
    progress: MultiProgress,
    lost: tokio::sync::watch::Sender<Option<std::io::ErrorKind>>,
}

enum To {
    Stdout,
    Stderr,
    Memory(Mutex<String>),
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

impl Screen {
    /// Standard output; colour only if that is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        Self::to(To::Stdout, text::columns(), MultiProgress::new())
    }

    /// Standard error, for what is not the result of a command.
    pub fn stderr() -> Self {
        Self::to(To::Stderr, text::columns(), MultiProgress::new())
    }

    /// Keeps what is printed, without colour; for tests.
    pub fn memory(columns: usize) -> Self {
        let hidden = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self::to(To::Memory(Mutex::default()), columns, hidden)
    }

    fn to(to: To, columns: usize, progress: MultiProgress) -> Self {
        let (lost, _) = tokio::sync::watch::channel(None);
        Self(Arc::new(Inner {
            to,
            columns,
            progress,
            lost,
        }))
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.0.columns
    }

    /// Prints as it is; the text brings its own line breaks.
    pub fn print(&self, printed: &str) {
        let written = self.0.progress.suspend(|| match &self.0.to {
            To::Stdout => {
                let mut out = anstream::stdout().lock();
                out.write_all(printed.as_bytes()).and_then(|()| out.flush())
            }
            To::Stderr => anstream::stderr().lock().write_all(printed.as_bytes()),
            To::Memory(text) => {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&anstream::adapter::strip_str(printed).to_string());
                Ok(())
            }
        });
        if let Err(error) = written {
            self.0.lost.send_replace(Some(error.kind()));
        }
    }

    /// Prints a line.
    pub fn line(&self, line: impl fmt::Display) {
        self.print(&format!("{line}\n"));
    }

    /// Returns when nobody reads any more (`| head`), or when nothing can be written.
    pub async fn lost(&self) -> std::io::ErrorKind {
        let mut lost = self.0.lost.subscribe();
        loop {
            if let Some(kind) = *lost.borrow_and_update() {
                return kind;
            }
            if lost.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What was printed, if this is a screen in memory.
    pub fn printed(&self) -> String {
        match &self.0.to {
            To::Memory(text) => text.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            To::Stdout | To::Stderr => String::new(),
        }
    }

    /// A progress line on standard error while something runs; nothing where that is no terminal.
    pub fn progress(&self, total: usize, what: &str) -> Progress {
        let bar = self.0.progress.add(ProgressBar::new(total as u64));
        let style = ProgressStyle::with_template("{spinner} {pos} of {len} {msg} {elapsed:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.tick_chars("⠁⠂⠄⡀⢀⠠⠐⠈ "));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }

    /// A line on standard error while something without a known length runs.
    pub fn waiting(&self, what: &str) -> Progress {
        let bar = self.0.progress.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style.tick_chars("⠁⠂⠄⡀⢀⠠⠐⠈ "));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }
}

/// A progress line; it disappears when it is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// One more is done.
    pub fn step(&self) {
        self.0.inc(1);
    }

    /// So many are done.
    pub fn reached(&self, done: usize) {
        self.0.set_position(done as u64);
    }

    /// Says what is going on now.
    pub fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
