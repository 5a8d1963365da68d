//! What every service does around its handlers, in the one order in which it works.

use std::any::Any;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tower_http::catch_panic::CatchPanicLayer;

use super::Problem;
use super::request_id::with_request_id;

/// The layers around a router. Apply them last: they cover the routes that exist by then.
#[derive(Debug, Clone)]
pub struct Manners {
    /// The largest body that is read, in bytes; default 64 KiB.
    pub body_limit_bytes: usize,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            body_limit_bytes: 64 * 1024,
        }
    }
}

impl Manners {
    /// Adds, from the outside in: request id and span; a panic becomes a 500; the body's limit;
    /// problems for routes and methods that do not exist.
    pub fn apply(&self, router: Router) -> Router {
        router
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(self.body_limit_bytes))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(with_request_id))
    }
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::new(StatusCode::NOT_FOUND, "no such resource").detail(format!("there is no {path}"))
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    // axum adds the header `Allow`.
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        .detail(format!("{path} takes no {method}"))
}

/// The text of a panic is for the log: it may hold anything.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(
        panic = text.unwrap_or("of an unknown kind"),
        "a handler panicked"
    );
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response()
}
