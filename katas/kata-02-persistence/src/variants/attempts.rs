//! The loop around a transaction: what PostgreSQL refuses for the sake of order is tried again.

use std::time::Duration;

use rand::RngExt;
use shared::db::{SqlFailure, TxOptions, begin};
use sqlx::{PgPool, PgTransaction};

use crate::contract::Answered;

/// Serialization failure and deadlock: nothing of it happened, and the next attempt may succeed.
const LOST_RACES: [&str; 2] = ["40001", "40P01"];

/// One transaction, begun as often as it takes.
///
/// ```text
/// loop {
///     let mut tx = attempts.begin(&db).await?;
///     let outcome = work(&mut tx).await;
///     if let Some(answer) = attempts.end(tx, outcome).await {
///         return answer;
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Attempts {
    options: TxOptions,
    made: u32,
}

impl Attempts {
    /// As many attempts as the options say.
    pub fn new(options: TxOptions) -> Self {
        Self { options, made: 0 }
    }

    /// How many attempts have ended.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Begins the next attempt.
    ///
    /// # Errors
    /// No connection, or a broken one.
    pub async fn begin(&self, db: &PgPool) -> Result<PgTransaction<'static>, sqlx::Error> {
        begin(db, &self.options).await
    }

    /// Commits what went well and rolls back what did not. `None` if another attempt is due, after
    /// a pause of random length, so that those who collided do not meet again.
    pub async fn end<T>(
        &mut self,
        tx: PgTransaction<'static>,
        outcome: Answered<T>,
    ) -> Option<Answered<T>> {
        self.made += 1;
        let failure = match outcome {
            Ok(value) => match tx.commit().await {
                Ok(()) => return Some(Ok(value)),
                Err(error) => error.into(),
            },
            Err(failure) => {
                // Should it fail, the connection is broken, and rolled back with that.
                let _ = tx.rollback().await;
                failure
            }
        };
        if self.made >= self.options.attempts || !is_lost_race(&failure) {
            return Some(Err(failure));
        }
        tokio::time::sleep(self.pause()).await;
        None
    }

    fn pause(&self) -> Duration {
        let doubled = self.options.backoff * 2_u32.pow(self.made.min(10));
        doubled
            .min(self.options.backoff_limit)
            .mul_f64(rand::rng().random())
    }
}

/// Whether PostgreSQL refused only because of what others did at the same time.
pub fn is_lost_race(failure: &impl SqlFailure) -> bool {
    let database = failure.sql().and_then(sqlx::Error::as_database_error);
    let code = database.and_then(|error| error.code());
    code.is_some_and(|code| LOST_RACES.contains(&code.as_ref()))
}
