//! One deadline for a request and everything that is done on its behalf, in all services.
//!
//! # The obvious design, and how it fails
//!
//! A timeout of its own on each call. The client waits 2 s; the service calls another with a
//! timeout of 3 s, and that one a third. When the client has given up all of them work on, for
//! nobody, and under load that is most of what they do. And a sum of timeouts is the timeout of
//! nothing: three calls of 3 s may take 9.
//!
//! So what is passed on is the time that is left. Milliseconds and not an hour of the day: clocks
//! differ between machines by more than a call takes. The time on the wire is then missing from the
//! account, hence `margin`.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Refused;
use crate::http::Problem;

/// The header with the milliseconds that are left, in requests.
pub const DEADLINE_MS: HeaderName = HeaderName::from_static("x-deadline-ms");

tokio::task_local! {
    static CURRENT: Deadline;
}

/// A moment after which nobody wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    pub fn after(time: Duration) -> Self {
        let now = Instant::now();
        // A century is longer than any process, and what an instant can hold everywhere.
        let century = Duration::from_secs(100 * 366 * 24 * 60 * 60);
        Self(now + time.min(century))
    }

    /// That of the work this is called in, if it has one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| *current).ok()
    }

    /// Zero when it is over.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Runs `work` with this deadline, or with the one it is called in if that is earlier: work
    /// cannot give itself more time. `work` is dropped at its next await when the time is over.
    ///
    /// # Errors
    /// `DeadlineOver`, at once and without a single poll if it is over already.
    pub async fn run<F: Future>(self, work: F) -> Result<F::Output, Refused> {
        let deadline = Self::current().map_or(self, |outer| outer.min(self));
        if deadline.remaining().is_zero() {
            return Err(Refused::DeadlineOver);
        }
        let work = CURRENT.scope(deadline, work);
        let in_time = tokio::time::timeout_at(deadline.0, work).await;
        in_time.map_err(|_| Refused::DeadlineOver)
    }
}

/// Takes the deadline along into another task, where it would be lost: `tokio::spawn(carry(work))`.
/// `work` is not cut short by it; what it calls is.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = Deadline::current();
    async move {
        match current {
            Some(deadline) => CURRENT.scope(deadline, work).await,
            None => work.await,
        }
    }
}

/// Writes what is left, less `margin` for the way, into the headers of a call. Writes nothing if
/// there is no deadline.
///
/// # Errors
/// `DeadlineOver` if nothing would be left: do not make the call.
pub fn pass_on(headers: &mut HeaderMap, margin: Duration) -> Result<(), Refused> {
    let Some(deadline) = Deadline::current() else {
        return Ok(());
    };
    // Rounded down: what is passed on must not be more than there is.
    let left = deadline.remaining().saturating_sub(margin).as_millis();
    if left == 0 {
        return Err(Refused::DeadlineOver);
    }
    headers.insert(
        DEADLINE_MS,
        HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX)),
    );
    Ok(())
}

/// Gives every request of a router a deadline: the header's, or `longest`, whichever is earlier.
///
/// 504 without calling the handler if nothing is left, 504 when the time is over meanwhile, 400 for
/// a header that is no number of milliseconds.
pub fn with_deadline(router: Router, longest: Duration) -> Router {
    router.layer(from_fn(move |request, next| within(longest, request, next)))
}

async fn within(longest: Duration, request: Request, next: Next) -> Response {
    let given = match read(request.headers()) {
        Ok(given) => given,
        Err(problem) => return problem.into_response(),
    };
    let time = given.map_or(longest, |given| given.min(longest));
    match Deadline::after(time).run(next.run(request)).await {
        Ok(response) => response,
        Err(refused) => Problem::from(refused).into_response(),
    }
}

fn read(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let mut values = headers.get_all(DEADLINE_MS).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes();
    // `u64::from_str` would take a plus sign, and no bound keeps it from overflowing.
    let is_number = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let ms = std::str::from_utf8(digits)
        .ok()
        .filter(|_| is_number && values.next().is_none())
        .and_then(|digits| digits.parse().ok());
    match ms {
        Some(ms) => Ok(Some(Duration::from_millis(ms))),
        None => Err(
            Problem::new(StatusCode::BAD_REQUEST, "the deadline cannot be read")
                .detail("x-deadline-ms is one number: the milliseconds that are left"),
        ),
    }
}
