//! W3C Trace Context in and out: which trace the work in hand belongs to.
//!
//! - A server *continues* the trace of its caller: its span is a child of the caller's.
//! - A client *injects* the span in hand into what it sends: HTTP headers, or a message's.
//! - A consumer of a queue *links* to the producer's span and begins a trace of its own
//!   (OpenTelemetry's conventions for messaging): a message may be handled hours later, many at a
//!   time, more than once, and a trace of days that never ends is of use to nobody.
//!
//! All of it works whether traces are exported or not, and without any set-up does nothing.

use std::collections::BTreeMap;

use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use opentelemetry::trace::SpanContext;

/// Something that carries `traceparent` and `tracestate` over a wire.
pub trait Carrier {
    /// The value of a name in small letters; `None` if there is none, more than one, or no text.
    fn read(&self, name: &str) -> Option<&str>;
    /// Puts a value in the place of what was there.
    fn write(&mut self, name: &'static str, value: &str);
}

impl Carrier for HeaderMap {
    fn read(&self, name: &str) -> Option<&str> {
        // Two parents are no parent.
        let mut values = self.get_all(name).iter();
        let value = values.next()?;
        values.next().is_none().then(|| value.to_str().ok())?
    }

    fn write(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.insert(HeaderName::from_static(name), value);
        }
    }
}

impl Carrier for BTreeMap<String, String> {
    fn read(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }

    fn write(&mut self, name: &'static str, value: &str) {
        self.insert(name.to_owned(), value.to_owned());
    }
}

/// Makes `span` a child of the one that the carrier names, in that trace. Whether it did.
///
/// To be called before the span is entered: afterwards its parent is decided, and nothing happens.
pub fn continue_from(span: &Span, carrier: &impl Carrier) -> bool {
    let parent = extract(carrier);
    parent.span().span_context().is_valid() && span.set_parent(parent).is_ok()
}

/// Links `span` to the one that the carrier names. Whether there was one.
pub fn link_to(span: &Span, carrier: &impl Carrier) -> bool {
    let producer = extract(carrier).span().span_context().clone();
    let is_valid = producer.is_valid();
    if is_valid {
        span.add_link(producer);
    }
    is_valid
}

/// Writes the span in hand into what is about to be sent. Without one the carrier stays as it is.
///
/// ```
/// let mut request = http::Request::new(());
/// shared::telemetry::trace::inject(request.headers_mut());
/// ```
pub fn inject(carrier: &mut impl Carrier) {
    inject_span(&Span::current(), carrier);
}

/// As `inject`, for another span than the one in hand: a producer's, for example.
pub fn inject_span(span: &Span, carrier: &mut impl Carrier) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Writing(carrier));
}

/// The trace and span in hand, in the form of the wire (32 and 16 hexadecimal digits), and whether
/// it is sampled. `None` without a span, or without `telemetry::init`.
pub fn current() -> Option<SpanContext> {
    of_span(&Span::current())
}

/// The request id that holds for the work in hand: for the headers of a message.
pub fn current_request_id() -> Option<String> {
    super::line::request_id(&Span::current())
}

pub(crate) fn of_span(span: &Span) -> Option<SpanContext> {
    let context = span.context().span().span_context().clone();
    context.is_valid().then_some(context)
}

fn extract(carrier: &impl Carrier) -> Context {
    // Not the context in hand: what the caller did not send must not be made up.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Reading(carrier))
}

/// The span of a request that a server answers, a child of the caller's.
///
/// Fields for the log, attributes by OpenTelemetry's conventions for the trace. The name has the
/// route and not the path: a path holds ids, and a name for each of them is no name.
pub(crate) fn request_span(request: &Request, request_id: &str) -> Span {
    let method = request.method();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("unknown", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        request_id,
        %method,
        route,
        otel.kind = "server",
        otel.name = format_args!("{method} {route}"),
        otel.status_code = tracing::field::Empty,
    );
    continue_from(&span, request.headers());
    span.set_attribute("http.request.method", method.to_string());
    span.set_attribute("url.path", request.uri().path().to_owned());
    if let Some(matched) = matched {
        span.set_attribute("http.route", matched.as_str().to_owned());
    }
    span
}

/// A client's error is no error of the server's: the span of a 404 is not marked.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.set_attribute("error.type", status.as_str().to_owned());
    }
}

/// Attributes of a span that sends to or takes from a queue, by OpenTelemetry's conventions:
/// `operation` is `send`, `receive`, `process` or `settle`.
pub fn messaging(span: &Span, system: &'static str, destination: &str, operation: &'static str) {
    for attribute in [
        KeyValue::new("messaging.system", system),
        KeyValue::new("messaging.destination.name", destination.to_owned()),
        KeyValue::new("messaging.operation.type", operation),
    ] {
        span.set_attribute(attribute.key, attribute.value);
    }
}

struct Reading<'a, C>(&'a C);

impl<C: Carrier> Extractor for Reading<'_, C> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.read(key)
    }

    /// The propagator asks for what it knows, and never for a list.
    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

struct Writing<'a, C>(&'a mut C);

impl<C: Carrier> Injector for Writing<'_, C> {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.0.write("traceparent", &value),
            // Empty for nearly everybody, and an empty header says nothing.
            "tracestate" if !value.is_empty() => self.0.write("tracestate", &value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parent(headers: &[&'static str]) -> Option<SpanContext> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append("traceparent", HeaderValue::from_static(value));
        }
        let context = extract(&map).span().span_context().clone();
        context.is_valid().then_some(context)
    }

    #[test]
    fn a_parent_that_is_not_one_is_none() {
        let good = parent(&[PARENT]).unwrap();
        assert_eq!(good.span_id().to_string(), "b7ad6b7169203331");
        assert!(good.is_sampled() && good.is_remote());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(parent(&[bad]), None, "{bad}");
        }
        assert_eq!(parent(&[PARENT, PARENT]), None, "two parents");
    }

    #[test]
    fn without_a_trace_nothing_is_sent() {
        let mut headers = BTreeMap::new();
        inject(&mut headers);
        assert_eq!(headers, BTreeMap::new());
        assert_eq!(current(), None);
    }
}
