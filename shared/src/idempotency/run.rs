//! The handler under a claim: a heartbeat beside it, and what becomes of its answer.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderMap, StatusCode};

use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tower::{Service, ServiceExt};

use super::layer::{Inner, Work, no_answer};
use super::options::Unkept;
use super::{Answer, Claim, IdempotencyError, Keys, Token};
use crate::http::Problem;

/// How often an answer is offered to a store that fails.
const STORE_ATTEMPTS: u32 = 3;

pub(super) async fn run<S>(inner: &Inner, token: Token, work: Work, handler: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let Work {
        fingerprint,
        mut parts,
        body,
        ..
    } = work;
    let _heartbeat = Heartbeat::start(inner, token.clone());
    let mut unanswered = ReleasedIfDropped::new(&inner.keys, &token);
    parts.extensions.insert(token.clone());
    let answering = handler.oneshot(Request::from_parts(parts, Body::from(body)));
    // Nothing of ours is used after a panic but the token.
    let response = match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            unanswered.disarm();
            release(inner, &token).await;
            resume_unwind(panic);
        }
    };
    // From here on we are not to be dropped between answer and store.
    unanswered.disarm();

    if !inner.options.remembers(response.status()) {
        release(inner, &token).await;
        return response;
    }
    let (response, answer) = match keep(inner, response).await {
        Kept::Answer(response, answer) => (response, answer),
        Kept::Broken(response) | Kept::Free(response) => {
            release(inner, &token).await;
            return response;
        }
    };
    match complete(&inner.keys, &token, &answer).await {
        Ok(true) => response,
        // The lease ran out and the key has gone on without us: what is there now is the answer.
        Ok(false) => {
            tracing::warn!(key = %token.key, "the handler outlived its lease; its answer does not count");
            match inner
                .keys
                .look(&token.scope, &token.key, &fingerprint)
                .await
            {
                Ok(Some(Claim::Fresh(_)) | None) | Err(_) => no_answer(),
                Ok(Some(claim)) => inner.refusal(claim),
            }
        }
        // It was done, and this is what came of it. To keep that from the client would only make it
        // try again, which after the lease does it twice.
        Err(error) => {
            tracing::error!(%error, key = %token.key, "an answer was not stored; another attempt will run again");
            response
        }
    }
}

/// Frees the key if the handler is dropped with us: cancelled, or the runtime is going down.
struct ReleasedIfDropped(Option<(Keys, Token)>);

impl ReleasedIfDropped {
    fn new(keys: &Keys, token: &Token) -> Self {
        Self(Some((keys.clone(), token.clone())))
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for ReleasedIfDropped {
    fn drop(&mut self) {
        let Some((keys, token)) = self.0.take() else {
            return;
        };
        // Without a runtime the lease has to run out.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = keys.release(&token).await {
                    tracing::warn!(%error, "a key was not released; its lease has to run out");
                }
            });
        }
    }
}

/// Renews the lease until it is dropped, in a task of its own: a handler that blocks its thread for
/// a while is no dead handler.
struct Heartbeat(JoinHandle<()>);

impl Heartbeat {
    fn start(inner: &Inner, token: Token) -> Self {
        let keys = inner.keys.clone();
        let longest_run = inner.options.longest_run;
        Self(tokio::spawn(async move {
            // The error says that the time is over.
            let _ = tokio::time::timeout(longest_run, renew(&keys, &token)).await;
            tracing::warn!(key = %token.key, "a handler has lost its lease, or ran for too long");
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends when the key has gone on without us. The handler is not stopped then: what it has begun may
/// be better finished, and its answer cannot be stored.
async fn renew(keys: &Keys, token: &Token) {
    // Often enough that one renewal may fail.
    let every = keys.terms().lease / 3;
    loop {
        tokio::time::sleep(every).await;
        match keys.renew(token).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, key = %token.key, "a lease was not renewed"),
        }
    }
}

async fn release(inner: &Inner, token: &Token) {
    // The lease will do it.
    if let Err(error) = inner.keys.release(token).await {
        tracing::warn!(%error, key = %token.key, "a key was not released");
    }
}

async fn complete(keys: &Keys, token: &Token, answer: &Answer) -> Result<bool, IdempotencyError> {
    let mut attempt = 1;
    loop {
        match keys.complete(token, answer).await {
            Err(error) if attempt < STORE_ATTEMPTS => {
                tracing::warn!(%error, attempt, "an answer was not stored, trying again");
                // The heartbeat keeps the lease meanwhile.
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                attempt += 1;
            }
            // An attempt whose acknowledgement was lost has stored it. The next one is told that
            // nothing is there to complete, and the caller looks, and finds this very answer.
            result => return result,
        }
    }
}

enum Kept {
    /// To send, and to keep.
    Answer(Response, Answer),
    /// To send; its body is not kept, and the key is to be free.
    Free(Response),
    /// The body broke while it was read.
    Broken(Response),
}

async fn keep(inner: &Inner, response: Response) -> Kept {
    let options = &inner.options;
    let (parts, body) = response.into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in &parts.headers {
        if options.kept_headers.contains(name) {
            headers.append(name, value.clone());
        }
    }
    let answer = |body| Answer {
        status: parts.status,
        headers,
        body,
    };
    let limit = u64::try_from(options.answer_limit_bytes).unwrap_or(u64::MAX);
    // A body that does not know its size is a stream: it may never end.
    if body.size_hint().exact().is_none_or(|bytes| bytes > limit) {
        return match options.unkept {
            Unkept::Spent => {
                let answer = answer(None);
                Kept::Answer(Response::from_parts(parts, body), answer)
            }
            Unkept::Free => Kept::Free(Response::from_parts(parts, body)),
        };
    }
    match body.collect().await {
        Ok(collected) => {
            let bytes: Bytes = collected.to_bytes();
            let answer = answer(Some(bytes.clone()));
            Kept::Answer(Response::from_parts(parts, Body::from(bytes)), answer)
        }
        Err(error) => {
            tracing::error!(%error, "a handler's body broke");
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
            Kept::Broken(problem.into_response())
        }
    }
}
