//! Why work was refused before it was begun, or cut short.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use crate::http::Problem;

/// What a caller can do about it differs, so each has its own case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The dependency has failed too often; it is asked again in a while.
    #[error("{dependency} fails too often, it is left alone")]
    BreakerOpen {
        /// Which one.
        dependency: &'static str,
        /// When an attempt makes sense again, at the earliest.
        retry_in: Duration,
    },
    /// So many calls are under way already that this one would only wait.
    #[error("{dependency} is busy, this call did not get a turn")]
    BulkheadFull {
        /// Which one.
        dependency: &'static str,
    },
    /// Whoever asked does not wait for the answer any more.
    #[error("the deadline is over")]
    DeadlineOver,
    /// Settings that cannot work: a mistake in the program.
    #[error("{0}")]
    Unusable(&'static str),
}

/// The way to HTTP: 503 with `Retry-After`, 504 for a deadline, 500 for settings.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let unavailable = |wait: Duration| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not possible at the moment",
            )
            .header(header::RETRY_AFTER, whole_seconds(wait))
        };
        match refused {
            Refused::BreakerOpen { retry_in, .. } => unavailable(retry_in),
            Refused::BulkheadFull { .. } => unavailable(Duration::from_secs(1)),
            Refused::DeadlineOver => {
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "the deadline is over")
            }
            Refused::Unusable(_) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
            }
        }
    }
}

/// What came of a guarded call.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// It was not made.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was made, and failed.
    #[error("{0}")]
    Failed(E),
}

/// Rounded up, and at least 1: a client that comes back too early gains nothing.
pub(super) fn whole_seconds(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}
