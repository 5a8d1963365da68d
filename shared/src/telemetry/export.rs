//! Spans on their way to a collector: OTLP over HTTP, with the HTTP client that the tree has.
//!
//! What a program pays is a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048 spans) and a thread of
//! its own. A collector that is down, slow or lying costs the spans, and one warning a minute: the
//! program is never held up, and its log is not flooded.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::{KeyValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Runtime;

use super::redact::{MASK, is_secret_name, redact};

const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// Where a warning of ours comes from, in `RUST_LOG`.
const TARGET: &str = "shared::telemetry";

/// The exporter could not be set up; the program goes on without.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("no thread for exporting traces: {0}")]
    Thread(std::io::Error),
    #[error("no HTTP client for exporting traces: {0}")]
    Client(reqwest::Error),
    #[error("OTEL_EXPORTER_OTLP_… cannot be used: {0}")]
    Variables(#[from] ExporterBuildError),
}

/// What has to end when the program does.
#[derive(Debug)]
pub(super) struct Exporting {
    pub(super) provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Exporting {
    /// Reads `OTEL_EXPORTER_OTLP_…`, `OTEL_TRACES_SAMPLER…` and `OTEL_BSP_…`.
    pub(super) fn start(resource: Resource) -> Result<Self, ExportError> {
        // The SDK's thread knows nothing of Tokio, and the program's own runtime may end before
        // the last spans are sent.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(ExportError::Thread)?;
        // A redirect would be followed by a GET, and a proxy is no place for a collector next door.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ExportError::Client)?;
        let client = Client {
            http,
            runtime: runtime.handle().clone(),
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .build()?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(Careful {
                inner: exporter,
                losses: Mutex::new(Losses::default()),
            })
            .build();
        Ok(Self {
            provider,
            runtime: Some(runtime),
        })
    }

    /// Sends what is left, for as long as `limit`. Whether all of it was handed over in time; what
    /// the collector refused has been warned of by then.
    pub(super) fn stop(&mut self, limit: Duration) -> bool {
        let stopped = self.provider.shutdown_with_timeout(limit).is_ok();
        if let Some(runtime) = self.runtime.take() {
            // In the background: to wait for it within somebody's async `main` would panic.
            runtime.shutdown_background();
        }
        stopped
    }
}

/// `reqwest` on a runtime of its own, for a caller that has none.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            // The exporter has a deadline for all attempts; this one is for a server that accepts
            // and never answers.
            let mut request = reqwest::Request::try_from(request)?;
            request.timeout_mut().get_or_insert(Duration::from_secs(5));
            let response = http.execute(request).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut answer = Response::new(response.bytes().await?);
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            Ok::<_, reqwest::Error>(answer)
        });
        Ok(sent.await??)
    }
}

/// An exporter that lets no secret out and does not fill the log when it fails.
struct Careful<E> {
    inner: E,
    losses: Mutex<Losses>,
}

/// Spans that were lost since the last warning.
#[derive(Default)]
struct Losses {
    spans: usize,
    warned: Option<Instant>,
}

impl<E> fmt::Debug for Careful<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Careful").finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Careful<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        batch.iter_mut().for_each(redact_span);
        let result = self.inner.export(batch).await;
        if let Err(error) = &result
            && let Some(lost) = self.lost(spans)
        {
            tracing::warn!(
                target: TARGET,
                spans_lost = lost,
                error = %error,
                "traces cannot be exported; the next warning of it comes in a minute at the earliest"
            );
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E> Careful<E> {
    /// Counts; the sum if it is time for a warning.
    fn lost(&self, spans: usize) -> Option<usize> {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.spans += spans;
        let is_due = losses
            .warned
            .is_none_or(|warned| warned.elapsed() >= BETWEEN_WARNINGS);
        is_due.then(|| {
            losses.warned = Some(Instant::now());
            std::mem::take(&mut losses.spans)
        })
    }
}

fn redact_span(span: &mut SpanData) {
    span.attributes.iter_mut().for_each(redact_attribute);
    for event in &mut span.events.events {
        event.name = redact(&event.name).into_owned().into();
        event.attributes.iter_mut().for_each(redact_attribute);
    }
}

fn redact_attribute(attribute: &mut KeyValue) {
    if is_secret_name(attribute.key.as_str()) {
        attribute.value = MASK.into();
    } else if let Value::String(text) = &attribute.value {
        attribute.value = redact(text.as_str()).into_owned().into();
    }
}
