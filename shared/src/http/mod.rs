//! HTTP manners: errors as `application/problem+json`, request ids, a polite shutdown.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use shared::http::{Manners, serve, shutdown_signal};
//!
//! let router = Router::new().route("/health", get(async || "ok"));
//! let router = Manners::default().apply(router);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! serve(listener, router, shutdown_signal()?, Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```

mod json;
mod manners;
mod problem;
mod request_id;
mod serve;

pub use json::{Json, read_object};
pub use manners::Manners;
pub use problem::Problem;
pub use request_id::RequestId;
pub use serve::{Drained, serve, shutdown_signal};
