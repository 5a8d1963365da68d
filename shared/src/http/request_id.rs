//! One id for each request, in the answer and in every line that is logged on its way.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use std::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use crate::telemetry::metrics::TraceOfAnswer;
use crate::telemetry::trace;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are somebody's attempt to fill our logs.
const LONGEST_BYTES: usize = 128;

/// The id of the request in hand, among its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The client's id if it is a sane one, so that the log lines of several services meet; else
    /// one of our own, whose order is that of time.
    fn of(request: &Request) -> Self {
        let given = request
            .headers()
            .get(HEADER)
            .and_then(|value| value.to_str().ok());
        let id = given.filter(|id| is_sane(id)).map(str::to_owned);
        Self(id.unwrap_or_else(|| Uuid::now_v7().to_string()))
    }

    /// Letters, digits and `-_.:`, 128 bytes at most.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Nothing that could break out of a log line or of a header.
fn is_sane(id: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !id.is_empty() && id.len() <= LONGEST_BYTES && id.bytes().all(sane)
}

/// Takes or makes the id, opens the span, logs the outcome, returns the id.
pub(super) async fn with_request_id(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    let span = trace::request_span(&request, id.as_str());
    request.extensions_mut().insert(id.clone());
    let answer = async {
        let began = Instant::now();
        let response = next.run(request).await;
        let ms = began.elapsed().as_secs_f64() * 1e3;
        tracing::info!(status = response.status().as_u16(), ms, "answered");
        response
    };
    let mut response = answer.instrument(span.clone()).await;
    trace::answered(&span, response.status());
    if let Some(trace) = trace::of_span(&span) {
        response.extensions_mut().insert(TraceOfAnswer(trace));
    }
    // A sane id is a valid header value.
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::is_sane;

    #[test]
    fn an_id_that_could_do_harm_is_not_sane() {
        for sane in ["a", "01997c2e-7f2a-7cc0", "trace:1.2_3", &"x".repeat(128)] {
            assert!(is_sane(sane), "{sane}");
        }
        for insane in ["", "a b", "a\nb", "ä", "\"", "{}", &"x".repeat(129)] {
            assert!(!is_sane(insane), "{insane}");
        }
    }
}
