//! What can go wrong with a key, by what the caller can do about it.

/// Why a key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The header is missing, or holds no key. Tell the client: 400.
    #[error("{0}")]
    BadKey(&'static str),
    /// `Options` or `Terms` that cannot work: a mistake in the program.
    #[error("{0}")]
    Unusable(&'static str),
    /// The in-transaction form was called outside a transaction, where it protects nothing.
    #[error("idempotency::claim and complete need a transaction: use db::begin or db::transaction")]
    NoTransaction,
    /// The database has failed, or a wait for a lock was too long. Nothing is known of the key.
    #[error("the idempotency store failed: {0}")]
    Sql(#[from] sqlx::Error),
}

impl crate::db::SqlFailure for IdempotencyError {
    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error) => Some(error),
            _ => None,
        }
    }
}
