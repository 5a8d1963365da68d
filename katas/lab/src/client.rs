//! The lab's HTTP client: a new connection for each judged request, everything in the history.

use std::{fmt, sync::LazyLock, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header::HeaderName};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    history::History,
    instance::Instance,
    verdict::{Judged, Promise, Stop},
};

/// A program that is only slow must not be called silent; this is the last resort.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client that keeps no connection: a kept one would hide what a restart does to callers, and
/// would be retried by the library when it turns out to be dead.
pub(crate) fn http() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS needs nothing that could be missing")
    });
    CLIENT.clone()
}

/// The innermost reason of an error: "connection refused" rather than "error sending request".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A request to an instance, not sent yet.
pub struct Request {
    instance: Instance,
    actor: String,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    shown: Option<String>,
    quiet: bool,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// No answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer(pub String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer ({})", self.0)
    }
}

impl Request {
    pub(crate) fn new(instance: Instance, method: Method, path: impl Into<String>) -> Self {
        Self {
            actor: instance.name().to_owned(),
            instance,
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            shown: None,
            quiet: false,
        }
    }

    /// Who asks, in the history: `request 17`.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// One more header. Values that HTTP does not allow are left out of the request; a check that
    /// wants to send such bytes has to use a raw connection.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(HeaderName::from_static(name), value);
        }
        self
    }

    /// A JSON body with its media type.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.bytes("application/json", body.to_string().into_bytes())
    }

    /// A body as it is.
    #[must_use]
    pub fn bytes(mut self, media_type: &'static str, body: Vec<u8>) -> Self {
        self.headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static(media_type),
        );
        self.body = body;
        self
    }

    /// What the history says besides method and path: `key 7f3a`.
    #[must_use]
    pub fn shown(mut self, shown: impl Into<String>) -> Self {
        self.shown = Some(shown.into());
        self
    }

    /// Leaves it out of the history: it is a witness and no part of the story.
    #[must_use]
    pub fn quietly(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Sends it, and takes whatever comes, silence included.
    ///
    /// # Errors
    /// [`Stop::NotStarted`] on a 501.
    pub async fn attempt(self) -> Attempt {
        let history = match self.quiet {
            true => History::new(),
            false => self.instance.history().clone(),
        };
        let shown = self.shown.as_deref().map(|shown| format!("  {shown}"));
        history.note(
            &self.actor,
            format!("{} {}{}", self.method, self.path, shown.unwrap_or_default()),
        );
        let request = http()
            .request(self.method, format!("{}{}", self.instance.url(), self.path))
            .headers(self.headers)
            .timeout(PATIENCE)
            .body(self.body);
        let answer = async {
            let reply = request.send().await?;
            let (status, headers) = (reply.status(), reply.headers().clone());
            let body = reply.bytes().await?.to_vec();
            Ok::<_, reqwest::Error>(Reply {
                status,
                headers,
                body,
            })
        };
        match answer.await {
            Ok(reply) if reply.status == StatusCode::NOT_IMPLEMENTED => {
                Err(Box::new(Stop::NotStarted(reply.not_implemented())))
            }
            Ok(reply) => {
                history.note(&self.actor, format!("← {reply}"));
                Ok(Ok(reply))
            }
            Err(error) => {
                let why = match error.is_timeout() {
                    true => format!("nothing for {} s", PATIENCE.as_secs()),
                    false => root_cause(&error),
                };
                history.note(&self.actor, format!("← no answer: {why}"));
                Ok(Err(NoAnswer(why)))
            }
        }
    }

    /// Sends it and insists on an answer, whatever its status.
    ///
    /// # Errors
    /// [`Stop::NotStarted`] on a 501, [`Stop::Failed`] if no answer comes.
    pub async fn send(self) -> Judged<Reply> {
        let promise = Promise::new(format!("{} {}", self.method, self.path), "an answer");
        match self.attempt().await? {
            Ok(reply) => Ok(reply),
            Err(silence) => promise.broken(silence.to_string()),
        }
    }

    /// Sends it on a task of its own; dropping the handle hangs up.
    pub fn spawn(self) -> Pending {
        Pending {
            task: tokio::spawn(self.attempt()),
            outcome: None,
        }
    }
}

/// What came of a request, in one line.
pub fn told(answer: &Result<Reply, NoAnswer>) -> String {
    match answer {
        Ok(reply) => reply.to_string(),
        Err(silence) => silence.to_string(),
    }
}

/// What comes of a request: an answer or none, unless the check ends here.
type Attempt = Judged<Result<Reply, NoAnswer>>;

/// A request that is under way. Dropping it hangs up: the connection closes, as when a client
/// loses patience.
#[derive(Debug)]
pub struct Pending {
    task: JoinHandle<Attempt>,
    /// What came of it, once it was asked for: it may be asked for again.
    outcome: Option<Attempt>,
}

impl Pending {
    /// Waits for what comes. Cancel safe, and may be called again.
    ///
    /// # Errors
    /// [`Stop::NotStarted`] on a 501.
    pub async fn attempted(&mut self) -> Attempt {
        if self.outcome.is_none() {
            self.outcome = Some(match (&mut self.task).await {
                Ok(attempt) => attempt,
                Err(error) => Stop::inconclusive(format!("the lab's request ended: {error}")),
            });
        }
        self.outcome
            .clone()
            .unwrap_or_else(|| Stop::inconclusive("no outcome"))
    }

    /// Whether the answer, or the end of the connection, is there.
    pub fn is_answered(&self) -> bool {
        self.outcome.is_some() || self.task.is_finished()
    }

    /// Hangs up.
    pub fn hang_up(self) {}
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reply {
    /// The body as JSON, if it is.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A member of a JSON object that is a string.
    pub fn text(&self, member: &str) -> Option<String> {
        self.json()?.get(member)?.as_str().map(str::to_owned)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The media type without parameters, in lower case.
    pub fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().to_ascii_lowercase()
    }

    /// What is wrong with it as a problem document (RFC 9457), if anything.
    pub fn not_a_problem(&self) -> Option<String> {
        if self.media_type() != "application/problem+json" {
            return Some(format!("Content-Type {:?}", self.media_type()));
        }
        let Some(body) = self.json() else {
            return Some("a body that is not JSON".to_owned());
        };
        if !body["title"].is_string() {
            return Some("a problem without `title`".to_owned());
        }
        if body["status"].as_u64() != Some(u64::from(self.status.as_u16())) {
            return Some(format!(
                "`status` {} under {}",
                body["status"],
                self.status.as_u16()
            ));
        }
        None
    }

    fn not_implemented(&self) -> String {
        self.text("detail")
            .unwrap_or_else(|| "501 Not Implemented".to_owned())
    }
}

impl fmt::Display for Reply {
    /// The status and the beginning of the body, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 90;
        let text = String::from_utf8_lossy(&self.body);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = line.chars().take(SHOWN).collect();
        let more = if cut.len() < line.len() { "…" } else { "" };
        write!(f, "{} {cut}{more}", self.status.as_u16())
    }
}
