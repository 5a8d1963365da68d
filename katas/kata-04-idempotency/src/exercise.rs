//! Your exercise: charge once, whatever happens. This is the only file to edit.
//!
//! | step | what to build | where | checks |
//! | --- | --- | --- | --- |
//! | 1 | a key is required, the first answer is replayed | `idempotency_key`, `TABLES`, `claim`, `finish`, `show` | `requires_a_key`, `rejects_wrong_input`, `replays_the_first_answer`, `shows_the_payment` |
//! | 2 | fifty at once make one charge | `claim` | `charges_once_under_concurrency`, `charges_once_across_instances` |
//! | 3 | another body under the same key is refused | `claim` | `rejects_a_reused_key`, `rejects_a_reused_key_while_running`, `keeps_callers_apart` |
//! | 4 | a client that gives up and tries again gets the answer | `pay` | `answers_a_client_that_gave_up` |
//! | 5 | the provider charges, and its answer is lost | `provider_key`, `release` | `retries_with_the_same_provider_key` |
//! | 6 | crashes, leases, and handlers that come late | `claim`, `finish`, `release` | `survives_a_crash_at_every_point`, `frees_the_key_when_the_lease_is_over`, `fences_a_late_failure`, `fences_across_expiry`, `fences_a_silenced_instance` |
//! | 7 | a decline is remembered, an outage is not | `settle` | `remembers_a_decline`, `forgets_an_outage` |
//! | 8 | keys expire, and the table does not grow | `claim`, `app` | `frees_expired_keys`, `keeps_the_table_small` |
//! | 9 | the same for messages | `message` | `does_a_message_once`, `finishes_what_it_acked`, `survives_a_crash_in_a_message`, `settles_declines_and_unknown_messages` |
//!
//! `crate::contract` has the bodies and the answers, `crate::provider` the provider's client. What
//! is here already runs, and answers 501 on every route until you replace the `todo!()`s. Change
//! whatever you like: the checks know the routes, and nothing of this file.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::HeaderMap;
use kata_lab::{App, BoxError, Env};
use shared::http::Problem;
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{
    contract::{self, Answer, Config, Message, PayBody},
    provider::{Outcome, Provider},
};

/// Made at start, in one round trip, if they are not there yet. One is given.
///
/// Step 1: where is the answer kept, so that a restart and another instance find it?
pub const TABLES: &str = "
create table if not exists payments (
    account      text not null,
    payment_id   text not null,
    amount_cents bigint not null,
    currency     text not null,
    charge_id    text not null,
    primary key (account, payment_id)
);
";

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Till {
    /// Addresses, the lease, the time to live.
    pub config: Config,
    /// Connections to the database.
    pub db: PgPool,
    /// The payment provider.
    pub provider: Provider,
}

/// One request to pay.
#[derive(Debug, Clone)]
pub struct Job {
    /// Who wants to pay.
    pub account: String,
    /// Their key for it.
    pub key: String,
    /// What to pay.
    pub body: PayBody,
}

/// What a request finds when it comes with its key. Steps 2, 3 and 6 need more than this.
#[derive(Debug)]
pub enum Claim {
    /// The key is new: go on.
    Ours,
    /// The same request was answered before.
    Answered(Answer),
}

/// The application.
pub async fn app(env: Env) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let db = PgPoolOptions::new()
        .max_connections(16)
        .test_before_acquire(false)
        .connect_lazy(&config.database_url)?;
    sqlx::raw_sql(TABLES).execute(&db).await?;
    let till = Till {
        provider: Provider::new(&config)?,
        config,
        db,
    };
    let router = Router::new()
        .route(contract::PAY, post(pay))
        .route(contract::PAYMENT, get(payment))
        .route(contract::MESSAGES, post(message))
        .with_state(till);
    // Step 8: a task that runs beside the handlers is added with `.with_task(…)`.
    Ok(App::new(router))
}

async fn pay(
    State(till): State<Till>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let job = Job {
        account: contract::caller(&headers)?,
        key: idempotency_key(&headers)?,
        body: PayBody::read(&headers, &bytes)?,
    };
    // Step 4: when a client hangs up, axum drops this future at its next await.
    Ok(settle(&till, &job).await.unwrap_or_else(database_failed))
}

/// The key, from its header.
pub fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let _ = headers;
    todo!("step 1: quoted and bare form are the same key; none, or a malformed one, is a 400")
}

/// From the request to its answer.
pub async fn settle(till: &Till, job: &Job) -> Result<Response, sqlx::Error> {
    match claim(till, job).await? {
        Claim::Ours => {}
        Claim::Answered(answer) => return Ok(answer.replayed()),
    }
    match till.provider.charge(&provider_key(job), &job.body).await {
        Ok(Outcome::Captured { charge_id }) => {
            let answer = Answer::captured(&job.body, &charge_id);
            finish(till, job, &answer, &charge_id).await?;
            Ok(answer.into_response())
        }
        // Step 7: which of these two is an answer, and which is none?
        Ok(Outcome::Declined) => Ok(Answer::declined().into_response()),
        Err(_outage) => {
            release(till, job).await?;
            Ok(Answer::unavailable().into_response())
        }
    }
}

/// Takes the key for this request, or says why not.
pub async fn claim(till: &Till, job: &Job) -> Result<Claim, sqlx::Error> {
    let _ = (till, job);
    todo!("step 1: was this request answered before? (steps 2, 3, 6 and 8 come back here)")
}

/// The key under which the provider is asked.
pub fn provider_key(_job: &Job) -> String {
    // Step 5: this one is new for each attempt. What does the provider make of a second attempt?
    Uuid::new_v4().to_string()
}

/// Stores the payment and the answer.
pub async fn finish(
    till: &Till,
    job: &Job,
    answer: &Answer,
    charge_id: &str,
) -> Result<(), sqlx::Error> {
    let _ = (till, job, answer, charge_id);
    todo!("step 1: the payment and the answer belong together: both are stored, or none is")
}

/// After an outage: lets the same request try again.
pub async fn release(till: &Till, job: &Job) -> Result<(), sqlx::Error> {
    let _ = (till, job);
    todo!("step 5: the client tries again; what of this attempt must be gone, and what must not?")
}

async fn payment(
    State(till): State<Till>,
    headers: HeaderMap,
    Path(payment_id): Path<String>,
) -> Result<Response, Problem> {
    let account = contract::caller(&headers)?;
    let shown = show(&till, &account, &payment_id).await;
    shown.unwrap_or_else(|error| Ok(database_failed(error)))
}

/// A payment, to the account that made it: `contract::not_found()` for everybody else.
pub async fn show(
    till: &Till,
    account: &str,
    payment_id: &str,
) -> Result<Result<Response, Problem>, sqlx::Error> {
    let _ = (till, account, payment_id);
    todo!("step 1: {{payment_id, amount_cents, currency, charge_id, status}}")
}

async fn message(
    State(till): State<Till>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let message = Message::read(&headers, &bytes)?;
    let _ = (till, message);
    todo!("step 9: 2xx is an ack, and an acked message never comes again")
}

/// A client never reads what a database says.
fn database_failed(error: sqlx::Error) -> Response {
    tracing::warn!(%error, "the database failed");
    Answer::unavailable().into_response()
}
