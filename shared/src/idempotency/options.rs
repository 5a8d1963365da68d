//! What the layer is told: who calls, what needs a key, what is remembered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode, header};

use super::{BodyForm, IdempotencyError, Terms};

/// Says who calls, or answers in the handler's place (401).
pub(super) type CallerOf = Arc<dyn Fn(&Parts) -> Result<String, Box<Response>> + Send + Sync>;

/// What happens to a request without a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// 400.
    #[default]
    Refuse,
    /// It runs, without protection.
    Run,
}

/// What happens to a handler whose client hangs up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HangUp {
    /// It runs to its end in a task of its own, and its answer is there for the next attempt.
    #[default]
    Finish,
    /// It is dropped at its next await, wherever that is, and the key is free again.
    Cancel,
}

/// What becomes of the key if the answer counts, but is a stream or too large to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unkept {
    /// That it was done is remembered, without the body: another attempt hears so, and nothing is
    /// done twice.
    #[default]
    Spent,
    /// Nothing is remembered: another attempt does the work again. For work that may be repeated.
    Free,
}

/// What the layer does. Begin with `Options::new`, and change fields.
#[derive(Clone)]
pub struct Options {
    pub(super) caller: CallerOf,
    /// Methods that need a key; default POST and PATCH. The others pass untouched.
    pub methods: Vec<Method>,
    /// Default: refuse.
    pub missing_key: MissingKey,
    /// Lease and time to live.
    pub terms: Terms,
    /// How long a handler's lease is renewed in all; default 5 min. After that a handler that hangs
    /// keeps nobody from trying again.
    pub longest_run: Duration,
    /// How bodies are compared; default byte by byte.
    pub body_form: BodyForm,
    /// The largest request body, in bytes, default 64 KiB; above it 413. It is held in memory.
    pub request_limit_bytes: usize,
    /// The largest answer that is kept, in bytes; default 256 KiB. It is a row of the database.
    pub answer_limit_bytes: usize,
    /// Default: spent.
    pub unkept: Unkept,
    /// Refusals that are as final as a success; default 402 (declined). Answers of 2xx and 3xx are
    /// always remembered; 5xx, 408, 425 and 429 never, for they ask to try again. Wrong input (400,
    /// 422) better not: the client may correct it and keep the key.
    pub remembered_refusals: Vec<StatusCode>,
    /// Headers of the answer that are given again. Default: content type, language, disposition and
    /// location, location, link, entity tag, last modification. Not cookies, not dates, not request
    /// ids: those belong to one exchange.
    pub kept_headers: Vec<HeaderName>,
    /// Default: finish.
    pub on_hang_up: HangUp,
    /// What a client that meets its own running request is told to wait; default 1 s, in whole
    /// seconds.
    pub retry_after: Duration,
}

impl Options {
    /// The defaults, and who calls: an identity that has been proven, such as the subject of a token
    /// that was verified further out. Never one that the client may choose, such as
    /// `X-Forwarded-For`: with it one client reads another's answers.
    ///
    /// `caller` answers itself (401) where nobody can be named.
    pub fn new<R: IntoResponse>(
        caller: impl Fn(&Parts) -> Result<String, R> + Send + Sync + 'static,
    ) -> Self {
        Self {
            caller: Arc::new(move |parts| {
                caller(parts).map_err(|refusal| Box::new(refusal.into_response()))
            }),
            methods: vec![Method::POST, Method::PATCH],
            missing_key: MissingKey::default(),
            terms: Terms::default(),
            longest_run: Duration::from_secs(5 * 60),
            body_form: BodyForm::default(),
            request_limit_bytes: 64 * 1024,
            answer_limit_bytes: 256 * 1024,
            unkept: Unkept::default(),
            remembered_refusals: vec![StatusCode::PAYMENT_REQUIRED],
            kept_headers: vec![
                header::CONTENT_TYPE,
                header::CONTENT_LANGUAGE,
                header::CONTENT_DISPOSITION,
                header::CONTENT_LOCATION,
                header::LOCATION,
                header::LINK,
                header::ETAG,
                header::LAST_MODIFIED,
            ],
            on_hang_up: HangUp::default(),
            retry_after: Duration::from_secs(1),
        }
    }

    pub(super) fn check(&self) -> Result<(), IdempotencyError> {
        let may_be_remembered = |status: &StatusCode| {
            status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429)
        };
        if !self.remembered_refusals.iter().all(may_be_remembered) {
            return Err(IdempotencyError::Unusable(
                "remembered_refusals takes 4xx, but not 408, 425 and 429, which ask to try again",
            ));
        }
        if self.longest_run < self.terms.lease {
            return Err(IdempotencyError::Unusable(
                "longest_run must not be shorter than the lease",
            ));
        }
        Ok(())
    }

    /// Whether an answer is the end of the matter.
    pub(super) fn remembers(&self, status: StatusCode) -> bool {
        status.is_success() || status.is_redirection() || self.remembered_refusals.contains(&status)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("methods", &self.methods)
            .field("missing_key", &self.missing_key)
            .field("terms", &self.terms)
            .field("body_form", &self.body_form)
            .field("on_hang_up", &self.on_hang_up)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new(|_| Ok::<_, StatusCode>("acme".to_owned()))
    }

    #[test]
    fn what_asks_to_try_again_is_never_remembered() {
        let options = options();
        for (status, remembered) in [
            (200, true),
            (201, true),
            (204, true),
            (303, true),
            (402, true),
            (400, false),
            (401, false),
            (404, false),
            (408, false),
            (409, false),
            (422, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(options.remembers(status), remembered, "{status}");
        }
        for never in [200, 408, 425, 429, 500, 503] {
            let mut options = options.clone();
            options.remembered_refusals = vec![StatusCode::from_u16(never).unwrap()];
            assert!(options.check().is_err(), "{never}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        assert!(options().check().is_ok());
        let mut short = options();
        short.longest_run = Duration::from_secs(1);
        assert!(short.check().is_err());
    }
}
