//! The same request twice, one effect: keys that clients choose, and answers that are remembered
//! (IETF draft "The Idempotency-Key HTTP Header Field").
//!
//! # Three forms
//!
//! | form | for work whose effects are | after a crash between effect and answer |
//! | --- | --- | --- |
//! | `claim`, `complete` in a transaction | all in this database | neither has happened |
//! | `Keys`, with a lease | elsewhere too | the work runs again after the lease |
//! | `IdempotencyLayer`, around any handler | anywhere; it uses `Keys` | the work runs again after the lease |
//!
//! Once for each key holds in the first form, and there for the effects in the database. In the
//! other two the work runs once as long as no process dies and no handler outlives its lease; what
//! it calls needs a key of its own to hold beyond that.
//!
//! # The obvious design, and how it fails
//!
//! Look the key up, run the handler, store the answer. Two that come at once both find nothing, and
//! both run: hence the claim, one statement, before the work. The one that claimed may die, so a
//! claim has a lease; and then the handler that was merely slow comes back after its lease, and
//! writes over its successor's answer: hence a token, and no write without it. A lease long enough
//! for the slowest handler makes every crash as long: hence a short one, and a heartbeat. A store
//! that is down, and a layer that lets the request pass: hence 503 and no exception from it.
//!
//! # The states of a key
//!
//! ```text
//! (none)   → claimed     claim: the key gets a fingerprint, a token and a lease
//! claimed  → claimed     renew: by the owner of the token alone
//! claimed  → answered    complete: by the owner of the token alone
//! claimed  → (none)      release: by the owner of the token alone
//! claimed  → claimed     claim by the same request, once the lease is over: a new token
//! any      → claimed     claim by any request, once lease and time are over: a new token
//! any      → (none)      clean_up, once lease and time are over
//! ```

mod answer;
mod error;
mod fingerprint;
mod in_transaction;
mod key;
mod keys;
mod layer;
mod options;
mod run;
mod store;

pub use answer::{Answer, REPLAYED};
pub use error::IdempotencyError;
pub use fingerprint::{BodyForm, Fingerprint};
pub use in_transaction::{claim, complete, forget};
pub use key::{IDEMPOTENCY_KEY, Key, Scope};
pub use keys::{Keys, Terms, clean_up, keep_clean};
pub use layer::{Idempotency, IdempotencyLayer};
pub use options::{HangUp, MissingKey, Options, Unkept};

use crate::db::{Migration, Migrations};

/// What the keys need in the database, for programs that migrate by `db::migrate`: put it into your
/// list.
pub const MIGRATIONS: Migrations<'static> = Migrations {
    owner: "shared/idempotency",
    steps: &[Migration {
        version: 1,
        name: "keys",
        sql: include_str!("../../../migrations/shared/idempotency/0001_keys.sql"),
    }],
};

/// What a request finds when it comes with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// The key is ours: do the work, and complete it under this token.
    Fresh(Token),
    /// The same request has been answered: give that answer (`Answer::replayed`).
    Replay(Answer),
    /// The same request is running, or died a moment ago: 409 and `Retry-After`.
    InFlight,
    /// The key belongs to another request: 422, running or answered.
    Mismatch,
}

/// The right to answer for a key. Worth nothing once somebody has claimed the key anew.
///
/// The layer puts it among the extensions of the request, for handlers that pass it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    scope: Scope,
    key: Key,
    number: i64,
}

impl Token {
    /// Whose key.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Which key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Greater than that of every earlier claim on this key: a store that remembers the greatest one
    /// can refuse a handler that is too late (a fencing token). Other at every attempt, so no key
    /// for what must be the same at every attempt.
    pub fn number(&self) -> i64 {
        self.number
    }
}
