//! The statements. Each is one decision, and one transaction: nothing comes between looking and
//! taking. Time is the database's alone; instances may disagree about the hour.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sqlx::{PgExecutor, Row as _};

use super::{Answer, Claim, Fingerprint, IdempotencyError, Key, Scope, Token};

/// What is known of a key that is not over.
pub(super) struct Found {
    fingerprint: Vec<u8>,
    answer: Option<Answer>,
}

impl Found {
    /// Another request first: whoever made a mistake should hear of it now, and not be told to
    /// wait.
    pub(super) fn judge(self, fingerprint: &Fingerprint) -> Claim {
        if self.fingerprint != fingerprint.as_bytes() {
            Claim::Mismatch
        } else if let Some(answer) = self.answer {
            Claim::Replay(answer)
        } else {
            Claim::InFlight
        }
    }
}

/// Takes the key if it is free: unknown, over, or left behind by the same request.
pub(super) async fn lock(
    db: impl PgExecutor<'_>,
    scope: &Scope,
    key: &Key,
    fingerprint: &Fingerprint,
    lease: Duration,
    ttl: Duration,
) -> Result<Option<Token>, IdempotencyError> {
    let number: Option<i64> = sqlx::query_scalar(
        "insert into idempotency_keys as held
             (scope, key, fingerprint, token, locked_until, expires_at)
         select $1, $2, $3, nextval('idempotency_tokens'),
                now() + $4 * interval '1 microsecond', now() + $5 * interval '1 microsecond'
         -- A conflict locks the row also where it then changes nothing. Whoever is only to be told
         -- that the key is taken must not hold up its owner, and should write nothing.
         where not exists (
             select from idempotency_keys taken
             where taken.scope = $1 and taken.key = $2 and taken.expires_at > now()
               and (taken.status is not null or taken.locked_until > now()
                    or taken.fingerprint <> $3))
         -- What is visible now may change before the row is written; this decides.
         on conflict (scope, key) do update
         set fingerprint = excluded.fingerprint, token = excluded.token,
             locked_until = excluded.locked_until, expires_at = excluded.expires_at,
             status = null, header_names = null, header_values = null, body = null
         where held.expires_at <= now()
            or held.status is null and held.locked_until <= now()
               and held.fingerprint = excluded.fingerprint
         returning token",
    )
    .bind(scope.as_str())
    .bind(key.as_str())
    .bind(&fingerprint.as_bytes()[..])
    .bind(micros(lease))
    .bind(micros(ttl))
    .fetch_optional(db)
    .await?;
    Ok(number.map(|number| Token {
        scope: scope.clone(),
        key: key.clone(),
        number,
    }))
}

/// What is known of the key, if its time is not over.
pub(super) async fn look(
    db: impl PgExecutor<'_>,
    scope: &Scope,
    key: &Key,
) -> Result<Option<Found>, IdempotencyError> {
    let row = sqlx::query(
        "select fingerprint, status, header_names, header_values, body
         from idempotency_keys where scope = $1 and key = $2 and expires_at > now()",
    )
    .bind(scope.as_str())
    .bind(key.as_str())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let status: Option<i16> = row.try_get("status")?;
    let answer = match status {
        None => None,
        Some(status) => {
            let body: Option<Vec<u8>> = row.try_get("body")?;
            Some(Answer {
                status: u16::try_from(status)
                    .ok()
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                headers: headers(row.try_get("header_names")?, row.try_get("header_values")?),
                body: body.map(Into::into),
            })
        }
    };
    Ok(Some(Found {
        fingerprint: row.try_get("fingerprint")?,
        answer,
    }))
}

/// A sign of life. Whether the key was still ours.
pub(super) async fn renew(
    db: impl PgExecutor<'_>,
    token: &Token,
    lease: Duration,
) -> Result<bool, IdempotencyError> {
    let renewed = sqlx::query(
        // With the token: after the lease, the row may be a successor's. It is still ours if nobody
        // came, however late we are.
        "update idempotency_keys
         set locked_until = now() + $4 * interval '1 microsecond',
             expires_at = greatest(expires_at, now() + $4 * interval '1 microsecond')
         where scope = $1 and key = $2 and token = $3 and status is null",
    )
    .bind(token.scope.as_str())
    .bind(token.key.as_str())
    .bind(token.number)
    .bind(micros(lease))
    .execute(db)
    .await?;
    Ok(renewed.rows_affected() > 0)
}

/// Stores the answer. Whether the key was still ours, and so whether the answer counts.
pub(super) async fn complete(
    db: impl PgExecutor<'_>,
    token: &Token,
    answer: &Answer,
    ttl: Duration,
) -> Result<bool, IdempotencyError> {
    let headers = answer.headers.iter();
    let (names, values): (Vec<&str>, Vec<&[u8]>) = headers
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .unzip();
    let stored = sqlx::query(
        // With the token: a late handler must not write its answer over its successor's.
        "update idempotency_keys
         set status = $4, header_names = $5, header_values = $6, body = $7,
             locked_until = now(), expires_at = now() + $8 * interval '1 microsecond'
         where scope = $1 and key = $2 and token = $3 and status is null",
    )
    .bind(token.scope.as_str())
    .bind(token.key.as_str())
    .bind(token.number)
    .bind(answer.status.as_u16().cast_signed())
    .bind(names)
    .bind(values)
    .bind(answer.body.as_deref())
    .bind(micros(ttl))
    .execute(db)
    .await?;
    Ok(stored.rows_affected() > 0)
}

/// Frees the key. Whether it was still ours.
pub(super) async fn release(
    db: impl PgExecutor<'_>,
    token: &Token,
) -> Result<bool, IdempotencyError> {
    let released = sqlx::query(
        // With the token, and never an answer: both may be a successor's.
        "delete from idempotency_keys
         where scope = $1 and key = $2 and token = $3 and status is null",
    )
    .bind(token.scope.as_str())
    .bind(token.key.as_str())
    .bind(token.number)
    .execute(db)
    .await?;
    Ok(released.rows_affected() > 0)
}

/// Removes keys whose time is over, the oldest first, and at most so many.
pub(super) async fn clean_up(
    db: impl PgExecutor<'_>,
    at_most: u32,
) -> Result<u64, IdempotencyError> {
    let removed = sqlx::query(
        // By place in the table (`ctid`) and not by key: joined by key, a planner may read the
        // whole table. A row that is locked cannot move, so its place is still its own.
        "delete from idempotency_keys where ctid = any (array(
             select ctid from idempotency_keys
             where expires_at <= now()
             order by expires_at limit $1
             -- What is locked is being claimed anew, or removed by another instance.
             for update skip locked))",
    )
    .bind(i64::from(at_most))
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// PostgreSQL's intervals know no nanoseconds; as a number it is also what sqlx cannot refuse.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn headers(names: Vec<String>, values: Vec<Vec<u8>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in names.iter().zip(values) {
        // They were a header's when they were stored.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(&value),
        ) {
            headers.append(name, value);
        }
    }
    headers
}
