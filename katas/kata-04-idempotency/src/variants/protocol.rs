//! The protocol: each method is one decision, with its reason. All that is decided here is the
//! reference's; a flawed variant decides one thing differently.
//!
//! A claim on the key, a charge under a stable provider key, and an answer that only the owner of
//! the claim may store. A row of `idempotency_keys` goes through these states, and no others:
//!
//! ```text
//! (none)   → claimed     lock: the key gets a fingerprint, a token and a lease
//! claimed  → answered    finish: by the owner of the token alone
//! claimed  → (none)      release, after an outage: by the owner of the token alone
//! claimed  → claimed     lock by the same request, once the lease is over: a new token
//! any      → claimed     lock by any request, once lease and time are over: a new token
//! any      → (none)      the reaper, once lease and time are over
//! ```

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use shared::http::Problem;
use sqlx::PgConnection;

use crate::{
    contract::{self, Answer, Message, PayBody},
    provider::{Outage, Outcome},
    variants::{
        keys::{Claim, Columns, Job, Row, Settled, TABLES, reap, sha256, store},
        serving::{Service, in_own_task},
    },
};

const REAP_EVERY: Duration = Duration::from_secs(1);
const REAP_AT_MOST: i64 = 1_000;

/// The decisions. All that is written here is the reference's.
#[async_trait]
pub trait Protocol: Send + Sync + 'static {
    /// The key: as a quoted string or bare, which are the same key.
    fn key(&self, headers: &HeaderMap) -> Result<String, Problem> {
        let value = headers
            .get(contract::IDEMPOTENCY_KEY)
            .ok_or_else(|| contract::bad_key("the header is missing"))?
            .to_str()
            .map_err(|_| contract::bad_key("the key must be ASCII"))?;
        let key = match value.strip_prefix('"') {
            Some(quoted) => quoted
                .strip_suffix('"')
                .ok_or_else(|| contract::bad_key("the closing quote is missing"))?,
            None => value,
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !(1..=255).contains(&key.len()) || !key.bytes().all(allowed) {
            return Err(contract::bad_key("1 to 255 of A-Z a-z 0-9 . _ : -"));
        }
        Ok(key.to_owned())
    }

    /// The body, checked before anything happens: wrong input is neither charged nor remembered.
    fn read(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<PayBody, Problem> {
        PayBody::read(headers, bytes)
    }

    /// Two callers may choose the same key. No account has a colon in it, so that an account can
    /// never be taken for the scope of the messages.
    fn scope(&self, account: &str) -> String {
        format!("account:{account}")
    }

    /// Of every member, so that a key cannot pay one thing and answer for another. Of the values
    /// and not of the bytes: a client may write the same body differently when it tries again.
    fn fingerprint(&self, body: &PayBody, _bytes: &[u8]) -> String {
        sha256(json!(body).to_string())
    }

    /// The same for every attempt at this payment, also after a crash: it is computed, and so
    /// cannot be lost. The payment is in it, because the provider remembers for ever and we do not:
    /// a key that has expired here and serves another payment is another key there.
    fn provider_key(&self, job: &Job) -> String {
        sha256(json!([job.scope, job.key, job.account, job.body]).to_string())
    }

    /// How long a claim lasts without a sign of life.
    fn lease(&self, service: &Service) -> Duration {
        service.config.key_lease
    }

    /// Takes the key if it is free: one statement, so that nothing can come between looking and
    /// taking. Time is the database's alone; instances may disagree about the hour.
    async fn lock(
        &self,
        db: &mut PgConnection,
        service: &Service,
        job: &Job,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "insert into idempotency_keys as held
                 (scope, key, fingerprint, token, locked_until, expires_at)
             values ($1, $2, $3, nextval('idempotency_tokens'), now() + $4, now() + $5)
             on conflict (scope, key) do update
             set fingerprint = excluded.fingerprint, token = excluded.token,
                 locked_until = excluded.locked_until, expires_at = excluded.expires_at,
                 status = null, content_type = null, body = null
             where held.locked_until <= now()
               and (held.expires_at <= now()
                    or held.status is null and held.fingerprint = excluded.fingerprint)
             returning token",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .bind(&job.fingerprint)
        .bind(self.lease(service))
        .bind(service.config.key_ttl)
        .fetch_optional(db)
        .await
    }

    /// What is known of the key.
    async fn look(&self, db: &mut PgConnection, job: &Job) -> Result<Option<Row>, sqlx::Error> {
        let columns: Option<Columns> = sqlx::query_as(
            "select token, fingerprint, status, content_type, body
             from idempotency_keys where scope = $1 and key = $2",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .fetch_optional(db)
        .await?;
        Ok(columns.map(Row::from))
    }

    /// Another body first: whoever made a mistake should hear of it now and not be told to wait.
    fn judge(&self, job: &Job, row: Row) -> Claim {
        if row.fingerprint != job.fingerprint {
            Claim::OtherBody
        } else if let Some(answer) = row.answer {
            Claim::Answered(answer)
        } else {
            Claim::Running
        }
    }

    /// Takes the key, or says why not. Between the two statements the row can go (released, reaped):
    /// then the key is free again. Both on one connection: a pool that is asked twice in a row may
    /// open another.
    async fn claim(&self, service: &Service, job: &Job) -> Result<Claim, sqlx::Error> {
        let mut db = service.db.acquire().await?;
        loop {
            if let Some(token) = self.lock(&mut db, service, job).await? {
                return Ok(Claim::Ours(token));
            }
            if let Some(row) = self.look(&mut db, job).await? {
                return Ok(self.judge(job, row));
            }
        }
    }

    /// The effect. No transaction is open meanwhile: a slow provider would hold our connections.
    async fn charge(&self, service: &Service, job: &Job, _token: i64) -> Result<Outcome, Outage> {
        service
            .provider
            .charge(&self.provider_key(job), &job.body)
            .await
    }

    /// A decline is an answer. An outage is none: perhaps the card was charged, perhaps not, and
    /// only another attempt with the same provider key can tell.
    fn is_final(&self, outcome: &Result<Outcome, Outage>) -> bool {
        outcome.is_ok()
    }

    /// Stores the answer if the claim is still ours, and says whether it was.
    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        store(&service.db, service.config.key_ttl, job, token, settled).await
    }

    /// Frees the key after an outage, so that nobody waits for a lease that serves nobody. With the
    /// token: after the lease, the row may hold a successor's claim, or its answer.
    async fn release(&self, service: &Service, job: &Job, token: i64) -> Result<(), sqlx::Error> {
        sqlx::query("delete from idempotency_keys where scope = $1 and key = $2 and token = $3")
            .bind(&job.scope)
            .bind(&job.key)
            .bind(token)
            .execute(&service.db)
            .await?;
        Ok(())
    }

    /// From the request to its answer.
    async fn settle(&self, service: &Service, job: &Job) -> Result<Response, sqlx::Error> {
        let token = match self.claim(service, job).await? {
            Claim::Ours(token) => token,
            found => return Ok(found.refusal()),
        };
        let outcome = self.charge(service, job, token).await;
        let settled = Settled::new(&job.body, &outcome);
        if !self.is_final(&outcome) {
            self.release(service, job, token).await?;
            return Ok(settled.answer.into_response());
        }
        if self.finish(service, job, token, &settled).await? {
            return Ok(settled.answer.into_response());
        }
        // The lease ran out and the key has gone on without us: what is there now is the answer.
        let mut db = service.db.acquire().await?;
        Ok(match self.look(&mut db, job).await? {
            Some(row) => self.judge(job, row).refusal(),
            None => Answer::unavailable().into_response(),
        })
    }

    /// In a task of its own: when a client hangs up, its handler is dropped at the next await, and
    /// a charge whose answer nobody stored would have to wait for the lease.
    async fn run(self: Arc<Self>, service: Service, job: Job) -> Response {
        in_own_task(async move { self.settle(&service, &job).await }).await
    }

    /// A payment, to the account that made it.
    async fn show(
        &self,
        service: &Service,
        account: &str,
        payment_id: &str,
    ) -> Result<Option<(i64, String, String)>, sqlx::Error> {
        sqlx::query_as(
            "select amount_cents, currency, charge_id from payments
             where account = $1 and payment_id = $2",
        )
        .bind(account)
        .bind(payment_id)
        .fetch_optional(&service.db)
        .await
    }

    /// A message is a request whose key is its id. The ack comes last: whatever dies before it, the
    /// broker pushes again, and whatever comes twice meets the key.
    async fn take(self: Arc<Self>, service: Service, message: Message) -> Response {
        let Message::PaymentRequested {
            message_id,
            account,
            body,
        } = message
        else {
            return StatusCode::NO_CONTENT.into_response();
        };
        let job = Job {
            scope: "messages:".to_owned(),
            key: message_id,
            account,
            fingerprint: sha256(json!(body).to_string()),
            body,
        };
        let response = Arc::clone(&self).run(service, job).await;
        if self.acks(response.status()) {
            StatusCode::NO_CONTENT.into_response()
        } else {
            response
        }
    }

    /// A decline is as final as a capture; pushing it again would be declined again.
    fn acks(&self, status: StatusCode) -> bool {
        matches!(status, StatusCode::CREATED | StatusCode::PAYMENT_REQUIRED)
    }

    /// What runs beside the handlers: the reaper.
    async fn background(self: Arc<Self>, service: Service) {
        loop {
            tokio::time::sleep(REAP_EVERY).await;
            // An error is the database's, and the next round comes in a second.
            if let Err(error) = reap(&service, REAP_AT_MOST).await {
                tracing::warn!(%error, "expired keys were not removed");
            }
        }
    }

    /// The tables of this variant.
    fn tables(&self) -> String {
        TABLES.to_owned()
    }

    /// Connections at most. No handler holds one while it waits for the provider, so a few do.
    fn connections(&self) -> u32 {
        6
    }
}
