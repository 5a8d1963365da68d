//! From a protocol to a running application: routes, state, connections, the one place where a
//! failing database becomes an answer. Nothing is decided here.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::HeaderMap;
use kata_lab::{App, BoxError, Env};
use serde_json::json;
use shared::http::Problem;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

use crate::{
    contract::{self, Answer, Config, Message},
    provider::Provider,
    variants::{keys::Job, protocol::Protocol},
};

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    /// From the environment.
    pub config: Config,
    /// Connections, opened when they are needed.
    pub db: PgPool,
    /// The outside world.
    pub provider: Provider,
}

#[derive(Clone)]
struct Shared {
    service: Service,
    protocol: Arc<dyn Protocol>,
}

/// Starts an application that follows the protocol.
///
/// # Errors
/// If a variable is missing, or the tables cannot be made.
pub async fn start(env: Env, protocol: impl Protocol) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let db = PgPoolOptions::new()
        .max_connections(protocol.connections())
        .acquire_timeout(Duration::from_secs(30))
        // A ping before each use would be a round trip for every statement. A connection that has
        // died is noticed by the statement, and the client tries again.
        .test_before_acquire(false)
        .connect_lazy(&config.database_url)?;
    // All of them in one round trip. The text is this crate's own.
    sqlx::raw_sql(AssertSqlSafe(protocol.tables()))
        .execute(&db)
        .await?;
    let service = Service {
        provider: Provider::new(&config)?,
        config,
        db,
    };
    let protocol: Arc<dyn Protocol> = Arc::new(protocol);
    let background = Arc::clone(&protocol).background(service.clone());
    let router = Router::new()
        .route(contract::PAY, post(pay))
        .route(contract::PAYMENT, get(payment))
        .route(contract::MESSAGES, post(message))
        .with_state(Shared { service, protocol });
    Ok(App::new(router).with_task(background))
}

async fn pay(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let account = contract::caller(&headers)?;
    let key = protocol.key(&headers)?;
    let body = protocol.read(&headers, &bytes)?;
    let job = Job {
        scope: protocol.scope(&account),
        key,
        account,
        fingerprint: protocol.fingerprint(&body, &bytes),
        body,
    };
    Ok(protocol.run(service, job).await)
}

async fn payment(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    Path(payment_id): Path<String>,
) -> Result<Response, Problem> {
    let account = contract::caller(&headers)?;
    // Not a text that the database can hold, and so no payment's id.
    if payment_id.contains('\0') {
        return Err(contract::not_found());
    }
    let (amount_cents, currency, charge_id) =
        match protocol.show(&service, &account, &payment_id).await {
            Ok(payment) => payment.ok_or_else(contract::not_found)?,
            Err(error) => return Ok(database_failed(&error)),
        };
    Ok(Json(json!({
        "payment_id": payment_id,
        "amount_cents": amount_cents,
        "currency": currency,
        "charge_id": charge_id,
        "status": "captured",
    }))
    .into_response())
}

async fn message(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let message = Message::read(&headers, &bytes)?;
    Ok(protocol.take(service, message).await)
}

/// Does the work to its end, whatever becomes of the caller.
pub async fn in_own_task(
    work: impl Future<Output = Result<Response, sqlx::Error>> + Send + 'static,
) -> Response {
    match tokio::spawn(work).await {
        Ok(result) => answer(result),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down.
        Err(_) => Answer::unavailable().into_response(),
    }
}

/// The answer, or 503 if the database has failed.
pub fn answer(result: Result<Response, sqlx::Error>) -> Response {
    result.unwrap_or_else(|error| database_failed(&error))
}

// A client never reads what a database says: it helps nobody there, and tells of tables and hosts.
fn database_failed(error: &sqlx::Error) -> Response {
    tracing::warn!(%error, "the database failed");
    Answer::unavailable().into_response()
}
