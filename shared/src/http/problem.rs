//! Problem details for HTTP APIs (RFC 9457): the one shape in which a service says what went wrong.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

/// The media type of a problem document.
const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document: `title` and `status` always, `detail` and `type` where they help.
///
/// A client never sees a database message: `detail` is text that somebody wrote for clients.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    title: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    // Boxed, because a problem is mostly the `Err` of a result, and a header map is twice the rest.
    #[serde(skip)]
    headers: Box<HeaderMap>,
}

impl Problem {
    /// A problem with a status and a short title that is the same for every occurrence.
    pub fn new(status: StatusCode, title: impl Into<String>) -> Self {
        Self {
            kind: None,
            title: title.into(),
            status: status.as_u16(),
            detail: None,
            headers: Box::default(),
        }
    }

    /// 422: the body can be read, and is not within the limits that `detail` names.
    pub fn invalid_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "The body is not valid").detail(detail)
    }

    /// What is particular to this occurrence, and what the client can do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A URI that names the kind of problem (`type`; `about:blank` when absent).
    #[must_use]
    pub fn kind(mut self, uri: impl Into<String>) -> Self {
        self.kind = Some(uri.into());
        self
    }

    /// One more response header, `Retry-After` for example.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().extend(*self.headers);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}
