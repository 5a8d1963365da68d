//! The form in a transaction: for work whose effects are all in this database.
//!
//! Effect and answer commit together or not at all, so there is no lease, no token that can be late,
//! and no moment at which a crash does harm. It is the strongest form, and should be the first
//! choice wherever it fits.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::{Answer, Claim, Fingerprint, IdempotencyError, Key, Scope, Token, store};

/// Takes the key for this transaction, or says why not. Two round trips; waits for nobody.
///
/// After `Fresh` do the work in the same transaction, `complete`, commit. After any other outcome
/// roll back, and answer from what it says. A rollback frees the key and undoes the work. Await it:
/// a transaction that is dropped is rolled back a moment later, and until then says `InFlight` to
/// the next attempt.
///
/// While another transaction works on the key its row cannot be seen. Two advisory locks say what
/// it is about: one for key and request, one for the key. Whoever gets the first but not the second
/// knows that another request has the key (`Mismatch`); whoever gets neither, that the same one is
/// running (`InFlight`). They are a courtesy, for nobody should sit on a connection and wait: the
/// row's primary key is what keeps two from working.
///
/// If the process dies here or later, before COMMIT: nothing has happened, and the key is free as
/// soon as the server has noticed.
///
/// # Errors
/// `NoTransaction`; `Sql`. Under `repeatable read` and `serializable`, 40001 where another one
/// committed in between: `db::transaction` tries again.
///
/// # Cancel safety
/// Safe: what was taken goes with the transaction.
pub async fn claim(
    tx: &mut PgConnection,
    scope: &Scope,
    key: &Key,
    fingerprint: &Fingerprint,
) -> Result<Claim, IdempotencyError> {
    if !tx.is_in_transaction() {
        return Err(IdempotencyError::NoTransaction);
    }
    let right = right_of_way(tx, scope, key, fingerprint).await?;
    if matches!(right, Right::Ours) {
        // No lease, and over at once: should this be committed without `complete`, the key is free.
        let (lease, ttl) = (Duration::ZERO, Duration::ZERO);
        if let Some(token) = store::lock(&mut *tx, scope, key, fingerprint, lease, ttl).await? {
            return Ok(Claim::Fresh(token));
        }
    }
    let found = store::look(&mut *tx, scope, key).await?;
    Ok(match (found, right) {
        (Some(found), _) => found.judge(fingerprint),
        (None, Right::OfAnotherRequest) => Claim::Mismatch,
        // Ours, and yet neither free nor to be seen: it ran out this very moment. Try again.
        (None, Right::OfTheSame | Right::Ours) => Claim::InFlight,
    })
}

/// Stores the answer in this transaction; it counts once that is committed. `ttl` is how long it is
/// remembered.
///
/// If the process dies before COMMIT was sent, neither effect nor answer have happened. If the
/// answer to COMMIT is lost, both or neither have: the client's next attempt finds out which.
///
/// # Errors
/// `Unusable` if the claim is not this transaction's, or was completed or forgotten; `Sql`.
///
/// # Cancel safety
/// Safe: as long as COMMIT was not sent, nothing has happened.
pub async fn complete(
    tx: &mut PgConnection,
    token: &Token,
    answer: &Answer,
    ttl: Duration,
) -> Result<(), IdempotencyError> {
    if !tx.is_in_transaction() {
        return Err(IdempotencyError::NoTransaction);
    }
    expect_ours(store::complete(tx, token, answer, ttl).await?)
}

/// Gives the key back in this transaction: for work that is to be committed without an answer that
/// counts, such as the record of a failed attempt.
///
/// # Errors
/// As `complete`.
///
/// # Cancel safety
/// As `complete`.
pub async fn forget(tx: &mut PgConnection, token: &Token) -> Result<(), IdempotencyError> {
    if !tx.is_in_transaction() {
        return Err(IdempotencyError::NoTransaction);
    }
    expect_ours(store::release(tx, token).await?)
}

fn expect_ours(was_ours: bool) -> Result<(), IdempotencyError> {
    match was_ours {
        true => Ok(()),
        false => Err(IdempotencyError::Unusable(
            "the key is not claimed by this transaction; complete or forget it once, where it was claimed",
        )),
    }
}

/// Who may work on a key now.
#[derive(Debug, Clone, Copy)]
enum Right {
    Ours,
    OfTheSame,
    OfAnotherRequest,
}

async fn right_of_way(
    tx: &mut PgConnection,
    scope: &Scope,
    key: &Key,
    fingerprint: &Fingerprint,
) -> Result<Right, IdempotencyError> {
    let (scope, key) = (scope.as_str().as_bytes(), key.as_str().as_bytes());
    let of_request = lock_number(&[b"request", scope, key, fingerprint.as_bytes()]);
    let of_key = lock_number(&[b"key", scope, key]);
    // In this order, so that whoever has the key's lock has its request's as well. Only tried: two
    // that wait for each other would be a deadlock, and waiting costs a connection.
    let right: i32 = sqlx::query_scalar(
        // The whole database shares these numbers, and each schema may have such a table: keys of
        // another one are others.
        "select case when not pg_try_advisory_xact_lock($1 # held.oid::bigint) then 1
                     when not pg_try_advisory_xact_lock($2 # held.oid::bigint) then 2
                     else 0 end
         from (select 'idempotency_keys'::regclass::oid as oid) held",
    )
    .bind(of_request)
    .bind(of_key)
    .fetch_one(tx)
    .await?;
    Ok(match right {
        0 => Right::Ours,
        1 => Right::OfTheSame,
        _ => Right::OfAnotherRequest,
    })
}

/// Advisory locks are numbers that the whole database shares. 64 bits of a digest meet another's by
/// chance once in 2⁶⁴; a request is told to wait then, and no harm is done.
fn lock_number(parts: &[&[u8]]) -> i64 {
    let mut all = vec![&b"shared::idempotency"[..]];
    all.extend_from_slice(parts);
    let [a, b, c, d, e, f, g, h, ..] = *Fingerprint::of(&all).as_bytes();
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}
