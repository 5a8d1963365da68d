//! Handlers behind the layer, and clients that call them, without a socket.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, StatusCode};
use shared::http::Problem;
use shared::idempotency::{IdempotencyLayer, Options};
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// Options whose caller is whatever the client says: for tests alone.
pub(super) fn options() -> Options {
    Options::new(|parts| {
        let caller = parts.headers.get("x-caller");
        let caller = caller.and_then(|caller| caller.to_str().ok());
        caller
            .map(str::to_owned)
            .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "who is calling?"))
    })
}

/// One handler behind the layer, on `/pay/{id}` and `/ship/{id}` with any method.
pub(super) fn router<F, Fut>(pool: &PgPool, options: Options, handler: F) -> Router
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    let layer = IdempotencyLayer::new(pool.clone(), options).unwrap();
    Router::new()
        .route("/pay/{id}", any(handler.clone()))
        .route("/ship/{id}", any(handler))
        .route_layer(layer)
}

/// A handler that counts its runs and does what a test lets it do.
#[derive(Clone)]
pub(super) struct Till {
    runs: Arc<AtomicUsize>,
    began: mpsc::UnboundedSender<usize>,
    /// One permit lets one run finish.
    pub(super) may_finish: Arc<Semaphore>,
}

impl Till {
    /// The till, and where each run says that it has begun.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<usize>) {
        let (began, begun) = mpsc::unbounded_channel();
        let till = Self {
            runs: Arc::default(),
            began,
            may_finish: Arc::new(Semaphore::new(0)),
        };
        (till, begun)
    }

    /// One that never makes anybody wait.
    pub(super) fn open() -> Self {
        let (till, _) = Self::new();
        till.may_finish.add_permits(Semaphore::MAX_PERMITS >> 1);
        till
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// The number of this run, once it may finish.
    pub(super) async fn serve(&self) -> usize {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        // A test that does not listen does not care.
        let _ = self.began.send(run);
        self.may_finish.acquire().await.unwrap().forget();
        run
    }

    /// A router whose answers are 201 and the number of the run.
    pub(super) fn router(&self, pool: &PgPool, options: Options) -> Router {
        self.router_with(pool, options, |run, _| {
            Response::builder()
                .status(201)
                .header("content-type", "text/plain")
                .header("location", "/payments/7")
                .header("set-cookie", "session=secret")
                .body(Body::from(format!("run {run}")))
                .unwrap()
        })
    }

    pub(super) fn router_with(
        &self,
        pool: &PgPool,
        options: Options,
        answer: impl Fn(usize, Request) -> Response + Clone + Send + Sync + 'static,
    ) -> Router {
        let till = self.clone();
        router(pool, options, move |request| {
            let (till, answer) = (till.clone(), answer.clone());
            async move {
                let run = till.serve().await;
                answer(run, request)
            }
        })
    }
}

/// A request as a client would write it.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) uri: &'static str,
    pub(super) caller: &'static str,
    pub(super) key: Option<&'static str>,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

pub(super) fn call() -> Call {
    Call {
        method: "POST",
        uri: "/pay/7",
        caller: "acme",
        key: Some("\"k\""),
        content_type: "application/json",
        body: r#"{"amount_cents":100,"currency":"EUR"}"#.into(),
    }
}

/// What the client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Got {
    pub(super) fn is_replayed(&self) -> bool {
        self.headers
            .get("idempotency-replayed")
            .is_some_and(|mark| mark == "true")
    }

    /// A problem document with this status; its text.
    pub(super) fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["status"], status);
        &self.body
    }
}

impl Call {
    pub(super) fn request(&self) -> Request {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.uri)
            .header("content-type", self.content_type)
            .header("x-caller", self.caller);
        if let Some(key) = self.key {
            request = request.header("Idempotency-Key", key);
        }
        request.body(Body::from(self.body.clone())).unwrap()
    }

    pub(super) async fn send(&self, router: &Router) -> Got {
        let response = router.clone().oneshot(self.request()).await.unwrap();
        got(response).await
    }

    /// Sent in a task of its own; aborted, it is a client that hangs up.
    pub(super) fn begin(&self, router: &Router) -> JoinHandle<Got> {
        let (call, router) = (self.clone(), router.clone());
        tokio::spawn(async move { call.send(&router).await })
    }
}

pub(super) async fn got(response: Response) -> Got {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Got {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}
