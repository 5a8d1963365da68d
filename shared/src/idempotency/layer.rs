//! The layer around a handler: who calls with which key, and what the client hears.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sqlx::PgPool;
use tower::{Layer, Service, ServiceExt};
use tracing::Instrument;

use super::options::{HangUp, MissingKey, Options};
use super::{Claim, Fingerprint, IdempotencyError, Key, Keys, Scope, run};
use crate::http::Problem;

/// Runs a handler once for each `Idempotency-Key` of a caller.
///
/// | client sends | it gets |
/// | --- | --- |
/// | no key, or none that can be read | 400 |
/// | a body above the limit | 413 |
/// | a key of another request, running or answered | 422 |
/// | a key whose request is running | 409, `Retry-After` |
/// | a key that was answered | the same status, headers and body, `Idempotency-Replayed: true` |
/// | anything, while the store is down | 503, and the handler does not run |
///
/// Put it on the routes that need it (`MethodRouter::layer`, `Router::route_layer`), inside of
/// whatever proves who calls, and outside of nothing that reads the body. Wrong input costs a claim
/// and a release; a handler that refuses most of what it gets should be behind a check of its own.
///
/// ```
/// # fn example(pool: sqlx::PgPool) -> Result<axum::Router, shared::idempotency::IdempotencyError> {
/// use axum::{Router, routing::post};
/// use http::StatusCode;
/// use shared::idempotency::{IdempotencyLayer, Options};
///
/// /// Put there by whatever verified the caller's token.
/// #[derive(Clone)]
/// struct Account(String);
///
/// let options = Options::new(|parts| match parts.extensions.get::<Account>() {
///     Some(account) => Ok(account.0.clone()),
///     None => Err(StatusCode::UNAUTHORIZED),
/// });
/// let once = IdempotencyLayer::new(pool, options)?;
/// let router = Router::new().route("/payments", post(async || "paid").layer(once));
/// # Ok(router)
/// # }
/// ```
///
/// # If the process dies here
///
/// Before the claim, or between claim and effect: nothing has happened; the next attempt runs when
/// the lease is over. Between the effect and the stored answer: the effect has happened, and the
/// next attempt after the lease runs the handler *again*. A layer cannot close that gap, for it
/// cannot see the effect; `claim` and `complete` in the handler's own transaction can. After the
/// answer was stored: the next attempt gets it.
#[derive(Debug, Clone)]
pub struct IdempotencyLayer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) keys: Keys,
    pub(super) options: Options,
}

impl IdempotencyLayer {
    /// Needs the tables of `idempotency::MIGRATIONS`. The pool may be the handlers' own: the layer
    /// holds no connection while a handler runs. A heartbeat waits for one like everybody else, so
    /// the lease should be longer than three times the pool's `acquire_timeout`.
    ///
    /// # Errors
    /// `Unusable`: options that cannot work.
    pub fn new(pool: PgPool, options: Options) -> Result<Self, IdempotencyError> {
        options.check()?;
        let keys = Keys::new(pool, options.terms)?;
        let inner = Arc::new(Inner { keys, options });
        Ok(Self { inner })
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, handler: S) -> Self::Service {
        Idempotency {
            inner: Arc::clone(&self.inner),
            handler,
        }
    }
}

/// The handler behind the layer.
#[derive(Debug, Clone)]
pub struct Idempotency<S> {
    inner: Arc<Inner>,
    handler: S,
}

impl<S> Service<Request> for Idempotency<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.handler.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The clone may not be ready; the one that was asked is.
        let clone = self.handler.clone();
        let mut handler = std::mem::replace(&mut self.handler, clone);
        let inner = Arc::clone(&self.inner);
        if !inner.options.methods.contains(request.method()) {
            return Box::pin(handler.call(request));
        }
        Box::pin(async move {
            let work = match inner.admit(request).await {
                Ok(Admitted::WithKey(work)) => *work,
                Ok(Admitted::WithoutKey(request)) => return handler.oneshot(*request).await,
                Err(refusal) => return Ok(refusal),
            };
            let on_hang_up = inner.options.on_hang_up;
            let settled = async move { inner.settle(work, handler).await };
            Ok(match on_hang_up {
                HangUp::Cancel => settled.await,
                HangUp::Finish => in_own_task(settled).await,
            })
        })
    }
}

/// A request that may try for its key.
pub(super) struct Work {
    pub(super) scope: Scope,
    pub(super) key: Key,
    pub(super) fingerprint: Fingerprint,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

enum Admitted {
    WithKey(Box<Work>),
    WithoutKey(Box<Request>),
}

impl Inner {
    /// Reads what has to be known. Nothing is claimed yet, so a client that hangs up in the middle
    /// of its body leaves no trace.
    async fn admit(&self, request: Request) -> Result<Admitted, Response> {
        let (parts, body) = request.into_parts();
        let caller = (self.options.caller)(&parts).map_err(|refusal| *refusal)?;
        let key = match Key::from_headers(&parts.headers) {
            Ok(Some(key)) => key,
            Ok(None) if self.options.missing_key == MissingKey::Run => {
                let request = Request::from_parts(parts, body);
                return Ok(Admitted::WithoutKey(Box::new(request)));
            }
            Ok(None) => return Err(bad_key("the header is missing")),
            Err(error) => return Err(bad_key(&error.to_string())),
        };
        let body = self.read(body).await?;
        // The route and not the path: which resource is meant is part of the fingerprint, so that a
        // key that was used for another one is a mistake that is told.
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map_or(parts.uri.path(), MatchedPath::as_str);
        Ok(Admitted::WithKey(Box::new(Work {
            scope: Scope::new(&[&caller, parts.method.as_str(), route]),
            key,
            fingerprint: Fingerprint::of_request(&parts, &body, self.options.body_form),
            parts,
            body,
        })))
    }

    async fn read(&self, body: Body) -> Result<Bytes, Response> {
        let limit = self.options.request_limit_bytes;
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
                Err(problem
                    .detail(format!("at most {limit} bytes"))
                    .into_response())
            }
            // The client went away in the middle of it, mostly.
            Err(_) => {
                let title = "the body could not be read";
                Err(Problem::new(StatusCode::BAD_REQUEST, title).into_response())
            }
        }
    }

    /// From the claim to the answer.
    async fn settle<S>(&self, work: Work, handler: S) -> Response
    where
        S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
        S::Future: Send,
    {
        match self
            .keys
            .claim(&work.scope, &work.key, &work.fingerprint)
            .await
        {
            Ok(Claim::Fresh(token)) => run::run(self, token, work, handler).await,
            Ok(taken) => self.refusal(taken),
            Err(error) => unavailable(&error),
        }
    }

    /// The answer to a request that did not get its key.
    pub(super) fn refusal(&self, claim: Claim) -> Response {
        match claim {
            Claim::Replay(answer) => answer.replayed(),
            Claim::Mismatch => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this key was used for another request",
            )
            .detail("a key names one request; choose a new one for another")
            .into_response(),
            Claim::InFlight | Claim::Fresh(_) => {
                Problem::new(StatusCode::CONFLICT, "a request with this key is running")
                    .header(header::RETRY_AFTER, seconds(self.options.retry_after))
                    .into_response()
            }
        }
    }
}

/// 503: the store has failed. The database's words are for the log.
pub(super) fn unavailable(error: &IdempotencyError) -> Response {
    tracing::error!(%error, "the idempotency store failed, the request was not run");
    no_answer()
}

/// 503: send the same request again.
pub(super) fn no_answer() -> Response {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not possible at the moment; send the same request again",
    )
    .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    .into_response()
}

/// Rounded up: a client that comes back too early gains nothing.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

fn bad_key(detail: &str) -> Response {
    Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key is required")
        .detail(detail)
        .into_response()
}

/// Comes to its end whatever becomes of the caller, with the span of the caller's request.
async fn in_own_task(work: impl Future<Output = Response> + Send + 'static) -> Response {
    let work = crate::resilience::deadline::carry(work);
    match tokio::spawn(work.in_current_span()).await {
        Ok(response) => response,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => no_answer(),
        },
    }
}
