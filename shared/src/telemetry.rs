//! Logs on standard error: text for people, JSON for machines.
//!
//! - `RUST_LOG`: what is logged, by the usual rules (`info,shared=debug`); default `info,sqlx=warn`.
//! - `LOG_FORMAT`: `text` or `json`; default text on a terminal, JSON elsewhere.
//!
//! Standard output stays free for what a program prints.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Keep it until the end of `main`.
///
/// Nothing is buffered today; once traces are exported, dropping it sends what is left.
#[derive(Debug)]
#[must_use = "keep it until the end of `main`"]
pub struct Guard {
    installed: bool,
}

impl Guard {
    /// Whether this call installed the log. Only the first in a process does.
    pub fn is_installed(&self) -> bool {
        self.installed
    }
}

/// Sends what is logged anywhere in the process to standard error.
///
/// A second call changes nothing; a `RUST_LOG` that cannot be understood counts as far as it can.
/// Neither panics, nor does a standard error that is closed.
pub fn init(service: &str) -> Guard {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = match directives.trim() {
        "" => "info,sqlx=warn",
        given => given,
    };
    let filter = EnvFilter::builder().parse_lossy(directives);
    let is_terminal = std::io::stderr().is_terminal();
    let json = match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !is_terminal,
    };
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        // It would report a failure to write on the very stream that fails, and panic.
        .log_internal_errors(false);
    let installed = if json {
        let format = tracing_subscriber::fmt::format().json().flatten_event(true);
        let service = serde_json::Value::from(service).to_string();
        let format = WithService { service, format };
        log.fmt_fields(JsonFields::new())
            .event_format(format)
            .finish()
            .try_init()
    } else {
        log.finish().try_init()
    };
    Guard {
        installed: installed.is_ok(),
    }
}

/// Puts `"service":"…"` first into each JSON line, so that lines of several services can be told
/// apart in one place.
struct WithService {
    /// As a JSON string.
    service: String,
    format: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for WithService
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{\"service\":{},{rest}", self.service),
            None => writer.write_str(&line),
        }
    }
}
