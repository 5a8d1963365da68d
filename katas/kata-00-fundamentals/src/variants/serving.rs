//! From a shop to a running application: routes, state, connections, the one place where a failing
//! database becomes an answer. Nothing is decided here.

use std::{future::Future, ops::DerefMut, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::HeaderMap;
use kata_lab::{App, BoxError, Env};
use serde_json::json;
use shared::http::Problem;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::{
    contract::{self, Cancellation, Cart, Config},
    effects::Outside,
    variants::shop::Shop,
};

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    /// Connections, opened when they are needed.
    pub db: PgPool,
    /// The outside world.
    pub outside: Outside,
}

/// A connection that somebody lends.
pub type Db = Box<dyn DerefMut<Target = PgConnection> + Send>;

/// Why there is no answer of the usual kind.
#[derive(Debug)]
pub enum Refusal {
    /// The request is at fault.
    Problem(Problem),
    /// The database is.
    Database(sqlx::Error),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal::Problem(problem)
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Refusal::Database(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Problem(problem) => problem.into_response(),
            // A client never reads what a database says: it tells of tables and hosts.
            Refusal::Database(error) => {
                tracing::warn!(%error, "the database failed");
                contract::unavailable().into_response()
            }
        }
    }
}

#[derive(Clone)]
struct Shared {
    service: Service,
    shop: Arc<dyn Shop>,
}

/// Starts an application that decides like this shop.
///
/// # Errors
/// If a variable is missing, or the tables cannot be made.
pub async fn start(env: Env, shop: impl Shop) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    // A connection is pinged before it is lent: one that was cut is noticed there, and replaced.
    let db = PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(30))
        .connect_lazy(&config.database_url)?;
    // All of them in one round trip. The text is this crate's own.
    sqlx::raw_sql(AssertSqlSafe(shop.tables()))
        .execute(&db)
        .await?;
    let service = Service {
        outside: Outside::new(&config)?,
        db,
    };
    let router = Router::new()
        .route(contract::ORDERS, post(place).get(list))
        .route(contract::ORDER, get(show))
        .route(contract::CANCEL, post(cancel))
        .route(contract::QUOTES, post(quote))
        .with_state(Shared {
            service,
            shop: Arc::new(shop),
        });
    Ok(App::new(router))
}

async fn place(
    State(Shared { service, shop }): State<Shared>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let order = shop.read(&headers, &bytes)?;
    if contract::is_dry_run(query.as_deref()) {
        return Ok(Json(shop.rehearse(&service, order).await?).into_response());
    }
    Ok(shop.run_place(service, order).await)
}

async fn list(State(Shared { service, shop }): State<Shared>) -> Result<Response, Refusal> {
    let mut db = shop.db(&service).await?;
    let orders = shop.list(&mut db).await?;
    let shown: Vec<_> = orders.iter().map(|order| shop.shown(order)).collect();
    Ok(Json(json!({ "orders": shown })).into_response())
}

async fn show(
    State(Shared { service, shop }): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    // Perhaps not a text that the database can hold, and so no order's id.
    if !contract::is_id(&id) {
        return Err(contract::not_found().into());
    }
    let mut db = shop.db(&service).await?;
    let order = shop.find(&mut db, &id).await?;
    let order = order.ok_or_else(contract::not_found)?;
    Ok(Json(shop.shown(&order)).into_response())
}

async fn cancel(
    State(Shared { service, shop }): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let by = Cancellation::read(&headers, &bytes)?;
    if !contract::is_id(&id) {
        return Err(contract::not_found().into());
    }
    Ok(shop.run_cancel(service, id, by).await)
}

async fn quote(
    State(Shared { service, shop }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let cart = Cart::read(&headers, &bytes)?;
    Ok(Json(shop.quote(&service, &cart).await).into_response())
}

/// Does the work to its end, whatever becomes of the caller.
pub async fn in_own_task(
    work: impl Future<Output = Result<Response, Refusal>> + Send + 'static,
) -> Response {
    match tokio::spawn(work).await {
        Ok(result) => result.into_response(),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down.
        Err(_) => contract::unavailable().into_response(),
    }
}
