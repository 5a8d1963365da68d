//! What a service takes on at once, and for how long: `tower`'s limits, put together in the one way
//! that works with axum.
//!
//! # The obvious design, and how it fails
//!
//! `router.layer(ConcurrencyLimitLayer::new(64))`. axum puts a layer around each route and not
//! around the router, and `axum::serve` does so anew for each connection (axum 0.8.9): every route
//! of every connection gets 64 of its own. And a request above the limit waits, in a queue without
//! end, until its client has gone. Hence one semaphore for all, and shedding: above the limit a
//! request hears 503 at once. The timeout is innermost, so that the time of a request
//! that is let in is its own.

use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use http::{HeaderValue, StatusCode, header};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;

use crate::http::Problem;

/// Limits around a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Requests that are worked on at once, over all routes; default 256.
    pub at_once: usize,
    /// How long one may take to its first byte; default 10 s.
    pub longest: Duration,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            at_once: 256,
            longest: Duration::from_secs(10),
        }
    }
}

impl LoadLimits {
    /// 503 with `Retry-After` above the limit, 504 for what takes too long. A handler is dropped
    /// then, at whatever await it is. `/health` belongs outside.
    pub fn apply(&self, router: Router) -> Router {
        router.layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(problem))
                .layer(LoadShedLayer::new())
                .layer(GlobalConcurrencyLimitLayer::new(self.at_once))
                .layer(TimeoutLayer::new(self.longest)),
        )
    }
}

async fn problem(error: BoxError) -> Response {
    let problem = if error.is::<Overloaded>() {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too much at once")
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    } else if error.is::<Elapsed>() {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "it took too long")
    } else {
        tracing::error!(%error, "a limit failed in an unknown way");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    };
    problem.into_response()
}
