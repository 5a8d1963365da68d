//! How a handler fails.

use std::fmt;
use std::time::Duration;

/// Why a message was not done, and what is to become of it.
///
/// Every error type becomes a `Retry`, so that `?` works in handlers. It is no error type itself,
/// for that reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another attempt may succeed.
    Retry {
        /// For people.
        error: String,
        /// Not before this time; otherwise as the worker's `Backoff` says.
        after: Option<Duration>,
    },
    /// No attempt will succeed: to the dead letters at once.
    Dead {
        /// For people.
        error: String,
    },
}

impl Failure {
    /// Another attempt may succeed.
    pub fn retry(error: impl fmt::Display) -> Self {
        Self::Retry {
            error: error.to_string(),
            after: None,
        }
    }

    /// Another attempt may succeed, after this time: what a `Retry-After` said, for example.
    pub fn retry_after(error: impl fmt::Display, after: Duration) -> Self {
        Self::Retry {
            error: error.to_string(),
            after: Some(after),
        }
    }

    /// No attempt will succeed.
    pub fn dead(error: impl fmt::Display) -> Self {
        Self::Dead {
            error: error.to_string(),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    /// With its sources, since nobody will see it but as this text.
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            // Many messages end with that of their source.
            if !text.ends_with(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            source = inner.source();
        }
        Self::retry(text)
    }
}
