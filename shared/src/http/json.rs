//! JSON in and out; what cannot be read is a problem that says what is wrong with it.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error};
use serde_json::Value;

use super::Problem;

/// As `axum::Json`, but refuses with a problem: 415 for another media type, 413 for a body above
/// the limit (`Manners`), 400 for what is no JSON, 422 for JSON of another shape.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(problem(&rejection)),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A body that has to be a JSON object, in one piece, as somebody who also needs its bytes has it.
///
/// # Errors
/// 415 for another media type than `application/json`, 400 for what is no JSON, 422 for what is no
/// object or one of another shape. A list is refused, though serde would take it for the members of
/// a struct in their order.
pub fn read_object<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json",
        ));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body is not JSON"))?;
    let read = match value {
        Value::Object(_) => serde_json::from_value(value),
        _ => Err(serde_json::Error::custom("it must be an object")),
    };
    read.map_err(|error| Problem::invalid_body(error.to_string()))
}

fn problem(rejection: &JsonRejection) -> Problem {
    let (status, title) = match rejection {
        JsonRejection::MissingJsonContentType(_) => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not said to be JSON",
        ),
        JsonRejection::JsonSyntaxError(_) => (StatusCode::BAD_REQUEST, "the body is no JSON"),
        JsonRejection::JsonDataError(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "the body has another shape",
        ),
        JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
            FailedToBufferBody::LengthLimitError(_),
        )) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        // The client went away in the middle of it, mostly.
        _ => (StatusCode::BAD_REQUEST, "the body could not be read"),
    };
    // It speaks of what the client sent, and of nothing of ours.
    Problem::new(status, title).detail(rejection.body_text())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Payment {
        id: String,
        cents: u64,
    }

    fn read(media_type: &'static str, body: &str) -> Result<Payment, StatusCode> {
        let media_type = HeaderValue::from_static(media_type);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type)]);
        read_object(&headers, body.as_bytes()).map_err(|problem| problem.status())
    }

    #[test]
    fn an_object_is_read() {
        let there = Payment {
            id: "p".to_owned(),
            cents: 1,
        };
        let body = r#"{"id":"p","cents":1}"#;
        assert_eq!(read("application/json; charset=utf-8", body), Ok(there));
    }

    #[test]
    fn everything_else_is_refused() {
        let body = r#"{"id":"p","cents":1}"#;
        let refused = [
            ("text/plain", body, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            ("", body, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            ("application/json", "{", StatusCode::BAD_REQUEST),
            (
                "application/json",
                r#"["p",1]"#,
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            (
                "application/json",
                r#"{"id":"p"}"#,
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
        ];
        for (media_type, body, status) in refused {
            assert_eq!(read(media_type, body), Err(status), "{media_type} {body}");
        }
    }
}
