//! A call as the fake received it, and the answer that its service gives.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

/// A request that has arrived completely.
#[derive(Debug, Clone)]
pub struct Request {
    number: u64,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Request {
    pub(super) fn new(number: u64, head: http::request::Parts, body: &[u8]) -> Self {
        Self {
            number,
            method: head.method,
            path: head.uri.path().to_owned(),
            headers: head.headers,
            // No service here takes `null`, so it can stand for "this is no JSON".
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
        }
    }

    /// Its number among all calls of this fake, from 1, in the order of arrival.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, without a query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its `Idempotency-Key` as text (the first, if there are several), for a person to read.
    pub fn key(&self) -> Option<String> {
        let value = self.headers.get("idempotency-key")?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// Its body, or `null` if that is no JSON.
    pub fn body(&self) -> &Value {
        &self.body
    }
}

/// What a service answers, whether or not the caller ever hears it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    status: StatusCode,
    headers: Vec<(&'static str, &'static str)>,
    body: Value,
    summary: Option<String>,
}

impl Answer {
    /// An answer with a JSON body.
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            summary: None,
        }
    }

    /// 204: done, and nothing to say about it.
    pub fn no_content() -> Self {
        Self::json(StatusCode::NO_CONTENT, Value::Null)
    }

    /// An answer whose body is `{"error": <code>}`.
    pub fn error(status: StatusCode, code: &str) -> Self {
        Self::json(status, json!({ "error": code })).summarised(code)
    }

    /// What a refusal with this status looks like: the service did nothing.
    pub(super) fn refusal(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            StatusCode::INTERNAL_SERVER_ERROR => "internal_error",
            StatusCode::BAD_GATEWAY => "bad_gateway",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            _ => "refused",
        };
        let answer = Self::error(status, code);
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                answer.with_header("retry-after", "1")
            }
            _ => answer,
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with a few words for the history (a charge id, an error code).
    #[must_use]
    pub fn summarised(mut self, summary: impl Into<String>) -> Self {
        self.summary = Some(summary.into());
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its body.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Whether it carries `Idempotent-Replayed: true`: the service had already done this.
    pub fn is_replay(&self) -> bool {
        self.headers.contains(&("idempotent-replayed", "true"))
    }

    /// One line for the history: `201 ch_1_9f2c33aa`.
    pub(super) fn line(&self) -> String {
        let mut line = self.status.as_u16().to_string();
        if let Some(summary) = &self.summary {
            line.push(' ');
            line.push_str(summary);
        }
        if self.is_replay() {
            line.push_str(" (again)");
        }
        line
    }

    pub(super) fn into_response(self) -> http::Response<axum::body::Body> {
        let mut response = http::Response::new(axum::body::Body::empty());
        *response.status_mut() = self.status;
        if self.status != StatusCode::NO_CONTENT {
            *response.body_mut() = self.body.to_string().into();
            let json = http::HeaderValue::from_static("application/json");
            let headers = response.headers_mut();
            headers.insert(http::header::CONTENT_TYPE, json);
        }
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        response
    }
}
