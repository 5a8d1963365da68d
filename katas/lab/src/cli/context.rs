//! What every verb works with: the kata, the screen, and services that are opened when needed.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::OnceCell;

use crate::{
    grounds::Grounds,
    kata::{Kata, Variant},
    report::{Screen, text},
    runner::Session,
};

/// Something that keeps us from doing what was asked. One message, exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is wrong, and what to do about it.
    pub(super) message: String,
    /// The last lines of the program under test.
    pub(super) output: Vec<String>,
}

impl Refusal {
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            output: Vec::new(),
        }
    }
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// An exit code, or why there is none.
pub(super) type Ran<T = u8> = Result<T, Refusal>;

/// How long services may take to go before we leave them to their watchers.
const CLOSE: Duration = Duration::from_secs(10);

/// One run of the command line.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) kata: Arc<Kata>,
    pub(super) screen: Screen,
    pub(super) seed: u64,
    grounds: Arc<OnceCell<Arc<Grounds>>>,
}

impl Context {
    pub(super) fn new(kata: Kata, seed: Option<u64>) -> Self {
        Self {
            kata: Arc::new(kata),
            screen: Screen::stdout(),
            // Four digits are enough for variety and short enough to be typed.
            seed: seed.unwrap_or_else(|| u64::from(rand::random::<u32>() % 9_000) + 1_000),
            grounds: Arc::default(),
        }
    }

    /// The services, found or started when they are first asked for.
    pub(super) async fn grounds(&self) -> Ran<&Arc<Grounds>> {
        let open = async || {
            let given = &self.kata.given;
            let coming_up = given.database.then_some("PostgreSQL is coming up");
            let _waiting = coming_up.map(|said| self.screen.waiting(said));
            Grounds::open(given).await
        };
        Ok(self.grounds.get_or_try_init(open).await?)
    }

    /// A session on these services.
    pub(super) async fn session(&self, start_timeout: Duration) -> Ran<Arc<Session>> {
        let grounds = self.grounds().await?.clone();
        Ok(Arc::new(Session::new(
            self.kata.clone(),
            grounds,
            self.seed,
            start_timeout,
        )))
    }

    /// Stops what this run started.
    pub(super) async fn close(&self) {
        if let Some(grounds) = self.grounds.get() {
            // What does not stop in time is ended by its watcher when we are gone.
            let _ = tokio::time::timeout(CLOSE, grounds.close()).await;
        }
    }

    /// A command for this kata, as one types it: `cargo run -p kata-… -- check`.
    pub(super) fn command(&self, words: &str) -> String {
        command(self.kata.name, words)
    }

    /// A variant by its id.
    pub(super) fn variant(&self, id: &str) -> Ran<&Variant> {
        self.kata.variant(id).ok_or_else(|| {
            let known: Vec<_> = self
                .kata
                .variants
                .iter()
                .map(|variant| variant.id)
                .collect();
            Refusal::new(format!(
                "There is no variant {id:?} in {}.\nThere are: {}.",
                self.kata.name,
                known.join(", ")
            ))
        })
    }

    /// Refuses a step that the kata does not have.
    pub(super) fn step_exists(&self, step: usize) -> Ran<()> {
        if (1..=self.kata.steps.len()).contains(&step) {
            return Ok(());
        }
        let mut said = format!("There is no step {step} in {}. There are:", self.kata.name);
        for (index, step) in self.kata.steps.iter().enumerate() {
            said.push_str(&format!("\n  {:>2}  {}", index + 1, step.title));
        }
        Err(Refusal::new(said))
    }

    /// The first line: what this is, and something at the other end.
    pub(super) fn headline(&self, about: &str, right: &str) -> String {
        let about = if about.is_empty() {
            String::new()
        } else {
            format!(" · {about}")
        };
        let left = format!("kata {} · {}{about}", self.kata.number(), self.kata.title);
        let line = text::ends(&left, right, self.screen.columns());
        line.replacen(&left, &crate::report::strong(&left), 1)
    }
}

/// A command for a kata, as one types it.
pub(crate) fn command(kata: &str, words: &str) -> String {
    format!("cargo run -p {kata} -- {words}")
}
