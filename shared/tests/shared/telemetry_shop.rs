//! A small shop as a process of its own, since telemetry belongs to a whole process; and the
//! collector that its spans are sent to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use shared::http::{Json, Manners, serve};
use shared::telemetry::{Metrics, trace};
use tempfile::NamedTempFile;
use tracing::{info, info_span, warn};

use crate::role;

pub(crate) const ROLE: &str = "shop";

/// The shop: prints its address, serves until its standard input ends, then says how many
/// milliseconds the end of telemetry took.
pub(crate) fn play() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limit = Duration::from_millis(1500);
    let telemetry = shared::telemetry::builder("shop")
        .flush_within(limit)
        .init();
    runtime.block_on(async {
        let metrics = Metrics::new();
        let router = Router::new()
            .route("/orders/{id}", get(order))
            .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
            .route("/secrets", get(secrets))
            .route("/metrics", metrics.route());
        let router = metrics.measure(Manners::default().apply(router));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        println!("{address} | {}", telemetry.is_exporting());
        let told = async {
            let read = || std::io::stdin().read(&mut [0]);
            let _ = tokio::task::spawn_blocking(read).await;
        };
        serve(listener, router, told, Duration::from_secs(5))
            .await
            .unwrap();
    });
    let began = Instant::now();
    drop(telemetry);
    println!("{}", began.elapsed().as_millis());
    ExitCode::SUCCESS
}

/// Charges, tells a queue, and handles the message in a task that knows of nothing but it.
async fn order() -> Json<BTreeMap<String, String>> {
    info_span!("charge", otel.kind = "client", amount_cents = 1250).in_scope(|| info!("charged"));
    let mut message = BTreeMap::new();
    let send = info_span!("send orders", otel.kind = "producer");
    trace::messaging(&send, "postgresql", "orders", "send");
    trace::inject_span(&send, &mut message);
    drop(send);
    message.extend(trace::current_request_id().map(|id| ("x-request-id".to_owned(), id)));
    let taken = message.clone();
    let consumer = tokio::spawn(async move {
        let process = info_span!(parent: None, "process orders", otel.kind = "consumer");
        trace::messaging(&process, "postgresql", "orders", "process");
        trace::link_to(&process, &taken);
        process.in_scope(|| info!("shipped"));
    });
    consumer.await.unwrap();
    Json(message)
}

/// What somebody in a hurry writes.
async fn secrets(headers: HeaderMap) {
    let url = "postgres://shop:hunter2@db:5432/shop";
    warn!(?headers, "asked");
    warn!(url, db_password = "hunter2", "cannot reach {url}");
    info_span!("connect", url, authorization = "Basic aHVudGVyMg==").in_scope(|| {
        warn!("refused: {url}");
    });
}

/// A shop that runs.
pub(crate) struct Shop {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: NamedTempFile,
    pub(crate) address: String,
    pub(crate) is_exporting: bool,
}

impl Shop {
    pub(crate) fn open(env: &[(&str, &str)]) -> Self {
        let stderr = NamedTempFile::new().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        for (name, _) in std::env::vars_os() {
            // What somebody's shell says must not decide what is tested.
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        command.env(role::VARIABLE, ROLE).env("LOG_FORMAT", "json");
        command.env("RUST_LOG", "info").envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(stderr.reopen().unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let (address, exporting) = line.trim().split_once(" | ").unwrap();
        Self {
            address: format!("http://{address}"),
            is_exporting: exporting == "true",
            child,
            stdout,
            stderr,
        }
    }

    /// One request, by a caller with this `traceparent`.
    pub(crate) async fn ask(&self, path: &str, traceparent: Option<&str>) -> reqwest::Response {
        let request = reqwest::Client::new().get(format!("{}{path}", self.address));
        let request = request
            .header("x-request-id", "r-7")
            .bearer_auth("hunter2-Token");
        let request = match traceparent {
            Some(parent) => request.header("traceparent", parent),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// Lets it end: how long telemetry took, and what was logged.
    pub(crate) fn close(mut self) -> (Duration, String) {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success());
        let log = std::fs::read_to_string(self.stderr.path()).unwrap();
        (Duration::from_millis(line.trim().parse().unwrap()), log)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An OTLP receiver that keeps what it was sent.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    /// Opens it; the second is the value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) async fn open() -> (Self, String) {
        let collector = Self::default();
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, endpoint)
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests();
        let resources = requests
            .into_iter()
            .flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    pub(crate) fn span(&self, name: &str) -> Span {
        let named = |span: &Span| span.name == name;
        let mut spans: Vec<Span> = self.spans().into_iter().filter(named).collect();
        assert_eq!(spans.len(), 1, "{name}: {spans:?}");
        spans.remove(0)
    }
}

async fn receive(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.received.lock().unwrap().push(request);
    StatusCode::OK
}

pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of an attribute, numbers as digits; empty if there is none.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.clone());
    match value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => text,
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
        }) => number.to_string(),
        _ => String::new(),
    }
}
