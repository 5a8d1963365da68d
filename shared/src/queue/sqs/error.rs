//! The SDK's errors as decisions.

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::BROKER;
use crate::queue::QueueError;

/// What a caller can do about it.
pub(super) fn sorted<E>(error: &SdkError<E, HttpResponse>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.code().unwrap_or_default();
    let status = error
        .raw_response()
        .map_or(0, |response| response.status().as_u16());
    let passes = match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        // Without credentials nothing is sent, and the SDK calls that a dispatch failure too.
        SdkError::DispatchFailure(failure) => failure.is_timeout() || failure.is_io(),
        _ => status >= 500 || is_throttle(code),
    };
    let reason = match (error.message(), code) {
        (Some(message), code) if !code.is_empty() => format!("{code}: {message}"),
        _ => DisplayErrorContext(error).to_string(),
    };
    match passes {
        true => unavailable(reason),
        false => QueueError::Refused {
            broker: BROKER,
            reason,
        },
    }
}

pub(super) fn unavailable(reason: impl Into<String>) -> QueueError {
    QueueError::Unavailable {
        broker: BROKER,
        reason: reason.into(),
    }
}

/// Codes that say "later".
pub(super) fn is_throttle(code: &str) -> bool {
    [
        "Throttl",
        "OverLimit",
        "TooManyRequests",
        "InProgress",
        "Unavailable",
    ]
    .iter()
    .any(|part| code.contains(part))
}
