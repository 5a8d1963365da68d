//! What an implementation in Rust is: a function from an environment to an application.
//!
//! The same variables reach a program in another language through its process environment, so
//! nothing in here may carry more than text.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
};
use tokio::time::sleep;

/// Any error; an implementation that cannot start returns one and the lab shows it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The variables that an implementation is given: `PORT`, `DATABASE_URL`, the addresses of the
/// fakes, and the kata's own limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

/// A variable that is missing or does not say what it should.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    /// The contract names it, and it is not there.
    #[error("{0} is not set")]
    Missing(String),
    /// It is there and is not a whole number of milliseconds.
    #[error("{name} is {value:?}: expected a whole number of milliseconds")]
    NotMillis {
        /// The variable.
        name: String,
        /// Its text.
        value: String,
    },
    /// It is there and is not a whole number.
    #[error("{name} is {value:?}: expected a whole number")]
    NotANumber {
        /// The variable.
        name: String,
        /// Its text.
        value: String,
    },
}

impl Env {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; the last value counts.
    pub fn set(&mut self, name: impl Into<String>, value: impl ToString) -> &mut Self {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// A variable that the contract promises.
    ///
    /// # Errors
    /// [`EnvError::Missing`] if it is not set.
    pub fn text(&self, name: &str) -> Result<&str, EnvError> {
        self.0
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| EnvError::Missing(name.to_owned()))
    }

    /// A variable in whole milliseconds.
    ///
    /// # Errors
    /// [`EnvError::Missing`], or [`EnvError::NotMillis`] if it is no whole number.
    pub fn millis(&self, name: &str) -> Result<Duration, EnvError> {
        let value = self.text(name)?;
        value
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| EnvError::NotMillis {
                name: name.to_owned(),
                value: value.to_owned(),
            })
    }

    /// A variable that is a whole number: how many of something.
    ///
    /// # Errors
    /// [`EnvError::Missing`], or [`EnvError::NotANumber`].
    pub fn number(&self, name: &str) -> Result<usize, EnvError> {
        let value = self.text(name)?;
        value.parse().map_err(|_| EnvError::NotANumber {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }

    /// All variables in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A background task: it ends when the application does.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An application: the routes it answers and the tasks that run beside them.
///
/// The lab serves the router on a port, spawns the tasks, and ends both together: politely on a
/// stop, at any await on a crash.
pub struct App {
    pub(crate) router: Router,
    pub(crate) tasks: Vec<Task>,
}

impl App {
    /// An application with these routes and no background task. The lab adds `GET /health`
    /// answering 200 unless the router has one.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            tasks: Vec::new(),
        }
    }

    /// One more background task, spawned when the application starts.
    #[must_use]
    pub fn with_task(mut self, task: impl Future<Output = ()> + Send + 'static) -> Self {
        self.tasks.push(Box::pin(task));
        self
    }

    /// The same, but each request waits so long before its handler begins, and its answer so long
    /// again before it leaves.
    pub(crate) fn slowed(mut self, by: Duration) -> Self {
        let late = move |request: Request, next: Next| async move {
            sleep(by).await;
            let answer = next.run(request).await;
            sleep(by).await;
            answer
        };
        self.router = self.router.layer(from_fn(late));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_no_number_is_named() {
        let mut env = Env::new();
        env.set("QUEUE_LIMIT", 20).set("FETCH_LIMIT", "-1");
        assert_eq!(env.number("QUEUE_LIMIT"), Ok(20));
        let wrong = env.number("FETCH_LIMIT").unwrap_err().to_string();
        assert_eq!(wrong, r#"FETCH_LIMIT is "-1": expected a whole number"#);
        assert!(env.number("OTHER").is_err());
    }
}
