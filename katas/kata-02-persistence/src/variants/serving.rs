//! From a protocol to a running application: routes, state, connections. Nothing is decided here.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use serde::Deserialize;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

use crate::{
    contract::{self, Account, Answered, Condition, Config, Payment, Transfer},
    variants::{profiles, protocol::Protocol},
};

/// Each handler holds one connection from its beginning to its end, so ten requests at once have
/// one each, and the others wait for theirs without holding anything.
const CONNECTIONS: u32 = 12;

/// How long a read may take that has to say so if it cannot be done.
const READS: Duration = Duration::from_secs(4);

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    /// Connections to the primary, opened when they are needed.
    pub db: PgPool,
    /// The same to the replica, if there is one.
    pub replica: Option<PgPool>,
}

#[derive(Clone)]
struct Shared {
    service: Service,
    protocol: Arc<dyn Protocol>,
}

/// Starts an application that follows the protocol.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn start(env: Env, protocol: impl Protocol) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let service = Service {
        db: pool(&config.database_url, Duration::from_secs(30))?,
        replica: match &config.replica_url {
            Some(url) => Some(pool(url, Duration::from_secs(3))?),
            None => None,
        },
    };
    // All of it in one round trip. The text is this crate's own.
    sqlx::raw_sql(AssertSqlSafe(protocol.schema()))
        .execute(&service.db)
        .await?;
    let protocol: Arc<dyn Protocol> = Arc::new(protocol);
    let router = Router::new()
        .route(contract::ACCOUNTS, post(open))
        .route(contract::ACCOUNT, get(account))
        .route(contract::TRANSFERS, post(transfer))
        .route(contract::UNSAFE_TRANSFERS, post(unsafe_transfer))
        .route(contract::PAYMENTS, post(pay))
        .route(contract::PAYMENT, get(payment))
        .route(contract::PROFILE, put(write_profile).get(read_profile))
        .route(contract::INCREMENT, post(increment))
        .route(contract::SHIFTS, get(rota))
        .route(contract::SHIFT, put(shift))
        .route(contract::LEAVE, post(leave))
        .with_state(Shared { service, protocol });
    Ok(App::new(router))
}

fn pool(url: &str, acquire_timeout: Duration) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(acquire_timeout)
        // A ping before each use would be a round trip for every request. A connection that has
        // died is noticed by the statement, and the client tries again.
        .test_before_acquire(false)
        .connect_lazy(url)
}

async fn open(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let account = Account::read(&headers, &bytes)?;
    protocol.open(&service, &account).await
}

#[derive(Deserialize)]
struct Read {
    read: Option<String>,
}

async fn account(
    State(Shared { service, protocol }): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<Read>,
) -> Answered {
    known_id("account", &id)?;
    if query.read.as_deref() == Some("eventual") {
        return in_time(protocol.eventual(&service, &id)).await;
    }
    in_time(protocol.strong(&service, &id)).await
}

/// A read that has no answer in time is refused, so that its caller can look elsewhere.
async fn in_time(read: impl Future<Output = Answered>) -> Answered {
    match tokio::time::timeout(READS, read).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

async fn transfer(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let transfer = protocol.read(&headers, &bytes)?;
    protocol.transfer(&service, &transfer).await
}

async fn unsafe_transfer(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let transfer = Transfer::read(&headers, &bytes)?;
    protocol.unsafe_transfer(&service, &transfer).await
}

async fn pay(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let payment = Payment::read(&headers, &bytes)?;
    protocol.pay(&service, &payment).await
}

async fn payment(
    State(Shared { service, protocol }): State<Shared>,
    Path(id): Path<String>,
) -> Answered {
    known_id("payment", &id)?;
    match protocol.find_payment(&service, &id).await? {
        Some(payment) => Ok(contract::shown(StatusCode::OK, &payment)),
        None => Err(contract::not_found("payment").into()),
    }
}

async fn write_profile(
    State(Shared { service, protocol }): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    known_id("profile", &id)?;
    let condition = Condition::read(&headers)?;
    let data = contract::read_profile(&headers, &bytes)?;
    let (status, written) = match condition {
        Condition::IsNew => (
            StatusCode::CREATED,
            protocol.create(&service, &id, &data).await?,
        ),
        Condition::Matches(seen) => (
            StatusCode::OK,
            protocol.replace(&service, &id, &data, &seen).await?,
        ),
    };
    match written {
        Some(etag) => Ok(contract::profile(status, &data, &etag)),
        None => Err(contract::precondition_failed().into()),
    }
}

async fn read_profile(
    State(Shared { service, .. }): State<Shared>,
    Path(id): Path<String>,
) -> Answered {
    known_id("profile", &id)?;
    match profiles::find(&service, &id).await? {
        Some((data, etag)) => Ok(contract::profile(StatusCode::OK, &data, &etag)),
        None => Err(contract::not_found("profile").into()),
    }
}

async fn increment(
    State(Shared { service, protocol }): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    known_id("profile", &id)?;
    let field = contract::read_field(&headers, &bytes)?;
    let (data, etag) = protocol.increment(&service, &id, &field).await?;
    Ok(contract::profile(StatusCode::OK, &data, &etag))
}

async fn rota(State(Shared { service, protocol }): State<Shared>) -> Answered {
    Ok(contract::rota(&protocol.on_call(&service).await?))
}

async fn shift(
    State(Shared { service, .. }): State<Shared>,
    Path(doctor): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    if !contract::is_id(&doctor) {
        return Err(shared::http::Problem::invalid_body("not a doctor's id").into());
    }
    let on_call = contract::read_on_call(&headers, &bytes)?;
    let sql = "insert into doctors (doctor, on_call) values ($1, $2)
         on conflict (doctor) do update set on_call = excluded.on_call";
    sqlx::query(sql)
        .bind(&doctor)
        .bind(on_call)
        .execute(&service.db)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn leave(
    State(Shared { service, protocol }): State<Shared>,
    Path(doctor): Path<String>,
) -> Answered<Response> {
    known_id("doctor", &doctor)?;
    protocol.leave(&service, &doctor).await
}

/// What cannot be an id is nobody's, and is not asked for: the database could not even hold U+0000.
fn known_id(what: &str, id: &str) -> Answered<()> {
    match contract::is_id(id) {
        true => Ok(()),
        false => Err(contract::not_found(what).into()),
    }
}
