//! One log line: what `tracing-subscriber` writes, with what a line needs to be found again.
//!
//! - JSON begins with `service`, `trace_id`, `span_id` and `request_id`, so that the lines of one
//!   request meet, whatever service wrote them.
//! - Text ends with the trace's id if the trace is exported: else there is nothing to look up.
//!
//! Neither holds a secret (`redact`).

use std::fmt::{self, Write};

use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::redact::{redact, redact_json};

/// Writes with `format`, then adds and redacts.
pub(super) struct Line<F> {
    pub(super) format: F,
    /// The service as a JSON string, if the lines are JSON.
    pub(super) json_service: Option<String>,
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        // Whether it is coloured, the format itself knows.
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        // Asked for from the registry and not from the context: a filter that hides the spans of
        // a level from the log does not take the ids away.
        let span = Span::current();
        let trace = span.context().span().span_context().clone();
        match &self.json_service {
            Some(service) => {
                let request_id = request_id(&span);
                let line = json_line(&line, service, &trace, request_id.as_deref());
                writer.write_str(&redact_json(&line))
            }
            None => writer.write_str(&redact(&text_line(line, &trace))),
        }
    }
}

fn json_line(line: &str, service: &str, trace: &SpanContext, request_id: Option<&str>) -> String {
    let Some(rest) = line.strip_prefix('{') else {
        return line.to_owned();
    };
    let mut full = format!("{{\"service\":{service},");
    if trace.is_valid() {
        let (trace_id, span_id) = (trace.trace_id(), trace.span_id());
        let _ = write!(full, r#""trace_id":"{trace_id}","span_id":"{span_id}","#);
    }
    if let Some(id) = request_id {
        let _ = write!(full, r#""request_id":{},"#, serde_json::Value::from(id));
    }
    full.push_str(rest);
    full
}

fn text_line(mut line: String, trace: &SpanContext) -> String {
    if trace.is_sampled() {
        line.truncate(line.trim_end_matches('\n').len());
        let _ = writeln!(line, " trace_id={}", trace.trace_id());
    }
    line
}

/// Remembers the request id that a span or one around it was given, for lines and for queue
/// messages.
pub(super) struct RequestIds;

#[derive(Clone)]
struct RequestIdOfSpan(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RequestIds {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut found = FindRequestId(None);
        attributes.record(&mut found);
        let inherited = || {
            let parent = span.parent()?;
            parent.extensions().get::<RequestIdOfSpan>().cloned()
        };
        if let Some(id) = found.0.map(RequestIdOfSpan).or_else(inherited) {
            span.extensions_mut().insert(id);
        }
    }
}

/// The request id that holds for a span.
pub(super) fn request_id(span: &Span) -> Option<String> {
    span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let extensions = span.extensions();
        extensions.get::<RequestIdOfSpan>().map(|id| id.0.clone())
    })?
}

struct FindRequestId(Option<String>);

impl Visit for FindRequestId {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "request_id" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "request_id" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}
