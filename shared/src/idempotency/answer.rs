//! An answer that can be kept and given again.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::http::Problem;

/// The response header that says: this is what I said the first time.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Status, chosen headers and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// As it was sent.
    pub status: StatusCode,
    /// Those that are part of the answer, and not of its transport.
    pub headers: HeaderMap,
    /// `None`: the request was done, but its answer was too large to keep, or a stream.
    pub body: Option<Bytes>,
}

impl Answer {
    /// An answer in JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON: a map whose keys are no texts, for example.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let json = HeaderValue::from_static("application/json");
        Ok(Self {
            status,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body: Some(serde_json::to_vec(value)?.into()),
        })
    }

    /// The same answer to somebody who asks again, marked with `Idempotency-Replayed: true`.
    ///
    /// Where the body was not kept, a problem says that the request is done: 409 without
    /// `Retry-After`, for another attempt would hear the same.
    pub fn replayed(self) -> Response {
        let mut response = match self.body {
            Some(_) => self.into_response(),
            None => Problem::new(
                StatusCode::CONFLICT,
                "the request was done, its answer is not kept",
            )
            .detail(format!(
                "it was answered with {}; look at the resource, and do not send it again",
                self.status
            ))
            .into_response(),
        };
        let mark = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, mark);
        response
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body.unwrap_or_default()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
