//! Logs, traces and metrics: what a program tells about itself, set up by one call.
//!
//! ```no_run
//! // The first line of `main`.
//! let _telemetry = shared::telemetry::init("shop");
//! tracing::info!(amount_cents = 1250, "paid");
//! ```
//!
//! # Logs
//!
//! On standard error; standard output stays free for what a program prints.
//! Text for people, JSON for machines: one object a line, with
//!
//! | key | what |
//! | --- | --- |
//! | `service` | `OTEL_SERVICE_NAME`, or the name that the program gives |
//! | `trace_id`, `span_id` | W3C Trace Context, in hexadecimal; absent outside a span |
//! | `request_id` | of the request that is worked on (`http`), or that a message came from |
//! | `timestamp` | RFC 3339, UTC, microseconds |
//! | `level` | `ERROR`: somebody has to act. `WARN`: it went wrong and was survived. `INFO`: what an operator wants to read. `DEBUG`, `TRACE`: for who looks for a mistake |
//! | `message` and the event's fields | numbers as numbers, units in the names (`ms`, `amount_cents`) |
//! | `target` | the module that wrote it; `RUST_LOG` picks by it |
//! | `span`, `spans` | the fields of the span in hand, and of those around it |
//!
//! A message is a constant and what varies is a field, so that lines can be counted by message.
//! Whatever fails is logged once, where it is handled, and not on its way there.
//!
//! No secret: the password of an address, what follows `Bearer`, and the values of fields and
//! headers like `authorization` or `password` become `***`, in traces as well.
//!
//! # Traces
//!
//! Built into every program, and not behind a feature of Cargo: `prost-derive` asks `syn` for more
//! than the rest of the tree does, so a build with such a feature would compile sqlx, redis and axum
//! a second time, which costs five times what the exporter does.
//!
//! Every span has ids, and they travel (`trace`), whether traces are exported or not. They are
//! exported, by OTLP over HTTP with protobuf, when `OTEL_EXPORTER_OTLP_ENDPOINT` is set or
//! `OTEL_TRACES_EXPORTER=otlp`. Spans from level `INFO`, whatever `RUST_LOG` says. An address with
//! `https` does not work: a TLS stack costs every build more than it gives here; a collector
//! beside the program takes plain HTTP.
//!
//! Without an exporter a trace that begins here is not sampled, and one that a caller sampled goes
//! on as sampled: who takes no part passes on what was decided.
//!
//! # Variables
//!
//! | variable | meaning |
//! | --- | --- |
//! | `RUST_LOG` | what is logged, by the usual rules (`info,shared=debug`); default `info,sqlx=warn` |
//! | `LOG_FORMAT` | `text` or `json`; default text on a terminal, JSON elsewhere |
//! | `NO_COLOR` | no colours on a terminal |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who sends |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_HEADERS`, `…_TIMEOUT`, and the same with `_TRACES_` | where to, and how |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | how many; default `parentbased_always_on` |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` … | the queue of spans that wait |
//! | `OTEL_TRACES_EXPORTER=none`, `OTEL_SDK_DISABLED=true` | no export |
//!
//! # Metrics
//!
//! `Metrics` is a value and not a global, since one process may play several services.

mod environment;
mod export;
mod line;
pub mod metrics;
mod redact;
pub mod trace;

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use environment::{Wishes, of_process, service_name};
use export::Exporting;
use line::{Line, RequestIds};
pub use metrics::Metrics;

/// Keep it until the end of `main`: dropping it sends the spans that still wait, for as long as
/// `Builder::flush_within` allows.
#[derive(Debug)]
#[must_use = "keep it until the end of `main`"]
pub struct Guard {
    installed: bool,
    flush_within: Duration,
    exporting: Option<Exporting>,
}

impl Guard {
    /// Whether this call installed the log. Only the first in a process does.
    pub fn is_installed(&self) -> bool {
        self.installed
    }

    /// Whether traces leave the process.
    pub fn is_exporting(&self) -> bool {
        self.exporting.is_some()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut exporting) = self.exporting.take()
            && !exporting.stop(self.flush_within)
        {
            tracing::warn!(
                limit = ?self.flush_within,
                "the last traces could not be sent in time and are lost"
            );
        }
    }
}

/// Logs and traces with the defaults: `builder(service).init()`.
pub fn init(service: &str) -> Guard {
    builder(service).init()
}

/// Telemetry for a service of this name, to be set up by `init`.
pub fn builder(service: &str) -> Builder {
    Builder {
        service: service.to_owned(),
        default_filter: "info,sqlx=warn".to_owned(),
        flush_within: Duration::from_secs(2),
    }
}

/// What a program decides; the rest is the operator's, by variables.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until `init`"]
pub struct Builder {
    service: String,
    default_filter: String,
    flush_within: Duration,
}

impl Builder {
    /// What is logged where `RUST_LOG` is not set; default `info,sqlx=warn`.
    pub fn default_filter(mut self, directives: &str) -> Self {
        directives.clone_into(&mut self.default_filter);
        self
    }

    /// How long the end of the program may wait for the collector; default 2 s.
    pub fn flush_within(mut self, limit: Duration) -> Self {
        self.flush_within = limit;
        self
    }

    /// Sends what is logged anywhere in the process to standard error, and its spans to where the
    /// variables say.
    ///
    /// A second call in a process changes nothing. A `RUST_LOG` that cannot be understood counts as
    /// far as it can; wrong `OTEL_…` variables are a warning, and the program goes on without.
    /// Neither panics, nor does a standard error that is closed.
    pub fn init(self) -> Guard {
        let mut guard = Guard {
            installed: false,
            flush_within: self.flush_within,
            exporting: None,
        };
        if tracing::dispatcher::has_been_set() {
            return guard;
        }
        let service = service_name(&self.service, &of_process);
        let wishes = Wishes::of(&of_process);
        let mut complaints = wishes.complaints;
        if wishes.export {
            match Exporting::start(environment::resource(&service)) {
                Ok(exporting) => guard.exporting = Some(exporting),
                Err(error) => complaints.push(error.to_string()),
            }
        }
        let provider = match &guard.exporting {
            Some(exporting) => exporting.provider.clone(),
            None => SdkTracerProvider::builder()
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
                .build(),
        };
        // sqlx logs each statement; as events of a span they would be most of the trace.
        let traced = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("sqlx", LevelFilter::WARN);
        let traces = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("shared"))
            // Of use to who works on this code, and noise to who reads the trace.
            .with_location(false)
            .with_threads(false)
            .with_filter(traced);
        guard.installed = Registry::default()
            .with(traces)
            .with(RequestIds)
            .with(self.log(&service))
            .try_init()
            .is_ok();
        if !guard.installed {
            guard.exporting = None;
        }
        for complaint in complaints {
            tracing::warn!("{complaint}");
        }
        guard
    }

    /// The filter is the log's own: a level that hides spans from the log must not take them out
    /// of the trace.
    fn log<S>(&self, service: &str) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let directives = of_process("RUST_LOG").unwrap_or_else(|| self.default_filter.clone());
        let filter = EnvFilter::builder().parse_lossy(directives);
        let is_terminal = std::io::stderr().is_terminal();
        let json = match std::env::var("LOG_FORMAT").as_deref() {
            Ok("json") => true,
            Ok("text") => false,
            _ => !is_terminal,
        };
        let colour =
            is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colour)
            // It would report a failure to write on the very stream that fails, and panic.
            .log_internal_errors(false);
        let format = tracing_subscriber::fmt::format();
        if json {
            let line = Line {
                format: format.json().flatten_event(true),
                json_service: Some(serde_json::Value::from(service).to_string()),
            };
            layer
                .fmt_fields(JsonFields::new())
                .event_format(line)
                .with_filter(filter)
                .boxed()
        } else {
            let line = Line {
                format: format.with_ansi(colour),
                json_service: None,
            };
            layer.event_format(line).with_filter(filter).boxed()
        }
    }
}
