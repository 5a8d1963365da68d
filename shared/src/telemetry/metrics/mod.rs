//! Metrics for Prometheus, in OpenMetrics' names and units.
//!
//! | metric | labels | what |
//! | --- | --- | --- |
//! | `http_server_request_duration_seconds` | `method`, `route`, `status` | histogram, with exemplars. Its count is the rate, its count at `5xx` the errors: a counter beside it would say the same twice |
//! | `http_server_active_requests` | `method` | being worked on |
//! | `db_pool_connections` | `pool`, `state` (`used`, `idle`) | open connections |
//! | `db_pool_max_connections` | `pool` | at most so many |
//! | `db_pool_wait_seconds` | `pool`, `outcome` | histogram of what a request waited for a connection, with exemplars |
//!
//! Labels have few values, whatever clients send: each combination is a series for ever. A path
//! that matches no route counts as `unknown`, a method that no standard knows as `other`.
//!
//! An exemplar is the trace of one request that fell into a bucket: from the slow bucket of a
//! graph straight to a slow trace. Only sampled traces are named, since no others can be found.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) {
//! use axum::{Router, routing::get};
//! use shared::{http::Manners, telemetry::Metrics};
//!
//! let metrics = Metrics::new();
//! metrics.watch_pool("orders", &pool);
//! let router = Router::new()
//!     .route("/orders/{id}", get(async || "…"))
//!     .route("/metrics", metrics.route());
//! let router = metrics.measure(Manners::default().apply(router));
//! # let _: Router = router;
//! # }
//! ```

mod exposition;
mod http;
mod pool;

use std::sync::{Arc, PoisonError, RwLock};

use opentelemetry::trace::SpanContext;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;
use sqlx::PgPool;

use self::http::HttpMetrics;
pub(crate) use self::http::TraceOfAnswer;
use self::pool::Pools;
pub(crate) use self::pool::waiting;

/// The metrics of one service. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<RwLock<Registry>>,
    http: Arc<HttpMetrics>,
    pools: Arc<Pools>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With the metrics of this module, and nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let http = Arc::new(HttpMetrics::register(&mut registry));
        let pools = Pools::register(&mut registry);
        Self {
            registry: Arc::new(RwLock::new(registry)),
            http,
            pools,
        }
    }

    /// Adds metrics of one's own: `_total` and the unit are appended to the name when it is shown,
    /// and are not part of it.
    ///
    /// The library takes a name twice without a word, and no scraper takes the result: each name
    /// is registered once for a `Metrics`.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(
            &mut self
                .registry
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Watches a pool under this name, until the pool is closed or the last clone of this is
    /// dropped. What goes through `db::acquire`, `db::begin` and `db::transaction` is timed;
    /// statements that are run on the pool itself are not: sqlx has no place for it.
    ///
    /// A pool that is watched stays open until then: the watcher holds a handle to it.
    pub fn watch_pool(&self, name: &str, pool: &PgPool) {
        self.pools.watch(name, pool);
    }
}

/// The label of an exemplar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TraceLabel {
    trace_id: String,
}

impl TraceLabel {
    fn of(trace: &SpanContext) -> Option<Self> {
        trace.is_sampled().then(|| Self {
            trace_id: trace.trace_id().to_string(),
        })
    }

    fn current() -> Option<Self> {
        Self::of(&super::trace::current()?)
    }
}
