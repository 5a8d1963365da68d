//! Keys as they are kept: the tables, what a row says, and the two statements that several
//! variants share.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use sqlx::PgExecutor;

use crate::{
    contract::{self, Answer, PayBody},
    provider::{Outage, Outcome},
    variants::serving::Service,
};

/// The tables, made at start if they are not there.
pub const TABLES: &str = "
create table if not exists idempotency_keys (
    scope        text not null,
    key          text not null,
    fingerprint  text not null,
    token        bigint not null,
    locked_until timestamptz not null,
    expires_at   timestamptz not null,
    -- The answer; null while the request runs.
    status       integer,
    content_type text,
    body         text,
    -- The lock itself: of many that insert a key at the same time, one succeeds.
    primary key (scope, key)
);
-- For the reaper, which would read the whole table without it.
create index if not exists idempotency_keys_expiry on idempotency_keys (expires_at);
-- Tokens come from one sequence and not from a counter in the row: a row can go and come back, and
-- its counter would begin again at a number that a late handler still holds.
create sequence if not exists idempotency_tokens;
create table if not exists payments (
    account      text not null,
    payment_id   text not null,
    amount_cents bigint not null,
    currency     text not null,
    charge_id    text not null,
    primary key (account, payment_id)
);
";

/// One payment to make, asked for by a request or by a message.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whose key it is.
    pub scope: String,
    /// The key within the scope.
    pub key: String,
    /// Whose payment it is.
    pub account: String,
    /// Tells one body from another.
    pub fingerprint: String,
    /// What to pay.
    pub body: PayBody,
}

/// A key as it is stored.
#[derive(Debug, Clone)]
pub struct Row {
    /// Of the latest claim.
    pub token: i64,
    /// Of the body that the key was used with.
    pub fingerprint: String,
    /// `None` while the request runs.
    pub answer: Option<Answer>,
}

/// `token, fingerprint, status, content_type, body` of a row.
pub type Columns = (i64, String, Option<i32>, Option<String>, Option<String>);

impl From<Columns> for Row {
    fn from((token, fingerprint, status, content_type, body): Columns) -> Self {
        Self {
            token,
            fingerprint,
            answer: status.map(|status| Answer {
                status: u16::try_from(status).unwrap_or_default(),
                content_type: content_type.unwrap_or_default(),
                body: body.unwrap_or_default(),
            }),
        }
    }
}

/// What a request finds when it comes with a key.
#[derive(Debug, Clone)]
pub enum Claim {
    /// The key is ours, under this token, until the lease is over.
    Ours(i64),
    /// The same request is running, or died a moment ago.
    Running,
    /// The same request has been answered.
    Answered(Answer),
    /// The key belongs to another request.
    OtherBody,
}

impl Claim {
    /// The answer to a request that did not get the key.
    pub fn refusal(self) -> Response {
        match self {
            // Nothing was done under a claim that somebody got and did not use.
            Self::Ours(_) => Answer::unavailable().into_response(),
            Self::Running => contract::conflict(Duration::from_secs(1)).into_response(),
            Self::Answered(answer) => answer.replayed(),
            Self::OtherBody => contract::reused_key().into_response(),
        }
    }
}

/// What came of a charge: the answer, and the charge if there is one.
#[derive(Debug, Clone)]
pub struct Settled {
    /// For the client.
    pub answer: Answer,
    /// The provider's name for it.
    pub charge_id: Option<String>,
}

impl Settled {
    /// Says it in the contract's words.
    pub fn new(body: &PayBody, outcome: &Result<Outcome, Outage>) -> Self {
        let (answer, charge_id) = match outcome {
            Ok(Outcome::Captured { charge_id }) => {
                (Answer::captured(body, charge_id), Some(charge_id.clone()))
            }
            Ok(Outcome::Declined) => (Answer::declined(), None),
            Err(outage) => {
                tracing::warn!(%outage, "no charge");
                (Answer::unavailable(), None)
            }
        };
        Self { answer, charge_id }
    }
}

/// Stores an answer under a token. One statement, and so one transaction: a payment without its
/// answer, or an answer without its payment, cannot be seen, and no `begin` is left open when the
/// task dies between two awaits.
///
/// # Errors
/// The database's.
pub async fn store(
    db: impl PgExecutor<'_>,
    key_ttl: Duration,
    job: &Job,
    token: i64,
    settled: &Settled,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "with answered as (
             update idempotency_keys
             set status = $4, content_type = $5, body = $6,
                 locked_until = now(), expires_at = now() + $7
             where scope = $1 and key = $2 and token = $3
             returning 1
         ), paid as (
             -- Whoever owns the key by now, the card was charged: that is a fact, and stays one.
             -- The successor of a late handler has the same charge, and may have written it.
             insert into payments (account, payment_id, amount_cents, currency, charge_id)
             select $8, $9, $10, $11, $12 where $12 is not null
             on conflict do nothing
         )
         select exists (select from answered)",
    )
    .bind(&job.scope)
    .bind(&job.key)
    .bind(token)
    .bind(i32::from(settled.answer.status))
    .bind(&settled.answer.content_type)
    .bind(&settled.answer.body)
    .bind(key_ttl)
    .bind(&job.account)
    .bind(&job.body.payment_id)
    .bind(job.body.amount_cents)
    .bind(&job.body.currency)
    .bind(&settled.charge_id)
    .fetch_one(db)
    .await
}

/// Removes keys whose time is over, a bounded number, so that no run is long.
///
/// # Errors
/// The database's.
pub async fn reap(service: &Service, at_most: i64) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query(
        "delete from idempotency_keys where (scope, key) in (
             select scope, key from idempotency_keys
             where expires_at <= now() and locked_until <= now()
             order by expires_at limit $1
             -- Another instance's reaper is at work on the ones that are locked.
             for update skip locked)",
    )
    .bind(at_most)
    .execute(&service.db)
    .await?;
    Ok(removed.rows_affected())
}

/// A digest as text that fits into a header.
pub fn sha256(of: impl AsRef<[u8]>) -> String {
    let digest = Sha256::digest(of);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
