//! Rate, errors and duration of what a server answers.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::{Method, StatusCode};
use opentelemetry::trace::SpanContext;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Metrics, TraceLabel};

/// Seconds: those of OpenTelemetry's `http.server.request.duration`.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

type Durations<L> =
    Family<L, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>;

#[derive(Debug)]
pub(super) struct HttpMetrics {
    durations: Durations<Answered>,
    active: Family<Asked, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
}

/// The trace that an answer belongs to, among its extensions: the span ends before the metrics
/// are written, which stand around it.
#[derive(Debug, Clone)]
pub(crate) struct TraceOfAnswer(pub(crate) SpanContext);

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(|| {
                HistogramWithExemplars::new(BUCKETS.into_iter())
            }),
            active: Family::default(),
        };
        registry.register_with_unit(
            "http_server_request_duration",
            "From the head of a request to the head of its answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests that are being worked on",
            metrics.active.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Counts and times each request of these routes, those that match none and those that panic
    /// included. To be applied last, around `Manners`: what is outside of it is not seen.
    pub fn measure<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        router.layer(from_fn_with_state(self.clone(), measured))
    }
}

async fn measured(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>();
    let mut running = Running {
        metrics,
        method,
        route: route.map_or("unknown", MatchedPath::as_str).to_owned(),
        began: Instant::now(),
        // What holds if the future is dropped: nobody waited for the answer.
        status: "aborted",
        trace: None,
    };
    running.active().inc();
    let response = next.run(request).await;
    running.status = status_label(response.status());
    let trace = response.extensions().get::<TraceOfAnswer>();
    running.trace = trace.and_then(|trace| TraceLabel::of(&trace.0));
    response
}

/// Counts when it is dropped, so that a client that hangs up and a panic are counted as well.
struct Running {
    metrics: Metrics,
    method: &'static str,
    route: String,
    began: Instant,
    status: &'static str,
    trace: Option<TraceLabel>,
}

impl Running {
    fn active(&self) -> Gauge {
        let asked = Asked {
            method: self.method,
        };
        self.metrics.http.active.get_or_create_owned(&asked)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.active().dec();
        let took: Duration = self.began.elapsed();
        let status = match std::thread::panicking() {
            true => "5xx",
            false => self.status,
        };
        let answered = Answered {
            method: self.method,
            route: std::mem::take(&mut self.route),
            status,
        };
        let histogram = self.metrics.http.durations.get_or_create_owned(&answered);
        histogram.observe(took.as_secs_f64(), self.trace.take(), None);
    }
}

/// A client may invent as many methods as it likes.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "other",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}
