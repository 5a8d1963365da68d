//! What can go wrong with the outbox, by what a caller can do about it.

/// Why an event was not staged, or the outbox not read.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The event can never be stored. Change it.
    #[error("the event cannot be staged: {0}")]
    Invalid(String),
    /// The database refuses or cannot be reached. Inside a transaction: roll it back.
    #[error("the outbox cannot be used: {0}")]
    Sql(#[from] sqlx::Error),
}

impl crate::db::SqlFailure for OutboxError {
    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error) => Some(error),
            Self::Invalid(_) => None,
        }
    }
}
