//! The form with a lease: for work whose effects are outside the database, and for the layer.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};

use super::{Answer, Claim, Fingerprint, IdempotencyError, Key, Scope, Token, store};

/// How long a claim and an answer last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a claim lasts without a sign of life, default 10 s: what the next attempt waits
    /// after a crash.
    pub lease: Duration,
    /// How long an answer is remembered after it was stored, default 24 h. Tell it to your clients:
    /// what comes later runs again.
    pub ttl: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Terms {
    fn check(&self) -> Result<(), IdempotencyError> {
        if self.lease < Duration::from_millis(1) {
            return Err(IdempotencyError::Unusable(
                "a lease below 1 ms is over before anybody can renew it",
            ));
        }
        if self.ttl < self.lease {
            return Err(IdempotencyError::Unusable(
                "the time to live of an answer must not be shorter than the lease",
            ));
        }
        // Beyond that, a date may be more than PostgreSQL can hold.
        if self.ttl > Duration::from_secs(100 * 366 * 24 * 60 * 60) {
            return Err(IdempotencyError::Unusable(
                "the time to live of an answer must be below 100 years",
            ));
        }
        Ok(())
    }
}

/// Keys with leases, on one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys {
    pool: PgPool,
    terms: Terms,
}

impl Keys {
    /// Needs the tables of `idempotency::MIGRATIONS`.
    ///
    /// # Errors
    /// `Unusable`: terms that cannot work.
    pub fn new(pool: PgPool, terms: Terms) -> Result<Self, IdempotencyError> {
        terms.check()?;
        Ok(Self { pool, terms })
    }

    /// As it was given.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Takes the key, or says why not. At most two round trips, no connection is held afterwards.
    ///
    /// If the process dies after it: the key is free for the same request when the lease is over.
    ///
    /// # Errors
    /// `Sql`: do not run the work then. Without a store nobody knows whether it ran before.
    ///
    /// # Cancel safety
    /// A future that is dropped may have taken the key; it is free again when the lease is over.
    pub async fn claim(
        &self,
        scope: &Scope,
        key: &Key,
        fingerprint: &Fingerprint,
    ) -> Result<Claim, IdempotencyError> {
        let Terms { lease, ttl } = self.terms;
        loop {
            if let Some(token) =
                store::lock(&self.pool, scope, key, fingerprint, lease, ttl).await?
            {
                return Ok(Claim::Fresh(token));
            }
            // Between the two statements the row can go (released, cleaned up): the key is free.
            if let Some(claim) = self.look(scope, key, fingerprint).await? {
                return Ok(claim);
            }
        }
    }

    /// What `claim` would say of a key that is taken; `None` if it is free. Takes nothing.
    ///
    /// # Errors
    /// `Sql`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn look(
        &self,
        scope: &Scope,
        key: &Key,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Claim>, IdempotencyError> {
        let found = store::look(&self.pool, scope, key).await?;
        Ok(found.map(|found| found.judge(fingerprint)))
    }

    /// A sign of life: the lease begins anew. `false`: the key has gone on without us, and whatever
    /// we still do, somebody else does as well.
    ///
    /// # Errors
    /// `Sql`: try again within the lease.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn renew(&self, token: &Token) -> Result<bool, IdempotencyError> {
        store::renew(&self.pool, token, self.terms.lease).await
    }

    /// Stores the answer. `false`: the key has gone on without us, and what is there counts.
    ///
    /// If the process dies between the effect and this: the effect has happened, nobody knows the
    /// answer, and the next attempt after the lease runs the work again. That is what an effect
    /// outside the database costs; give the other side a key of its own (`Token::scope`, `key` and
    /// the request, never the token's number), or use the form in a transaction.
    ///
    /// # Errors
    /// `Sql`: try again within the lease.
    ///
    /// # Cancel safety
    /// A future that is dropped may have stored the answer.
    pub async fn complete(&self, token: &Token, answer: &Answer) -> Result<bool, IdempotencyError> {
        store::complete(&self.pool, token, answer, self.terms.ttl).await
    }

    /// Frees the key, so that nobody waits for a lease that serves nobody. `false`: it has gone on
    /// without us.
    ///
    /// # Errors
    /// `Sql`: the lease will do it.
    ///
    /// # Cancel safety
    /// A future that is dropped may have freed it.
    pub async fn release(&self, token: &Token) -> Result<bool, IdempotencyError> {
        store::release(&self.pool, token).await
    }
}

/// Removes keys whose time is over, at most `at_most`, and says how many. It reads an index and the
/// rows it removes, however large the table is; several instances may do it at once.
///
/// # Errors
/// `Sql`.
///
/// # Cancel safety
/// Safe: one statement.
pub async fn clean_up(db: impl PgExecutor<'_>, at_most: u32) -> Result<u64, IdempotencyError> {
    store::clean_up(db, at_most).await
}

/// Cleans up every so often, in steps of 1,000 until nothing is over. Never returns: give it a task,
/// and end that with the service.
pub async fn keep_clean(pool: PgPool, every: Duration) {
    const AT_MOST: u32 = 1_000;
    loop {
        tokio::time::sleep(every).await;
        loop {
            match clean_up(&pool, AT_MOST).await {
                Ok(removed) if removed == u64::from(AT_MOST) => {}
                Ok(_) => break,
                // The next round comes soon enough.
                Err(error) => {
                    tracing::warn!(%error, "expired idempotency keys were not removed");
                    break;
                }
            }
        }
    }
}
