//! JSON in and out; what cannot be read is a problem that says what is wrong with it.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

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
