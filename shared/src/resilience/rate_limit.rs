//! So many requests in so much time, for each user and endpoint.
//!
//! # The obvious design, and how it fails
//!
//! A counter for each minute. Twice the quota passes around the full minute, and all that were
//! refused come back at its first second. `governor` spreads it (GCRA): a quota of 100 in 10 s is a
//! burst of 100 and then one each 100 ms.
//!
//! One limit for each user. One cheap endpoint, polled, then uses up what the expensive one needs:
//! hence user *and* endpoint. And the user by address: see `client_address` for what goes wrong.
//!
//! It counts in this process. Three instances allow three times as much; a limit that has to hold
//! exactly belongs into the gateway before them, or into a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::Refused;
use super::error::whole_seconds;
use crate::http::Problem;

/// The quota (RateLimit fields for HTTP, draft 10, section 3).
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of it (section 4).
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// After so many requests, users whose quota is whole again are forgotten.
const FORGET_EVERY: u32 = 1_000;

type User = (String, String);
type Governor =
    governor::RateLimiter<User, HashMapStateStore<User>, TokioClock, StateInformationMiddleware>;
type UserOf = dyn Fn(&Parts) -> Result<String, Box<Response>> + Send + Sync;

/// So many in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What clients read: letters, digits, `-` and `_`.
    pub name: &'static str,
    /// At most so many at once, and in each window.
    pub requests: u32,
    /// After which a used-up quota is whole again, in whole seconds: the field knows no others.
    pub window: Duration,
}

/// A limit for each user and endpoint. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct RateLimit {
    inner: Arc<Inner>,
}

struct Inner {
    quota: Quota,
    /// Between one request and the next.
    period: Duration,
    policy: HeaderValue,
    clock: TokioClock,
    governor: Governor,
    user: Box<UserOf>,
    requests: AtomicU32,
}

impl RateLimit {
    /// `user` names who is counted: a proven identity if there is one, else
    /// `address_to_count_by(TrustedProxies::client(…))`; or it answers itself.
    ///
    /// # Errors
    /// `Unusable`: a quota of nothing, or one that the fields cannot say.
    pub fn new<R: IntoResponse>(
        quota: Quota,
        user: impl Fn(&Parts) -> Result<String, R> + Send + Sync + 'static,
    ) -> Result<Self, Refused> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if quota.name.is_empty() || !quota.name.bytes().all(is_name) {
            return Err(Refused::Unusable(
                "a quota's name is made of letters, digits, - and _",
            ));
        }
        if quota.window.is_zero() || quota.window.subsec_nanos() > 0 {
            return Err(Refused::Unusable("a quota's window is in whole seconds"));
        }
        const WRONG: Refused = Refused::Unusable("a quota allows at least one request");
        let burst = std::num::NonZeroU32::new(quota.requests).ok_or(WRONG)?;
        let period = quota.window / quota.requests;
        let rate = governor::Quota::with_period(period).ok_or(WRONG)?;
        let policy = format!(
            "\"{}\";q={};w={}",
            quota.name,
            quota.requests,
            quota.window.as_secs()
        );
        let policy = HeaderValue::try_from(policy)
            .map_err(|_| Refused::Unusable("a quota's name is made of letters, digits, - and _"))?;
        let clock = TokioClock(Instant::now());
        let governor = governor::RateLimiter::hashmap_with_clock(rate.allow_burst(burst), clock);
        Ok(Self {
            inner: Arc::new(Inner {
                quota,
                period,
                policy,
                clock,
                governor: governor.with_middleware(),
                user: Box::new(move |parts| {
                    user(parts).map_err(|refusal| Box::new(refusal.into_response()))
                }),
                requests: AtomicU32::new(0),
            }),
        })
    }

    /// 429 with `Retry-After` above the quota; `RateLimit-Policy` and `RateLimit` on every answer.
    pub fn apply(&self, router: Router) -> Router {
        let limit = self.clone();
        router.layer(from_fn(move |request, next| {
            limit.clone().check(request, next)
        }))
    }

    async fn check(self, request: Request, next: Next) -> Response {
        let inner = &self.inner;
        let (parts, body) = request.into_parts();
        let user = match (inner.user)(&parts) {
            Ok(user) => user,
            Err(refusal) => return *refusal,
        };
        // The route and not the path: with `/orders/1`, `/orders/2` … each would have its own.
        let route = parts.extensions.get::<MatchedPath>();
        let endpoint = format!("{} {}", parts.method, route.map_or("", MatchedPath::as_str));
        inner.forget_now_and_then();
        let (left, wait) = match inner.governor.check_key(&(user, endpoint)) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(inner.clock.now()))),
        };
        let mut response = match wait {
            None => next.run(Request::from_parts(parts, body)).await,
            Some(wait) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests")
                .detail(format!(
                    "{} in {} s are allowed here",
                    inner.quota.requests,
                    inner.quota.window.as_secs()
                ))
                .header(header::RETRY_AFTER, whole_seconds(wait))
                .into_response(),
        };
        inner.tell(response.headers_mut(), left);
        response
    }
}

impl Inner {
    /// `t`: until the quota is whole again if nothing more is asked.
    fn tell(&self, headers: &mut HeaderMap, left: u32) {
        let used = self.quota.requests.saturating_sub(left);
        let whole_in = self.period.saturating_mul(used);
        let seconds = whole_in.as_secs() + u64::from(whole_in.subsec_nanos() > 0);
        let value = format!("\"{}\";r={left};t={seconds}", self.quota.name);
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        // The name was checked; digits cannot be wrong.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(RATELIMIT, value);
        }
    }

    /// Memory is then bounded by the users of one window, not by all that ever came.
    fn forget_now_and_then(&self) {
        if self.requests.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.governor.retain_recent();
            self.governor.shrink_to_fit();
        }
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("quota", &self.inner.quota)
            .field("users", &self.inner.governor.len())
            .finish()
    }
}

/// Tokio's clock, which tests can pause.
#[derive(Debug, Clone, Copy)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
