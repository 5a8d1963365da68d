//! From the decisions to a running application: routes, state, clients. Nothing is decided here.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use serde_json::json;
use shared::http::Problem;
use tokio::sync::Semaphore;

use crate::{
    contract::{self, Config, Order, Style},
    outside::Outside,
    variants::{
        jobs::Line,
        protocol::Protocol,
        stock::{Owner, Shelf},
    },
};

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    /// From the environment.
    pub config: Config,
    /// The approvals and the slow service.
    pub outside: Outside,
    /// The stock of the style `naive`.
    pub naive: Arc<Shelf>,
    /// The stock of the style `lock`.
    pub lock: Arc<Shelf>,
    /// The way to the stock of the style `worker`.
    pub worker: Owner,
    /// The jobs.
    pub line: Line,
    /// What a fetch needs.
    pub permits: Arc<Semaphore>,
}

#[derive(Clone)]
struct Shared {
    service: Service,
    protocol: Arc<dyn Protocol>,
}

/// Starts an application that decides like this.
///
/// # Errors
/// If a variable is missing.
pub async fn start(env: Env, protocol: impl Protocol) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let (worker, messages) = Owner::new();
    let service = Service {
        outside: Outside::new(&config)?,
        naive: Arc::default(),
        lock: Arc::default(),
        worker,
        line: protocol.line(config.queue_limit),
        permits: Arc::new(Semaphore::new(config.fetch_limit)),
        config,
    };
    let protocol: Arc<dyn Protocol> = Arc::new(protocol);
    let router = Router::new()
        .route(contract::STOCK, put(put_stock).get(get_stock))
        .route(contract::RESERVE, post(reserve))
        .route(contract::JOBS, post(accept_job))
        .route(contract::JOB_STATS, get(job_stats))
        .route(contract::FETCHES, post(fetch))
        .route(contract::DIGESTS, post(digest))
        .with_state(Shared {
            service: service.clone(),
            protocol: Arc::clone(&protocol),
        });
    let mut app = App::new(router).with_task(Arc::clone(&protocol).own(service.clone(), messages));
    for _ in 0..service.config.queue_workers {
        app = app.with_task(Arc::clone(&protocol).run_worker(service.clone()));
    }
    Ok(app)
}

async fn put_stock(
    State(Shared { service, protocol }): State<Shared>,
    Path((style, sku)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let style = Style::of(&style)?;
    let quantity = contract::stock_body(&headers, &bytes)?;
    Ok(match protocol.put(&service, style, &sku, quantity).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refused.into_response(),
    })
}

async fn get_stock(
    State(Shared { service, protocol }): State<Shared>,
    Path((style, sku)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let style = Style::of(&style)?;
    Ok(match protocol.look(&service, style, &sku).await {
        Ok(quantity) => contract::quantity(quantity),
        Err(refused) => refused.into_response(),
    })
}

async fn reserve(
    State(Shared { service, protocol }): State<Shared>,
    Path((style, sku)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let style = Style::of(&style)?;
    let quantity = protocol.read(&headers, &bytes)?;
    let order = Order { sku, quantity };
    let sold = match style {
        Style::Naive => protocol.reserve_naive(&service, &order).await,
        Style::Lock => protocol.reserve_lock(&service, &order).await,
        Style::Worker => protocol.reserve_worker(&service, &order).await,
    };
    Ok(match sold {
        Ok(remaining) => contract::sold(remaining),
        Err(refused) => refused.into_response(),
    })
}

async fn accept_job(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let job = contract::job_body(&headers, &bytes)?;
    Ok(match protocol.accept(&service, job).await {
        true => StatusCode::ACCEPTED.into_response(),
        false => contract::queue_full(),
    })
}

async fn job_stats(State(Shared { service, protocol }): State<Shared>) -> Response {
    Json(protocol.stats(&service)).into_response()
}

async fn fetch(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let id = contract::fetch_body(&headers, &bytes)?;
    Ok(match protocol.fetch(&service, &id).await {
        Ok(()) => Json(json!({ "id": id })).into_response(),
        Err(_) => contract::fetch_failed(),
    })
}

async fn digest(
    State(Shared { service, protocol }): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let order = contract::digest_body(&headers, &bytes)?;
    Ok(match protocol.digest(&service, order).await {
        Some(digest) => Json(json!({ "digest": digest })).into_response(),
        // The runtime is going down.
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}
